from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from aiohttp import web

from truekeep.cluster.metrics import PodMetrics, counted_traffic
from truekeep.domain.histogram import Histogram
from truekeep.domain.observed import DeploymentView, Meta, PodView, Traffic
from truekeep.server.metrics import PROBABILITIES, SECONDS, Metrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = """# HELP truekeep_server_requests_total Inference requests.
# TYPE truekeep_server_requests_total counter
truekeep_server_requests_total{outcome="ok"} 95.0
truekeep_server_requests_total{outcome="client_error"} 3.0
truekeep_server_requests_total{outcome="server_error"} 2.0
truekeep_server_requests_total{outcome="rejected"} 50.0
# TYPE truekeep_server_requests_created gauge
truekeep_server_requests_created{outcome="ok"} 1.7e+09
# TYPE truekeep_server_request_seconds histogram
truekeep_server_request_seconds_bucket{le="0.005"} 90.0
truekeep_server_request_seconds_bucket{le="0.01"} 94.0
truekeep_server_request_seconds_bucket{le="+Inf"} 95.0
truekeep_server_request_seconds_count 95.0
truekeep_server_request_seconds_sum 0.4
# TYPE truekeep_server_predictions histogram
truekeep_server_predictions_bucket{le="0.5"} 60.0
truekeep_server_predictions_bucket{le="+Inf"} 95.0
truekeep_server_predictions_count 95.0
truekeep_server_predictions_sum 40
# TYPE truekeep_server_capture_buffered_rows gauge
truekeep_server_capture_buffered_rows 7.0
"""


SEEN = Traffic(100, 5, Histogram((0.005, 0.01), (90, 4, 1)), Histogram((0.5,), (60, 35)))


def test_what_a_pod_counted() -> None:
    assert counted_traffic(TEXT) == SEEN


def test_nothing_yet() -> None:
    assert counted_traffic("") == Traffic()


def test_the_servers_own_page_is_understood() -> None:
    metrics = Metrics()
    metrics.requests["ok"].inc(3)
    metrics.requests["rehearsal"].inc(9)
    metrics.requests["server_error"].inc()
    metrics.seconds.observe(0.0042)
    metrics.predictions.observe_all(np.array([0.31, 0.72, 0.72]))
    seen = counted_traffic(metrics.recent_page(60).decode())
    assert (seen.requests, seen.errors) == (4, 1)
    assert seen.seconds.bounds == SECONDS
    assert seen.predictions.bounds == PROBABILITIES
    assert seen.seconds.total == 1
    assert seen.predictions.counts[PROBABILITIES.index(0.75)] == 2


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = web.Application()

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=TEXT if request.query["seconds"] == "42" else "# " + "x" * (2 << 20))

    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (address,) = runner.addresses
    yield address[1]
    await runner.cleanup()


def deployment(name: str, *pods: PodView) -> DeploymentView:
    meta = Meta("demo", name, f"uid-{name}", NOW)
    return DeploymentView(meta, 1, "run", "sha256:x", "sha256:y", "image", 2, pods=pods)


GOOD = PodView("p", NOW, phase="Running", ready=True, ip="127.0.0.1")


async def test_ready_pods_of_each_deployment_are_summed(port: int) -> None:
    metrics = PodMetrics(port)
    leaving = replace(GOOD, name="leaving", deleting=True)
    starting = replace(GOOD, name="starting", ready=False)
    found = await metrics.traffic([deployment("a", GOOD, GOOD), deployment("b", GOOD, leaving, starting)], 42)
    assert found == {"a": SEEN.plus(SEEN), "b": SEEN}
    await metrics.close()


async def test_of_a_pod_that_does_not_answer_nothing_is_known() -> None:
    metrics = PodMetrics(1)  # nobody listens there
    assert await metrics.traffic([deployment("a", GOOD)], 42) == {}
    await metrics.close()


async def test_a_page_without_end_is_not_read(port: int) -> None:
    metrics = PodMetrics(port)
    assert await metrics.traffic([deployment("a", GOOD)], 43) == {}
    await metrics.close()

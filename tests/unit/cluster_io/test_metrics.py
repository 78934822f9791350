from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiohttp import web

from truekeep.cluster.metrics import PodMetrics, counted_requests
from truekeep.domain.observed import DeploymentView, Meta, PodView, Traffic

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = """# HELP truekeep_server_requests_total Inference requests.
# TYPE truekeep_server_requests_total counter
truekeep_server_requests_total{outcome="ok"} 95.0
truekeep_server_requests_total{outcome="client_error"} 3.0
truekeep_server_requests_total{outcome="server_error"} 2.0
truekeep_server_requests_total{outcome="rejected"} 50.0
# TYPE truekeep_server_requests_created gauge
truekeep_server_requests_created{outcome="ok"} 1.7e+09
# TYPE truekeep_server_capture_buffered_rows gauge
truekeep_server_capture_buffered_rows 7.0
"""


def test_what_a_pod_counted() -> None:
    assert counted_requests(TEXT) == Traffic(requests=100, errors=5)


def test_nothing_yet() -> None:
    assert counted_requests("") == Traffic()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = web.Application()

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=TEXT)

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
    found = await metrics.traffic([deployment("a", GOOD, GOOD), deployment("b", GOOD, leaving, starting)])
    assert found == {"a": Traffic(200, 10), "b": Traffic(100, 5)}
    await metrics.close()


async def test_of_a_pod_that_does_not_answer_nothing_is_known() -> None:
    metrics = PodMetrics(1)  # nobody listens there
    assert await metrics.traffic([deployment("a", GOOD)]) == {}
    await metrics.close()

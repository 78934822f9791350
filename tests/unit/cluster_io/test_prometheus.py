"""Queries to a real Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from tests.prometheus import running
from tests.unit.conftest import free_port
from truekeep.cluster.prometheus import Prometheus, answer_of, checked_url
from truekeep.domain.observed import Answer
from truekeep.server.metrics import Metrics

START_SECONDS = 30


@pytest.fixture(scope="module")
def target_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, target_port: int) -> Iterator[str]:
    """A Prometheus that asks a server of ours for its metrics each second."""
    job = {"job_name": "server", "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}]}
    with running(tmp_path_factory.mktemp("prometheus"), [job]) as started:
        yield started.url


@pytest.fixture
async def prometheus(url: str) -> AsyncIterator[Prometheus]:
    asked = Prometheus(url)
    yield asked
    await asked.close()


@pytest.mark.parametrize(
    ("query", "value"), [("vector(0.25)", 0.25), ("scalar(vector(2)) * 2", 4.0), ("sum(vector(-1.5))", -1.5)]
)
async def test_one_number(prometheus: Prometheus, query: str, value: float) -> None:
    assert await prometheus.ask({"q": query}) == {"q": Answer(value)}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("no_such_metric", "gives nothing"),
        ("vector(0) / 0", "gives NaN"),
        ("vector(1) / 0", "gives +Inf"),
        ('label_replace(vector(1), "a", "b", "", "") or vector(2)', "2 series; aggregate them"),
        ("up[5m]", "gives a matrix"),
        ('"text"', "gives a string"),
        ("sum(", "refuses the query"),
    ],
)
async def test_what_is_no_number_is_said(prometheus: Prometheus, query: str, words: str) -> None:
    (answer,) = (await prometheus.ask({"q": query})).values()
    assert answer.value is None
    assert words in answer.problem


async def test_the_servers_metrics_can_be_asked_for(prometheus: Prometheus, target_port: int) -> None:
    metrics = Metrics()
    metrics.requests["ok"].inc(42)
    metrics.predictions.observe_all(np.array([0.2, 0.4, 0.9]))

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=metrics.page(), headers={"content-type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", target_port).start()
    queries = {
        "requests": 'sum(truekeep_server_requests_total{outcome="ok"})',
        "predictions": "sum(truekeep_server_predictions_count)",
        "median": "histogram_quantile(0.5, sum by (le) (truekeep_server_predictions_bucket))",
    }
    try:
        async with asyncio.timeout(START_SECONDS):
            while (answers := await prometheus.ask(queries))["predictions"].value is None:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    finally:
        await runner.cleanup()
    assert answers["requests"].value == 42
    assert answers["predictions"].value == 3
    assert answers["median"].value == pytest.approx(0.375, abs=0.03)


async def test_nobody_there_is_an_answer() -> None:
    asked = Prometheus(f"http://127.0.0.1:{free_port()}")
    (answer,) = (await asked.ask({"q": "up"})).values()
    assert answer.value is None
    assert "did not answer" in answer.problem
    await asked.close()


async def test_without_an_address_it_is_said_where_to_set_one() -> None:
    (answer,) = (await Prometheus().ask({"q": "up"})).values()
    assert "TRUEKEEP_PROMETHEUS_URL" in answer.problem


async def served(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> tuple[web.AppRunner, str]:
    """Something at an address that is no Prometheus."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"x" * (1 << 20), 200, {}),
        (b"<html>", 200, {}),
        (b'{"status": "success"}', 200, {}),
        (b'{"status": "success", "data": {"resultType": "vector", "result": [{"value": [1]}]}}', 200, {}),
        (b"x", 302, {"location": "http://169.254.169.254/"}),
    ],
)
async def test_what_is_no_prometheus_gives_no_number(body: bytes, status: int, headers: dict[str, str]) -> None:
    runner, address = await served(body, status, headers)
    asked = Prometheus(address)
    (answer,) = (await asked.ask({"q": "up"})).values()
    assert answer.value is None
    assert len(answer.problem) < 400
    await asked.close()
    await runner.cleanup()


async def test_a_token_is_read_anew_each_time(tmp_path: Path) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["authorization"])
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}})

    app = web.Application()
    app.router.add_post("/api/v1/query", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    token = tmp_path / "token"
    asked = Prometheus(f"http://127.0.0.1:{runner.addresses[0][1]}/", token)
    for words in ("first\n", "second\n"):
        token.write_text(words)
        assert await asked.ask({"q": "up"}) == {"q": Answer(1.0)}
    assert seen == ["Bearer first", "Bearer second"]
    token.unlink()
    (without,) = (await asked.ask({"q": "up"})).values()
    assert without.value is None
    await asked.close()
    await runner.cleanup()


@pytest.mark.parametrize("url", ["prometheus:9090", "file:///etc/passwd", "http://", "http://p:9090/?x=1", "ftp://p"])
def test_an_address_is_checked_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="TRUEKEEP_PROMETHEUS_URL"):
        checked_url(url)


def test_a_result_of_the_wrong_form() -> None:
    assert answer_of(200, b"[]").value is None
    assert answer_of(422, b'{"status": "error", "error": "bad"}').problem == "Prometheus refuses the query: bad"

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from truekeep.controller.health import Health, Metrics


class Told:
    """What is wrong, as a test says."""

    alive: str | None = None
    ready: str | None = None


@pytest.fixture
async def served() -> AsyncIterator[tuple[Told, str, Metrics]]:
    told, metrics = Told(), Metrics()
    health = Health(alive={"reconcile": lambda: told.alive}, ready={"sync": lambda: told.ready}, metrics=metrics)
    runner = await health.serve(0, "127.0.0.1")
    (address,) = runner.addresses
    yield told, f"http://127.0.0.1:{address[1]}", metrics
    await runner.cleanup()


async def ask(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_the_probes_say_what_is_wrong(served: tuple[Told, str, Metrics]) -> None:
    told, url, _ = served
    assert await ask(f"{url}/healthz") == (200, '{"ok": true, "wrong": {}}')
    told.alive = "a reconcile takes 500 s, at most 150"
    told.ready = "not everything was listed yet"
    assert await ask(f"{url}/healthz") == (
        500,
        '{"ok": false, "wrong": {"reconcile": "a reconcile takes 500 s, at most 150"}}',
    )
    assert (await ask(f"{url}/readyz"))[0] == 500


async def test_metrics_count_without_names(served: tuple[Told, str, Metrics]) -> None:
    _, url, metrics = served
    metrics.reconciled("Model", "success", 0.02)
    metrics.wrote("apply", "Deployment")
    metrics.waited("Model", 0.3)
    metrics.called("apply", "Deployment", "200", 0.02)
    metrics.called("get", "Model", "none", 10.0)
    metrics.gauge("queue_depth", "x", lambda: 7)
    metrics.gauges("watch_age_seconds", "x", "resource", lambda: {"pods": 1.5, "jobs": 3.0})
    status, text = await ask(f"{url}/metrics")
    assert status == 200
    assert 'truekeep_operator_reconciles_total{kind="Model",result="success"} 1.0' in text
    assert 'truekeep_operator_reconcile_seconds_bucket{kind="Model",le="0.025"} 1.0' in text
    assert 'truekeep_operator_writes_total{kind="Deployment",verb="apply"} 1.0' in text
    assert 'truekeep_operator_queue_seconds_bucket{kind="Model",le="0.25"} 0.0' in text
    assert 'truekeep_operator_queue_seconds_bucket{kind="Model",le="0.5"} 1.0' in text
    assert 'truekeep_operator_api_requests_total{code="200",kind="Deployment",verb="apply"} 1.0' in text
    assert 'truekeep_operator_api_requests_total{code="none",kind="Model",verb="get"} 1.0' in text
    assert 'truekeep_operator_api_request_seconds_bucket{le="0.025",verb="apply"} 1.0' in text
    assert "truekeep_operator_queue_depth 7.0" in text
    assert 'truekeep_operator_watch_age_seconds{resource="jobs"} 3.0' in text
    assert "namespace=" not in text
    await asyncio.sleep(0)

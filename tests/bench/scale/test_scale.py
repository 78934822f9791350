"""The bench's own arithmetic, and, with `-m full`, the figures of a few Models against their goals."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.bench.scale.__main__ import GOALS, latencies, measured
from tests.bench.scale.measure import Audit, Write, percentile


def write(ours: bool, resource: str, name: str, began: float, verb: str = "patch") -> Write:
    return Write(ours, verb, resource, "team-00", name, began, began + 0.01, 200)


def test_a_latency_is_from_a_change_to_the_first_write_that_followed_it() -> None:
    writes = [
        write(True, "models/status", "model-0001", 0.5),  # before the change
        write(False, "models", "model-0001", 1.0),
        write(False, "models", "model-0002", 1.1),
        write(True, "events", "model-0001.abc", 1.2, "create"),  # says something, changes nothing
        write(True, "deployments", "model-0001-r1-abc", 1.51),
        write(True, "models/status", "model-0001", 2.0),
    ]
    assert latencies(writes) == [pytest.approx(0.5)]


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 0.5) == 50.0
    assert percentile([3.0], 0.99) == 3.0


def test_the_operators_writes_are_told_from_those_of_others(tmp_path: Path) -> None:
    def line(**event: object) -> str:
        return json.dumps(
            {
                "verb": "patch",
                "user": {"username": "truekeep-admin"},
                "userAgent": "OpenAPI-Generator/python",
                "objectRef": {"resource": "models", "subresource": "status", "namespace": "a", "name": "m"},
                "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
                "stageTimestamp": "2026-01-01T00:00:00.250000Z",
                "responseStatus": {"code": 200},
                **event,
            }
        )

    path = tmp_path / "audit.json"
    audit = Audit(path)
    assert audit.writes() == []
    path.write_text(
        "\n".join(
            (
                line(),
                line(impersonatedUser={"username": "somebody"}),
                line(userAgent="kwok/v0.8.0"),
                line(user={"username": "system:serviceaccount:kube-system:job-controller"}),
            )
        )
        + "\n"
        + line()[:40]
    )
    found = audit.writes()
    assert [each.ours for each in found] == [True, False, False, False]
    assert found[0].resource == "models/status"
    assert found[0].ended - found[0].began == pytest.approx(0.25)
    assert audit.writes() == [], "half a line waits for its end"


@pytest.mark.full
def test_ten_models_rest_without_a_write_and_within_the_memory() -> None:
    """What does not depend on what else the machine does."""
    (figures,) = asyncio.run(measured([10], rest_seconds=60, first=False))
    assert figures.peak <= GOALS["peak"]
    assert figures.restart_writes == GOALS["restart_writes"]
    assert figures.rest_writes == GOALS["rest_writes"]

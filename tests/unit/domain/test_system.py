from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.domain.world import World, spec
from truekeep.domain.histogram import Histogram
from truekeep.domain.observed import PolicyObserved, Traffic
from truekeep.domain.system import serving


def observed(traffic: Traffic | None, **rollout: object) -> PolicyObserved:
    world = World(spec=spec(serving={"rollout": rollout}))
    world.watch()
    world.calm()
    assert world.policy is not None
    return PolicyObserved(world.policy, world.model, traffic=traffic)


@pytest.mark.parametrize(
    ("traffic", "status", "reason"),
    [
        (None, "Unknown", "MetricsUnreadable"),
        (Traffic(), "Unknown", "NoTraffic"),
        (Traffic(1000, 2), "True", "Healthy"),
        (Traffic(20, 1), "True", "Healthy"),  # one of twenty may be chance
        (Traffic(1000, 100), "False", "ErrorRate"),
        (Traffic(1000, 0, Histogram((0.01, 0.1), (900, 100, 0))), "False", "TooSlow"),
        (Traffic(1000, 0, Histogram((0.01, 0.1), (999, 1, 0))), "True", "Healthy"),
    ],
)
def test_errors_and_latency(traffic: Traffic | None, status: str, reason: str) -> None:
    found = serving(observed(traffic, maxErrorFraction="0.01", maxP99Milliseconds=20))
    assert (found.status, found.reason) == (status, reason)


def test_without_a_limit_latency_is_not_judged() -> None:
    slow = Traffic(1000, 0, Histogram((0.01, 0.1), (0, 0, 1000)))
    assert serving(observed(slow)).reason == "Healthy"


def test_nothing_serves() -> None:
    assert serving(replace(observed(Traffic(5)), model=None)).reason == "NothingServes"

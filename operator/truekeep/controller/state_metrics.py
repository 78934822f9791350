"""How long Models, TrainingRuns and DriftPolicies are in what their Ready condition says, for Prometheus.

How many series there are does not depend on how many objects there are: counts and histograms bear kinds and reasons
alone, and of the objects that are not Ready those that are so for longest are named, at most `NAMED` of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from truekeep.api.common import Condition
from truekeep.controller.queue import Key
from truekeep.domain.conditions import find, holds

NAMED = 100
REASONS = 100  # of all kinds together; what comes beyond them is counted as `Other`
OTHER = "Other"
BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 86400.0, 7 * 86400.0)


class Who(NamedTuple):
    """One object."""

    kind: str
    namespace: str
    name: str


class Stay(NamedTuple):
    """What an object's Ready condition says, and since when."""

    ready: str
    reason: str
    since: datetime


@dataclass(eq=False)
class StateMetrics(Collector):
    """`tell` after each look, `forget` what is gone. Objects are shown while `shown` is: a standby does not look."""

    clock: Callable[[], datetime]
    shown: Callable[[], bool] = lambda: True
    _stays: dict[Who, Stay] = field(default_factory=dict)
    _reasons: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._left = Histogram(
            "truekeep_operator_state_seconds",
            "Seconds for which objects were in a state (the reason of Ready) that they left.",
            ("kind", "reason"),
            buckets=BUCKETS,
            registry=CollectorRegistry(auto_describe=False),
        )

    def tell(self, kind: str, namespace: str, name: str, conditions: Sequence[Condition]) -> None:
        """What an object's conditions say now. Of one that is seen first, the state is as old as Ready's status. A run
        that ended is not known any more: it is never looked at again."""
        ready = find(conditions, "Ready")
        if ready is None:
            return
        who = Who(kind, namespace, name)
        before = self._stays.get(who)
        since = ready.last_transition_time
        if before is not None:
            if (before.ready, before.reason) == (ready.status, ready.reason):
                since = before.since
            else:
                since = self.clock()
                stayed = max(0.0, (since - before.since).total_seconds())
                self._left.labels(kind, self._bounded(kind, before.reason)).observe(stayed)
        if holds(conditions, "Complete") or holds(conditions, "Failed"):
            self._stays.pop(who, None)
        else:
            self._stays[who] = Stay(ready.status, ready.reason, since)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """The object is gone."""
        self._stays.pop(Who(kind, namespace, name), None)

    def keep(self, keys: Iterable[Key]) -> None:
        """All objects that there are: what else was known went while nobody watched."""
        there = {Who(key.kind, key.namespace, key.name) for key in keys}
        self._stays = {who: stay for who, stay in self._stays.items() if who in there}

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        stays = self._stays if self.shown() else {}
        yield self._objects(stays)
        yield self._unsettled(stays)
        yield from self._left.collect()

    def _objects(self, stays: dict[Who, Stay]) -> GaugeMetricFamily:
        text = "Objects by what their Ready condition says; TrainingRuns that ended are not among them."
        gauge = GaugeMetricFamily("truekeep_operator_objects", text, labels=["kind", "ready", "reason"])
        states = ((who.kind, stay.ready, self._bounded(who.kind, stay.reason)) for who, stay in stays.items())
        for state, count in sorted(Counter(states).items()):
            gauge.add_metric(list(state), count)
        return gauge

    def _unsettled(self, stays: dict[Who, Stay]) -> GaugeMetricFamily:
        text = f"For how long an object that is neither Ready nor at its end is in its state; the {NAMED} longest."
        labels = ["kind", "namespace", "name", "reason"]
        gauge = GaugeMetricFamily("truekeep_operator_unsettled_seconds", text, labels=labels)
        now = self.clock()
        waiting = sorted((stay.since, who, stay.reason) for who, stay in stays.items() if stay.ready != "True")
        for since, who, reason in waiting[:NAMED]:
            gauge.add_metric([*who, reason], max(0.0, (now - since).total_seconds()))
        return gauge

    def _bounded(self, kind: str, reason: str) -> str:
        """The reason, or `Other` where there were too many by now."""
        if (kind, reason) not in self._reasons:
            if len(self._reasons) >= REASONS:
                return OTHER
            self._reasons.add((kind, reason))
        return reason

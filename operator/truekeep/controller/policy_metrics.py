"""What DriftPolicies found, for Prometheus: the newest of each, as their status has it. At most 20 columns a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from truekeep.api.driftpolicy import DriftPolicyStatus
from truekeep.controller.queue import Key

CONDITIONS = ("DriftDetected", "DataValid", "PerformanceDecayed", "RetrainHeld", "ServingHealthy", "Stalled")
LABELS = ["namespace", "policy", "model"]


class Policy(NamedTuple):
    """Whose figures these are."""

    namespace: str
    name: str
    model: str


@dataclass(eq=False)
class PolicyMetrics(Collector):
    """Gauges by policy. `tell` after each look, `forget` once it is gone. Nothing is shown while `shown` says no: what
    a standby knows is old."""

    shown: Callable[[], bool] = lambda: True
    _known: dict[Policy, DriftPolicyStatus] = field(default_factory=dict)

    def tell(self, policy: Policy, status: DriftPolicyStatus) -> None:
        """What is shown from now on."""
        self._known[policy] = status

    def forget(self, namespace: str, name: str) -> None:
        """The policy is gone, and its figures with it."""
        self._known = {policy: status for policy, status in self._known.items() if policy[:2] != (namespace, name)}

    def keep(self, keys: Iterable[Key]) -> None:
        """All objects that there are: a policy that is not among them went while nobody watched."""
        there = {(key.namespace, key.name) for key in keys if key.kind == "DriftPolicy"}
        self._known = {policy: status for policy, status in self._known.items() if policy[:2] in there}

    def collect(self) -> Iterator[Metric]:
        """All gauges; a policy that has nothing to say in one is left out of it."""
        known = sorted(self._known.items()) if self.shown() else []
        yield self._conditions(known)
        yield self._performance(known)
        yield self._columns(known)
        for name, text, read in (
            ("drifted_windows", "Windows in a row, up to the newest, that drifted.", attrgetter("consecutive")),
            ("decayed_windows", "Windows in a row that labels show worse than the gates.", attrgetter("decayed")),
            ("rejected_runs", "Runs in a row whose model did not beat the live one.", attrgetter("rejected")),
        ):
            counted = GaugeMetricFamily(f"truekeep_policy_{name}", text, labels=LABELS)
            for policy, status in known:
                counted.add_metric(list(policy), read(status))
            yield counted
        checked = GaugeMetricFamily(
            "truekeep_policy_last_check_timestamp_seconds", "When the monitor last reported.", labels=LABELS
        )
        for policy, status in known:
            if status.last_check_time is not None:
                checked.add_metric(list(policy), status.last_check_time.timestamp())
        yield checked

    def _conditions(self, known: list[tuple[Policy, DriftPolicyStatus]]) -> GaugeMetricFamily:
        text = "1 where a condition of a DriftPolicy is True, 0 where it is False; nothing where it is Unknown."
        gauge = GaugeMetricFamily("truekeep_policy_condition", text, labels=[*LABELS, "condition"])
        for policy, status in known:
            for condition in status.conditions:
                if condition.type in CONDITIONS and condition.status != "Unknown":
                    gauge.add_metric([*policy, condition.type], float(condition.status == "True"))
        return gauge

    def _performance(self, known: list[tuple[Policy, DriftPolicyStatus]]) -> GaugeMetricFamily:
        text = "The metric that is watched: on the holdout, in the newest window by labels, in the newest by estimate."
        gauge = GaugeMetricFamily("truekeep_policy_performance", text, labels=[*LABELS, "metric", "basis"])
        for policy, status in known:
            mine = [one for one in status.performance if one.revision == status.watched_revision]
            labelled = next((one for one in mine if one.value is not None), None)
            estimated = next((one for one in mine if one.estimate is not None), None)
            for one, basis, value in (
                (mine[0] if mine else None, "holdout", mine[0].baseline if mine else None),
                (labelled, "labels", labelled.value if labelled else None),
                (estimated, "estimate", estimated.estimate if estimated else None),
            ):
                if one is not None and value is not None:
                    gauge.add_metric([*policy, one.metric, basis], float(value))
        return gauge

    def _columns(self, known: list[tuple[Policy, DriftPolicyStatus]]) -> GaugeMetricFamily:
        text = "Effect of the strongest findings of the newest window, by column."
        gauge = GaugeMetricFamily("truekeep_policy_column_effect", text, labels=[*LABELS, "column", "kind"])
        for policy, status in known:
            strongest: dict[tuple[str, str], float] = {}
            for finding in status.findings:
                at: tuple[str, str] = (finding.column, finding.kind)
                strongest[at] = max(strongest.get(at, 0.0), float(finding.value))
            for (column, kind), value in sorted(strongest.items()):
                gauge.add_metric([*policy, column, kind], value)
        return gauge

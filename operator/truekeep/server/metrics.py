"""What the server counts. The operator's analysis of a canary and the benchmarks read these by name."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from truekeep.server.recent import Counts, Recent

Outcome = Literal["ok", "client_error", "server_error", "rejected", "rehearsal"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "client_error", "server_error", "rejected", "rehearsal")
# Bounds that a team may set as its limit are bounds here, and none is more than 1.7 times the one before.
SECONDS = (
    0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0,
)  # fmt: skip
# Finer towards 0 and 1, where the predictions of rare events lie.
PROBABILITIES = (
    0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5,
    0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999,
)  # fmt: skip
CONTENT_TYPE = CONTENT_TYPE_LATEST
AT_ONCE = 4096  # predictions


class Buckets(Collector):
    """A histogram for one thread: prometheus_client's own takes a lock and walks its buckets, which every answer would
    pay for."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._edges = np.array(bounds)
        self._sum = 0.0
        self._counts = [0] * (len(bounds) + 1)
        self._later: list[npt.NDArray[np.float64]] = []  # observed, but not counted yet
        self._values_later = 0

    @property
    def counts(self) -> list[int]:
        """Of each bucket for itself."""
        if self._later:
            values, self._later, self._values_later = np.concatenate(self._later), [], 0
            places = np.bincount(np.searchsorted(self._edges, values), minlength=len(self._counts))
            self._counts = [old + new for old, new in zip(self._counts, places.tolist(), strict=True)]
            self._sum += float(values.sum())
        return self._counts

    def observe(self, value: float) -> None:
        """One more."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: npt.NDArray[np.float64]) -> None:
        """Many more, shape (n,), which are nobody else's to change. They are counted thousands at a time."""
        if len(values) == 1:
            self.observe(values.item())
            return
        self._later.append(values)
        self._values_later += len(values)
        if self._values_later >= AT_ONCE:
            _ = self.counts

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """As Prometheus has it."""
        counts = self.counts
        yield self.family(counts, self._sum)

    def family(self, counts: Iterable[float], total: float = 0.0) -> HistogramMetricFamily:
        """Other counts of the same buckets, each for itself, not summed up."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(counts), strict=True))
        return HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=total)


class _Fixed(Collector):
    """Families as they are."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Those."""
        return self._families


class Metrics:
    """One registry, of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        requests = Counter(
            "truekeep_server_requests",
            "Infer requests by outcome; rejected: the server was full (429) or not ready (503); rehearsal: captured "
            "requests that the operator sends again before live traffic, whatever their outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.requests = {outcome: requests.labels(outcome=outcome) for outcome in OUTCOMES}
        self._outcomes = requests
        self.seconds = Buckets(
            "truekeep_server_request_seconds",
            "From the header of an infer request to its answer, for those with outcome ok.",
            SECONDS,
        )
        self.registry.register(self.seconds)
        self.predictions = Buckets(
            "truekeep_server_predictions", "Probabilities that were answered, those of rehearsals apart.", PROBABILITIES
        )
        self.registry.register(self.predictions)
        self.recent = Recent(self._counted)
        self.rows = Counter("truekeep_server_rows", "Rows that were scored.", registry=self.registry)
        self.captured = Counter(
            "truekeep_server_capture_rows", "Rows written to the object store.", registry=self.registry
        )
        self.capture_dropped = Counter(
            "truekeep_server_capture_dropped_rows",
            "Rows that were to be captured and were lost, because the buffer was full or the server ended.",
            registry=self.registry,
        )
        self.capture_failures = Counter(
            "truekeep_server_capture_write_failures",
            "Attempts to write captured rows that failed; they are repeated.",
            registry=self.registry,
        )
        self._buffered = self._gauge("capture_buffered_rows", "Captured rows that wait in memory.")
        self._spooled_rows = self._gauge("capture_spooled_rows", "Captured rows that wait on disk for the store.")
        self._spooled_bytes = self._gauge("capture_spooled_bytes", "Bytes that they take there.")
        self._in_flight = self._gauge("in_flight_requests", "Infer requests that are being answered.")
        self._connections = self._gauge("connections", "Open connections.")
        self._ready = self._gauge("ready", "1 while the server is ready.")
        self.self_test = self._gauge("self_test_passed", "1 once the model answered its examples as training did.")
        self.self_test_difference = self._gauge(
            "self_test_difference", "Largest difference from an example's recorded probability."
        )
        self.load_seconds = self._gauge("load_seconds", "From the start of the process until it was ready.")
        self.artifact = Gauge(
            "truekeep_server_artifact_info",
            "The artifact that is served; always 1.",
            ["namespace", "model", "revision", "digest", "estimator", "format"],
            registry=self.registry,
        )

    def watch(
        self,
        connections: Callable[[], int],
        in_flight: Callable[[], int],
        buffered: Callable[[], int],
        ready: Callable[[], bool],
    ) -> None:
        """Where the gauges look when they are read."""
        self._connections.set_function(connections)
        self._in_flight.set_function(in_flight)
        self._buffered.set_function(buffered)
        self._ready.set_function(ready)

    def watch_spool(self, rows: Callable[[], int], size: Callable[[], int]) -> None:
        """Where the gauges of the spool look when they are read."""
        self._spooled_rows.set_function(rows)
        self._spooled_bytes.set_function(size)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def recent_page(self, seconds: float) -> bytes:
        """What was counted in about the last so many seconds, as text of the same form: requests, seconds and
        predictions."""
        length, counts = self.recent.since(seconds)
        first, second = len(OUTCOMES), len(OUTCOMES) + len(SECONDS) + 1
        requests = CounterMetricFamily("truekeep_server_requests", "Lately, by outcome.", labels=["outcome"])
        for outcome, count in zip(OUTCOMES, counts[:first], strict=True):
            requests.add_metric([outcome], count)
        registry = CollectorRegistry()
        registry.register(
            _Fixed(
                GaugeMetricFamily("truekeep_server_counted_seconds", "In how many seconds.", value=length),
                requests,
                self.seconds.family(counts[first:second]),
                self.predictions.family(counts[second:]),
            )
        )
        return generate_latest(registry)

    def _counted(self) -> Counts:
        """The counters of the recent page, one after the other."""
        named = {
            sample.labels["outcome"]: sample.value
            for family in self._outcomes.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }
        return (*(named[outcome] for outcome in OUTCOMES), *self.seconds.counts, *self.predictions.counts)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"truekeep_server_{name}", text, registry=self.registry)

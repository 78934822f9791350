"""What the server counts. The operator's analysis of a canary and the benchmarks read these by name."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Outcome = Literal["ok", "client_error", "server_error", "rejected", "rehearsal"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "client_error", "server_error", "rejected", "rehearsal")
BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Durations(Collector):
    """A histogram for one thread: prometheus_client's own takes a lock and walks its buckets, which every answer would
    pay for."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect.bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """As Prometheus has it."""
        bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)


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
        self.seconds = Durations(
            "truekeep_server_request_seconds",
            "From the header of an infer request to its answer, for those with outcome ok.",
        )
        self.registry.register(self.seconds)
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
        self._buffered = self._gauge("capture_buffered_rows", "Captured rows that wait to be written.")
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

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"truekeep_server_{name}", text, registry=self.registry)

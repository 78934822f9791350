"""Whether this process makes progress, and what it counted: /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from truekeep.controller.queue import Key

Checks = Mapping[str, Callable[[], str | None]]
STUCK_SECONDS = 150.0  # a reconcile ends by its own timeout before
SILENT_SECONDS = 180.0
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0)


API_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(eq=False)
class _Read(Collector):
    """A gauge with one label, whose values are read when somebody asks."""

    name: str
    text: str
    label: str
    read: Callable[[], Mapping[str, float]]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family."""
        gauge = GaugeMetricFamily(self.name, self.text, labels=[self.label])
        for value, number in sorted(self.read().items()):
            gauge.add_metric([value], number)
        yield gauge


class Metrics:
    """What the operator counts. Labels are kinds, results and verbs: few, and never names."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._reconciles = Counter(
            "truekeep_operator_reconciles", "Reconciles by kind and result.", ("kind", "result"), registry=self.registry
        )
        self._seconds = Histogram(
            "truekeep_operator_reconcile_seconds",
            "Seconds of a reconcile.",
            ("kind",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._waited = Histogram(
            "truekeep_operator_queue_seconds",
            "Seconds from when an object was due until it was looked at.",
            ("kind",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._calls = Counter(
            "truekeep_operator_api_requests",
            "Calls to the API server by verb, kind and HTTP status (none: no answer), the watches' own apart.",
            ("verb", "kind", "code"),
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "truekeep_operator_api_request_seconds",
            "Seconds of a call to the API server.",
            ("verb",),
            buckets=API_BUCKETS,
            registry=self.registry,
        )
        self._writes = Counter(
            "truekeep_operator_writes", "Writes to the API server.", ("verb", "kind"), registry=self.registry
        )

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        """Count a reconcile."""
        self._reconciles.labels(kind, result).inc()
        self._seconds.labels(kind).observe(seconds)

    def waited(self, kind: str, seconds: float) -> None:
        """Count how late an object was looked at."""
        self._waited.labels(kind).observe(seconds)

    def called(self, verb: str, kind: str, code: str, seconds: float) -> None:
        """Count a call to the API server."""
        self._calls.labels(verb, kind, code).inc()
        self._call_seconds.labels(verb).observe(seconds)

    def wrote(self, verb: str, kind: str) -> None:
        """Count a write."""
        self._writes.labels(verb, kind).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when somebody asks."""
        Gauge(f"truekeep_operator_{name}", text, registry=self.registry).set_function(read)

    def gauges(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Show values by one label, which are read when somebody asks."""
        self.registry.register(_Read(f"truekeep_operator_{name}", text, label, read))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


@dataclass
class MissedEvents:
    """Whether the watch tells what a list shows: an object that the list shows twice in one version which the watch
    has not told of by then was missed."""

    clock: Callable[[], float]
    since: float | None = None
    _behind: frozenset[tuple[Key, str]] = frozenset()

    def compare(self, listed: Mapping[Key, str], watched: Mapping[Key, str]) -> None:
        """After each list: the versions that it showed, and those that the watch told of."""
        behind = frozenset((key, version) for key, version in listed.items() if watched.get(key) != version)
        missed = bool(behind & self._behind)
        self._behind = behind
        if not missed:
            self.since = None
        elif self.since is None:
            self.since = self.clock()

    def seconds(self) -> float:
        """For how long the watch has been missing something."""
        return 0.0 if self.since is None else self.clock() - self.since


@dataclass
class Health:
    """What the probes ask. Each check answers what is wrong, or nothing."""

    alive: Checks
    ready: Checks
    metrics: Metrics

    async def serve(self, port: int, host: str | None = None) -> web.AppRunner:
        """Serve until the runner is cleaned up. host: None for all addresses, IPv6 included."""
        app = web.Application()
        app.router.add_get("/healthz", self._probe(self.alive))
        app.router.add_get("/readyz", self._probe(self.ready))
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner

    def _probe(self, checks: Checks) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            wrong = {name: said for name, check in checks.items() if (said := check())}
            return web.json_response({"ok": not wrong, "wrong": wrong}, status=500 if wrong else 200)

        return answer

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

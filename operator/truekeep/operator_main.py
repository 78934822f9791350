"""The operator's process: `python -m truekeep.operator_main`. What it is told comes from environment variables."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from truekeep.api.names import LABEL_COMPONENT, MANAGED_BY
from truekeep.cluster import kinds
from truekeep.cluster.api import Api, connect
from truekeep.cluster.clock import Clock
from truekeep.cluster.errors import ClusterError
from truekeep.cluster.lease import Elector
from truekeep.cluster.metrics import PodMetrics
from truekeep.cluster.observe import Observer, now
from truekeep.cluster.prometheus import TOKEN_FILE_ENV, URL_ENV, Prometheus, checked_url
from truekeep.cluster.write import Writer
from truekeep.controller.health import SILENT_SECONDS, STUCK_SECONDS, Health, Metrics, MissedEvents
from truekeep.controller.keys import ended, key_of, keys_of_child
from truekeep.controller.loop import RESYNC_SECONDS, Loop, Resync
from truekeep.controller.policy_metrics import PolicyMetrics
from truekeep.controller.queue import Cause, Key, WorkQueue
from truekeep.controller.reconcilers import Tools, reconcilers
from truekeep.controller.state_metrics import StateMetrics
from truekeep.domain.plan import Settings
from truekeep.handlers import Watch

LEASE = "truekeep-operator"
NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"  # of an annotation, behind its prefix
DOMAIN = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
WORKERS = 32  # objects that are looked at, at once: a look mostly waits, and looks of one moment share their reads
GARBAGE = (10_000, 5, 5)  # objects more than before, and generations, until cycles are looked for
LIST_PAGE = 100  # objects that are held at once while everything is listed
STOP_SECONDS = 8.0  # what is being reconciled may end; then the Lease is given up
logger = logging.getLogger("truekeep.operator")


@dataclass(frozen=True)
class Config:
    """What the operator is told."""

    settings: Settings
    namespaces: tuple[str, ...] = ()  # empty: all
    pod_name: str = "local"
    pod_namespace: str = "default"
    workers: int = WORKERS
    port: int = 8080
    resync_seconds: float = RESYNC_SECONDS
    log_level: str = "INFO"
    prometheus_url: str | None = None
    prometheus_token_file: Path | None = None


def configuration(environment: Mapping[str, str]) -> Config:
    """From environment variables. ValueError with the variable, its value and the remedy where one is wrong."""
    defaults = Settings()
    settings = Settings(
        trainer_image=environment.get("TRUEKEEP_TRAINER_IMAGE", defaults.trainer_image),
        server_image=environment.get("TRUEKEEP_SERVER_IMAGE", defaults.server_image),
        monitor_image=environment.get("TRUEKEEP_MONITOR_IMAGE", defaults.monitor_image),
        cluster_domain=environment.get("TRUEKEEP_CLUSTER_DOMAIN", defaults.cluster_domain),
        image_pull_secrets=_names(environment, "TRUEKEEP_IMAGE_PULL_SECRETS"),
        serving_annotations=_annotations(environment, "TRUEKEEP_SERVING_ANNOTATIONS"),
        max_training_runs=_whole(environment, "TRUEKEEP_MAX_TRAINING_RUNS", defaults.max_training_runs, 0),
        job_retention_seconds=_whole(environment, "TRUEKEEP_JOB_RETENTION_SECONDS", defaults.job_retention_seconds, 0),
    )
    prometheus, token_file = environment.get(URL_ENV), environment.get(TOKEN_FILE_ENV)
    return Config(
        settings=settings,
        namespaces=tuple(sorted(set(_names(environment, "TRUEKEEP_WATCH_NAMESPACES")))),
        pod_name=environment.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        pod_namespace=environment.get("POD_NAMESPACE", "default"),
        workers=_whole(environment, "TRUEKEEP_WORKERS", WORKERS, 1),
        port=_whole(environment, "TRUEKEEP_PORT", 8080, 1),
        resync_seconds=_whole(environment, "TRUEKEEP_RESYNC_SECONDS", int(RESYNC_SECONDS), 1),
        log_level=environment.get("TRUEKEEP_LOG_LEVEL", "INFO").upper(),
        prometheus_url=checked_url(prometheus) if prometheus else None,
        prometheus_token_file=Path(token_file) if token_file else None,
    )


def _names(environment: Mapping[str, str], variable: str) -> tuple[str, ...]:
    names = [name.strip() for name in environment.get(variable, "").split(",") if name.strip()]
    for name in names:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
            raise ValueError(f"{variable} names {name!r}, which can't be a name; it must be names separated by commas")
    return tuple(names)


def _annotations(environment: Mapping[str, str], variable: str) -> tuple[tuple[str, str], ...]:
    """Lines of NAME=VALUE. Those of our own, and of Kubernetes, say how pods are kept: they are not for settings."""
    found: dict[str, str] = {}
    for line in environment.get(variable, "").splitlines():
        if not line.strip():
            continue
        name, separator, value = line.strip().partition("=")
        domain, _, word = name.rpartition("/")
        if not separator or not re.fullmatch(NAME, word) or not re.fullmatch(DOMAIN, domain):
            raise ValueError(f"{variable} has the line {line!r}; it must be PREFIX/NAME=VALUE, an annotation a line")
        if re.search(r"(^|\.)(truekeep\.dev|kubernetes\.io|k8s\.io)$", domain):
            raise ValueError(f"{variable} names {name}; annotations of {domain} are not for settings: leave it out")
        found[name] = value
    return tuple(sorted(found.items()))


def _whole(environment: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name} is {text!r}; it must be a whole number of at least {least}")
    return int(text)


class JsonLines(logging.Formatter):
    """A line of JSON a message, with the object that it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, key in (("kind", "kind"), ("namespace", "namespace"), ("object", "name")):
            if hasattr(record, name):
                line[key] = getattr(record, name)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to_stderr(level: str) -> None:
    """JSON lines on stderr. kopf tells of every retry of its own; what matters of it comes as a warning."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # It says that it ignores signals, because it runs in a thread; the operator itself takes them.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


class Operator:
    """Everything that runs, put together."""

    def __init__(
        self,
        config: Config,
        api: Api,
        metrics: Metrics,
        elector: Elector,
        led: asyncio.Event,
        today: Callable[[], datetime] = now,
    ) -> None:
        self._config = config
        self._api = api
        self._elector = elector
        self._metrics = metrics
        self._pods = PodMetrics()
        self._prometheus = Prometheus(config.prometheus_url, config.prometheus_token_file)
        self._clock = time.monotonic
        self._started = self._clock()
        self._asyncio = asyncio.get_running_loop()
        self.queue = WorkQueue(self._clock)
        self._policies = PolicyMetrics(shown=elector.holds)
        self._states = StateMetrics(today, shown=elector.holds)
        self._watch = Watch(self._woken, config.namespaces)
        tools = Tools(
            observer=Observer(
                api,
                self._pods,
                config.settings,
                today,
                self._prometheus,
                config.namespaces,
                self._watch.routes_are_served,
            ),
            writer=Writer(api, config.settings, config.pod_name),
            settings=config.settings,
            clock=today,
            wake=self.queue.add_all,
            others_wait=self.queue.others_wait,
            policies=self._policies,
            states=self._states,
        )
        metrics.registry.register(self._policies)
        metrics.registry.register(self._states)
        self._loop = Loop(self.queue, reconcilers(tools), elector.leading, metrics, self._clock)
        self._resync = Resync(self._list, self.queue, elector.leading, self._clock, config.resync_seconds, soon=led)
        self._missed = MissedEvents(self._clock)
        self._gauges()

    def _gauges(self) -> None:
        gauge = self._metrics.gauge
        gauge("queue_depth", "Objects that are due to be looked at.", lambda: self.queue.ready)
        gauge("queue_waiting", "Objects that wait for their time.", lambda: len(self.queue) - self.queue.ready)
        gauge("longest_work_seconds", "For how long the slowest reconcile runs by now.", self.queue.longest_work)
        gauge("retrying", "Objects whose last reconcile failed.", lambda: self.queue.retrying)
        gauge("leader", "1 while this operator leads.", lambda: float(self._elector.holds()))
        gauge("watch_events", "Events that the watches told since the start.", lambda: self._watch.events)
        gauge("watch_restarts", "How often the watches had to be set up again.", lambda: self._watch.restarts)
        gauge("watch_missing_seconds", "For how long the watches have missed a change.", self._missed.seconds)
        gauge("list_age_seconds", "Since everything was listed; 0 where this operator does not lead.", self._list_age)
        text = "Since a watch last told something, by kind; one that has told nothing yet is left out."
        self._metrics.gauges("watch_age_seconds", text, "resource", self._watch.ages)

    def _list_age(self) -> float:
        """A leader that has listed nothing yet is as old as its process."""
        if not self._elector.holds():
            return 0.0
        last = self._resync.last
        return self._clock() - (self._started if last is None else last)

    def _woken(self, keys: Sequence[Key], cause: Cause) -> None:
        """Called in the watch's thread."""
        with suppress(RuntimeError):  # the loop is closed: the process ends
            self._asyncio.call_soon_threadsafe(self.queue.add_all, keys, cause)

    async def _list(self) -> list[Key]:
        """Everything that there is to do something about, and whether the watches know all that there is. Of the runs
        that ended these are the ones whose Jobs are there still."""
        versions: dict[Key, str] = {}
        found: list[Key] = []
        for namespace in self._config.namespaces or (None,):
            labels = {**MANAGED_BY, LABEL_COMPONENT: "trainer"}
            with_jobs = {
                key async for job in self._api.each(kinds.JOB, namespace, labels) for key in keys_of_child(job)
            }
            for kind in kinds.OWN:
                async for item in self._api.each(kind, namespace, page=LIST_PAGE):
                    key = key_of(kind.kind, item)
                    if key is None:
                        continue
                    versions[key] = str(item["metadata"].get("resourceVersion"))
                    if key in with_jobs or not ended(kind.kind, item):
                        found.append(key)
        self._missed.compare(versions, self._watch.versions)
        self._policies.keep(versions)
        self._states.keep(versions)
        return found

    async def _await_kinds(self, stop: asyncio.Event) -> None:
        """Until our kinds are served: right after they were installed, a list meets 404 and 429."""
        told = False
        while not stop.is_set():
            try:
                for kind in (*kinds.OWN, kinds.MODEL_APPROVAL):
                    namespace = self._config.namespaces[0] if self._config.namespaces else None
                    async for _ in self._api.each(kind, namespace, page=1):
                        break
                return
            except ClusterError as error:
                if not told:
                    logger.warning("waits for the CustomResourceDefinitions (manifests/crds): %s", error)
                told = True
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1.0)

    def health(self) -> Health:
        """What the probes check."""
        return Health(
            alive={
                "reconcile": self._stuck,
                "watch": self._silent,
            },
            ready={"sync": self._unsynced},
            metrics=self._metrics,
        )

    def _stuck(self) -> str | None:
        seconds = self.queue.longest_work()
        return f"a reconcile takes {seconds:.0f} s, at most {STUCK_SECONDS:.0f}" if seconds > STUCK_SECONDS else None

    def _silent(self) -> str | None:
        if self._watch.started and not self._watch.alive():
            return "nobody watches any more"
        seconds = self._missed.seconds()
        return f"the watches have missed a change for {seconds:.0f} s" if seconds > SILENT_SECONDS else None

    def _unsynced(self) -> str | None:
        if not self._watch.ready():
            return "the watches are being set up"
        return "not everything was listed yet" if self._elector.holds() and self._resync.last is None else None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Then what is being reconciled may end, and the Lease is given up."""
        server = await self.health().serve(self._config.port)
        await self._await_kinds(stop)
        self._watch.start()
        tasks = [asyncio.create_task(self._elector.run(), name="lease")]
        tasks += [asyncio.create_task(self._resync.run(), name="resync")]
        workers = [asyncio.create_task(self._loop.work(), name=f"worker-{n}") for n in range(self._config.workers)]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopped, *tasks, *workers], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # none of them ends but by an error
        finally:
            await self._end(tasks, workers, stopped)
            await server.cleanup()

    async def _end(
        self, tasks: Iterable[asyncio.Task[Any]], workers: list[asyncio.Task[Any]], *rest: asyncio.Task[Any]
    ) -> None:
        logger.info("stopping")
        self._watch.stop()
        self._loop.stopping.set()
        busy = self.queue.longest_work() > 0
        if busy:
            await asyncio.wait(workers, timeout=STOP_SECONDS, return_when=asyncio.ALL_COMPLETED)
        for task in (*tasks, *workers, *rest):
            task.cancel()
        await asyncio.gather(*tasks, *workers, *rest, return_exceptions=True)
        await self._elector.release()
        await self._pods.close()
        await self._prometheus.close()


async def run(config: Config, stop: asyncio.Event) -> None:
    """The operator, until `stop` is set."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    client = await connect()
    resync_soon = asyncio.Event()
    clock = Clock(now)
    elector = Elector(
        Api(client, wrote=metrics.wrote, called=metrics.called, dated=clock.heard).for_lease(),
        config.pod_namespace,
        LEASE,
        config.pod_name,
        taken=resync_soon.set,
    )
    api = Api(client, may_write=elector.must_hold, wrote=metrics.wrote, called=metrics.called, dated=clock.heard)
    operator = Operator(config, api, metrics, elector, resync_soon, clock.now)
    try:
        await operator.run(stop)
    finally:
        await api.close()


def main() -> int:
    """Run until SIGTERM."""
    try:
        config = configuration(os.environ)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    log_to_stderr(config.log_level)
    logger.info("starts as %s, watches %s", config.pod_name, ", ".join(config.namespaces) or "all namespaces")
    # What is read is trees without cycles, and goes by itself: looking for cycles at each few hundred objects took more
    # CPU than reading them. What the modules made stays anyway.
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    asyncio.run(run(config, asyncio.Event()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

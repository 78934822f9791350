"""`python -m tests.bench.scale`: what the operator needs for 10, 100 and 500 Models. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.scale.measure import Audit, OperatorProcess, Write, cpu_of, favour, percentile
from tests.bench.scale.world import RUNS, change, connected, gathered, keep_decisions, place, populate, scale, serving
from tests.cluster.layout import REPOSITORY
from tests.cluster.plane import Plane
from truekeep.cluster.api import Api

OUT = REPOSITORY / "build" / "bench" / "scale.json"
SIZES = (10, 100, 500)
IDLE_EVENTS = 100
IDLE_SECONDS = 0.6  # from one change to the next
REST_SECONDS = 90
ANSWER_SECONDS = 120.0
BARE_SECONDS = 10.0  # in which the control plane does what followed
SETTLE_SECONDS = 900.0
DAEMONS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")


@dataclass(frozen=True)
class Figures:
    """Of one number of Models. MiB, seconds, counts."""

    models: int
    runs: int
    memory: float
    peak: float  # of memory, over all of it
    restart: float  # from the process's start until everything was looked at
    restart_cpu: float
    restart_writes: int
    idle_p50: float
    idle_p99: float
    storm_p50: float
    storm_p99: float
    storm_took: float  # for the changes themselves
    storm_requests: float  # that the operator sent for each Model until all were answered, watches aside
    storm_cpu: float  # seconds of CPU of the operator until then
    storm_plane_cpu: float  # of the control plane and kwok
    bare_changes: float  # seconds for the same changes with no operator
    bare_scaled: float  # and for a bare write a Model of what the operator writes first
    bare_plane_cpu: float  # seconds of CPU of the control plane and kwok for both, and what follows from them
    rest_writes: int  # in a minute
    rest_cpu: float  # seconds of CPU in a second


@dataclass(frozen=True)
class Storm:
    """Every Model changed at once."""

    seconds: list[float]  # of each, from its change to the first write that followed
    took: float
    requests: float
    cpu: float
    plane_cpu: float


@dataclass(frozen=True)
class Bare:
    """The same without an operator."""

    changes: float
    scaled: float
    plane_cpu: float


GOALS = {"peak": 200.0, "restart": 60.0, "restart_writes": 0, "idle_p99": 1.0, "storm_p99": 5.0, "rest_writes": 0}


class Bench:
    """One control plane and one operator, with more and more Models."""

    def __init__(self, plane: Plane, api: Api, rest_seconds: float) -> None:
        self._plane = plane
        self._api = api
        self._rest_seconds = rest_seconds
        self._audit = Audit(plane.audit_log)
        self._operator = OperatorProcess(plane.kubeconfig, plane.layout.logs / "operator.log")
        self._count = 0
        self._pods: dict[int, int] = {}  # that the Models were changed to have

    async def measure(self, count: int) -> Figures:
        """All figures with so many Models."""
        await self._grow(count)
        restart, restart_cpu, restart_writes = await self._restart()
        _say(f"{count}: steady {restart:.1f} s after a restart, {restart_writes} writes")
        rest_writes, rest_cpu = await self._rest()
        _say(f"{count}: {rest_writes} writes a minute at rest, {rest_cpu:.3f} s of CPU a second")
        idle = await self._idle()
        _say(f"{count}: event to first write p50 {percentile(idle, 0.5):.2f} p99 {percentile(idle, 0.99):.2f} s")
        storm = await self._storm()
        seconds = f"p50 {percentile(storm.seconds, 0.5):.2f} p99 {percentile(storm.seconds, 0.99):.2f} s"
        _say(f"{count}: all changed within {storm.took:.1f} s, first write {seconds}")
        await self._settled()
        memory, peak = self._operator.memory()
        self._operator.stop()
        bare = await self._bare()
        _say(f"{count}: no operator: changed in {bare.changes:.1f} s, scaled in {bare.scaled:.1f} s")
        return Figures(
            models=count,
            runs=count * RUNS,
            memory=memory,
            peak=peak,
            restart=restart,
            restart_cpu=restart_cpu,
            restart_writes=restart_writes,
            idle_p50=percentile(idle, 0.5),
            idle_p99=percentile(idle, 0.99),
            storm_p50=percentile(storm.seconds, 0.5),
            storm_p99=percentile(storm.seconds, 0.99),
            storm_took=storm.took,
            storm_requests=storm.requests / count,
            storm_cpu=storm.cpu,
            storm_plane_cpu=storm.plane_cpu,
            bare_changes=bare.changes,
            bare_scaled=bare.scaled,
            bare_plane_cpu=bare.plane_cpu,
            rest_writes=rest_writes,
            rest_cpu=rest_cpu,
        )

    def close(self) -> None:
        """The operator ends."""
        self._operator.stop()

    async def _grow(self, count: int) -> None:
        """More Models, and an operator that brings them up."""
        known = {place(number)[0] for number in range(self._count)}
        fresh = sorted({place(number)[0] for number in range(count)} - known)
        self._plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in fresh)
        await populate(self._api, range(self._count, count))
        _say(f"{count}: populated")
        self._count = count
        self._operator.start()
        began = time.monotonic()
        await self._settled()
        _say(f"{count}: brought up in {time.monotonic() - began:.0f} s")
        self._operator.stop()

    async def _settled(self) -> None:
        """Until every Model serves and nobody wrote anything for ten seconds."""
        quiet, deadline = time.monotonic(), time.monotonic() + SETTLE_SECONDS
        while time.monotonic() - quiet < 10.0 or self._ready() != self._count:
            if self._ours():
                quiet = time.monotonic()
            if time.monotonic() > deadline:
                raise SystemExit(f"{self._ready()} of {self._count} Models are ready and at rest")
            await asyncio.sleep(0.5)

    def _ready(self) -> int:
        """How many Models are Ready at the generation that they have."""
        path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
        said = self._plane.kubectl("get", "models", "--all-namespaces", f"--output={path}")
        return said.split().count("True")

    async def _restart(self) -> tuple[float, float, int]:
        """Seconds from a process's start until it had looked at everything, its CPU, and what it wrote meanwhile."""
        self._audit.writes()
        self._operator.start()
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            await asyncio.sleep(0.5)
            seen = self._operator.metrics()
            looked = seen.get("truekeep_operator_reconciles_total", 0.0)
            if looked >= 2 * self._count and not seen.get("truekeep_operator_queue_depth") and self._operator.ready():
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"the operator was never steady: {seen}")
        took = time.monotonic() - self._operator.started
        return took, self._operator.cpu(), len(self._ours())

    async def _rest(self) -> tuple[int, float]:
        self._ours()
        cpu, began = self._operator.cpu(), time.monotonic()
        await asyncio.sleep(self._rest_seconds)
        seconds = time.monotonic() - began
        return round(60 * len(self._ours()) / seconds), (self._operator.cpu() - cpu) / seconds

    async def _idle(self) -> list[float]:
        """Seconds from a change that stood alone to the first write that it led to."""
        self._audit.writes()
        for event in range(IDLE_EVENTS):
            number = event * 7 % self._count
            self._pods[number] = 5 - self._pods.get(number, 2)  # 2 and 3 in turn
            await change(self._api, number, self._pods[number])
            await asyncio.sleep(IDLE_SECONDS)
        found = await self._answered(IDLE_EVENTS)
        await self._settled()
        return found

    async def _storm(self) -> Storm:
        """The same where every Model is changed at once, and what it took."""
        self._audit.writes()
        requests, cpu, plane_cpu = self._requests(), self._operator.cpu(), self._plane_cpu()
        began = time.monotonic()
        await self._change_all()
        took = time.monotonic() - began
        seconds = await self._answered(self._count)
        return Storm(
            seconds,
            took,
            requests=self._requests() - requests,
            cpu=self._operator.cpu() - cpu,
            plane_cpu=self._plane_cpu() - plane_cpu,
        )

    async def _bare(self) -> Bare:
        """What the machine needs where no operator is: every Model is changed, and every Deployment scaled, each by one
        write and without a read."""
        plane_cpu, began = self._plane_cpu(), time.monotonic()
        await self._change_all()
        changed = time.monotonic()
        await gathered([scale(self._api, item, self._pods) for item in await serving(self._api)])
        scaled = time.monotonic()
        await asyncio.sleep(BARE_SECONDS)
        return Bare(changed - began, scaled - changed, self._plane_cpu() - plane_cpu)

    async def _change_all(self) -> None:
        numbers = range(self._count)
        self._pods = {number: 5 - self._pods.get(number, 2) for number in numbers}
        await gathered(change(self._api, number, self._pods[number]) for number in numbers)

    def _requests(self) -> float:
        return self._operator.metrics().get("truekeep_operator_api_requests_total", 0.0)

    def _plane_cpu(self) -> float:
        return sum(cpu_of(self._plane.pid(name)) for name in DAEMONS)

    async def _answered(self, count: int) -> list[float]:
        """The latencies of so many changes, once each led to a write."""
        writes: list[Write] = []
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(found := latencies(writes)) < count:
            await asyncio.sleep(1)
            writes += self._audit.writes()
            if time.monotonic() > deadline:
                raise SystemExit(f"of {count} changes {len(found)} led to a write within {ANSWER_SECONDS} s")
        return found

    def _ours(self) -> list[Write]:
        return [write for write in self._audit.writes() if write.ours]


def latencies(writes: list[Write]) -> list[float]:
    """Seconds from the end of each change of a Model to the operator's first write that followed it, of an object
    whose name begins with the Model's."""
    ours = sorted((write for write in writes if write.ours), key=lambda write: write.began)
    theirs = [write for write in writes if not write.ours and write.resource == "models" and write.verb == "patch"]
    by_model: dict[tuple[str, str], list[float]] = {}
    for write in ours:
        if write.resource != "events":
            by_model.setdefault((write.namespace, write.name[: len("model-0000")]), []).append(write.began)
    found = []
    for change_ in theirs:
        after = [began for began in by_model.get((change_.namespace, change_.name), ()) if began >= change_.began]
        if after:
            found.append(max(0.0, after[0] - change_.ended))
    return found


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


async def measured(
    sizes: list[int], rest_seconds: float, first: bool, tell: Callable[[list[Figures]], None] = lambda figures: None
) -> list[Figures]:
    """The figures of each number of Models, told as soon as they are there. first: before others on this machine."""
    found: list[Figures] = []
    with Plane(nodes=1, audit=True) as plane:
        api = await connected(plane.kubeconfig)
        bench = Bench(plane, api, rest_seconds)
        if first:
            favour([os.getpid(), *(plane.pid(name) for name in DAEMONS)])
        keeper = asyncio.create_task(keep_decisions(api))
        try:
            for count in sizes:
                found.append(await bench.measure(count))
                tell(found)
        finally:
            keeper.cancel()
            bench.close()
            await api.close()
    return found


def main() -> None:
    """Measure, and write the figures down."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=list(SIZES), help="numbers of Models, growing")
    parser.add_argument("--rest", type=float, default=REST_SECONDS, help="seconds to watch the operator at rest")
    parser.add_argument(
        "--first", action="store_true", help="go before whatever else this machine does, which needs root"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="file for the figures")
    asked = parser.parse_args()

    def tell(figures: list[Figures]) -> None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps([asdict(each) for each in figures], indent=2) + "\n")
        _say(" ".join(f"{name}={value:g}" for name, value in asdict(figures[-1]).items()))

    asyncio.run(measured(sorted(asked.models), asked.rest, asked.first, tell))


if __name__ == "__main__":
    main()

"""Where stories are told: a control plane, the scripted kubelet, the process that forks operators; and the telling."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import select
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.plane import Plane
from tests.faults.clock import FastClock
from tests.faults.kubelet import Kubelet
from tests.faults.plans import Plan
from tests.faults.proxy import Chapter as Passed
from tests.faults.proxy import FaultProxy
from tests.faults.script import CHAPTERS, MODEL, Chapter
from tests.faults.state import Ledger, difference, state
from tests.faults.upstream import Json, Mirror, Upstream, UpstreamError, place
from tests.faults.zygote import Recipe, Zygote
from truekeep.handlers import CHILDREN, OWN

RATE = 4.0
CALM_SECONDS = 0.7  # without a write: the chapter is over
CHAPTER_SECONDS = 45.0  # within which a chapter has to be over, whatever went wrong in it
WATCH_RESYNC = 20  # by the operator's clock: where events are lost, the list of everything is the remedy
NO_RESYNC = 6000  # elsewhere it must not hide a lost requeue
USURP_SECONDS = 10.0
MOST_STARTS = 12
READY_LOOKS = 600
WATCHES = len(OWN) + 1 + len(CHILDREN)  # and approvals
PORTS = range(12000, 19000)  # below those that the kernel gives to clients


class PlanError(AssertionError):
    """A telling did not end as the undisturbed one; the text says where it differs."""


@dataclass
class Undisturbed:
    """The story as it goes when nothing goes wrong."""

    states: list[Json] = field(default_factory=list)
    accounts: list[Json] = field(default_factory=list)
    writes: list[list[str]] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    seconds: float = 0.0


class Theatre:
    """Everything that tellings share."""

    def __init__(self, plane: Plane, zygote: Zygote, upstream: Upstream, mirror: Mirror, kubelet: Kubelet) -> None:
        self.plane = plane
        self.zygote = zygote
        self.upstream = upstream
        self.mirror = mirror
        self.kubelet = kubelet
        self.ledger = Ledger(mirror)
        self.folder = Path(tempfile.mkdtemp(prefix="truekeep-faults-"))
        self._count = 0
        self._ports = iter(random.sample(PORTS, len(PORTS)))  # another theatre draws others

    def namespace(self) -> str:
        """A name that nobody had."""
        self._count += 1
        return f"story-{self._count}"

    def port(self) -> int:
        """A free port."""
        for port in self._ports:
            with contextlib.suppress(OSError), socket.socket() as attempt:
                attempt.bind(("127.0.0.1", port))
                return port
        raise RuntimeError("no port is free")


@contextlib.asynccontextmanager
async def theatre() -> Any:
    """A theatre, and its control plane, until the context ends."""
    os.environ.setdefault("GOGC", "500")  # memory for CPU: the control plane would collect garbage half of the time
    with Plane() as plane:
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(Upstream(plane.kubeconfig))
            mirror = Mirror(upstream)
            kubelet = Kubelet(upstream, mirror)
            house = Theatre(plane, await stack.enter_async_context(Zygote()), upstream, mirror, kubelet)
            await stack.enter_async_context(mirror)
            await stack.enter_async_context(kubelet)
            yield house


class Actor:
    """One operator behind its proxy: started again whenever it ends, as a kubelet does."""

    def __init__(
        self,
        house: Theatre,
        namespace: str,
        name: str,
        clock: FastClock,
        resync: int,
        usurp: Callable[[], Awaitable[None]],
        planted: str | None = None,
    ) -> None:
        self.proxy = FaultProxy(house.upstream, self.kill, usurp)
        self._house = house
        self._namespace = namespace
        self.name = name
        self._clock = clock
        self._resync = resync
        self._planted = planted
        self._task: asyncio.Task[None] | None = None
        self.pid = 0
        self.starts = 0
        self.killed = 0
        self.may_run = asyncio.Event()
        self.may_run.set()
        self.log = house.folder / f"{namespace}-{name}.log"

    async def start(self) -> None:
        """The proxy listens, and the operator runs."""
        await self.proxy.start()
        self._port = self._house.port()
        await self._launch()
        self._task = asyncio.create_task(self._tend(), name=f"{self._namespace}/{self.name}")

    async def stop(self) -> None:
        """End both."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.signal(signal.SIGKILL)
        await self.proxy.stop()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.killed += 1
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                while not select.select([handle], [], [], 0)[0]:  # noqa: ASYNC110 - a few milliseconds at most
                    await asyncio.sleep(0.002)
            finally:
                os.close(handle)

    async def ready(self) -> None:
        """Return when it has listed everything, as its readiness probe says, and watches."""
        url = f"http://127.0.0.1:{self._port}/readyz"
        for _ in range(READY_LOOKS):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._house.upstream.session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as response:
                    if response.status == 200 and len(self.proxy.watched) >= WATCHES:
                        return
            await asyncio.sleep(0.1)
        raise PlanError(f"the operator does not get ready; its log: {self.log}")

    async def restart(self, ahead: float = 0.0) -> None:
        """Kill it, and start it with a clock that is wrong by so many seconds."""
        self._clock = replace(self._clock, ahead=ahead)
        await self.kill()

    async def halt(self) -> None:
        """Kill it; it starts again when `may_run` is set."""
        self.may_run.clear()
        await self.kill()

    @property
    def crashes(self) -> int:
        """How often it ended by itself."""
        return self.starts - 1 - self.killed

    async def _launch(self) -> None:
        kubeconfig = self._house.folder / f"{self._namespace}-{self.name}.kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(self.proxy.port)))
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._house.folder),
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": self.name,
            "POD_NAMESPACE": self._namespace,
            "TRUEKEEP_WATCH_NAMESPACES": self._namespace,
            "TRUEKEEP_PORT": str(self._port),
            "TRUEKEEP_RESYNC_SECONDS": str(self._resync),
            "TRUEKEEP_JOB_RETENTION_SECONDS": "864000",  # a slow machine must not see Jobs go
        }
        port = self._house.kubelet.metrics_port
        self.pid = await self._house.zygote.start(Recipe(environment, str(self.log), self._clock, port, self._planted))
        self.starts += 1

    async def _tend(self) -> None:
        while self.starts < MOST_STARTS:
            try:
                handle = os.pidfd_open(self.pid)
            except ProcessLookupError:
                await self.may_run.wait()
                await self._launch()
                continue
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(handle, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(handle)
                os.close(handle)
            await self.may_run.wait()
            await self._launch()


class Telling:
    """One telling of the story, in a namespace of its own.

    `plans`: the faults, at most one a chapter. `patience`: seconds for a chapter."""

    def __init__(
        self,
        house: Theatre,
        plans: Sequence[Plan] = (),
        planted: str | None = None,
        rate: float = RATE,
        patience: float = CHAPTER_SECONDS,
    ) -> None:
        self.house = house
        self._patience = patience
        self.plans = {plan.chapter: plan for plan in plans}
        self.namespace = house.namespace()
        self.passed: list[Passed] = []
        self._planted = planted
        self._clock = FastClock(rate, time.time())
        lossy = any(plan.kind.of == "event" for plan in plans)
        self._resync = WATCH_RESYNC if lossy else NO_RESYNC
        self._actors = [self._actor("operator-0")]
        self._leader = self._actors[0]
        self._usurped: asyncio.Event | None = None

    def _actor(self, name: str) -> Actor:
        return Actor(self.house, self.namespace, name, self._clock, self._resync, self._usurp, self._planted)

    @property
    def upstream(self) -> Upstream:
        """Past the proxy."""
        return self.house.upstream

    @property
    def mirror(self) -> Mirror:
        """What there is."""
        return self.house.mirror

    # -- what a team does and sees -------------------------------------------------------------------------------

    async def apply(self, plural: str, document: Json) -> None:
        await self.house.upstream.apply(plural, self.namespace, document)

    async def patch(self, plural: str, patch: Json) -> None:
        await self.house.upstream.patch(plural, self.namespace, MODEL, patch)

    async def look(self, finds: Json) -> None:
        """The policy's CronJob is due: as the CronJob controller does, a Job is made of its template."""
        self.house.kubelet.looks[self.namespace] = finds
        (cronjob,) = self.house.mirror.all("cronjobs", self.namespace)
        about, template = cronjob["metadata"], cronjob["spec"]["jobTemplate"]
        name = f"{about['name']}-{len(finds['windows'])}"
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": about["name"], "uid": about["uid"],
                 "controller": True}  # fmt: skip
        metadata = {**template.get("metadata", {}), "name": name, "ownerReferences": [owner]}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
        await self.house.upstream.do("POST", place("jobs", self.namespace), job)

    def see(self, plural: str) -> Json:
        return self.house.mirror.get(plural, self.namespace, MODEL) or {}

    # -- the telling ---------------------------------------------------------------------------------------------

    async def record(self) -> Undisturbed:
        """Tell it undisturbed, and keep what there is after each chapter."""
        result = Undisturbed()
        began = time.monotonic()

        async def keep(number: int, chapter: Chapter) -> None:
            await self._settle(number, chapter, lambda: [], calm=3 * CALM_SECONDS)
            passed = self._actors[0].proxy.chapter
            result.states.append(state(self.house.mirror, self.namespace))
            result.accounts.append(self.house.ledger.account(self.namespace))
            result.writes.append([str(write) for write in passed.writes])
            result.events.append(passed.events)
            result.reads.append(passed.reads)

        await self._tell(keep)
        result.seconds = time.monotonic() - began
        return result

    async def compare(self, undisturbed: Undisturbed) -> None:
        """Tell it with its faults. PlanError where a chapter ends otherwise than undisturbed."""

        async def keep(number: int, chapter: Chapter) -> None:
            await self.settled(undisturbed, number)

        await self._tell(keep)

    async def settled(
        self,
        undisturbed: Undisturbed,
        number: int,
        remaining: Callable[[list[str]], list[str]] = lambda lines: lines,
        more: Mapping[str, int] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Return when all is as after this chapter undisturbed, but for what is not `remaining` of the differences, and
        for what was made `more`. PlanError when that does not come."""
        account = dict(undisturbed.accounts[number])
        for what, count in (more or {}).items():
            account[what] += count

        def wrong() -> list[str]:
            crashes = sum(actor.crashes for actor in self._actors)
            lines = [
                *difference(undisturbed.states[number], state(self.house.mirror, self.namespace)),
                *difference(account, self.house.ledger.account(self.namespace), "made"),
                *([f"the operator ended by itself {crashes} times"] if crashes > 0 else []),
            ]
            return remaining(lines)

        await self._settle(number, CHAPTERS[number], wrong, CALM_SECONDS, seconds)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Actor]:
        """The namespace, and the operator in it, for whoever tells the chapters himself."""
        await self._open()
        try:
            yield self._actors[0]
        finally:
            await self._close()

    async def chapter(self, number: int, plan: Plan | None = None) -> None:
        """A chapter begins; `settled` sees its end."""
        self._leader = await self._holder()
        for actor in self._actors:
            actor.proxy.begin(plan if actor is self._leader else None)
        self.passed.append(self._leader.proxy.chapter)
        await CHAPTERS[number].act(self)

    async def _holder(self) -> Actor:
        """Who leads: of several, whoever the Lease names. An old leader that woke may be the next one's successor."""
        if len(self._actors) == 1:
            return self._actors[0]
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/truekeep-operator"
        name = (await self.upstream.do("GET", path))["spec"].get("holderIdentity")
        return next((actor for actor in self._actors if actor.name == name), self._actors[-1])

    async def _tell(self, keep: Callable[[int, Chapter], Awaitable[None]]) -> None:
        async with self.opened():
            last = max(self.plans, default=len(CHAPTERS) - 1)
            for number, chapter in enumerate(CHAPTERS[: last + 1]):
                await self.chapter(number, self.plans.get(number))
                await keep(number, chapter)

    async def _open(self) -> None:
        await self.make_namespace()
        await self._actors[0].start()
        await self._actors[0].ready()

    async def make_namespace(self) -> None:
        """The namespace, with what a pod needs of it."""
        upstream, name = self.house.upstream, self.namespace
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await upstream.do("POST", "/api/v1/namespaces", document)
        for _ in range(200):
            if (await upstream.ask("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default"))[0] == 200:
                break
            await asyncio.sleep(0.05)

    async def remove_namespace(self) -> None:
        """The namespace and all that is in it; returns when it is gone. What was made in it is forgotten."""
        upstream, path = self.house.upstream, f"/api/v1/namespaces/{self.namespace}"
        await upstream.do("DELETE", path)
        while (await upstream.ask("GET", path))[0] != 404:  # noqa: ASYNC110 - it is not among what is mirrored
            await asyncio.sleep(0.2)
        self.house.ledger.forget(self.namespace)

    async def _close(self) -> None:
        for actor in self._actors:
            await actor.stop()
        self.house.ledger.forget(self.namespace)
        self.house.kubelet.looks.pop(self.namespace, None)
        with contextlib.suppress(UpstreamError):
            await self.house.upstream.do("DELETE", f"/api/v1/namespaces/{self.namespace}")

    async def _settle(
        self,
        number: int,
        chapter: Chapter,
        wrong: Callable[[], list[str]],
        calm: float,
        seconds: float | None = None,
    ) -> None:
        """Return when the chapter is over and all is as it ought to be. PlanError when that does not come."""
        deadline = time.monotonic() + (seconds or self._patience)
        while time.monotonic() < deadline:
            if self._usurped is not None and chapter.done(self):
                self._wake()
            if self._calm(calm) and self._usurped is None and chapter.done(self) and not wrong():
                return
            await self.house.mirror.changed(self.namespace, 0.1)
        if self._usurped is not None:
            self._wake()
        passed = self.passed[-1]
        lines = wrong()[:12] or [f"not over: {_brief(self.see('models'))}"]
        plan = self.plans.get(number)
        raise PlanError(
            "\n  ".join(
                [
                    f"{plan or 'undisturbed'}, in chapter {number} ({chapter.name}), at {passed.struck or 'nothing'}:",
                    *lines,
                    f"the operator's log: {', '.join(str(actor.log) for actor in self._actors)}",
                ]
            )
        )

    def _calm(self, seconds: float) -> bool:
        now = time.monotonic()
        proxies = [actor.proxy for actor in self._actors]
        return all(proxy.busy == 0 and now - proxy.last_write >= seconds for proxy in proxies)

    async def _usurp(self) -> None:
        """At a write: the operator is stopped, and another one takes over. Returns when the write may go on."""
        stopped = self._leader
        stopped.signal(signal.SIGSTOP)
        self._usurped = asyncio.Event()
        other = self._actor(f"operator-{len(self._actors)}")
        self._actors.append(other)
        await other.start()
        await self._usurped.wait()
        stopped.signal(signal.SIGCONT)

    def _wake(self) -> None:
        assert self._usurped is not None
        self._usurped.set()
        self._usurped = None


def _brief(item: Json) -> str:
    status = item.get("status") or {}
    said = [f"{each['type']}={each['status']} {each['reason']}" for each in status.get("conditions") or []]
    generation = item.get("metadata", {}).get("generation")
    return f"generation {generation}, observed {status.get('observedGeneration')}: {said}"


def _kubeconfig(port: int) -> Mapping[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "operator", "user": {"token": "none-is-asked-for"}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        "current-context": "proxy",
    }

"""Bugs that are planted in the operator's process, to see whether the suite finds them. They live here alone.

Each is one that operators really had. `plant` changes modules of the process that it is called in, before the operator
starts; `likely` names plans of the whole suite that ought to fail with it: kind, chapter, and a part of what is hit."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from truekeep import handlers, operator_main
from truekeep.api import names
from truekeep.cluster import lease
from truekeep.cluster.api import Api
from truekeep.cluster.errors import ClusterError, Conflict, NameTaken, Refused
from truekeep.controller import loop, reconcilers
from truekeep.controller.queue import Key, WorkQueue
from truekeep.domain import handover, run, stages, triggers
from truekeep.domain.plan import RunPlan
from truekeep.resources import stage_manifest

Likely = tuple[str, int, str]
EVERYWHERE = ""


@dataclass(frozen=True)
class Bug:
    """`words`: what is wrong."""

    words: str
    plant: Callable[[], None]
    likely: tuple[Likely, ...]


def _random_run_name() -> None:
    original = names.run_name
    _put(triggers, "run_name", lambda *words: f"{original(*words)[:-4]}{secrets.token_hex(2)}")


def _random_job_name() -> None:
    original = stages.job_name

    def drawn(*words: Any) -> str:
        return f"{original(*words)}-{secrets.token_hex(2)}"

    _put(run, "job_name", drawn)
    _put(stage_manifest, "job_name", drawn)


def _lost_requeue() -> None:
    def failed(self: WorkQueue, key: Key) -> float:
        self._finish(key)
        return 0.0

    _put(WorkQueue, "failed", failed)


def _status_first() -> None:
    """What is to be carried out waits in memory until the status was written."""
    original = reconcilers.Outcome.conclude

    async def attempt(self: Any, work: Awaitable[None], now: datetime) -> None:
        self.later = work

    async def conclude(self: Any, tools: Any, stored: Any) -> bool:
        news = await original(self, tools, stored)
        later = getattr(self, "later", None)
        if later is not None:
            await later
        return news

    _put(reconcilers.Outcome, "attempt", attempt)
    _put(reconcilers.Outcome, "conclude", conclude)


def _conflict_overwritten() -> None:
    """The status that was decided on an old object is written over a newer one."""
    original = Api.apply_status

    async def apply_status(self: Api, kind: Any, namespace: str, name: str, version: str, status: Any) -> Any:
        try:
            return await original(self, kind, namespace, name, version, status)
        except Conflict:
            live = await self.get(kind, namespace, name)
            newest = live["metadata"]["resourceVersion"] if live else version
            return await original(self, kind, namespace, name, newest, status)

    _put(Api, "apply_status", apply_status)


def _error_swallowed() -> None:
    """Whatever could not be carried out, the status says that it was."""

    async def attempt(self: Any, work: Awaitable[None], now: datetime) -> None:
        with suppress(ClusterError):
            await work

    _put(reconcilers.Outcome, "attempt", attempt)


def _job_before_its_result() -> None:
    """The Job is deleted before its result is in the status."""
    original: Any = handover.finish

    def finish(observed: Any, *words: Any) -> RunPlan:
        plan: RunPlan = original(observed, *words)
        return replace(plan, delete_jobs=tuple(observed.jobs))

    _put(run, "finish", finish)


def _number_in_memory() -> None:
    """Revisions are numbered by a counter of the process."""
    original, count = handover.finish, itertools.count(1)
    numbers: dict[str, int] = {}

    def finish(observed: Any, model: Any, status: Any, result: Any, now: datetime) -> RunPlan:
        plan = original(observed, model, status, result, now)
        if plan.status.revision is None:
            return plan
        number = numbers.setdefault(observed.run.meta.uid, 0) or next(count)
        numbers[observed.run.meta.uid] = number
        return replace(plan, status=plan.status.model_copy(update={"revision": number}))

    _put(run, "finish", finish)


def _only_news() -> None:
    """What was there before the process started is nobody's business: it reacts to changes alone."""
    original = handlers.Watch._registry

    def registry(self: Any) -> Any:
        wake, seen = self._wake, set[Key]()

        def news(keys: Sequence[Key], *rest: Any) -> None:
            wake([key for key in keys if key in seen], *rest)
            seen.update(keys)

        self._wake = news
        return original(self)

    async def once(self: loop.Resync) -> None:
        self.last = self.clock()

    _put(handlers.Watch, "_registry", registry)
    _put(loop.Resync, "once", once)


def _error_ends_process() -> None:
    """A refusal or an error of the API server is not expected anywhere."""
    original = loop.Loop.look_at

    async def look_at(self: loop.Loop, key: Key) -> None:
        queue_failed = self.queue.failed
        errors: list[float] = []

        def failed(each: Key) -> float:
            errors.append(queue_failed(each))
            return errors[-1]

        _put(self.queue, "failed", failed)
        try:
            await original(self, key)
        finally:
            _put(self.queue, "failed", queue_failed)
        if errors:
            raise RuntimeError("planted: nobody expected an error")

    _put(loop.Loop, "look_at", look_at)


def _endless_wait() -> None:
    """Nobody gives up waiting for an answer."""
    _put(operator_main, "Api", lambda *words, **named: Api(*words, **{**named, "timeout_seconds": 1e6}))
    original: Any = loop.Loop.__init__
    _put(loop.Loop, "__init__", lambda self, *words, **named: original(self, *words, **named, timeout_seconds=1e6))


def _no_resync() -> None:
    """Everything is listed once, at the start: an event that is lost later is lost for good."""
    original = loop.Resync.run

    async def run_once(self: loop.Resync) -> None:
        self.every_seconds = 1e6
        await original(self)

    _put(loop.Resync, "run", run_once)


def _refusal_is_final() -> None:
    """A refusal is taken for the last word: nothing is tried again."""
    original = loop.Loop.look_at

    async def look_at(self: loop.Loop, key: Key) -> None:
        reconciler = self.reconcilers[key.kind]

        class Final:
            async def reconcile(self, key: Key) -> float | None:
                try:
                    return await reconciler.reconcile(key)
                except (Refused, NameTaken):
                    return None

        await original(replace(self, reconcilers={**self.reconcilers, key.kind: Final()}), key)

    _put(loop.Loop, "look_at", look_at)


def _no_lease() -> None:
    """Whoever runs, writes: nobody asks who leads."""

    async def run_elector(self: Any) -> None:
        self._renewed = float("inf")
        self.leading.set()
        self._taken()
        await asyncio.Event().wait()

    _put(lease.Elector, "run", run_elector)
    _put(lease.Elector, "holds", lambda self: True)


def _put(target: Any, name: str, value: Any) -> None:
    setattr(target, name, value)


BUGS = {
    "random-run-name": Bug(
        "a run's name is drawn, and does not follow from its cause",
        _random_run_name,
        (("usurped", 0, "POST trainingruns"), ("usurped", 2, "POST trainingruns")),
    ),
    "random-job-name": Bug(
        "a Job's name is drawn, and does not follow from its run's",
        _random_job_name,
        (("usurped", 0, "POST jobs"), ("usurped", 2, "POST jobs")),
    ),
    "lost-requeue": Bug(
        "what failed is not tried again",
        _lost_requeue,
        (("error", 0, "POST jobs"), ("error", 6, "PATCH services"), ("error", 2, "PATCH cronjobs")),
    ),
    "status-first": Bug(
        "the status is written before what it speaks of is made", _status_first, (("kill-after", 3, "PATCH models"),)
    ),
    "conflict-overwritten": Bug(
        "on a conflict the old status is written over the new one",
        _conflict_overwritten,
        (("usurped", 2, "PATCH models"), ("usurped", 5, "PATCH models")),
    ),
    "error-swallowed": Bug(
        "what could not be made is said to be there", _error_swallowed, (("error", 3, "POST trainingruns"),)
    ),
    "job-before-its-result": Bug(
        "a Job is deleted before its result is in the status",
        _job_before_its_result,
        (("kill-before", 0, "PATCH trainingruns"), ("kill-before", 2, "PATCH trainingruns")),
    ),
    "number-in-memory": Bug(
        "revisions are numbered by a counter in memory", _number_in_memory, (("kill-after", 2, "POST jobs"),)
    ),
    "only-news": Bug(
        "what was there before the start is not looked at", _only_news, (("kill-before", 0, "POST trainingruns"),)
    ),
    "error-ends-process": Bug(
        "an error of the API server ends the operator", _error_ends_process, (("throttled", 0, "POST jobs"),)
    ),
    "endless-wait": Bug("nobody gives up waiting for an answer", _endless_wait, (("unanswered", 0, "POST jobs"),)),
    "no-resync": Bug(
        "an event that was lost is never made up for", _no_resync, (("drop", 0, "0"), ("silence", 0, "0"))
    ),
    "refusal-is-final": Bug(
        "what was refused once is not tried again",
        _refusal_is_final,
        tuple(("invalid", chapter, "PATCH models") for chapter in (1, 6, 7)),
    ),
    "no-lease": Bug("nobody asks who leads", _no_lease, (("usurped", 2, EVERYWHERE),)),
}

"""Many plans: packed into tellings, one a chapter, a few at a time; a failed one is told alone before it counts."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.plans import BY_NAME, KINDS, Kind, Plan
from tests.faults.planted import BUGS
from tests.faults.theatre import PlanError, Telling, Theatre, Undisturbed

PARALLEL = 6
Say = Callable[[str], None]


@dataclass
class Report:
    """What became of plans."""

    passed: list[Plan] = field(default_factory=list)
    missed: list[Plan] = field(default_factory=list)  # the story had no such write, event or read this time
    failed: dict[Plan, str] = field(default_factory=dict)
    unsteady: dict[Plan, str] = field(default_factory=dict)  # failed in company, and passed alone

    def words(self) -> str:
        """In one line."""
        unsteady = f", {len(self.unsteady)} failed once and passed alone" if self.unsteady else ""
        missed = f", {len(self.missed)} met nothing" if self.missed else ""
        return f"{len(self.passed)} plans passed, {len(self.failed)} failed{unsteady}{missed}"


def every(undisturbed: Undisturbed, kinds: Iterable[Kind] = KINDS, stride: int = 1) -> list[Plan]:
    """All plans of these kinds: every write of every chapter, and every `stride`-th event and read."""
    counts = {
        "write": [len(writes) for writes in undisturbed.writes],
        "event": undisturbed.events,
        "read": undisturbed.reads,
    }
    return [
        Plan(chapter, index, kind.code)
        for kind in kinds
        for chapter, count in enumerate(counts[kind.of])
        for index in range(0, count, 1 if kind.of == "write" else stride)
    ]


def sample(undisturbed: Undisturbed, tellings: int, seed: int) -> list[Plan]:
    """One plan for every chapter of so many tellings: kinds take turns, places are drawn."""
    draw = random.Random(seed)
    by_chapter: dict[tuple[int, str], list[Plan]] = defaultdict(list)
    for plan in every(undisturbed):
        by_chapter[plan.chapter, plan.kind.name].append(plan)
    chosen = []
    turn = 0
    for _ in range(tellings):
        for chapter in range(len(undisturbed.writes)):
            kind = KINDS[turn % len(KINDS)].name
            turn += 1
            chosen.append(draw.choice(by_chapter[chapter, kind]))
        turn += 1  # so that a chapter does not always meet the same kinds
    return chosen


def likely(undisturbed: Undisturbed, places: Iterable[tuple[str, int, str]]) -> list[Plan]:
    """Plans by kind, chapter and a part of what is hit: a write as it is listed, or else an index."""
    found = []
    for name, chapter, part in places:
        kind = BY_NAME[name]
        if kind.of != "write":
            found.append(Plan(chapter, int(part), kind.code))
            continue
        writes = undisturbed.writes[chapter]
        found += [Plan(chapter, index, kind.code) for index, write in enumerate(writes) if part in write]
    return found


def packed(plans: Iterable[Plan]) -> list[list[Plan]]:
    """Plans in tellings, at most one a chapter. Events and reads go together, writes go together: how often everything
    is listed is a matter of the whole telling."""
    queues: dict[tuple[bool, int], list[Plan]] = defaultdict(list)
    for plan in dict.fromkeys(plans):
        queues[plan.kind.of == "event", plan.chapter].append(plan)
    tellings = []
    for lossy in (False, True):
        mine = [queue for (kind, _), queue in sorted(queues.items()) if kind == lossy]
        while any(mine):
            tellings.append([queue.pop(0) for queue in mine if queue])
    return sorted(tellings, key=lambda plans: -plans[-1].chapter)


@dataclass(frozen=True)
class Found:
    """What became of a planted bug."""

    bug: str
    plan: Plan | None  # that failed with it
    words: str
    seconds: float


async def try_out(
    house: Theatre, undisturbed: Undisturbed, bugs: Sequence[str], more: Sequence[Plan], *, at_a_time: int, say: Say
) -> list[Found]:
    """Plant each bug, and see whether a plan fails: one of those that ought to, or else one of `more`."""
    turn = asyncio.Semaphore(at_a_time)

    async def one(bug: str) -> Found:
        async with turn:
            began = time.monotonic()
            report = Report()
            for plans in (likely(undisturbed, BUGS[bug].likely), more):
                if not report.failed:
                    report = await run(house, undisturbed, plans, planted=bug, parallel=2, until_failure=True)
            plan, words = next(iter(report.failed.items()), (None, "\nnot found"))
            found = Found(bug, plan, words.splitlines()[1].strip(), time.monotonic() - began)
            say(f"{bug}: {plan or 'not found'}; {found.words[:160]}; {found.seconds:.0f} s")
            return found

    return await asyncio.gather(*(one(bug) for bug in bugs))


async def run(
    house: Theatre,
    undisturbed: Undisturbed,
    plans: Sequence[Plan],
    *,
    planted: str | None = None,
    parallel: int = PARALLEL,
    until_failure: bool = False,
    say: Say = lambda line: None,
) -> Report:
    """All of them. `until_failure`: no further telling begins after one that failed, nor is that told again."""
    report = Report()
    waiting = packed(plans)
    lock = asyncio.Semaphore(parallel)
    tasks: set[asyncio.Task[None]] = set()

    async def one(mine: list[Plan]) -> None:
        async with lock:
            if until_failure and report.failed:
                return
            failure = await _told(house, undisturbed, mine, planted, report)
            if failure is None:
                return
            plan, words, rest = failure
            say(f"FAILED {words}")
            if plan is None or until_failure or await _told(house, undisturbed, [plan], planted, Report()) is not None:
                report.failed[plan or mine[0]] = words
            else:
                report.unsteady[plan] = words
            if rest:
                waiting.append(rest)

    while waiting or tasks:
        while waiting:
            task = asyncio.create_task(one(waiting.pop(0)))
            tasks.add(task)
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if done:
            say(report.words())
    return report


async def _told(
    house: Theatre, undisturbed: Undisturbed, plans: Sequence[Plan], planted: str | None, report: Report
) -> tuple[Plan | None, str, list[Plan]] | None:
    """Tell it once. Of a failure: the plan, the words, and the plans whose chapters did not come."""
    telling = Telling(house, plans, planted)
    words = None
    try:
        await telling.compare(undisturbed)
    except PlanError as error:
        words = str(error)
    by_chapter = {plan.chapter: plan for plan in plans}
    last = len(telling.passed) - 1
    for chapter, passed in enumerate(telling.passed):
        plan = by_chapter.get(chapter)
        if plan and not (words and chapter == last):
            (report.passed if passed.struck else report.missed).append(plan)
    if words is None:
        return None
    return by_chapter.get(last), words, [plan for plan in plans if plan.chapter > last]

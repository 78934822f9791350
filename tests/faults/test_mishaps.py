"""What people and clusters do to the operator's objects behind its back: it is as before, soon, and nothing is trained
for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.faults.mishaps import AT, BY_HAND, GARBAGE, Mishap
from tests.faults.plans import BY_NAME, Plan
from tests.faults.script import CHAPTERS
from tests.faults.theatre import Telling, Theatre, Undisturbed, theatre
from tests.faults.upstream import place

SOON_SECONDS = 30.0
PATIENCE_SECONDS = 240.0  # for a chapter in which nothing hurries, or the API server comes and goes
HOUR = 3600.0
EYES_SECONDS = 0.5  # until the operator and the test may have seen what happened

pytestmark = pytest.mark.full


async def up_to(telling: Telling, undisturbed: Undisturbed, last: int = AT) -> None:
    """The story's first chapters."""
    for number in range(last + 1):
        await telling.chapter(number)
        await telling.settled(undisturbed, number)


async def suffer(
    house: Theatre, undisturbed: Undisturbed, mishaps: Sequence[Mishap], seconds: float = SOON_SECONDS
) -> None:
    """One after the other, at the pace of the wall's clock; then the story goes on to its end."""
    telling = Telling(house, rate=1.0, patience=PATIENCE_SECONDS)
    forgiven: list[Mishap] = []

    def remaining(lines: list[str]) -> list[str]:
        for mishap in forgiven:
            lines = mishap.remaining(lines)
        return lines

    async with telling.opened():
        await up_to(telling, undisturbed)
        for mishap in mishaps:
            forgiven.append(mishap)
            await mishap.act(telling)
            await asyncio.sleep(EYES_SECONDS)
            try:
                await telling.settled(undisturbed, AT, remaining, seconds=seconds)
            except AssertionError as error:
                raise AssertionError(f"{mishap.name}: {error}") from error


async def clock_moves(house: Theatre, undisturbed: Undisturbed) -> None:
    """An hour ahead, an hour behind, and right again; the story goes on with a clock that is wrong."""
    telling = Telling(house, patience=PATIENCE_SECONDS)
    async with telling.opened() as actor:
        await up_to(telling, undisturbed)
        for ahead in (HOUR, -HOUR):
            await actor.restart(ahead)
            await asyncio.sleep(EYES_SECONDS)
            await telling.settled(undisturbed, AT)
        for number in range(AT + 1, len(CHAPTERS)):
            await telling.chapter(number)
            await telling.settled(undisturbed, number)


async def result_lost(house: Theatre, undisturbed: Undisturbed) -> None:
    """While the operator is down, the trainer's pod ends, and is gone with its message: the Job is made again, and
    finds the result in the store; the run is the same."""
    telling = Telling(house, patience=PATIENCE_SECONDS)
    number = AT + 1
    made = next(index for index, write in enumerate(undisturbed.writes[number]) if write.startswith("POST jobs"))
    async with telling.opened() as actor:
        await up_to(telling, undisturbed)
        actor.may_run.clear()
        await telling.chapter(number, Plan(number, made, BY_NAME["kill-after"].code))
        job = await _until(lambda: _complete_job(telling))
        for pod in telling.mirror.all("pods", telling.namespace):
            if pod["metadata"]["labels"].get("truekeep.dev/run") == job:
                await telling.upstream.do("DELETE", f"{place('pods', telling.namespace)}/{pod['metadata']['name']}")
        actor.may_run.set()
        await telling.settled(undisturbed, number, more={"job of a trainer": 1})


def _complete_job(telling: Telling) -> str | None:
    """The Job of the run by hand, once it is complete."""
    manual = [run["metadata"]["name"] for run in telling.mirror.all("trainingruns", telling.namespace)
              if run["spec"]["trigger"]["type"] == "Manual"]  # fmt: skip
    for job in telling.mirror.all("jobs", telling.namespace):
        ended = {each["type"] for each in (job.get("status") or {}).get("conditions") or []}
        if job["metadata"]["name"] in manual and "Complete" in ended:
            return str(job["metadata"]["name"])
    return None


async def namespace_again(house: Theatre, undisturbed: Undisturbed) -> None:
    """While the operator is down, the namespace goes, and one of its name comes: nothing of the old one counts."""
    telling = Telling(house, patience=PATIENCE_SECONDS)
    async with telling.opened() as actor:
        await up_to(telling, undisturbed)
        await actor.halt()
        await telling.remove_namespace()
        await telling.make_namespace()
        actor.may_run.set()
        await telling.chapter(0)
        await telling.settled(undisturbed, 0)


async def model_again(house: Theatre, undisturbed: Undisturbed) -> None:
    """While the operator is down, the Model and its policy go, and others of their names come."""
    telling = Telling(house, patience=PATIENCE_SECONDS)
    async with telling.opened() as actor:
        await up_to(telling, undisturbed)
        await actor.halt()
        for plural in ("models", "driftpolicies"):
            await telling.upstream.do("DELETE", f"{place(plural, telling.namespace)}/flight-delay")
        house.ledger.forget(telling.namespace)
        actor.may_run.set()
        await telling.chapter(0)
        await telling.settled(undisturbed, 0)


async def servers_restart(house: Theatre, undisturbed: Undisturbed) -> None:
    """API server and etcd are killed again and again while three stories are told."""
    draw = random.Random(1)

    async def kill() -> None:
        for name in ("kube-apiserver", "etcd", "kube-apiserver", "kube-apiserver"):
            await asyncio.sleep(draw.uniform(3, 8))
            await asyncio.to_thread(house.plane.restart, name, hard=True)

    killer = asyncio.create_task(kill())
    tellings = [Telling(house, rate=1.0, patience=PATIENCE_SECONDS) for _ in range(3)]
    await asyncio.gather(*(telling.compare(undisturbed) for telling in tellings), killer)


async def _until(look: Callable[[], str | None], seconds: float = PATIENCE_SECONDS) -> str:
    for _ in range(int(seconds * 10)):
        found = look()
        if found is not None:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {seconds:.0f} s")


ACTS: dict[str, Callable[[Theatre, Undisturbed], Awaitable[None]]] = {
    "what was changed by hand is restored": lambda house, undisturbed: suffer(house, undisturbed, BY_HAND),
    "garbage in a status or an annotation": lambda house, undisturbed: suffer(house, undisturbed, GARBAGE, 90.0),
    "the operator's clock moves by an hour": clock_moves,
    "a result whose pod and message are gone": result_lost,
    "the namespace goes and comes again": namespace_again,
    "the Model goes and comes again": model_again,
}


def test_mishaps() -> None:
    """All of them at once, each in a namespace of its own; at last what befalls them all."""

    async def main() -> list[str]:
        async with theatre() as house:
            undisturbed = await Telling(house, patience=PATIENCE_SECONDS).record()
            acts = {**ACTS, "the API server is killed": servers_restart}
            wrong = []
            for together in (list(ACTS), ["the API server is killed"]):
                told = (acts[name](house, undisturbed) for name in together)
                ended = await asyncio.gather(*told, return_exceptions=True)
                wrong += [f"{name}: {error}" for name, error in zip(together, ended, strict=True) if error is not None]
            return wrong

    wrong = asyncio.run(main())
    assert not wrong, "\n".join(wrong)

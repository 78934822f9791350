"""Whatever goes wrong between the operator and the API server, the story ends as it does undisturbed.

A drawn sample always; every write of the story × every fault, and the bugs planted on purpose, in the long suite. What
fails is told with its number: `python -m tests.faults --plan N` replays it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.__main__ import SEED
from tests.faults.plans import BY_NAME, KINDS, Plan
from tests.faults.planted import BUGS
from tests.faults.script import CHAPTERS
from tests.faults.state import difference
from tests.faults.suite import Found, Report, every, packed, run, sample, try_out
from tests.faults.theatre import Telling, Theatre, Undisturbed, theatre

SAMPLE = 3  # tellings, of as many plans each as there are chapters
STRIDE = 12  # of events and reads, each how-manieth
UNDISTURBED = Undisturbed(
    writes=[["POST trainingruns: 201", "PATCH models/flight-delay/status: 200"]] * len(CHAPTERS),
    events=[5] * len(CHAPTERS),
    reads=[7] * len(CHAPTERS),
)


def staged(act: Callable[[Theatre, Undisturbed], Awaitable[Report]]) -> Report:
    """A theatre for one act, with the undisturbed story as the measure."""

    async def main() -> Report:
        async with theatre() as house:
            return await act(house, await Telling(house).record())

    return asyncio.run(main())


def told(report: Report) -> str:
    """Of failures: what differs, and how to see it again."""
    again = " ".join(str(plan.number) for plan in report.failed)
    return "\n".join([*report.failed.values(), f"replay: python -m tests.faults --plan {again}"])


def test_a_sample_of_plans_ends_as_the_undisturbed_story() -> None:
    report = staged(lambda house, undisturbed: run(house, undisturbed, sample(undisturbed, SAMPLE, SEED)))
    assert not report.failed, told(report)
    assert len(report.passed) > 2 * len(report.missed), report.words()


@pytest.mark.full
@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_place_of_the_story_meets_the_fault(kind: str) -> None:
    def act(house: Theatre, undisturbed: Undisturbed) -> Awaitable[Report]:
        return run(house, undisturbed, every(undisturbed, [BY_NAME[kind]], STRIDE), say=print)

    report = staged(act)
    assert not report.failed, told(report)
    # How often is read depends on how fast the machine is: of the last reads of a chapter some do not come.
    enough = 2 if BY_NAME[kind].of == "read" else 5
    assert len(report.passed) > enough * len(report.missed), report.words()


@pytest.mark.full
def test_the_suite_finds_bugs_that_are_planted() -> None:
    found: list[Found] = []

    async def act(house: Theatre, undisturbed: Undisturbed) -> Report:
        more = sample(undisturbed, 1, SEED)
        found.extend(await try_out(house, undisturbed, list(BUGS), more, at_a_time=3, say=print))
        return Report()

    staged(act)
    missed = [one.bug for one in found if one.plan is None]
    assert len(missed) <= 0.1 * len(found), f"not found: {missed}"


def test_a_plan_is_replayed_by_its_number() -> None:
    for plan in every(UNDISTURBED):
        assert Plan.of(plan.number) == plan


@pytest.mark.parametrize("number", [99, -1, 119])
def test_a_number_without_a_plan_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"no plan has the number {number}"):
        Plan.of(number)


def test_every_write_meets_every_fault_of_writes() -> None:
    plans = [plan for plan in every(UNDISTURBED, stride=3) if plan.kind.of == "write"]
    kinds = sum(kind.of == "write" for kind in KINDS)
    assert len(set(plans)) == len(plans) == 2 * len(CHAPTERS) * kinds


def test_a_telling_has_one_plan_a_chapter_and_none_is_lost() -> None:
    plans = every(UNDISTURBED)
    tellings = packed(plans)
    for telling in tellings:
        assert len({plan.chapter for plan in telling}) == len(telling)
    assert sorted(plan for telling in tellings for plan in telling) == sorted(plans)


def test_a_sample_is_the_same_for_the_same_seed_and_has_all_kinds() -> None:
    assert sample(UNDISTURBED, 4, 1) == sample(UNDISTURBED, 4, 1)
    assert {plan.kind for plan in sample(UNDISTURBED, 4, 1)} == set(KINDS)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"a": 1}, "b: is missing"),
        ({"a": 1, "b": [2], "c": 3}, "c: is there, and ought not to be"),
        ({"a": 1, "b": [3]}, "b[0]: 3 instead of 2"),
        ({"a": 1, "b": [2, 2]}, "b: [2, 2] instead of [2]"),
    ],
)
def test_a_difference_is_told(found: dict[str, object], words: str) -> None:
    assert difference({"a": 1, "b": [2]}, found) == [words]

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as some

from tests.unit.domain.world import START
from truekeep.api.common import Condition
from truekeep.api.trainingrun import TrainingRunSpec, TrainingRunStatus
from truekeep.domain.observed import Meta, RunView
from truekeep.domain.slots import AWAITS_TURN, Slots, Waiting, may_begin, slots, turns


def who(namespace: str, number: int) -> Waiting:
    return Waiting(START + timedelta(minutes=number), namespace, f"r-{number}", f"m-{number}")


def run(namespace: str, number: int, reason: str = AWAITS_TURN, started: bool = False) -> RunView:
    spec = TrainingRunSpec.model_validate({"modelRef": {"name": f"m-{number}"}, "trigger": {"type": "Spec"}})
    ready = Condition(type="Ready", status="False", reason=reason, message="", last_transition_time=START)
    status = TrainingRunStatus(conditions=[ready], start_time=START if started else None)
    created = START + timedelta(minutes=number)
    return RunView(Meta(namespace, f"r-{number}", f"u-{number}", created), spec, status)


def test_the_namespace_with_the_fewest_runs_goes_first() -> None:
    crowd = tuple(who("big", number) for number in range(5))
    seen = Slots(3, {"big": 1}, (*crowd, who("small", 9)))
    assert [each.namespace for each in turns(seen)] == ["small", "big"]
    assert turns(seen)[1] == crowd[0]


def test_within_a_namespace_the_oldest_goes_first() -> None:
    seen = Slots(2, {}, (who("a", 3), who("a", 1), who("a", 2)))
    assert turns(seen) == [who("a", 1), who("a", 2)]


def test_nobody_begins_where_nothing_is_free() -> None:
    assert turns(Slots(2, {"a": 1, "b": 2}, (who("c", 1),))) == []
    assert not may_begin(run("c", 1, "Pending"), Slots(2, {"a": 2}))


def test_a_new_run_does_not_go_before_one_that_waits() -> None:
    seen = Slots(1, {}, (who("a", 1),))
    assert not may_begin(run("a", 2, "Pending"), seen)
    assert may_begin(run("a", 1), seen)
    assert may_begin(run("a", 2, "Pending"), Slots(2, {}, (who("a", 1),)))


def test_what_takes_a_slot() -> None:
    runs = [
        run("a", 1, "Training", started=True),
        run("a", 2, "OutOfMemory", started=True),  # before another try it has no Job, and keeps its slot
        run("a", 3),
        run("b", 4, "Suspended"),  # Kueue decides when it begins
        run("b", 5, "ModelNotFound"),  # it could not begin, so it is in nobody's way
    ]
    seen = slots(runs, [("a", "r-1"), ("b", "r-4"), ("b", "r-6")], [("b", "r-4")], 5)
    assert dict(seen.taken) == {"a": 2, "b": 1}  # r-6: its Job is there, and the list of runs does not know it yet
    assert seen.waiting == (who("a", 3),)
    assert seen.free == 2


WAITING = some.lists(some.tuples(some.sampled_from("abc"), some.integers(0, 99)), unique_by=lambda each: each[1])


@given(
    waiting=WAITING, limit=some.integers(1, 8), taken=some.dictionaries(some.sampled_from("abcd"), some.integers(0, 4))
)
def test_slots_are_filled_never_overfilled_and_shared_fairly(
    waiting: list[tuple[str, int]], limit: int, taken: dict[str, int]
) -> None:
    seen = Slots(limit, taken, tuple(who(*each) for each in waiting))
    chosen = turns(seen)
    assert len(chosen) == min(len(waiting), max(0, limit - sum(taken.values())))
    after = Counter(taken)
    for each in chosen:
        after[each.namespace] += 1
    left = {each.namespace for each in seen.waiting if each not in chosen}
    gained = {each.namespace for each in chosen}
    # Who waits still has at most one run fewer than whoever got a slot.
    assert all(after[winner] <= after[loser] + 1 for winner in gained for loser in left)


@given(waiting=WAITING, limit=some.integers(1, 8))
def test_each_run_by_itself_decides_what_all_together_decide(waiting: list[tuple[str, int]], limit: int) -> None:
    """Whichever is looked at: it leaves itself out of the waiting or not, and the order of the list does not matter."""
    everybody = [who(*each) for each in waiting]
    chosen = turns(Slots(limit, {}, tuple(everybody)))
    for namespace, number in waiting:
        me = who(namespace, number)
        others = tuple(each for each in reversed(everybody) if each != me)
        assert may_begin(run(namespace, number), Slots(limit, {}, others)) == (me in chosen)

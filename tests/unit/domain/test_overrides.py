"""What people ask by annotation: a pause, and a rollback that holds until the spec changes."""

from __future__ import annotations

import pytest

from tests.unit.domain.test_loop import live, served, to_canary
from tests.unit.domain.test_rollback import BLUE_GREEN, two
from tests.unit.domain.world import World, spec
from truekeep.api.names import ANNOTATION_PAUSED, ANNOTATION_RETRAIN, ANNOTATION_ROLLBACK


def roll_back(world: World, value: str = "previous") -> None:
    world.annotations = {**world.annotations, ANNOTATION_ROLLBACK: value}


def pause(world: World) -> None:
    world.annotations = {**world.annotations, ANNOTATION_PAUSED: "2026-01-05T12:00:00Z by ann"}


def drifted(world: World) -> World:
    """A policy that retrains, with a breach that is complete."""
    world.watch()
    world.calm()
    world.report(6, 7)
    return world


@pytest.mark.parametrize("value", ["previous", "1", "previous/at noon"])
def test_a_rollback_is_one_look_and_holds(value: str) -> None:
    world = two()
    roll_back(world, value)
    world.reconcile()
    assert served(world) == 1
    world.calm()
    assert served(world) == 1
    assert world.status.rollback.revision == 1
    assert world.condition("Ready") == ("True", "RolledBackByHand")
    assert len(world.runs) == 2


def test_it_ends_when_the_annotation_goes() -> None:
    world = two()
    roll_back(world)
    world.calm()
    world.annotations = {}
    world.calm()
    assert served(world) == 2
    assert world.status.rollback is None
    assert world.condition("Ready") == ("True", "Serving")


def test_it_ends_with_the_next_commit_and_the_stale_annotation_does_nothing_more() -> None:
    world = two()
    roll_back(world)
    world.calm()
    world.change(spec(seed=3, serving=BLUE_GREEN))
    world.calm()
    assert served(world) == 3
    assert world.condition("Ready") == ("True", "Serving")
    assert world.status.rollback.generation < world.generation
    roll_back(world, "previous/again")
    world.calm()
    assert served(world) == 1, "it answered last before revision 3"


def test_the_same_value_is_handled_once_however_revisions_come_and_go() -> None:
    world = two()
    roll_back(world)
    world.calm()
    assert served(world) == 1
    world.pass_time(10_000)
    world.calm()
    assert served(world) == 1, "previous means what it meant when it was asked for"


@pytest.mark.parametrize("writes", range(6))
def test_killed_after_any_write_it_means_the_same(writes: int) -> None:
    world = two()
    roll_back(world)
    world.reconcile(stop_after=writes)
    world.calm()
    assert served(world) == 1
    assert world.status.rollback.revision == 1


@pytest.mark.parametrize(
    ("value", "reason", "words"),
    [
        ("v1", "RollbackUnclear", "write previous, or a revision's number"),
        ("0", "RollbackUnclear", "says no revision"),
        ("7", "NothingToRollBackTo", "there are revisions 1, 2"),
    ],
)
def test_what_leads_nowhere_is_said_and_the_live_one_goes_on(value: str, reason: str, words: str) -> None:
    world = two()
    roll_back(world, value)
    world.calm()
    assert served(world) == 2
    assert world.condition("Ready") == ("False", reason)
    message = next(c.message for c in world.status.conditions if c.type == "Ready")
    assert words in message
    world.annotations = {}
    world.calm()
    assert world.condition("Ready") == ("True", "Serving")


def test_the_first_revision_has_nothing_before_it() -> None:
    world = live()
    roll_back(world)
    world.calm()
    assert served(world) == 1
    assert world.condition("Ready") == ("False", "NothingToRollBackTo")


def test_a_pin_in_the_spec_wins() -> None:
    world = two()
    world.change(spec(seed=2, serving={**BLUE_GREEN, "pinnedRevision": 2}))
    roll_back(world, "1")
    world.calm()
    assert served(world) == 2
    assert world.condition("Ready") == ("True", "Pinned")


def test_paused_nothing_is_trained_whatever_asks_for_it() -> None:
    world = drifted(live())
    pause(world)
    world.annotations[ANNOTATION_RETRAIN] = "now"
    world.calm()
    assert len(world.runs) == 1
    world.change(spec(seed=9))
    world.calm()
    assert len(world.runs) == 1
    assert served(world) == 1
    assert world.condition("Paused") == ("True", "PausedByHand")
    assert world.condition("Ready") == ("False", "PausedByHand")
    assert world.condition("Stalled")[0] == "False"
    world.annotations = {}
    world.calm()
    assert [run.spec.trigger.type for run in world.runs.values()] == ["Spec", "Spec", "DriftPolicy"]
    assert world.condition("Paused")[0] == "False"


def test_paused_a_policy_says_why_it_starts_no_run() -> None:
    world = live()
    pause(world)
    drifted(world)
    world.calm()
    held = next(c for c in world.policy.status.conditions if c.type == "RetrainHeld")
    assert (held.status, held.reason) == ("True", "PausedByHand")


def test_a_pause_takes_a_canary_back_to_its_beginning() -> None:
    world = live()
    to_canary(world)
    pause(world)
    world.calm()
    assert served(world) == 1
    assert world.status.candidate is None
    assert not world.status.rejected, "a pause is no verdict"
    world.annotations = {}
    world.calm()
    assert served(world) == 2


def test_paused_and_with_nothing_to_wait_for_it_is_ready() -> None:
    world = live()
    pause(world)
    world.calm()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_rollback_works_while_paused() -> None:
    world = two()
    pause(world)
    roll_back(world)
    world.reconcile()
    assert served(world) == 1
    world.calm()
    assert served(world) == 1
    assert len(world.runs) == 2


@pytest.mark.parametrize("value", ["", "false", "False"])
def test_an_annotation_that_says_false_pauses_nothing(value: str) -> None:
    world = live()
    world.annotations = {ANNOTATION_PAUSED: value}
    world.change(spec(seed=4))
    world.calm()
    assert served(world) == 2

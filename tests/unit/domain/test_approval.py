"""A revision that a person has to approve before it may serve."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.domain.world import World, spec
from truekeep.api.names import ANNOTATION_AUTHOR, ANNOTATION_RETRAIN

MANUAL = {"mode": "Manual"}


def waiting(**approval: object) -> World:
    """A world whose first revision passed its gates and waits."""
    world = World(spec=spec(approval={**MANUAL, **approval}), annotations={ANNOTATION_AUTHOR: "bob"})
    world.calm()
    return world


def awaited(world: World) -> str:
    assert world.status.awaiting is not None
    return world.status.awaiting.artifact_digest


def served(world: World) -> int | None:
    return world.status.active.revision if world.status.active else None


def test_what_passed_its_gates_waits_for_a_person_and_says_so() -> None:
    world = waiting()
    assert served(world) is None
    assert not world.deployments
    assert world.condition("Approved") == ("False", "AwaitingApproval")
    assert world.condition("Ready") == ("False", "AwaitingApproval")
    assert world.condition("Reconciling")[0] == "True"
    assert world.condition("Stalled")[0] == "False", "nothing is broken: somebody is to decide"
    (message,) = [each.message for each in world.status.conditions if each.type == "Ready"]
    assert "truekeep approve m" in message
    assert awaited(world) in message


def test_an_approval_of_the_digest_lets_it_serve_and_stays_on_record() -> None:
    world = waiting()
    world.decide_on(awaited(world))
    world.calm()
    assert served(world) == 1
    assert world.condition("Approved") == ("True", "Approved")
    assert world.condition("Ready") == ("True", "Serving")
    assert world.status.active.approval.approver == "ann"
    assert world.status.awaiting is None


def test_an_approval_of_another_digest_counts_for_nothing() -> None:
    world = waiting()
    world.decide_on("sha256:" + "0" * 64)
    world.calm()
    assert served(world) is None


def test_one_rejection_rejects_whoever_approves() -> None:
    world = waiting()
    digest = awaited(world)
    world.decide_on(digest)
    world.decide_on(digest, "Reject", approver="carol", reason="unfair to small shops")
    world.calm()
    assert served(world) is None
    assert world.condition("Approved") == ("False", "Rejected")
    assert world.condition("Stalled") == ("True", "Rejected")
    assert "unfair to small shops" in next(each.message for each in world.status.conditions if each.type == "Ready")


def test_a_rejection_takes_a_candidate_back() -> None:
    world = waiting()
    world.decide_on(awaited(world))
    world.calm()
    world.annotations = {**world.annotations, ANNOTATION_RETRAIN: "again"}
    world.calm()
    digest = awaited(world)
    world.decide_on(digest)
    world.healthy = dict.fromkeys(world.deployments, True)
    world.reconcile()
    assert world.status.candidate is not None
    world.decide_on(digest, "Reject", approver="carol")
    world.calm()
    assert world.status.candidate is None
    assert served(world) == 1


def test_the_author_does_not_approve_his_own_change() -> None:
    world = waiting()
    world.decide_on(awaited(world), approver="bob")
    world.calm()
    assert served(world) is None
    assert world.condition("Approved") == ("False", "ApproverIsAuthor")
    world.decide_on(awaited(world), approver="ann")
    world.calm()
    assert served(world) == 1


def test_the_author_is_who_made_the_change_that_was_trained() -> None:
    world = waiting()
    world.annotations = {ANNOTATION_AUTHOR: "ann"}  # somebody edited something else since
    world.decide_on(awaited(world), approver="bob")
    world.calm()
    assert served(world) is None, "bob trained it, whoever edits the Model later"


def test_where_the_spec_says_so_the_author_may_approve() -> None:
    world = waiting(author="MayApprove")
    world.decide_on(awaited(world), approver="bob")
    world.calm()
    assert served(world) == 1


def test_an_approval_that_expired_before_its_rollout_counts_no_more() -> None:
    world = waiting()
    world.decide_on(awaited(world), expiresAt=(world.now - timedelta(seconds=1)).isoformat())
    world.calm()
    assert served(world) is None
    assert world.condition("Approved") == ("False", "ApprovalExpired")


def test_a_rollout_that_began_in_time_is_finished() -> None:
    world = waiting()
    world.decide_on(awaited(world), expiresAt=(world.now + timedelta(seconds=2)).isoformat())
    world.reconcile()
    assert world.status.candidate is not None
    world.pass_time(10)
    world.calm()
    assert served(world) == 1


def test_a_retrain_waits_for_its_own_approval_while_the_live_one_goes_on() -> None:
    world = waiting()
    world.decide_on(awaited(world))
    world.calm()
    world.annotations = {**world.annotations, ANNOTATION_RETRAIN: "again"}
    world.calm()
    assert served(world) == 1
    assert world.condition("Ready") == ("True", "Serving"), "a routine retrain is no trouble"
    assert world.condition("Approved") == ("False", "AwaitingApproval")
    assert world.status.awaiting.revision == 2


def test_an_older_approved_revision_is_not_rolled_out_after_a_newer_one_was_made() -> None:
    world = waiting()
    first = awaited(world)
    world.annotations = {**world.annotations, ANNOTATION_RETRAIN: "again"}
    world.calm()
    assert world.status.awaiting.revision == 2
    world.decide_on(first)
    world.calm()
    assert served(world) is None, "the retrain voids it"


@pytest.mark.parametrize("decision", [None, "Reject"])
def test_a_pin_is_no_way_around_an_approval(decision: str | None) -> None:
    world = waiting()
    digest = awaited(world)
    if decision:
        world.decide_on(digest, decision)
    world.change(spec(approval=MANUAL, serving={"pinnedRevision": 1}))
    world.calm()
    assert served(world) is None
    assert world.condition("Ready") == ("False", "PinnedRevisionNotApproved")


def test_a_pin_back_to_what_served_needs_no_new_approval() -> None:
    world = World()
    world.calm()
    world.change(spec(approval=MANUAL, seed=3))
    world.calm()
    world.decide_on(awaited(world))
    world.calm()
    assert served(world) == 2
    world.change(spec(approval=MANUAL, seed=3, serving={"pinnedRevision": 1}))
    world.calm()
    assert served(world) == 1


def test_turning_approval_on_leaves_the_live_revision() -> None:
    world = World()
    world.calm()
    world.change(spec(approval=MANUAL))
    world.calm()
    assert served(world) == 1
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Approved") == ("True", "ServedBefore")

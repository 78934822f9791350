"""A patched server: pods stay as they were made; where the Model follows, the revision is rolled out anew with it."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.domain.test_loop import live, retrain, served
from tests.unit.domain.world import World, spec
from truekeep.domain.decisions import decisions

FOLLOW = {"serverImage": "Follow"}
PATCHED = "truekeep/server@sha256:" + "ab" * 32


def patch(world: World, image: str = PATCHED) -> None:
    """An operator that comes with another server image."""
    world.settings = replace(world.settings, server_image=image)


def follows(**serving: object) -> World:
    """A world in which revision 1 serves, of a Model that follows."""
    world = World(spec=spec(serving={**FOLLOW, **serving}))
    world.calm()
    assert served(world) == 1
    return world


def image(world: World) -> str:
    return world.deployments[world.status.active.deployment].image


def test_pods_stay_as_they_were_made() -> None:
    world = live()
    before, writes = world.status.active, world.writes
    patch(world)
    world.calm()
    assert world.status.active == before
    assert world.writes == writes


def test_a_model_that_follows_is_rolled_out_anew_by_its_steps_without_training() -> None:
    world = follows()
    before, old = world.status.active, image(world)
    patch(world)
    reached = set()
    for _ in range(40):
        world.settle_pods()
        world.reconcile()
        if world.status.candidate is not None:
            assert world.status.active == before
            assert world.condition("Ready")[0] == "True"
            reached.add(world.status.candidate.reached_percent)
        world.pass_time(1)
    assert reached & set(range(30, 40)), "it went through the canary's step"
    active = world.status.active
    assert active.revision == 1
    assert active.artifact_digest == before.artifact_digest
    assert active.deployment != before.deployment
    assert image(world) == active.server_image == PATCHED
    assert world.status.previous.server_image == old
    assert len(world.runs) == 1
    world.calm()
    assert world.status.active == active


def test_it_is_recorded_which_server_answered_from_when_on() -> None:
    world = follows()
    old = image(world)
    patch(world)
    world.calm()
    assert [(each.revision, each.server_image) for each in world.status.history] == [(1, PATCHED), (1, old)]
    kept = [each for each in decisions(world.observed()) if each.kind == "Promoted"]
    assert {each.server_image for each in kept} == {PATCHED, old}


def test_a_server_that_does_not_work_is_taken_back_and_not_tried_again_until_the_next_one() -> None:
    world = follows()
    before = world.status.active
    patch(world)
    for _ in range(3):
        world.reconcile()
    (new,) = set(world.deployments) - {before.deployment}
    world.healthy[new] = False
    world.calm(rounds=400)
    assert world.status.active == before
    assert [each.deployment for each in world.status.rejected] == [new]
    assert world.condition("Ready")[0] == "True"
    patch(world, PATCHED.replace("ab", "cd"))
    world.calm(rounds=200)
    assert served(world) == 1
    assert image(world) == PATCHED.replace("ab", "cd")


def test_whether_it_follows_changes_no_pod_that_has_the_present_server() -> None:
    world = live()
    before, runs = world.status.active, len(world.runs)
    world.change(spec(serving=FOLLOW))
    world.calm()
    assert world.status.active == before
    patch(world)
    world.calm()
    renewed = world.status.active
    assert renewed.deployment != before.deployment
    world.change(spec())
    world.calm()
    assert world.status.active == renewed
    assert world.condition("Ready")[0] == "True"
    assert len(world.runs) == runs


def test_the_former_server_comes_back_to_pods_that_it_had() -> None:
    world = follows()
    first, old = world.status.active, image(world)
    patch(world)
    world.calm()
    patch(world, old)
    world.calm()
    assert world.status.active.deployment == first.deployment
    assert image(world) == old


def test_a_new_revision_and_another_spec_need_no_second_rollout() -> None:
    world = follows()
    patch(world)
    world.calm()
    retrain(world)
    world.calm()
    assert served(world) == 2
    assert len([each for each in world.deployments.values() if each.revision == 2]) == 1
    assert image(world) == PATCHED
    world.change(spec(serving={**FOLLOW, "connectionMaxAgeSeconds": 7}))
    world.calm()
    assert served(world) == 2
    assert len([each for each in world.deployments.values() if each.revision == 2]) == 2


def test_a_pinned_revision_follows_too() -> None:
    world = follows(pinnedRevision=1)
    patch(world)
    world.calm()
    assert (served(world), image(world)) == (1, PATCHED)


def test_two_patches_in_a_hurry_end_with_the_second() -> None:
    world = follows()
    patch(world)
    for _ in range(4):
        world.settle_pods()
        world.reconcile()
    assert world.status.candidate is not None
    patch(world, PATCHED.replace("ab", "cd"))
    world.calm(rounds=200)
    assert image(world) == PATCHED.replace("ab", "cd")
    assert world.status.rejected == []

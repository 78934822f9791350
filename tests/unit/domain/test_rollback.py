"""The way back: who leaves when, and what stays warm, decision by decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.domain.test_loop import live, served, to_canary
from tests.unit.domain.world import World, spec
from truekeep.api.names import LABEL_DEPLOYMENT, serving_selector
from truekeep.domain.observed import PodView

BLUE_GREEN = {"rollout": {"strategy": "BlueGreen"}}


def two() -> World:
    """Revision 2 serves since a moment ago, revision 1 is warm."""
    world = live()
    world.change(spec(seed=2, serving=BLUE_GREEN))
    for _ in range(12):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.settle_pods()
        world.reconcile()
        world.pass_time(1)
    assert served(world) == 2
    assert world.deployments[world.status.previous.deployment].ready == 2
    return world


def pin(world: World, revision: int | None, **serving: object) -> None:
    world.change(spec(seed=2, serving={**BLUE_GREEN, **serving, "pinnedRevision": revision}))


def test_within_the_window_one_look_switches_and_sends_the_bad_pods_away() -> None:
    world = two()
    good, bad = world.status.previous.deployment, world.status.active.deployment
    pin(world, 1)
    world.reconcile()
    assert served(world) == 1
    assert dict(world.service.selector) == serving_selector("m", good)
    assert world.deployments[bad].replicas == 0, "who keeps a connection would go on asking the bad revision"
    assert world.status.previous is None
    world.calm()
    assert served(world) == 1


def test_after_the_window_the_old_revision_is_ready_before_the_selector_moves() -> None:
    world = two()
    good, bad = world.status.previous.deployment, world.status.active.deployment
    world.calm()
    assert world.deployments[good].replicas == 0, "the window is over"
    pin(world, 1)
    world.reconcile()
    assert world.deployments[good].replicas == 2
    assert dict(world.service.selector) == serving_selector("m", bad)
    assert world.deployments[bad].replicas == 2
    world.settle_pods()
    world.reconcile()
    assert dict(world.service.selector) == serving_selector("m", good)
    assert world.deployments[bad].replicas == 0


@pytest.mark.parametrize("writes", [1, 2])
def test_an_operator_that_was_stopped_in_the_middle_of_the_switch_ends_it(writes: int) -> None:
    world = two()
    good = world.status.previous.deployment
    pin(world, 1)
    world.reconcile(stop_after=writes)
    world.settle_pods()
    world.reconcile()
    assert served(world) == 1
    assert dict(world.service.selector) == serving_selector("m", good)
    assert [note.reason for note in world.notes].count("Promoted") == 3, "each switch is told once"


def test_nobody_is_sent_where_no_pod_is_ready() -> None:
    """Stopped between the writes of a switch, and then the pin was taken back: the bad revision's pods are gone."""
    world = two()
    good, bad = world.status.previous.deployment, world.status.active.deployment
    pin(world, 1)
    world.reconcile(stop_after=2)
    assert served(world) == 2, "the status is not written yet"
    world.settle_pods()
    assert world.deployments[bad].ready == 0
    pin(world, None)
    world.pass_time(100_000)  # nor is the window still open
    world.reconcile()
    assert dict(world.service.selector)[LABEL_DEPLOYMENT] == good
    assert world.deployments[good].replicas == 2
    world.settle_pods()
    world.reconcile()
    assert dict(world.service.selector)[LABEL_DEPLOYMENT] == bad
    world.calm()
    assert served(world) == 2


def test_the_way_back_stays_warm_while_a_candidate_does_not_get_ready() -> None:
    world = two()
    good = world.status.previous.deployment
    world.change(spec(seed=2, serving={"connectionMaxAgeSeconds": 5}))  # a canary of the same revision
    world.reconcile()
    name = world.status.candidate.deployment
    world.healthy[name] = False
    for _ in range(3):
        world.reconcile()
        assert world.deployments[good].replicas == 2
    world.settle_pods()
    world.reconcile()
    assert served(world) == 2
    assert [rejection.reason for rejection in world.status.rejected] == ["ServerOutOfMemory"]
    assert world.deployments[good].ready == 2


def test_a_candidate_on_trial_makes_room_for_a_return() -> None:
    """Revision 3 is in a canary when revision 2, the live one, turns out to be bad."""
    world = two()
    bad = world.status.active.deployment
    world.change(spec(seed=2))
    candidate = to_canary(world)
    pin(world, 1)
    world.reconcile()
    assert dict(world.service.selector) == serving_selector("m", bad), "it answers until revision 1 is ready"
    assert world.deployments[candidate].replicas == 0
    world.settle_pods()
    world.reconcile()
    assert served(world) == 1
    assert world.deployments[bad].replicas == 0


def test_a_spec_that_is_reverted_goes_back_to_its_revision() -> None:
    """As a revert in Git does it: no pin, no training, and as quick as a pin."""
    world = two()
    good, bad = world.status.previous.deployment, world.status.active.deployment
    world.change(spec(serving=BLUE_GREEN))
    world.reconcile()
    assert served(world) == 1
    assert dict(world.service.selector) == serving_selector("m", good)
    assert world.deployments[bad].replicas == 0
    world.calm()
    assert (served(world), len(world.runs)) == (1, 2)
    assert world.condition("Ready") == ("True", "Serving")
    world.change(spec(seed=2, serving=BLUE_GREEN))
    world.calm()
    assert (served(world), len(world.runs)) == (2, 2)


def test_what_was_trained_otherwise_is_not_rolled_out() -> None:
    """A revision that failed, when the spec is mended by going back and the limits that it failed are gone."""
    world = live()
    world.change(spec(seed=2))
    for _ in range(8):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.reconcile()
        for name in world.deployments:
            world.healthy[name] = name == world.status.active.deployment
        world.settle_pods()
    assert [rejection.revision for rejection in world.status.rejected] == [2]
    world.healthy.clear()
    world.change(spec(serving=BLUE_GREEN))
    world.calm()
    assert served(world) == 1
    assert world.condition("Ready") == ("True", "Serving")


def test_an_old_revision_that_never_served_is_tried_as_any_other() -> None:
    """Its spec was changed before it was rolled out, and comes back much later."""
    world = live()
    world.change(spec(seed=2))
    world.reconcile()
    world.change(spec(seed=3))
    for _ in range(40):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.settle_pods()
        world.reconcile()
        world.pass_time(5)
    assert served(world) == 3
    world.change(spec(seed=2))
    world.reconcile()
    assert world.status.candidate.revision == 2
    for _ in range(4):
        world.settle_pods()
        world.reconcile()
    assert (served(world), world.status.candidate.step) == (3, 0), "in a canary"
    world.calm()
    assert served(world) == 2
    assert world.status.previous is None, "it went back: the other one does not stay"


def lame(world: World, name: str, ready: int, **others: object) -> None:
    """So many pods of a Deployment are ready; the others are as told."""
    view = world.deployments[name]
    pods = [PodView(f"{name}-{i}", world.now, phase="Running", ready=True) for i in range(ready)]
    pods += [PodView(f"{name}-{i}", world.now, **others) for i in range(ready, view.replicas)]
    world.deployments[name] = replace(view, pods=tuple(pods), ready=ready)


@pytest.mark.parametrize(
    ("others", "revision"),
    [
        ({"unschedulable": "0/1 nodes are available"}, 1),
        ({"phase": "Running", "exit_code": 4, "exit_message": "no route to s3"}, 1),
        ({"phase": "Running"}, 2),  # it may be ready in a moment
    ],
)
def test_the_way_back_is_not_barred_by_a_pod_that_can_not_start(others: dict[str, object], revision: int) -> None:
    world = two()
    lame(world, world.status.previous.deployment, 1, **others)
    pin(world, 1)
    world.reconcile()
    assert served(world) == revision


def test_a_store_that_is_down_is_no_reason_against_a_revision() -> None:
    world = two()
    world.calm()
    pin(world, 1)
    for _ in range(60):
        world.reconcile()
        candidate = world.status.candidate
        lame(world, candidate.deployment, 0, phase="Running", exit_code=4, exit_message="no route to s3", restarts=5)
        world.pass_time(30)
    assert served(world) == 2
    assert world.status.rejected == []
    assert world.condition("RolledOut") == ("False", "StoreUnreachable")
    world.calm()
    assert served(world) == 1

"""How many pods the live revision, a candidate and the way back get, by hand and with an autoscaler; drains."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.domain.test_loop import live, retrain, served, to_canary
from tests.unit.domain.world import SETTINGS, World, spec
from truekeep.domain import model as model_domain
from truekeep.domain.observed import AutoscalerView, PodView

SCALING = {"autoscaling": {"minReplicas": 2, "maxReplicas": 6, "cpuPercent": 50}}


def scaled(load: int = 2, **serving: object) -> World:
    """A world in which revision 1 serves, and an autoscaler gives it what the load asks for."""
    world = World(spec=spec(serving={**SCALING, **serving}), load=load)
    world.calm()
    assert served(world) == 1
    return world


def test_the_autoscaler_scales_the_live_revision_and_nobody_argues_with_it() -> None:
    world = scaled()
    name = world.status.active.deployment
    assert world.autoscaler == AutoscalerView(name, True, 2, working=True)
    world.load = 5
    world.calm()
    assert world.deployments[name].replicas == 5
    world.deployments[name] = replace(world.deployments[name], intact=False)
    world.calm()
    assert (world.deployments[name].replicas, world.deployments[name].intact) == (5, True)
    assert world.condition("Scaled") == ("True", "Autoscaling")


def test_a_candidate_first_reaches_what_the_live_one_has_and_only_then_is_scaled() -> None:
    world = scaled(load=5)
    old = world.status.active.deployment
    retrain(world)
    for _ in range(60):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.settle_pods()
        candidate = world.status.candidate
        before = served(world)
        world.reconcile()
        if before == 1 and served(world) == 2:
            assert candidate
            assert world.deployments[candidate.deployment].ready == 5, "it took over with fewer pods"
            assert world.autoscaler.deployment == candidate.deployment, "the autoscaler goes with the switch"
            break
        assert world.autoscaler.deployment == old
        world.pass_time(3)
    else:
        raise AssertionError("it was never promoted")
    assert world.deployments[old].replicas == 5, "the way back is as wide as the way here"


def test_the_way_back_follows_the_load() -> None:
    world = scaled(load=2)
    old = world.status.active.deployment
    to_canary(world)
    for _ in range(8):
        world.pass_time(3)
        world.settle_pods()
        world.reconcile()
    assert served(world) == 2
    world.load = 6
    for _ in range(3):
        world.scale()
        world.settle_pods()
        world.reconcile()
    assert world.deployments[old].replicas == 6


def test_the_way_back_stays_as_wide_while_the_live_one_dies() -> None:
    world = scaled(load=6)
    old = world.status.active.deployment
    to_canary(world)
    for _ in range(12):
        world.pass_time(3)
        world.scale()
        world.settle_pods()
        world.reconcile()
    assert served(world) == 2
    assert world.deployments[old].ready == 6
    new = world.deployments[world.status.active.deployment]
    waiting = tuple(replace(pod, ready=False) for pod in new.pods)
    world.deployments[new.meta.name] = replace(new, pods=waiting, ready=0)
    world.reconcile()
    assert world.deployments[old].replicas == 6, "it shrank when it was needed"
    world.healthy[new.meta.name] = False
    world.settle_pods()
    world.reconcile()
    assert served(world) == 1
    assert world.deployments[old].ready == 6


def test_zero_replicas_stop_also_what_is_scaled_and_come_back_with_the_fewest() -> None:
    world = scaled(load=5)
    world.change(spec(serving={**SCALING, "replicas": 0}))
    world.calm()
    assert world.autoscaler is None
    assert world.deployments[world.status.active.deployment].replicas == 0
    world.change(spec(serving=SCALING))
    world.reconcile()
    assert world.deployments[world.status.active.deployment].replicas == 2
    world.calm()
    assert world.deployments[world.status.active.deployment].replicas == 5


def test_without_the_section_the_autoscaler_goes_and_the_replicas_are_those_declared() -> None:
    world = scaled(load=5)
    world.change(spec(serving={"replicas": 3}))
    world.calm()
    assert world.autoscaler is None
    assert world.deployments[world.status.active.deployment].replicas == 3
    assert world.condition("Scaled") == ("Unknown", "NoAutoscaling")


def test_an_autoscaler_that_sees_nothing_is_said() -> None:
    world = scaled()
    world.autoscaler = replace(world.autoscaler, problem="no metrics API", working=False)
    world.calm()
    assert world.condition("Scaled") == ("False", "AutoscalerBlind")
    assert world.condition("Ready") == ("True", "Serving")


def drain(world: World) -> None:
    """The node under the live revision's pods is cordoned; what starts from now on is elsewhere."""
    name = world.status.active.deployment
    view = world.deployments[name]
    pods = tuple(replace(pod, node="node-1", drained=True) for pod in view.pods)
    world.deployments[name] = replace(view, pods=pods)


def seen(world: World) -> model_domain.ModelPlan:
    return model_domain.decide(world.observed(), SETTINGS, world.now)


def test_a_single_pod_gets_a_second_before_its_node_is_emptied() -> None:
    world = World(spec=spec(serving={"replicas": 1}))
    world.calm()
    name = world.status.active.deployment
    assert seen(world).budget.pods == 1
    drain(world)
    plan = seen(world)
    assert [(each.name, each.replicas) for each in plan.deployments] == [(name, 2)]
    serving = next(each for each in plan.status.conditions if each.type == "Serving")
    assert "node-1 is being emptied" in serving.message
    assert plan.budget.pods == 2

    view = world.deployments[name]
    second = PodView("second", world.now, phase="Running", ready=True, node="node-2")
    world.deployments[name] = replace(view, replicas=2, ready=2, pods=(*view.pods, second))
    assert not seen(world).deployments, "both stay until the first was evicted"
    world.deployments[name] = replace(view, replicas=2, ready=1, pods=(second,))
    assert [(each.name, each.replicas) for each in seen(world).deployments] == [(name, 1)]


def test_a_drain_that_waits_for_room_says_so() -> None:
    world = World(spec=spec(serving={"replicas": 1}))
    world.calm()
    drain(world)
    name = world.status.active.deployment
    view = world.deployments[name]
    second = PodView("second", world.now, unschedulable="0/1 nodes are available")
    world.deployments[name] = replace(view, replicas=2, pods=(*view.pods, second))
    serving = next(each for each in seen(world).status.conditions if each.type == "Serving")
    assert "0/1 nodes are available" in serving.message


def test_a_scaled_single_pod_gets_its_second_from_the_autoscaler() -> None:
    world = scaled(load=1, autoscaling={"minReplicas": 1, "maxReplicas": 4})
    assert world.deployments[world.status.active.deployment].replicas == 1
    drain(world)
    plan = seen(world)
    assert not plan.deployments
    assert (plan.autoscaler.deployment, plan.autoscaler.least) == (world.status.active.deployment, 2)


def test_two_pods_need_no_third() -> None:
    world = live()
    drain(world)
    plan = seen(world)
    assert not plan.deployments
    assert plan.budget.pods == 2

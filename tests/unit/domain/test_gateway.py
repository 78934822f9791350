"""With a Gateway, its weights make the share of the traffic; where it does not take the route, the pods do."""

from __future__ import annotations

import pytest

from tests.unit.domain.test_loop import retrain, served
from tests.unit.domain.world import World, spec
from truekeep.api.names import serving_selector
from truekeep.domain.observed import Traffic

GATEWAY = {"gateway": {"name": "public", "namespace": "infra"}}
SHADOW = {"rollout": {"strategy": "Shadow", "shadowSeconds": 10, "minRequests": 5}}


def behind(gateway: str = "Accepted", **serving: object) -> World:
    """A world in which revision 1 serves behind a Gateway."""
    world = World(spec=spec(serving={**GATEWAY, **serving}), gateway=gateway)
    world.calm()
    assert served(world) == 1
    return world


def turn(world: World, seconds: float = 1, answer: bool = True) -> None:
    for name in list(world.jobs):
        world.end_job(name, digest=name)
    if answer:
        world.answer_route()
    world.settle_pods()
    world.reconcile()
    world.pass_time(seconds)


def to_step(world: World) -> str:
    """Brings a new revision to its first step, of which the Gateway has not heard yet; answers its Deployment."""
    retrain(world)
    for _ in range(40):
        turn(world)
        candidate = world.status.candidate
        if candidate and candidate.step == 0:
            return candidate.deployment
    raise AssertionError("no step began")


def by_pods(world: World) -> bool:
    return dict(world.service.selector) == serving_selector("m")


def test_the_live_revision_gets_everything_and_the_service_names_it() -> None:
    world = behind()
    live = world.status.active.deployment
    assert dict(world.route.weights) == {live: 100}
    assert world.condition("Routed") == ("True", "Accepted")
    assert not by_pods(world)


def test_a_canary_goes_by_exact_weights_which_the_status_reports_once_they_were_taken() -> None:
    world = behind()
    live = world.status.active.deployment
    name = to_step(world)
    assert dict(world.route.weights) == {live: 67, name: 33}
    assert not by_pods(world), "the Service goes on naming the live revision alone"
    assert world.status.candidate.reached_percent == 0
    assert world.status.candidate.step_since is None, "the step begins with the Gateway's word"
    for _ in range(5):
        turn(world, seconds=4, answer=False)
    assert world.status.candidate.step_since is None
    turn(world)
    assert world.status.candidate.step_since is not None
    assert world.status.candidate.reached_percent == 33
    world.traffic = {name: Traffic(100, 0), live: Traffic(200, 0)}
    for _ in range(8):
        turn(world, seconds=3)
    assert served(world) == 2
    assert dict(world.route.weights) == {name: 100}


def test_pods_of_a_bad_candidate_stay_until_the_gateway_has_left_them() -> None:
    world = behind()
    name = to_step(world)
    turn(world)
    world.traffic = {name: Traffic(100, 60), world.status.active.deployment: Traffic(100, 0)}
    turn(world)
    assert world.status.candidate is None
    assert name not in world.route.weights
    for _ in range(3):
        turn(world, answer=False)
    assert world.deployments[name].replicas > 0, "the Gateway may still send requests there"
    turn(world)
    turn(world)
    assert world.deployments[name].replicas == 0


@pytest.mark.parametrize(("gateway", "reason"), [("Refused", "GatewayRefused"), ("Missing", "GatewayApiMissing")])
def test_without_the_gateways_consent_pods_make_the_share(gateway: str, reason: str) -> None:
    world = behind(gateway)
    assert world.condition("Routed") == world.condition("Ready") == ("False", reason)
    assert world.condition("Serving")[0] == "True"
    to_step(world)
    assert by_pods(world)
    turn(world)
    assert world.status.candidate.reached_percent == 33
    assert "by its share of the pods" in message(world, "RolledOut")


def test_a_gateway_that_never_answers_is_said_after_a_minute() -> None:
    world = behind("Silent")
    assert world.condition("Routed") == ("False", "GatewaySilent")
    to_step(world)
    assert by_pods(world)


def test_a_gateway_that_falls_silent_in_a_step_leaves_it_to_the_pods() -> None:
    world = behind()
    to_step(world)
    for _ in range(8):
        turn(world, seconds=10, answer=False)
    assert by_pods(world)
    assert world.status.candidate is None or world.status.candidate.step_since is not None


def test_the_kinds_that_were_missing_are_used_once_they_are_there() -> None:
    world = behind("Missing")
    assert world.route is None
    world.gateway = "Accepted"
    world.calm()
    assert world.condition("Routed") == ("True", "Accepted")
    assert world.condition("Ready")[0] == "True"


def test_the_route_goes_with_the_gateway() -> None:
    world = behind()
    world.change(spec())
    world.calm()
    assert world.route is None
    assert world.condition("Routed") == ("Unknown", "NoGateway")


def message(world: World, kind: str) -> str:
    return next(each.message for each in world.status.conditions if each.type == kind)


def test_a_shadow_gets_a_copy_for_its_time_and_is_then_promoted() -> None:
    world = behind(**SHADOW)
    live = world.status.active.deployment
    name = to_step(world)
    assert (dict(world.route.weights), world.route.mirror) == ({live: 100}, name)
    assert world.deployments[name].replicas == 2, "a copy of everything needs as many pods"
    turn(world)
    world.traffic = {name: Traffic(100, 0), live: Traffic(100, 0)}
    turn(world)
    assert world.status.candidate.reached_percent == 0
    assert "nobody sees its answers" in message(world, "RolledOut")
    assert not by_pods(world)
    for _ in range(5):
        turn(world, seconds=4)
    assert served(world) == 2
    assert (dict(world.route.weights), world.route.mirror) == ({name: 100}, None)


def test_a_bad_shadow_harms_nobody() -> None:
    world = behind(**SHADOW)
    name = to_step(world)
    turn(world)
    world.traffic = {name: Traffic(100, 60), world.status.active.deployment: Traffic(100, 0)}
    turn(world)
    assert served(world) == 1
    assert world.status.candidate is None
    assert world.route.mirror is None


@pytest.mark.parametrize("gateway", ["Refused", "Silent"])
def test_without_a_copy_a_shadow_waits_and_is_never_promoted(gateway: str) -> None:
    world = behind(**SHADOW)
    world.gateway = gateway
    retrain(world)
    for _ in range(60):
        turn(world, seconds=5)
    assert served(world) == 1
    assert world.status.candidate is not None
    assert not by_pods(world)
    assert world.condition("RolledOut") == ("False", f"Gateway{gateway}")
    world.gateway = "Accepted"
    world.calm()
    assert served(world) == 2

"""The autoscaler and the route, as they are written to a cluster."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.controller.world import NAMESPACE, SPEC, World
from truekeep.cluster import kinds

Json = dict[str, Any]


def changed(**serving: Any) -> Json:
    spec = copy.deepcopy(SPEC)
    spec["serving"].update(serving)
    return spec


async def served(**serving: Any) -> World:
    world = World()
    world.apply(kinds.MODEL, "m", changed(**serving))
    await world.rounds(10)
    assert world.status()["active"]["revision"] == 1
    return world


SCALING = {"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}
GATEWAY = {"gateway": {"name": "public"}}


async def test_the_autoscaler_targets_the_live_deployment_and_a_second_look_writes_nothing() -> None:
    world = await served(**SCALING)
    spec = world.api.one(kinds.AUTOSCALER)["spec"]
    live = world.status()["active"]["deployment"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": live}
    writes = len(world.api.writes)
    await world.rounds(4)
    assert world.api.writes[writes:] == []


async def test_replicas_that_the_autoscaler_chose_survive_a_restoration() -> None:
    world = await served(**SCALING)
    (deployment,) = copy.deepcopy(world.api.all(kinds.DEPLOYMENT))
    deployment["spec"]["replicas"] = 5
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "other:1"
    container["env"].append({"name": "X", "value": "1"})  # what others added is taken away by a replacement
    deployment["metadata"]["managedFields"] = [
        {"manager": "truekeep", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    ]
    world.api.put(kinds.DEPLOYMENT, deployment)
    managers: list[str] = []
    apply = world.api.apply

    async def noted(kind: Any, manifest: Json, manager: str = "truekeep") -> Json:
        if kind == kinds.DEPLOYMENT:
            managers.append(f"{manager} {manifest['spec'].get('replicas')}")
        return await apply(kind, manifest, manager)

    world.api.apply = noted  # type: ignore[method-assign]
    await world.rounds(2)
    (restored,) = world.api.all(kinds.DEPLOYMENT)
    assert restored["spec"]["template"]["spec"]["containers"][0]["image"] != "other:1"
    assert restored["spec"]["replicas"] == 5
    assert managers == ["truekeep-scale 5", "truekeep None"], "the replicas have another owner before they are left out"


async def test_the_autoscaler_goes_with_its_section() -> None:
    world = await served(**SCALING)
    world.apply(kinds.MODEL, "m", changed())
    await world.rounds(2)
    assert not world.api.all(kinds.AUTOSCALER)
    writes = len(world.api.writes)
    await world.rounds(2)
    assert world.api.writes[writes:] == []


@pytest.mark.parametrize("kind", [kinds.AUTOSCALER, kinds.HTTP_ROUTE])
async def test_what_was_deleted_by_hand_comes_back(kind: Any) -> None:
    world = await served(**SCALING, **GATEWAY)
    world.api.remove(kind, NAMESPACE, "m")
    await world.rounds(2)
    assert world.api.one(kind)["metadata"]["name"] == "m"


async def test_a_route_is_made_after_the_services_that_it_names_and_restored() -> None:
    world = await served(**GATEWAY)
    live = world.status()["active"]["deployment"]
    assert world.api.writes.index(f"apply Service {live}") < world.api.writes.index("apply HTTPRoute m")
    route = copy.deepcopy(world.api.one(kinds.HTTP_ROUTE))
    route["spec"]["hostnames"] = ["elsewhere.example.com"]
    route["spec"]["rules"][0]["backendRefs"][0]["name"] = "elsewhere"
    world.api.put(kinds.HTTP_ROUTE, route)
    await world.rounds(2)
    spec = world.api.one(kinds.HTTP_ROUTE)["spec"]
    assert spec["hostnames"] == []
    assert [each["name"] for each in spec["rules"][0]["backendRefs"]] == [live]
    writes = len(world.api.writes)
    await world.rounds(2)
    assert [write for write in world.api.writes[writes:] if "Route" in write] == []


async def test_without_the_kinds_of_the_gateway_api_the_model_serves_says_so_and_rests() -> None:
    world = World()
    world.api.missing.add("HTTPRoute")
    world.apply(kinds.MODEL, "m", changed(**GATEWAY))
    await world.rounds(10)
    assert world.status()["active"]["revision"] == 1
    routed = world.condition(world.model(), "Routed")
    assert (routed["status"], routed["reason"]) == ("False", "GatewayApiMissing")
    assert world.condition(world.model(), "Ready")["status"] == "False"
    assert {result for _, result in world.meter.results} == {"success"}
    writes = len(world.api.writes)
    await world.rounds(2)
    assert world.api.writes[writes:] == []
    world.api.missing.clear()
    await world.rounds(2)
    assert world.api.all(kinds.HTTP_ROUTE)


async def test_a_stranger_of_the_same_name_is_not_taken() -> None:
    world = World()
    world.api.put(kinds.AUTOSCALER, {"metadata": {"name": "m", "namespace": NAMESPACE}, "spec": {}})
    world.apply(kinds.MODEL, "m", changed(**SCALING))
    await world.rounds(10)
    stalled = world.condition(world.model(), "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "NameTaken")
    assert "HorizontalPodAutoscaler demo/m is not ours" in stalled["message"]


async def test_a_node_that_is_emptied_gets_the_only_pod_a_companion() -> None:
    world = await served(replicas=1)
    assert world.api.one(kinds.DISRUPTION_BUDGET)["spec"]["minAvailable"] == 1
    (pod,) = (each for each in world.api.all(kinds.POD) if each["metadata"]["name"].endswith("-0"))
    world.api.put(kinds.POD, {**pod, "spec": {**pod["spec"], "nodeName": "n"}})
    world.api.put(kinds.NODE, {"metadata": {"name": "n", "namespace": ""}, "spec": {}})
    await world.rounds(2)
    assert world.api.one(kinds.DEPLOYMENT)["spec"]["replicas"] == 1
    world.api.put(kinds.NODE, {"metadata": {"name": "n", "namespace": ""}, "spec": {"unschedulable": True}})
    await world.rounds(4)
    assert world.api.one(kinds.DEPLOYMENT)["spec"]["replicas"] == 2
    budget = world.api.one(kinds.DISRUPTION_BUDGET)["spec"]
    assert budget["maxUnavailable"] == 1
    assert "node n is being emptied" in world.condition(world.model(), "Serving")["message"]
    world.api.remove(kinds.POD, NAMESPACE, pod["metadata"]["name"])  # evicted; what comes instead is elsewhere
    await world.rounds(4)
    assert world.api.one(kinds.DEPLOYMENT)["spec"]["replicas"] == 1


async def test_an_operator_that_may_not_read_nodes_works_without_knowing_of_them() -> None:
    world = await served(replicas=1)
    world.api.forbidden.add("Node")
    (pod,) = (each for each in world.api.all(kinds.POD) if each["metadata"]["name"].endswith("-0"))
    world.api.put(kinds.POD, {**pod, "spec": {**pod["spec"], "nodeName": "n"}})
    world.api.put(kinds.NODE, {"metadata": {"name": "n", "namespace": ""}, "spec": {"unschedulable": True}})
    await world.rounds(4)
    assert world.api.one(kinds.DEPLOYMENT)["spec"]["replicas"] == 1
    assert world.condition(world.model(), "Ready")["status"] == "True"

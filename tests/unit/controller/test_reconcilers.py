from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.controller.world import NAMESPACE, POLICY, SPEC, World
from truekeep.cluster import kinds
from truekeep.contract.requests import TrainRequest
from truekeep.controller.queue import Cause, Key
from truekeep.domain.plan import Settings

RETRAINED = copy.deepcopy(SPEC)
RETRAINED["training"]["recipe"]["seed"] = 3


async def served() -> World:
    """A Model whose first revision serves, with a policy that watches it."""
    world = World()
    world.apply(kinds.MODEL, "m", SPEC)
    world.apply(kinds.DRIFT_POLICY, "p", POLICY)
    await world.rounds(8)
    assert world.status()["active"]["revision"] == 1
    return world


def trainings(world: World) -> list[dict[str, Any]]:
    """The Jobs of runs."""
    found = world.api.all(kinds.JOB)
    return [job for job in found if job["metadata"]["labels"]["app.kubernetes.io/component"] == "trainer"]


def facts(world: World) -> dict[str, Any]:
    """The end state, without what may differ from one history to another: times, versions, uids."""
    runs = world.api.all(kinds.TRAINING_RUN)
    status = world.status()
    return {
        "runs": sorted((run["spec"]["trigger"]["type"], run["status"].get("revision")) for run in runs),
        "jobs": len(world.api.all(kinds.JOB)),
        "active": status["active"]["revision"],
        "previous": (status.get("previous") or {}).get("revision"),
        "candidate": status.get("candidate"),
        "latest": status["latestRevision"],
        "conditions": {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]},
        "deployments": sorted(
            (each["metadata"]["labels"]["truekeep.dev/revision"], each["spec"]["replicas"])
            for each in world.api.all(kinds.DEPLOYMENT)
        ),
        "services": len(world.api.all(kinds.SERVICE)),
        "cronjobs": [each["metadata"]["labels"]["truekeep.dev/revision"] for each in world.api.all(kinds.CRON_JOB)],
    }


async def test_a_model_is_trained_and_served() -> None:
    world = await served()
    assert world.condition(world.model(), "Ready")["status"] == "True"
    stable = world.api.objects[("Service", NAMESPACE, "m")]
    active = world.status()["active"]["deployment"]
    assert stable["spec"]["selector"]["truekeep.dev/deployment"] == active
    assert world.api.one(kinds.DISRUPTION_BUDGET)["spec"]["maxUnavailable"] == 1
    cronjob = world.api.one(kinds.CRON_JOB)
    assert cronjob["metadata"]["labels"]["truekeep.dev/revision"] == "1"
    (job,) = trainings(world)
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("TrainingRun", True, False)


async def test_a_second_reconcile_writes_nothing() -> None:
    world = await served()
    before = list(world.api.writes)
    await world.rounds(3)
    assert world.api.writes == before


async def test_a_retrain_goes_through_a_canary() -> None:
    world = await served()
    world.apply(kinds.MODEL, "m", RETRAINED)
    selectors = set()
    for _ in range(20):
        await world.rounds(1)
        stable = world.api.objects[("Service", NAMESPACE, "m")]["spec"]["selector"]
        selectors.add(stable.get("truekeep.dev/deployment"))
    assert world.status()["active"]["revision"] == 2
    assert world.status()["previous"]["revision"] == 1
    assert None in selectors  # for the step, all serving pods of the Model answered
    assert world.api.one(kinds.CRON_JOB)["metadata"]["labels"]["truekeep.dev/revision"] == "2"


async def test_the_champion_is_told_to_the_challenger() -> None:
    world = await served()
    digest = world.status()["active"]["artifactDigest"]
    world.apply(kinds.MODEL, "m", RETRAINED)
    await world.rounds(2)
    newest = max(trainings(world), key=lambda job: job["metadata"]["creationTimestamp"])
    env = newest["spec"]["template"]["spec"]["containers"][0]["env"]
    (request,) = (each["value"] for each in env if each["name"] == "TRUEKEEP_REQUEST")
    assert f'"artifactDigest":"{digest}","revision":1' in request
    asked = TrainRequest.model_validate_json(request)
    assert asked.last_run is not None
    assert asked.last_run.run == world.status()["active"]["run"]
    assert asked.captured is not None
    assert (asked.captured.revision, asked.captured.prefix) == (1, f"{NAMESPACE}/m/revision=1/")


async def story(kill_at: int | None, kill_after: bool = False) -> World:
    """Trained, served, watched, retrained and promoted, with the operator killed at one write."""
    world = World()
    world.api.kill_at, world.api.kill_after = kill_at, kill_after
    world.apply(kinds.MODEL, "m", SPEC)
    world.apply(kinds.DRIFT_POLICY, "p", POLICY)
    await settled(world, 1)
    world.apply(kinds.MODEL, "m", RETRAINED)
    await settled(world, 2)
    return world


async def settled(world: World, revision: int) -> None:
    """Until this revision answers, and then until nothing is left to do."""
    for _ in range(40):
        before = len(world.api.writes)
        await world.rounds(1)
        active = world.status().get("active") or {}
        if active.get("revision") == revision and len(world.api.writes) == before:
            return
    raise AssertionError(f"revision {revision} never answered: {world.api.writes[-10:]}")


async def test_killed_at_any_write_the_end_is_the_same() -> None:
    undisturbed = await story(None)
    wanted = facts(undisturbed)
    assert wanted["active"] == 2
    assert len(undisturbed.api.writes) > 20
    for number in range(len(undisturbed.api.writes)):
        for after in (False, True):
            world = await story(number, after)
            assert facts(world) == wanted, f"killed {'after' if after else 'before'} write {number}"
            creations = [write for write in world.api.writes if write.startswith("create TrainingRun")]
            assert len(creations) == 2, creations


async def test_an_upgrade_of_the_operator_restarts_no_serving_pod() -> None:
    world = await served()
    before = copy.deepcopy(world.api.all(kinds.DEPLOYMENT))
    world.settings = Settings(server_image="truekeep/server:9")
    world.start()
    changed = copy.deepcopy(SPEC)
    changed["serving"]["replicas"] = 3
    world.apply(kinds.MODEL, "m", changed)
    await world.rounds(4)
    (deployment,) = world.api.all(kinds.DEPLOYMENT)
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"] == before[0]["spec"]["template"]


@pytest.mark.parametrize("kind", [kinds.DEPLOYMENT, kinds.SERVICE, kinds.CRON_JOB, kinds.DISRUPTION_BUDGET])
async def test_what_was_deleted_by_hand_comes_back(kind: Any) -> None:
    world = await served()
    names = {item["metadata"]["name"] for item in world.api.all(kind)}
    for name in names:
        world.api.remove(kind, NAMESPACE, name)
    await world.rounds(4)
    assert {item["metadata"]["name"] for item in world.api.all(kind)} == names


async def test_what_was_changed_by_hand_is_restored() -> None:
    world = await served()
    (deployment,) = copy.deepcopy(world.api.all(kinds.DEPLOYMENT))
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
    deployment["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "X", "value": "1"})
    world.api.put(kinds.DEPLOYMENT, deployment)
    stable = copy.deepcopy(world.api.objects[("Service", NAMESPACE, "m")])
    stable["spec"]["selector"] = {"app": "other"}
    world.api.put(kinds.SERVICE, stable)
    await world.rounds(2)
    (restored,) = world.api.all(kinds.DEPLOYMENT)
    container = restored["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == image
    assert "X" not in {each["name"] for each in container["env"]}
    assert "app" not in world.api.objects[("Service", NAMESPACE, "m")]["spec"]["selector"]


async def test_marks_of_the_live_deployment_are_restored() -> None:
    """They say what serves; the status knows it, too."""
    world = await served()
    (before,) = copy.deepcopy(world.api.all(kinds.DEPLOYMENT))
    garbage = copy.deepcopy(before)
    for mark in ("truekeep.dev/serving-key", "truekeep.dev/artifact-digest"):
        garbage["metadata"]["annotations"][mark] = "?"
    garbage["metadata"]["labels"]["truekeep.dev/run"] = "another"
    world.api.put(kinds.DEPLOYMENT, garbage)
    await world.rounds(2)
    (restored,) = world.api.all(kinds.DEPLOYMENT)
    assert restored["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert restored["metadata"]["labels"] == before["metadata"]["labels"]
    assert world.condition(world.model(), "Ready")["status"] == "True"


async def test_replicas_that_an_autoscaler_owns_are_left_alone() -> None:
    world = await served()
    (deployment,) = copy.deepcopy(world.api.all(kinds.DEPLOYMENT))
    target = {"kind": "Deployment", "name": deployment["metadata"]["name"]}
    about = {"name": "hpa", "namespace": NAMESPACE}
    world.api.put(kinds.AUTOSCALER, {"metadata": about, "spec": {"scaleTargetRef": target}})
    deployment["spec"]["replicas"] = 5
    world.api.put(kinds.DEPLOYMENT, deployment)
    writes = len(world.api.writes)
    await world.rounds(2)
    assert world.api.one(kinds.DEPLOYMENT)["spec"]["replicas"] == 5
    assert not [write for write in world.api.writes[writes:] if "Deployment" in write]


async def test_a_strangers_service_is_never_taken() -> None:
    world = World()
    stranger = {"metadata": {"name": "m", "namespace": NAMESPACE}, "spec": {"selector": {"app": "shop"}}}
    world.api.put(kinds.SERVICE, stranger)
    world.apply(kinds.MODEL, "m", SPEC)
    await world.rounds(8)
    assert world.api.objects[("Service", NAMESPACE, "m")]["spec"]["selector"] == {"app": "shop"}
    stalled = world.condition(world.model(), "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "NameTaken")
    assert "Service demo/m is not ours" in stalled["message"]
    # It is mended by whoever mends it, and goes on by itself.
    world.api.remove(kinds.SERVICE, NAMESPACE, "m")
    await world.rounds(4)
    assert world.status()["active"]["revision"] == 1
    assert world.condition(world.model(), "Stalled")["status"] == "False"


async def test_where_others_wait_what_serves_changes_first_and_the_status_is_told_after_all_of_them() -> None:
    world = World()
    names = ("m", "n", "o")
    for name in names:
        world.apply(kinds.MODEL, name, SPEC)
    await world.rounds(10)
    changed = copy.deepcopy(SPEC)
    changed["serving"]["replicas"] = 3
    written = len(world.api.writes)
    for name in names:
        world.apply(kinds.MODEL, name, changed)
        world.queue.add(Key("Model", NAMESPACE, name, name), cause=Cause.WANTED)
    await world.work()
    kinds_written = [write.split()[1] for write in world.api.writes[written:]]
    assert kinds_written[:3] == ["Deployment"] * 3
    assert sorted(kinds_written[3:]) == ["Model"] * 3, "each told once, none twice"
    for name in names:
        model = world.api.objects["Model", NAMESPACE, name]
        assert model["status"]["observedGeneration"] == model["metadata"]["generation"]


async def test_a_quota_comes_up_in_the_conditions() -> None:
    world = World()
    message = "create Job: jobs.batch is forbidden: exceeded quota: small, requested: count/jobs.batch=1"
    world.api.refuse = lambda verb, kind, manifest: message if kind is kinds.JOB else None
    world.apply(kinds.MODEL, "m", SPEC)
    await world.rounds(3)
    run = world.api.one(kinds.TRAINING_RUN)
    stalled = world.condition(run, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "QuotaExceeded")
    assert "count/jobs.batch" in stalled["message"]
    assert [e["reason"] for e in world.api.all(kinds.EVENT) if e["regarding"]["kind"] == "TrainingRun"] == [
        "QuotaExceeded"
    ]
    writes = len(world.api.writes)
    await world.rounds(3)
    assert world.api.writes[writes:] == []  # it is tried again, but said once
    world.api.refuse = lambda verb, kind, manifest: None
    await world.rounds(8)
    assert world.status()["active"]["revision"] == 1


async def test_a_crash_in_one_object_stops_no_other() -> None:
    world = World()
    world.apply(kinds.MODEL, "m", SPEC)
    broken = world.api.put(kinds.MODEL, {"metadata": {"name": "z", "namespace": NAMESPACE}, "spec": {"data": 1}})
    await world.rounds(8)
    assert world.status()["active"]["revision"] == 1
    assert broken["metadata"]["name"] == "z"
    unreadable = world.api.objects[("Model", NAMESPACE, "z")]
    stalled = world.condition(unreadable, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "SpecUnreadable")


async def test_garbage_in_a_status_loses_no_revision() -> None:
    world = await served()
    model = copy.deepcopy(world.model())
    model["status"] = {"conditions": "what", "active": {"revision": "x"}, "latestRevision": 1, "previous": 7}
    world.api.put(kinds.MODEL, model)
    world.apply(kinds.MODEL, "m", RETRAINED)
    await world.rounds(30)
    assert world.status()["active"]["revision"] == 2
    assert sorted(run["status"]["revision"] for run in world.api.all(kinds.TRAINING_RUN)) == [1, 2]


async def test_a_new_model_of_the_same_name_does_not_take_its_predecessors_children() -> None:
    world = await served()
    old = copy.deepcopy(world.api.all(kinds.DEPLOYMENT))[0]
    world.api.remove(kinds.MODEL, NAMESPACE, "m")
    world.api.put(kinds.DEPLOYMENT, old)  # it is still there: the garbage collector comes later
    world.apply(kinds.MODEL, "m", SPEC)
    await world.rounds(6)
    stalled = world.condition(world.model(), "Stalled")
    assert stalled["reason"] == "NameTaken"
    assert "is removed soon" in stalled["message"]
    world.api.remove(kinds.DEPLOYMENT, NAMESPACE, old["metadata"]["name"])
    await world.rounds(8, seconds=30)
    assert world.condition(world.model(), "Ready")["status"] == "True"


async def test_events_are_written_once_a_transition() -> None:
    world = await served()
    await world.rounds(5)
    said = [(e["regarding"]["kind"], e["reason"], e["note"]) for e in world.api.all(kinds.EVENT)]
    assert len(said) == len(set(said))
    assert ("Model", "Promoted", "revision 1 answers") in said


async def test_a_job_that_is_gone_is_deleted_with_its_run_kept() -> None:
    world = await served()
    await world.rounds(3, seconds=400)
    assert trainings(world) == []
    assert world.api.one(kinds.TRAINING_RUN)["status"]["revision"] == 1

"""The CronJob that deletes old captures follows the Model's wish, and changing it restarts no pod."""

from __future__ import annotations

import copy
from typing import Any

from tests.unit.controller.test_reconcilers import served
from tests.unit.controller.world import NAMESPACE, SPEC, World
from truekeep.cluster import kinds
from truekeep.contract.requests import REQUEST_ENV, SweepRequest


def spec(**capture: Any) -> dict[str, Any]:
    changed = copy.deepcopy(SPEC)
    changed["serving"]["capture"] |= capture
    return changed


def cronjob(world: World) -> dict[str, Any] | None:
    return world.api.objects.get(("CronJob", NAMESPACE, "m-retention"))


def asked(found: dict[str, Any]) -> SweepRequest:
    (container,) = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (text,) = (each["value"] for each in container["env"] if each["name"] == REQUEST_ENV)
    assert container["command"] == ["python3", "-m", "truekeep.monitor.sweep"]
    return SweepRequest.model_validate_json(text)


async def test_it_is_there_while_it_is_wanted() -> None:
    world = await served()
    assert cronjob(world) is None
    pods = copy.deepcopy(world.api.all(kinds.DEPLOYMENT))
    for days in (90, 7):
        world.apply(kinds.MODEL, "m", spec(retentionDays=days))
        await world.rounds(2)
        found = cronjob(world)
        assert found is not None
        assert asked(found).retention_days == days
        assert asked(found).capture.credentials_secret_ref is not None  # completed from the store
    # Somebody takes it away, or rests it: it comes back.
    del world.api.objects[("CronJob", NAMESPACE, "m-retention")]
    world.apply(kinds.MODEL, "m", spec(retentionDays=7))
    await world.rounds(2)
    assert cronjob(world) is not None
    world.apply(kinds.MODEL, "m", SPEC)
    await world.rounds(2)
    assert cronjob(world) is None
    assert [each["spec"]["template"] for each in world.api.all(kinds.DEPLOYMENT)] == [
        each["spec"]["template"] for each in pods
    ]


async def test_it_goes_on_while_nothing_is_captured_any_more() -> None:
    """fractionPercent 0 stops capturing; what was captured still has to go in time."""
    world = await served()
    world.apply(kinds.MODEL, "m", spec(retentionDays=7, fractionPercent=0))
    await world.rounds(3)
    assert cronjob(world) is not None


async def test_a_cronjob_of_somebody_else_stays() -> None:
    world = await served()
    theirs = {"metadata": {"name": "m-retention", "namespace": NAMESPACE, "uid": "x", "resourceVersion": "1"}}
    world.api.objects[("CronJob", NAMESPACE, "m-retention")] = copy.deepcopy(theirs)
    await world.rounds(3)
    assert cronjob(world) == theirs


async def test_what_the_last_sweep_said_is_in_the_status() -> None:
    world = await served()
    world.apply(kinds.MODEL, "m", spec(retentionDays=7))
    await world.rounds(2)
    assert world.condition(world.model(), "CapturesSwept")["reason"] == "NoSweepYet"
    made = cronjob(world)
    assert made is not None
    labels = made["spec"]["jobTemplate"]["metadata"]["labels"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "m-retention", "uid": made["metadata"]["uid"]}
    job: dict[str, Any] = {
        "metadata": {"name": "m-retention-1", "namespace": NAMESPACE, "labels": labels,
                     "ownerReferences": [{**owner, "controller": True}]},
        "spec": {},
    }  # fmt: skip
    await world.api.create(kinds.JOB, job)
    (stored,) = (each for each in world.api.all(kinds.JOB) if each["metadata"]["name"] == "m-retention-1")
    stored["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    world.api.objects[("Job", NAMESPACE, "m-retention-1")] = stored
    world.apply(kinds.MODEL, "m", spec(retentionDays=8))
    await world.rounds(2)
    found = world.condition(world.model(), "CapturesSwept")
    assert (found["status"], found["reason"]) == ("False", "SweepFailed")
    world.apply(kinds.MODEL, "m", SPEC)
    await world.rounds(2)
    assert "CapturesSwept" not in {each["type"] for each in world.status()["conditions"]}

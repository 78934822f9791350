"""The CronJob that counts new rows is there while somebody wants to know, and counts from what was trained on."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from tests.unit.controller.test_reconcilers import served
from tests.unit.controller.world import NAMESPACE, SPEC, World
from truekeep.cluster import kinds
from truekeep.contract.requests import REQUEST_ENV, CountRequest


def cronjob(world: World) -> dict[str, Any] | None:
    return world.api.objects.get(("CronJob", NAMESPACE, "m-newdata"))


def asked(found: dict[str, Any]) -> CountRequest:
    pod = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    (text,) = (each["value"] for each in container["env"] if each["name"] == REQUEST_ENV)
    return CountRequest.model_validate_json(text)


async def test_it_is_there_while_it_is_wanted() -> None:
    world = await served()
    wanted = copy.deepcopy(SPEC)
    wanted["retraining"] = {"newData": {"minRows": 10, "cron": "*/5 * * * *"}}
    world.apply(kinds.MODEL, "m", wanted)
    await world.rounds(2)
    assert cronjob(world) is None, "nothing tells yet what was trained on"
    (run,) = world.api.all(kinds.TRAINING_RUN)
    run["status"]["data"] = {"objects": 1, "rows": 10, "windowEnd": "2026-01-04T00:00:00Z"}
    world.apply(kinds.MODEL, "m", wanted)
    await world.rounds(2)
    found = cronjob(world)
    assert found is not None
    assert found["spec"]["schedule"] == "*/5 * * * *"
    assert asked(found).since == datetime(2026, 1, 4, tzinfo=UTC)
    assert asked(found).data.source.s3.credentials_secret_ref is not None  # completed from the store
    world.apply(kinds.MODEL, "m", SPEC)
    await world.rounds(2)
    assert cronjob(world) is None

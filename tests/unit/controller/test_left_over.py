"""What is taken out of a spec goes from the children, too, though nothing of what is left differs."""

from __future__ import annotations

import copy

from tests.unit.controller.test_reconcilers import served
from tests.unit.controller.world import SPEC
from truekeep.cluster import kinds


async def test_a_setting_of_pods_that_is_taken_away_goes_from_the_monitor() -> None:
    world = await served()
    spec = copy.deepcopy(SPEC)
    spec["pods"] = {"priorityClassName": "low"}
    for wanted in (spec, SPEC):
        world.apply(kinds.MODEL, "m", copy.deepcopy(wanted))
        world.clock.pass_(100)
        await world.rounds(12)
    pod = world.api.one(kinds.CRON_JOB)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert "priorityClassName" not in pod
    before = len(world.api.writes)
    await world.rounds(3)
    assert world.api.writes[before:] == []

"""One rule decides between causes that are there at the same moment: who goes first, one at a time, each once."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.unit.domain.test_newdata import count, trained
from tests.unit.domain.world import World, spec
from truekeep.api.names import ANNOTATION_RETRAIN
from truekeep.domain.run import finished

SINCE = datetime(2026, 1, 4, tzinfo=UTC)
DUE = datetime(2026, 1, 6, 3, 0, 1, tzinfo=UTC)
RETRAINING = {"schedule": {"cron": "0 3 * * *"}, "newData": {"minRows": 1000}, "cooldownSeconds": 0}


def everything(seed: int | None = None, **more: object) -> World:
    """A person, a breach, new rows and the clock ask at one moment; with `seed`, the spec does, too."""
    world = World(spec=spec(retraining={**RETRAINING, **more}))
    world.watch(cooldownSeconds=0)
    world.calm()
    trained(world, SINCE)
    world.calm()
    count(world, 5000)
    world.now = DUE
    world.report(4, 5)
    world._reconcile_policy([10**6])  # what a monitor found is judged before anything is asked for
    world.annotations = {ANNOTATION_RETRAIN: "by ann"}
    if seed is not None:
        world.change(spec(retraining={**RETRAINING, **more}, seed=seed))
    return world


def causes(world: World) -> list[str]:
    return [run.spec.trigger.type for run in world.runs.values()]


def come_to_rest(world: World) -> None:
    """Step by step; never are two runs under way."""
    for _ in range(80):
        world.reconcile()
        assert sum(not finished(run) for run in world.runs.values()) <= 1
        assert sum(not job.complete for job in world.jobs.values()) <= 1
        for name in list(world.jobs):
            world.end_job(name, "Succeeded", digest=name)
        trained(world, DUE)
        world.settle_pods()
        world.pass_time(5)


def test_the_spec_goes_first_then_a_person_then_a_breach() -> None:
    world = everything(seed=9)
    come_to_rest(world)
    assert causes(world)[:3] == ["Spec", "Spec", "Manual"]
    assert causes(world).count("Manual") == 1
    assert set(causes(world)) <= {"Spec", "Manual", "DriftPolicy"}, "a run since then answers clock and new rows"


def test_a_person_goes_before_a_breach_which_goes_before_rows_and_clock() -> None:
    world = everything()
    come_to_rest(world)
    assert causes(world) == ["Spec", "Manual", "DriftPolicy"], "clock and new rows are answered by these"


def test_without_a_person_the_breach_is_answered_and_the_rest_with_it() -> None:
    world = everything()
    world.annotations = {}
    come_to_rest(world)
    assert causes(world)[:2] == ["Spec", "DriftPolicy"]
    assert causes(world).count("DriftPolicy") == 1


def test_suspended_only_the_spec_and_a_person_are_heard() -> None:
    world = everything(seed=9, suspend="Now")
    come_to_rest(world)
    assert causes(world) == ["Spec", "Spec", "Manual"]

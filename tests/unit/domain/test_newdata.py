"""Retraining when enough new rows came."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.unit.domain.world import World, spec
from truekeep.api.trainingrun import DataRead
from truekeep.contract.results import CountResult
from truekeep.domain.observed import JobView, PodView

SINCE = datetime(2026, 1, 4, tzinfo=UTC)
LATER = datetime(2026, 1, 6, tzinfo=UTC)


def fed(**more: object) -> World:
    """A world whose Model is retrained for 1,000 new rows; revision 1 was trained on what there was until SINCE."""
    world = World(spec=spec(retraining={"newData": {"minRows": 1000}, "cooldownSeconds": 0, **more}))
    world.calm()
    trained(world, SINCE)
    world.calm()
    return world


def trained(world: World, until: datetime) -> None:
    """The newest run used events until then."""
    name, run = list(world.runs.items())[-1]
    status = run.status.model_copy(update={"data": DataRead(objects=1, rows=10, window_end=until)})
    world.runs[name] = replace(run, status=status)


def count(world: World, rows: int, listing: str = "a", since: datetime = SINCE, **more: object) -> None:
    """A Job counted."""
    result = CountResult.model_validate(
        {
            "modelUid": world.model.meta.uid,
            "since": since,
            "reason": "Counted",
            "rows": rows,
            "listing": listing,
            **more,
        }
    )
    name = f"count-{len(world.counts)}"
    pod = PodView(name, world.now, exit_code=0, exit_message=result.model_dump_json(by_alias=True), finished=world.now)
    world.counts = (*world.counts, JobView(world.meta(name), complete=True, finished=world.now, pods=(pod,)))


def causes(world: World) -> list[str]:
    return [run.spec.trigger.type for run in world.runs.values()]


def test_too_few_rows_are_told_and_start_nothing() -> None:
    world = fed()
    count(world, 999)
    world.calm()
    assert causes(world) == ["Spec"]
    assert world.status.new_data.rows == 999
    assert world.status.new_data.since == SINCE


def test_enough_rows_make_one_run_however_often_they_are_counted() -> None:
    world = fed()
    count(world, 1200)
    world.calm()
    assert causes(world) == ["Spec", "NewData"]
    message = list(world.runs.values())[-1].spec.trigger.message
    assert "1,200 labelled rows" in message
    count(world, 1200)
    world.calm()
    assert causes(world) == ["Spec", "NewData"]
    trained(world, LATER)
    world.calm()
    assert world.status.new_data.rows == 0, "they were trained on"
    count(world, 1500, "b", LATER)
    world.calm()
    assert causes(world) == ["Spec", "NewData", "NewData"]


def test_a_count_from_another_moment_says_nothing() -> None:
    world = fed()
    count(world, 5000, since=datetime(2025, 1, 1, tzinfo=UTC))
    world.calm()
    assert causes(world) == ["Spec"]


def test_what_failed_is_asked_for_again_when_other_files_are_there() -> None:
    world = fed()
    count(world, 1200, "bad files")
    world.calm(train="DataInvalid")
    world.calm(train="DataInvalid")
    assert causes(world) == ["Spec", "NewData"]
    count(world, 1200, "mended files")
    world.calm()
    assert causes(world) == ["Spec", "NewData", "NewData"]


@pytest.mark.parametrize("limit", [{"suspend": "Now"}, {"maxRunsPerWeek": 0}, {"cooldownSeconds": 86400}])
def test_suspend_budget_and_cooldown_hold(limit: dict[str, object]) -> None:
    world = fed(**limit)
    count(world, 5000)
    world.calm()
    assert causes(world) == ["Spec"]


def test_what_could_not_be_counted_is_told() -> None:
    world = fed()
    count(world, 0, reason="StoreUnreachable", message="s3.lake:7070 did not answer")
    world.calm()
    assert world.status.new_data.message == "s3.lake:7070 did not answer"


def test_without_the_wish_nothing_is_counted_or_kept() -> None:
    world = fed()
    count(world, 10)
    world.calm()
    world.change(spec())
    world.calm()
    assert world.status.new_data is None

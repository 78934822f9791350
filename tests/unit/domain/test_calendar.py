"""Retraining by the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.unit.domain.world import START, World, spec
from truekeep.api.names import ANNOTATION_RETRAIN


def scheduled(cron: str = "0 3 * * *", zone: str = "Etc/UTC", **more: object) -> World:
    """A world whose Model is retrained at night; it is noon on Monday, January 5, and revision 1 serves."""
    world = World(spec=spec(retraining={"schedule": {"cron": cron, "timeZone": zone}, **more}))
    world.calm()
    return world


def causes(world: World) -> list[str]:
    return [run.spec.trigger.type for run in world.runs.values()]


def until(world: World, moment: datetime) -> None:
    """Lets time pass up to a moment, and everything that it brings come to rest."""
    world.now = moment
    world.calm()


def test_the_time_makes_one_run_and_says_which_it_was() -> None:
    world = scheduled()
    assert causes(world) == ["Spec"]
    assert world.status.schedule.next == datetime(2026, 1, 6, 3, 0, tzinfo=UTC)
    until(world, datetime(2026, 1, 6, 2, 50, tzinfo=UTC))
    assert causes(world) == ["Spec"]
    until(world, datetime(2026, 1, 6, 3, 0, tzinfo=UTC))
    assert causes(world) == ["Spec", "Schedule"]
    assert "2026-01-06 03:00 UTC" in list(world.runs.values())[-1].spec.trigger.message
    assert world.status.schedule.last == datetime(2026, 1, 6, 3, 0, tzinfo=UTC)
    until(world, datetime(2026, 1, 6, 20, 0, tzinfo=UTC))
    assert causes(world) == ["Spec", "Schedule"]


def test_times_that_nobody_was_there_for_are_made_up_for_once() -> None:
    world = scheduled()
    until(world, datetime(2026, 1, 9, 12, 0, tzinfo=UTC))
    assert causes(world) == ["Spec", "Schedule"]


def test_the_clock_is_that_of_the_zone_also_when_it_changes() -> None:
    """In Berlin 03:00 is 02:00 UTC in winter, and 01:00 in summer."""
    world = scheduled("0 3 * * *", "Europe/Berlin", cooldownSeconds=0)
    assert world.status.schedule.next == datetime(2026, 1, 6, 2, 0, tzinfo=UTC)
    until(world, datetime(2026, 7, 1, 12, 0, tzinfo=UTC))
    assert world.status.schedule.next == datetime(2026, 7, 2, 1, 0, tzinfo=UTC)


def test_a_new_schedule_does_not_make_up_for_times_before_it() -> None:
    world = World()
    world.calm()
    world.change(spec(retraining={"schedule": {"cron": "0 9 * * *"}}))
    world.calm()
    assert causes(world) == ["Spec"]
    assert world.status.schedule.since >= START


def test_a_run_since_then_answers_the_time() -> None:
    world = scheduled()
    world.now = datetime(2026, 1, 6, 2, 59, 58, tzinfo=UTC)
    world.reconcile()
    world.now = datetime(2026, 1, 6, 3, 0, 1, tzinfo=UTC)
    world.external_run("by-airflow")
    world.calm()
    assert causes(world) == ["Spec", "External"]


@pytest.mark.parametrize("limit", [{"cooldownSeconds": 86400}, {"maxRunsPerWeek": 0}])
def test_cooldown_and_budget_hold(limit: dict[str, int]) -> None:
    world = scheduled(**limit)
    until(world, datetime(2026, 1, 6, 3, 0, tzinfo=UTC))
    assert causes(world) == ["Spec"]
    if "cooldownSeconds" in limit:
        until(world, datetime(2026, 1, 6, 12, 10, tzinfo=UTC))
        assert causes(world) == ["Spec", "Schedule"]


def test_suspended_the_clock_is_passed_over_and_a_person_is_heard() -> None:
    world = scheduled(suspend="Now")
    until(world, datetime(2026, 1, 6, 4, 0, tzinfo=UTC))
    assert causes(world) == ["Spec"]
    world.annotations = {ANNOTATION_RETRAIN: "now"}
    world.calm()
    assert causes(world) == ["Spec", "Manual"]
    world.change(spec(retraining={"schedule": {"cron": "0 3 * * *"}}))
    until(world, datetime(2026, 1, 6, 8, 0, tzinfo=UTC))
    assert causes(world) == ["Spec", "Manual"], "what was passed over is not made up for"


def test_suspended_no_breach_starts_a_run() -> None:
    world = World(spec=spec(retraining={"suspend": "Now"}))
    world.watch()
    world.calm()
    world.report(10, 11)
    world.calm()
    assert causes(world) == ["Spec"]


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [("99 3 * * *", "Etc/UTC", "spec.retraining.schedule.cron"), ("0 3 * * *", "Europe/Berln", "timeZone")],
)
def test_a_schedule_that_is_none_is_told_and_the_live_revision_goes_on(cron: str, zone: str, words: str) -> None:
    world = scheduled(cron, zone)
    assert world.condition("Ready") == ("False", "ScheduleInvalid")
    assert words in next(each.message for each in world.status.conditions if each.type == "Ready")
    assert world.condition("Serving")[0] == "True"
    world.change(spec(retraining={"schedule": {"cron": "0 3 * * *"}}))
    world.calm()
    assert world.condition("Ready") == ("True", "Serving")

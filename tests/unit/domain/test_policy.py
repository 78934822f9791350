"""What policies ask for: a row and an answer for each kind of finding, and what holds a run back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.unit.domain.test_loop import drift_runs, policy_condition, served
from tests.unit.domain.world import World, spec
from truekeep.api.driftpolicy import PerformanceVerdict, WindowVerdict
from truekeep.domain import breaches
from truekeep.domain.conditions import find

PERFORMANCE = {"metric": "roc_auc", "maxDrop": "0.03"}
RETRAIN = [{"finding": "Performance", "action": "Retrain"}, {"finding": "DataQuality", "action": "Alert"}]


def watched(**changes: Any) -> World:
    world = World()
    world.watch(**({"performance": PERFORMANCE, "responses": RETRAIN} | changes))
    world.calm()
    assert served(world) == 1
    return world


def shown(day: int, verdict: str = "Decayed", revision: int = 1, **changes: Any) -> PerformanceVerdict:
    known = {"value": "0.64", "low": "0.63", "high": "0.65", "labelled": 4000, "coverage": "0.8"}
    body = {
        "start": datetime(2026, 1, day, tzinfo=UTC),
        "end": datetime(2026, 1, day, tzinfo=UTC) + timedelta(days=1),
        "revision": revision,
        "metric": "roc_auc",
        "baseline": "0.71",
        "verdict": verdict,
        "estimate": "0.70",
        "estimateLow": "0.69",
        "estimateHigh": "0.71",
        "estimated": "Holds",
    }
    return PerformanceVerdict.model_validate(body | (known if verdict != "InsufficientData" else {}) | changes)


def status(world: World) -> Any:
    assert world.policy is not None
    return world.policy.status


def message(world: World, kind: str) -> str:
    found = find(status(world).conditions, kind)
    assert found is not None
    return found.message


def test_decay_by_labels_retrains_once_and_says_by_how_much() -> None:
    world = watched()
    world.report(6, verdict="NoDrift", performance=[shown(6)])
    world.calm()
    assert policy_condition(world, "PerformanceDecayed") == ("False", "Suspected")
    assert drift_runs(world) == 0
    world.report(6, 7, verdict="NoDrift", performance=[shown(7), shown(6)])
    for _ in range(4):
        world.reconcile()
    assert drift_runs(world) == 1
    assert policy_condition(world, "PerformanceDecayed") == ("True", "Decayed")
    assert policy_condition(world, "DriftDetected") == ("False", "NoDrift")
    words = "roc_auc 0.64 (0.63 to 0.65) on 4,000 labelled rows, 80% of the window up to 2026-01-08 00:00; the gates"
    assert words in message(world, "PerformanceDecayed")
    cause = next(run.spec.trigger.policy for run in world.runs.values() if run.spec.trigger.policy)
    assert (cause.kind, cause.window_start) == ("Performance", datetime(2026, 1, 7, tzinfo=UTC))
    assert words in cause.finding
    assert sum(note.reason == "Decayed" for note in world.notes) == 1
    world.calm()
    assert served(world) == 2
    assert policy_condition(world, "PerformanceDecayed") == ("Unknown", "NoWindowYet")


def test_windows_that_wait_for_labels_neither_count_nor_end_a_row() -> None:
    world = watched()
    world.report(6, 7, 8, verdict="NoDrift", performance=[shown(8), shown(7, "InsufficientData"), shown(6)])
    world.calm()
    assert drift_runs(world) == 1
    other = watched()
    other.report(6, 7, 8, verdict="NoDrift", performance=[shown(8), shown(7, "Holds"), shown(6)])
    other.calm()
    assert drift_runs(other) == 0


def test_what_labels_said_is_never_replaced_by_an_estimate() -> None:
    world = watched()
    world.report(6, verdict="NoDrift", performance=[shown(6)])
    world.report(6, verdict="NoDrift", performance=[shown(6, "InsufficientData")])
    world.reconcile()
    assert [one.verdict for one in status(world).performance] == ["Decayed"]


def test_windows_that_wait_do_not_push_out_what_is_known() -> None:
    world = watched()
    waiting = [shown(day, "InsufficientData", revision=9) for day in range(3, 32)]
    world.report(6, verdict="NoDrift", performance=[shown(2), *waiting])
    world.reconcile()
    assert 8 < len(status(world).performance) <= 16
    assert status(world).performance[-1].value == "0.64"


@pytest.mark.parametrize("estimates", ["Report", "Act"])
def test_an_estimate_is_told_and_acts_only_where_the_policy_says_so(estimates: str) -> None:
    world = watched(performance={**PERFORMANCE, "estimates": estimates})
    low = {"estimated": "Decayed", "estimate": "0.60"}
    world.report(6, 7, verdict="NoDrift", performance=[shown(day, "InsufficientData", **low) for day in (7, 6)])
    world.reconcile()
    world.reconcile()
    acts = estimates == "Act"
    expected = ("True", "Estimated") if acts else ("False", "EstimatedOnly")
    assert policy_condition(world, "PerformanceDecayed") == expected
    assert "is estimated at 0.60" in message(world, "PerformanceDecayed")
    assert drift_runs(world) == int(acts)
    assert world.policy is not None
    assert breaches.decayed(world.policy, 1) is None, "an estimate never rolls back"


def test_labels_overrule_the_estimate_of_the_same_window() -> None:
    world = watched(performance={**PERFORMANCE, "estimates": "Act"})
    world.report(
        6,
        7,
        verdict="NoDrift",
        performance=[shown(day, "Holds", estimated="Decayed", estimate="0.6") for day in (7, 6)],
    )
    world.calm()
    assert drift_runs(world) == 0
    assert policy_condition(world, "PerformanceDecayed") == ("False", "Holds")


def test_each_kind_has_its_own_row_and_answer() -> None:
    world = watched(
        responses=[
            {"finding": "PredictionDrift", "action": "Alert"},
            {"finding": "DataDrift", "action": "Retrain"},
        ]
    )
    world.report(6, kinds=["PredictionDrift"])
    world.report(7, kinds=["DataDrift"])
    world.calm()
    assert policy_condition(world, "DriftDetected") == ("True", "Breach"), "something drifted in both"
    assert drift_runs(world) == 0, "but inputs in one only"
    world.report(8, kinds=["DataDrift", "PredictionDrift"])
    world.reconcile()
    world.reconcile()
    assert drift_runs(world) == 1
    cause = next(run.spec.trigger.policy for run in world.runs.values() if run.spec.trigger.policy)
    assert cause.kind == "DataDrift"


def test_alert_only_tells() -> None:
    world = watched(responses=[{"finding": "Performance", "action": "Alert"}])
    world.report(6, 7, verdict="NoDrift", performance=[shown(7), shown(6)])
    world.calm()
    assert drift_runs(world) == 0
    assert policy_condition(world, "PerformanceDecayed") == ("True", "Decayed")
    assert any(note.reason == "Decayed" and note.type == "Warning" for note in world.notes)


@pytest.mark.parametrize("kind", ["Performance", "DataDrift"])
def test_broken_data_starts_no_run_whatever_else_is_found(kind: str) -> None:
    """Nulls upstream make a model worse, too; training on them would make it worse still."""
    world = watched(responses=[{"finding": kind, "action": "Retrain"}])
    world.report(6, 7)
    world.report(8, verdict="DataQuality", performance=[shown(8), shown(7), shown(6)])
    world.calm()
    assert drift_runs(world) == 0
    assert policy_condition(world, "DataValid") == ("False", "DataQuality")
    assert policy_condition(world, "RetrainHeld") == ("False", "NothingToAnswer")


def test_too_few_new_labels_hold_a_run() -> None:
    world = watched(minNewLabels=10_000)
    world.report(6, 7, verdict="NoDrift", performance=[shown(7), shown(6)])
    world.calm()
    assert drift_runs(world) == 0
    assert policy_condition(world, "RetrainHeld") == ("True", "TooFewNewLabels")
    assert "8,000 labelled rows are new since revision 1 serves, minNewLabels is 10,000" in message(
        world, "RetrainHeld"
    )
    world.report(8, verdict="NoDrift", performance=[shown(8)])
    world.reconcile()
    world.reconcile()
    assert drift_runs(world) == 1


def test_a_challenger_that_is_no_better_makes_the_policy_back_off() -> None:
    """Every window breaches; runs come at growing distances, and the policy says why."""
    world = watched(maxRunsPerWeek=1000, cooldownSeconds=3600)
    started = []
    for hour in range(40):
        day = 6 + hour % 25
        month = datetime(2026, 1 + (hour // 25), day, tzinfo=UTC)
        one = shown(6, start=month.isoformat(), end=(month + timedelta(days=1)).isoformat())
        world.report(6, verdict="NoDrift", performance=[one])
        for _ in range(4):
            world.reconcile()
        before = drift_runs(world)
        world.calm(train="ChampionKept")
        if before > len(started):
            started.append(hour)
        world.pass_time(3600)
    waits = [later - earlier for earlier, later in pairwise(started)]
    assert len(started) <= 6
    assert waits == sorted(waits)
    assert waits[-1] >= 2 * waits[1] >= 4
    assert status(world).rejected == len(started)
    assert policy_condition(world, "RetrainHeld") == ("True", "ChallengerNotBetter")
    assert "made nothing better (ChampionKept" in message(world, "RetrainHeld")
    assert status(world).next_run_time > world.now
    assert any(note.reason == "ChallengerNotBetter" for note in world.notes)
    assert world.condition("Ready") == ("True", "Serving")


def test_backing_off_counts_windows_too() -> None:
    """With windows that are longer than the cooldown each of them would start a run: it is two, then four windows."""
    world = watched(maxRunsPerWeek=1000, cooldownSeconds=60)
    started, said = [], []
    for window in range(16):
        start = datetime(2026, 1, 6, tzinfo=UTC) + timedelta(days=window)
        one = shown(6, start=start.isoformat(), end=(start + timedelta(days=1)).isoformat())
        two = shown(6, start=(start - timedelta(days=1)).isoformat(), end=start.isoformat())
        world.report(6, verdict="NoDrift", performance=[one, two])
        before = drift_runs(world)
        world.calm(train="ChampionKept")
        if drift_runs(world) > before:
            started.append(window)
        world.pass_time(86400)
        world.calm(train="ChampionKept")
        said.append(message(world, "RetrainHeld"))
    assert [later - earlier for earlier, later in pairwise(started)] == [1, 2, 4, 8]
    assert any("the next run is for a window that ends on 2026-01-" in one for one in said)


def test_a_run_that_succeeds_ends_the_backing_off() -> None:
    world = watched(cooldownSeconds=60)
    world.report(6, 7, verdict="NoDrift", performance=[shown(7), shown(6)])
    world.calm(train="ChampionKept")
    assert status(world).rejected == 1
    world.pass_time(3600)
    world.report(8, verdict="NoDrift", performance=[shown(8)])
    world.calm()
    assert served(world) == 2
    assert status(world).rejected == 0
    assert policy_condition(world, "RetrainHeld") == ("False", "NothingToAnswer")


def test_what_failed_outside_is_no_rejection() -> None:
    world = watched()
    world.report(6, 7, verdict="NoDrift", performance=[shown(7), shown(6)])
    world.calm(train="StoreUnreachable")
    assert drift_runs(world) == 1
    assert status(world).rejected == 0


def test_a_rollback_is_asked_for_by_labels_in_a_row() -> None:
    world = watched(responses=[{"finding": "Performance", "action": "Rollback"}])
    world.report(6, verdict="NoDrift", performance=[shown(6)])
    world.reconcile()
    assert world.policy is not None
    assert breaches.decayed(world.policy, 1) is None
    world.report(7, verdict="NoDrift", performance=[shown(7)])
    world.reconcile()
    found = breaches.decayed(world.policy, 1)
    assert found is not None
    assert (found.end, breaches.answer(world.policy.spec, "Performance")) == (
        datetime(2026, 1, 8, tzinfo=UTC),
        "Rollback",
    )
    assert breaches.decayed(world.policy, 2) is None
    paused = replace(world.policy, spec=world.policy.spec.model_copy(update={"suspend": "Now"}))
    assert breaches.decayed(paused, 1) is None
    assert drift_runs(world) == 0


def test_a_policy_without_performance_says_so() -> None:
    world = watched(performance=None, responses=[{"finding": "DataDrift", "action": "Alert"}])
    world.report(6, verdict="NoDrift")
    world.calm()
    assert policy_condition(world, "PerformanceDecayed") == ("Unknown", "NotWatched")


def test_rows_of_windows_by_kind() -> None:
    def window(day: int, verdict: str, *kinds: str) -> WindowVerdict:
        start = datetime(2026, 1, day, tzinfo=UTC)
        body = {"start": start, "end": start, "revision": 1, "rows": 9, "verdict": verdict, "kinds": list(kinds)}
        return WindowVerdict.model_validate(body)

    windows = [
        window(9, "InsufficientData"),
        window(8, "Drift", "DataDrift"),
        window(7, "Drift", "DataDrift", "PredictionDrift"),
        window(6, "DataQuality", "DataQuality"),
        window(5, "Drift", "DataDrift"),
    ]
    assert breaches.consecutive(windows) == 2
    assert breaches.consecutive(windows, "DataDrift") == 2
    assert breaches.consecutive(windows, "PredictionDrift") == 0


def test_a_blackout_neither_counts_nor_ends_a_row() -> None:
    world = watched(responses=[{"finding": "DataDrift", "action": "Retrain"}])
    world.report(6)
    world.report(7, verdict="Blackout")
    world.calm()
    assert drift_runs(world) == 0
    world.report(8)
    world.reconcile()
    world.reconcile()
    assert drift_runs(world) == 1
    other = watched()
    other.report(6, verdict="Blackout")
    other.calm()
    assert policy_condition(other, "DriftDetected") == ("False", "Blackout")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"name": "colour", "statistic": "TotalVariation", "minimumEffect": "0.1"}, "has no feature colour"),
        ({"name": "carrier", "statistic": "Wasserstein", "minimumEffect": "0.1"}, "carrier is a Category"),
    ],
)
def test_a_statistic_that_does_not_fit_is_told(column: dict[str, str], words: str) -> None:
    world = watched(data={"columns": [column]})
    assert policy_condition(world, "Stalled") == ("True", "ColumnUnfit")
    assert words in message(world, "Stalled")


@pytest.mark.parametrize(
    ("column", "capture", "words"),
    [
        ("colour", {}, "has no feature colour, nor is it its key"),
        ("carrier", {"drop": ["carrier"]}, "carrier is in the Model's spec.serving.capture.drop"),
        ("carrier", {}, None),
        ("id", {}, None),
    ],
)
def test_labels_join_by_an_entity_that_is_captured(column: str, capture: dict[str, Any], words: str | None) -> None:
    entity = {"column": column, "timeColumn": "at", "toleranceSeconds": 60}
    world = watched(performance={"metric": "roc_auc", "join": "EntityTime", "entity": entity})
    world.change(spec(serving={"capture": {"s3": {"uri": "s3://lake/captures/"}, **capture}}))
    world.calm()
    assert (policy_condition(world, "Stalled") == ("True", "ColumnUnfit")) == (words is not None)
    assert words is None or words in message(world, "Stalled")


def test_events_that_stop_to_come_are_told_where_a_rule_says_how_old_they_may_be() -> None:
    world = watched()
    world.report(6, verdict="NoDrift")
    world.calm()
    assert policy_condition(world, "DataValid") == ("True", "NoDefect")
    world.change(spec(data={"rules": [{"name": "fresh", "maxAgeSeconds": 7200}]}))
    world.calm()
    world.report(7, verdict="NoDrift", newest=world.now)
    world.reconcile()
    assert policy_condition(world, "DataValid") == ("True", "NoDefect")
    world.pass_time(3 * 3600)
    world.reconcile()
    assert policy_condition(world, "DataValid") == ("False", "NotFresh")
    world.report(8, verdict="DataQuality", newest=world.now)
    world.pass_time(3 * 3600)
    world.reconcile()
    assert policy_condition(world, "DataValid") == ("False", "DataQuality"), "what is broken says more than its age"

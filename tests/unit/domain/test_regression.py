"""A live revision that turns out to be worse than the one before it: the way back, and that it is gone once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.domain.test_loop import live, served, to_canary
from tests.unit.domain.test_rollback import BLUE_GREEN, pin
from tests.unit.domain.test_rollback import two as uncalled
from tests.unit.domain.world import World, spec
from truekeep.api.driftpolicy import DriftPolicyStatus
from truekeep.api.names import serving_selector
from truekeep.domain.analysis import RECENT_SECONDS, interest, questions
from truekeep.domain.histogram import Histogram
from truekeep.domain.observed import Answer, Traffic

FAST, SLOW = Histogram((0.01, 1.0), (400, 0, 0)), Histogram((0.01, 1.0), (0, 400, 0))


def two() -> World:
    """Revision 2 serves since a moment ago, revision 1 is warm, and both were called all the time."""
    world = live()
    world.change(spec(seed=2, serving=BLUE_GREEN))
    for _ in range(12):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.traffic = dict.fromkeys(world.deployments, Traffic(400, 0, FAST))
        looked(world)
    assert served(world) == 2
    assert world.status.last_rollout.reference.requests == 400
    return world


def regress(world: World, errors: int = 50, seconds: Histogram = FAST) -> str:
    """The live revision answers badly from now on; its Deployment."""
    name = world.status.active.deployment
    world.traffic = {**dict.fromkeys(world.deployments, Traffic(400, 0, FAST)), name: Traffic(400, errors, seconds)}
    return name


def looked(world: World, rounds: int = 1) -> None:
    for _ in range(rounds):
        world.settle_pods()
        world.reconcile()
        world.pass_time(1)


def test_within_the_window_one_look_goes_back_and_the_bad_pods_leave() -> None:
    world = two()
    good = world.status.previous.deployment
    bad = regress(world)
    world.reconcile()
    assert served(world) == 1
    assert dict(world.service.selector) == serving_selector("m", good)
    assert world.deployments[bad].replicas == 0
    assert world.status.last_failure.location == "Serving"
    assert world.status.last_failure.reason == "ErrorRate"
    assert world.status.last_rollout.outcome == "RolledBack"
    assert {row.name: row.verdict for row in world.status.last_rollout.analysis}["ErrorRate"] == "Failed"
    assert world.status.rejected[-1].deployment == bad
    assert world.reasons().count("RolledBack") == 2, "one Event by the rollout, one by Ready"
    assert world.condition("RolledOut") == ("False", "RolledBack")


def test_what_was_left_is_not_tried_again_and_what_was_returned_to_stays() -> None:
    world = two()
    regress(world)
    looked(world)
    regress(world)  # the same complaints about the one that was returned to
    world.calm()
    assert served(world) == 1
    assert len(world.status.rejected) == 1
    assert world.status.former is None
    assert world.reasons().count("Promoted") == 2, "each revision took over once"


def test_a_mended_spec_is_tried_again() -> None:
    world = two()
    regress(world)
    looked(world)
    world.traffic = None
    world.change(spec(seed=2, serving={"rollout": {"strategy": "BlueGreen", "maxErrorFraction": "0.5"}}))
    world.calm()
    assert served(world) == 2


def test_errors_that_the_revision_before_made_too_are_no_regression() -> None:
    world = live()
    world.traffic = dict.fromkeys(world.deployments, Traffic(400, 50, FAST))
    world.change(spec(seed=2, serving={"rollout": {"strategy": "BlueGreen"}}))
    for _ in range(12):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        looked(world)
    assert served(world) == 2
    reference = world.status.last_rollout.reference
    assert (reference.requests, reference.errors) == (400, 50)
    regress(world, errors=50)
    looked(world, 5)
    assert served(world) == 2
    assert {row.verdict for row in world.status.last_rollout.watch} <= {"Passed", "NotJudged"}
    regress(world, errors=120)
    looked(world)
    assert served(world) == 1


def test_slowness_is_judged_where_a_limit_is_set() -> None:
    world = two()
    regress(world, errors=0, seconds=SLOW)
    looked(world, 3)
    assert served(world) == 2
    serving = {"rollout": {"strategy": "BlueGreen", "maxP99Milliseconds": 50}}
    world.change(spec(seed=2, serving=serving))
    looked(world)
    assert served(world) == 1
    assert world.status.last_failure.reason == "TooSlow"
    assert "the revision before's within" in world.status.last_failure.message


def test_without_requests_before_the_switch_there_is_nothing_to_compare_with() -> None:
    """Its callers may have come after it, and sent what every revision refuses."""
    world = uncalled()
    assert world.status.last_rollout.reference.requests == 0
    regress(world)
    looked(world, 3)
    assert served(world) == 2
    assert {row.name: row.verdict for row in world.status.last_rollout.watch}["ErrorRate"] == "Inconclusive"


@pytest.mark.parametrize("counted", [{}, None])
def test_unreadable_or_few_counts_never_lead_back(counted: dict[str, Traffic] | None) -> None:
    world = two()
    name = world.status.active.deployment
    world.traffic = {name: Traffic(4, 4)} if counted is None else counted
    looked(world, 5)
    assert served(world) == 2


def test_a_pin_is_a_persons_decision() -> None:
    world = two()
    pin(world, 2)
    regress(world)
    looked(world, 5)
    assert served(world) == 2


def test_after_the_window_errors_are_not_judged_any_more() -> None:
    world = two()
    world.calm()
    assert world.status.previous is None
    assert world.status.former.revision == 1
    regress(world)
    looked(world, 5)
    assert served(world) == 2


def test_a_regression_while_the_way_back_is_cold_starts_it_first() -> None:
    world = two()
    good = world.status.previous.deployment
    world.deployments[good] = replace(world.deployments[good], ready=0, pods=())  # they were lost with their node
    bad = regress(world)
    world.reconcile()
    world.reconcile()
    assert served(world) == 2, "it answers, badly, until the one before can"
    assert world.status.candidate.deployment == good
    assert dict(world.service.selector) == serving_selector("m", bad)
    looked(world)
    assert served(world) == 1
    assert dict(world.service.selector) == serving_selector("m", good)
    assert world.deployments[bad].replicas == 0
    assert world.status.former is None
    assert world.status.last_rollout.outcome == "RolledBack"


def test_a_way_back_that_fails_is_said_and_not_tried_for_ever() -> None:
    world = two()
    good = world.status.previous.deployment
    world.healthy[good] = False
    looked(world)
    regress(world)
    world.calm()
    assert served(world) == 2
    assert world.condition("Ready") == ("False", "NoWayBack")
    assert [each.revision for each in world.status.rejected] == [2, 1]


def test_a_candidate_on_trial_is_put_off_by_a_regression_of_the_live_one() -> None:
    world = two()
    world.change(spec(seed=2))
    candidate = to_canary(world)
    bad = regress(world)
    looked(world, 4)
    assert served(world) == 1
    assert world.deployments[bad].replicas == 0
    assert world.deployments[candidate].replicas == 0 or world.status.candidate.deployment == candidate


def labels(world: World, *verdicts: tuple[int, str], action: str = "Rollback") -> None:
    """A policy that has judged windows by labels: (revision, verdict), the newest first."""
    world.watch(
        performance={"metric": "roc_auc"},
        responses=[{"finding": "Performance", "action": action}],
        consecutiveWindows=1,
    )
    windows = [
        {
            "start": f"2026-01-{20 - day:02}T00:00:00Z",
            "end": f"2026-01-{21 - day:02}T00:00:00Z",
            "revision": revision,
            "metric": "roc_auc",
            "baseline": "0.71",
            "verdict": verdict,
            "value": "0.58" if verdict == "Decayed" else "0.70",
            "labelled": 900,
        }
        for day, (revision, verdict) in enumerate(verdicts)
    ]
    status = DriftPolicyStatus.model_validate({"watchedRevision": 2, "performance": windows})
    world.policy = replace(world.policy, status=status)


def test_labels_that_speak_against_the_live_revision_lead_back_long_after_the_window() -> None:
    world = two()
    world.calm()
    good, bad = world.status.former.deployment, world.status.active.deployment
    assert world.deployments[good].replicas == 0
    labels(world, (2, "Decayed"))
    world.reconcile()
    world.reconcile()
    assert dict(world.service.selector) == serving_selector("m", bad), "the one before is started first"
    assert world.deployments[good].replicas == 2
    looked(world, 2)
    assert served(world) == 1
    assert world.status.last_failure.reason == "PerformanceRegressed"
    assert "2026-01-20" in world.status.last_failure.message
    world.change(spec(seed=2, serving={"rollout": {"strategy": "BlueGreen"}, "connectionMaxAgeSeconds": 7}))
    world.calm()
    assert served(world) == 1, "no other way of serving mends a model"
    world.change(spec(seed=2, serving={"pinnedRevision": 2}))
    world.calm()
    assert served(world) == 2, "but a person may insist"


@pytest.mark.parametrize(
    ("verdicts", "action"),
    [
        ([(2, "Holds"), (2, "Decayed")], "Rollback"),
        ([(1, "Decayed")], "Rollback"),
        ([(2, "Decayed"), (1, "Decayed")], "Rollback"),
        ([(2, "Decayed")], "Alert"),
    ],
)
def test_labels_lead_back_only_from_the_live_revision_to_a_better_one(
    verdicts: list[tuple[int, str]], action: str
) -> None:
    world = two()
    labels(world, *verdicts, action=action)
    looked(world, 4)
    assert served(world) == 2
    assert world.status.rejected == []


def test_an_operator_that_starts_anew_in_the_middle_ends_it() -> None:
    """Nothing that decides is kept in memory: each look starts from what is there."""
    for writes in range(1, 6):
        world = two()
        good = world.status.previous.deployment
        regress(world)
        world.reconcile(stop_after=writes)
        looked(world, 3)
        assert served(world) == 1
        assert dict(world.service.selector) == serving_selector("m", good)


def test_the_analysis_of_a_step_is_in_the_status_and_stays_after_it() -> None:
    world = live()
    name = to_canary(world)
    world.traffic = dict.fromkeys(world.deployments, Traffic(400, 0, FAST))
    looked(world)
    rows = {row.name: row.verdict for row in world.status.candidate.analysis}
    assert rows == {"ErrorRate": "Passed", "P99Latency": "NotJudged", "PredictionShift": "NotJudged"}
    written = world.status.candidate.analysed_at
    world.traffic = dict.fromkeys(world.deployments, Traffic(401, 0, FAST))
    looked(world)
    assert world.status.candidate.analysed_at == written, "numbers alone are not written at each look"
    world.pass_time(5)
    looked(world)
    assert world.status.candidate.analysed_at > written
    world.pass_time(10)
    looked(world, 4)
    assert served(world) == 2
    last = world.status.last_rollout
    assert (last.revision, last.deployment, last.outcome) == (2, name, "Promoted")
    assert {row.name: row.verdict for row in last.analysis} == rows
    assert last.reference.requests == 401


def test_a_candidate_whose_pods_come_and_go_is_judged_by_those_that_answer() -> None:
    world = live()
    name = to_canary(world)
    world.healthy[name] = False
    world.deployments[name] = replace(world.deployments[name], ready=0)
    world.traffic = {**dict.fromkeys(world.deployments, Traffic(400, 0)), name: Traffic(400, 200)}
    world.reconcile()
    assert world.status.candidate is None
    assert world.status.last_failure.reason == "ErrorRate"


QUERY = {"name": "refunds", "query": "sum(refunds{n='{{namespace}}',d='{{candidate}}'}) / on() {{live}}"}


def test_queries_name_who_is_judged_and_who_is_beside() -> None:
    world = two()
    new, old = world.status.active.deployment, world.status.previous.deployment
    assert questions(world.model) == {}
    rollout = {"strategy": "BlueGreen", "queries": [{**QUERY, "maximum": "0.5"}]}
    world.change(spec(seed=2, serving={"rollout": rollout}))
    assert questions(world.model) == {"refunds": f"sum(refunds{{n='ns',d='{new}'}}) / on() {old}"}
    world.answers = {"refunds": Answer(0.7)}
    looked(world)
    assert served(world) == 2, "a query looks back over some time"
    world.pass_time(30)
    looked(world)
    assert served(world) == 1
    assert world.status.last_failure.reason == "QueryFailed"
    assert questions(world.model) == {}


def test_a_query_without_an_answer_holds_a_step_and_then_the_spec_decides() -> None:
    world = live()
    rollout = {"steps": [{"weightPercent": 33, "durationSeconds": 10}], "queries": [{**QUERY, "minimum": "1"}]}
    world.change(spec(serving={"rollout": rollout}))
    name = to_canary(world)
    assert questions(world.model)["refunds"].count(name) == 1
    world.answers = {"refunds": Answer(None, "Prometheus did not answer")}
    world.pass_time(12)
    looked(world)
    assert world.status.candidate.step == 0, "held"
    world.pass_time(20)
    looked(world)
    assert world.status.candidate is None
    assert world.status.last_failure.reason == "Inconclusive"
    assert "did not answer" in world.status.last_failure.message


def test_whose_traffic_is_asked_for() -> None:
    world = live()
    assert interest(world.model, world.now) is None
    name = to_canary(world)
    since = world.status.candidate.step_since
    wanted = interest(world.model, since + timedelta(seconds=7.5))
    assert wanted.deployments == {world.status.active.deployment, name}
    assert wanted.seconds == 8
    assert interest(world.model, since + timedelta(days=9)).seconds == 86_400
    other = two()
    other.pass_time(1000)
    wanted = interest(other.model, other.now)
    assert wanted.deployments == {other.status.active.deployment}
    assert wanted.seconds == RECENT_SECONDS

"""The loop, decision by decision, in a small world."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.domain.world import World, spec
from truekeep.api.names import ANNOTATION_RETRAIN, serving_selector
from truekeep.domain.fleet import canary_replicas
from truekeep.domain.observed import PodView, Traffic


def served(world: World) -> int | None:
    return world.status.active.revision if world.status.active else None


def live() -> World:
    """A world in which revision 1 serves."""
    world = World()
    world.calm()
    assert served(world) == 1
    return world


def retrain(world: World, value: str = "now") -> None:
    world.annotations = {ANNOTATION_RETRAIN: value}


def test_a_new_model_is_trained_once_and_served() -> None:
    world = live()
    assert len(world.runs) == 1
    assert world.jobs_made == list(world.runs)
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling")[0] == world.condition("Stalled")[0] == "False"
    assert world.status.metric == "roc_auc 0.71"
    assert world.service is not None
    assert dict(world.service.selector) == serving_selector("m", world.status.active.deployment)
    assert "Promoted" in world.reasons()


@pytest.mark.parametrize(
    ("reason", "kind"), [("DataInvalid", "DataValid"), ("GatesFailed", "GatesPassed"), ("ParametersInvalid", "Trained")]
)
def test_a_failed_first_run_says_why_and_is_not_repeated(reason: str, kind: str) -> None:
    world = World()
    world.calm(train=reason)
    assert len(world.runs) == 1
    assert world.condition(kind) == ("False", reason)
    assert world.condition("Ready") == ("False", reason)
    assert world.condition("Stalled") == ("True", reason)
    assert world.status.last_failure is not None
    assert world.status.last_failure.reason == reason


def test_a_failed_retrain_leaves_the_live_revision() -> None:
    world = live()
    world.change(spec(seed=5))
    world.calm(train="DataInvalid")
    assert served(world) == 1
    assert world.condition("Serving")[0] == "True"
    assert world.condition("Ready") == ("False", "DataInvalid")
    world.change(spec())
    world.calm()
    assert world.condition("Ready") == ("True", "Serving")
    assert len(world.runs) == 2, "going back to what was trained before trains nothing"


def test_an_unreachable_store_is_tried_again_within_bounds() -> None:
    """A run tries while it has time; then come further runs, five in all, with pauses of up to eight minutes."""
    world = World(spec=spec(training={"recipe": spec().training.recipe.dump(), "timeoutSeconds": 30}))
    world.calm(rounds=800, train="StoreUnreachable", quiet_rounds=130)
    assert len(world.runs) == 5
    assert [len(run.status.attempts) for run in world.runs.values()] == [2] * 5
    assert world.condition("Ready") == ("False", "StoreUnreachable")


def test_out_of_memory_names_the_limit() -> None:
    world = World()
    world.reconcile()
    world.reconcile()
    (name,) = world.runs
    world.end_job(name, exit_code=137, exit_reason="OOMKilled")
    world.calm()
    assert world.condition("Ready") == ("False", "OutOfMemory")
    assert "spec.training.resources.limits.memory" in world.status.last_failure.message


def test_the_annotation_retrains_once() -> None:
    world = live()
    retrain(world)
    world.calm()
    assert served(world) == 2
    assert len(world.runs) == 2
    assert world.status.handled_retrain == "now"


def to_canary(world: World, cause: str = "now") -> str:
    """Brings a new revision to its first step; answers its Deployment."""
    retrain(world, cause)
    for _ in range(30):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.settle_pods()
        world.reconcile()
        if world.status.candidate and world.status.candidate.step == 0:
            return world.status.candidate.deployment
        world.pass_time(1)
    raise AssertionError("no canary began")


def test_a_canary_that_answers_well_is_promoted_and_the_old_one_stays_warm() -> None:
    world = live()
    old = world.status.active.deployment
    name = to_canary(world)
    assert dict(world.service.selector) == serving_selector("m")
    assert world.deployments[name].replicas == 1
    world.traffic = {name: Traffic(100, 0), old: Traffic(200, 0)}
    for _ in range(8):
        world.pass_time(3)
        world.settle_pods()
        world.reconcile()
    assert served(world) == 2
    assert world.status.previous is not None
    assert world.deployments[old].replicas == 2, "the old one is warm"
    world.calm()
    assert world.deployments[old].replicas == 0, "the window is over"
    assert world.condition("RolledOut") == ("True", "Promoted")


def test_a_warm_third_revision_leaves_before_the_selector_widens() -> None:
    world = live()
    to_canary(world, "first")
    for _ in range(8):
        world.pass_time(3)
        world.settle_pods()
        world.reconcile()
    assert served(world) == 2
    third = world.status.previous.deployment
    to_canary(world, "second")
    assert not world.deployments[third].pods
    assert dict(world.service.selector) == serving_selector("m")


def test_a_canary_that_fails_its_callers_is_taken_back_and_not_tried_again() -> None:
    world = live()
    old = world.status.active.deployment
    name = to_canary(world)
    world.traffic = {name: Traffic(50, 20), old: Traffic(100, 1)}
    world.reconcile()
    assert world.status.candidate is None
    assert dict(world.service.selector) == serving_selector("m", old)
    assert world.deployments[name].replicas == 0
    assert world.status.last_failure.reason == "ErrorRate"
    world.calm()
    assert served(world) == 1
    assert world.reasons().count("RolledBack") == 1
    assert world.condition("RolledOut") == ("False", "RolledBack")
    assert world.condition("Ready") == ("True", "Serving"), "a routine retrain's failure leaves the generation met"


@pytest.mark.parametrize(
    ("seen", "rollout", "reason"),
    [
        ({"failed": 4, "message": "400 tensor age is missing"}, {}, "RehearsalFailed"),
        ({"p99Milliseconds": "80.5"}, {"maxP99Milliseconds": 50}, "TooSlow"),
        ({"predictionShift": "0.4"}, {"maxPredictionShift": "0.3"}, "PredictionShift"),
    ],
)
def test_a_bad_rehearsal_ends_a_candidate_before_any_live_traffic(
    seen: dict[str, object], rollout: dict[str, object], reason: str
) -> None:
    world = World(spec=spec(serving={"rollout": {"steps": [{"weightPercent": 33, "durationSeconds": 10}], **rollout}}))
    world.calm()
    selector = world.service.selector
    world.rehearsal = seen
    retrain(world)
    for _ in range(60):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.settle_pods()
        world.reconcile()
        world.pass_time(1)
        assert world.service.selector == selector
    assert served(world) == 1
    assert world.status.last_failure.reason == reason
    assert world.reasons().count("RolledBack") == 1


def test_a_rehearsal_without_a_store_waits_and_is_tried_again() -> None:
    world = live()
    world.rehearsal = {"reason": "StoreUnreachable", "rows": 0, "requests": 0, "message": "no answer from s3"}
    retrain(world)
    for _ in range(60):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.settle_pods()
        world.reconcile()
        world.pass_time(1)
    assert world.status.rejected == []
    assert world.condition("RolledOut") == ("False", "StoreUnreachable")
    world.rehearsal = {}
    world.calm()
    assert served(world) == 2


def test_errors_that_the_live_revision_makes_too_are_not_held_against_the_candidate() -> None:
    world = live()
    old = world.status.active.deployment
    name = to_canary(world)
    world.traffic = {name: Traffic(100, 20), old: Traffic(200, 40)}
    world.pass_time(11)
    world.reconcile()
    assert world.status.candidate.step == 1


@pytest.mark.parametrize(("answer", "revision"), [("Rollback", 1), ("Promote", 2)])
def test_an_inconclusive_step_is_held_then_follows_the_spec(answer: str, revision: int) -> None:
    world = World(
        spec=spec(
            serving={"rollout": {"steps": [{"weightPercent": 33, "durationSeconds": 10}], "onInconclusive": answer}}
        )
    )
    world.calm()
    name = to_canary(world)
    world.traffic = {name: Traffic(3, 0)}
    world.pass_time(15)
    world.reconcile()
    assert world.status.candidate.step == 0, "held"
    world.calm()
    assert served(world) == revision


def test_a_bad_serving_spec_is_rolled_back_and_a_mended_one_is_tried() -> None:
    world = live()
    world.change(spec(seed=9, serving={**world.spec.serving.dump(), "resources": {"limits": {"memory": "90Mi"}}}))
    for _ in range(40):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        for name in world.deployments:
            if "-r2-" in name:
                world.healthy[name] = False
        world.settle_pods()
        world.reconcile()
        world.pass_time(2)
    assert served(world) == 1
    assert world.condition("Ready") == ("False", "RolledBack")
    assert world.condition("Stalled")[0] == "True"
    assert world.condition("Serving")[0] == "True"
    assert world.status.last_failure.reason == "ServerOutOfMemory"
    assert world.reasons().count("RolledBack") == 2, "one Event by the rollout, one by Ready"
    world.change(spec(seed=9))
    world.calm()
    assert served(world) == 2
    assert world.condition("Ready") == ("True", "Serving")


def test_a_pull_failure_never_rejects() -> None:
    world = live()
    retrain(world)
    for _ in range(10):
        for name in list(world.jobs):
            world.end_job(name, digest=name)
        world.settle_pods()
        for name, view in world.deployments.items():
            if "-r2-" in name and view.pods:
                pods = tuple(
                    replace(p, ready=False, phase="Pending", waiting_reason="ImagePullBackOff") for p in view.pods
                )
                world.deployments[name] = replace(view, ready=0, pods=pods)
        world.reconcile()
        world.pass_time(100)
    assert world.status.rejected == []
    assert world.condition("RolledOut") == ("False", "ImagePullFailed")
    assert served(world) == 1


def test_a_pin_goes_back_and_its_removal_forward_again() -> None:
    world = live()
    world.change(spec(seed=2))
    world.calm()
    assert served(world) == 2
    pinned = {**world.spec.serving.dump(), "pinnedRevision": 1}
    world.change(spec(seed=2, serving=pinned))
    world.calm()
    assert served(world) == 1
    assert world.condition("Ready") == ("True", "Pinned")
    world.change(spec(seed=2))
    world.calm()
    assert served(world) == 2


def test_a_pin_on_what_is_not_there_is_said_and_changes_nothing() -> None:
    world = live()
    world.change(spec(serving={**world.spec.serving.dump(), "pinnedRevision": 7}))
    world.calm()
    assert served(world) == 1
    assert world.condition("Ready") == ("False", "PinnedRevisionMissing")


def test_a_live_revision_that_dies_within_the_window_goes_back() -> None:
    world = live()
    name = to_canary(world)
    world.traffic = {name: Traffic(100, 0)}
    for _ in range(8):
        world.pass_time(3)
        world.settle_pods()
        world.reconcile()
    assert served(world) == 2
    world.healthy[name] = False
    world.settle_pods()
    world.reconcile()
    assert served(world) == 1
    assert world.condition("Serving")[0] == "True"
    world.calm()
    assert served(world) == 1


def test_only_one_run_trains_at_a_time() -> None:
    world = World()
    for name in ("b", "a", "c"):
        world.external_run(name)
    for _ in range(4):
        world.reconcile()
    assert len(world.jobs) == 1
    world.calm(rounds=120)
    numbers = sorted(run.status.revision for run in world.runs.values())
    assert numbers == list(range(1, len(numbers) + 1))


def test_where_it_is_allowed_runs_that_somebody_makes_go_beside_each_other() -> None:
    world = World(spec=spec(retraining={"concurrency": "Allow"}))
    world.calm()
    for name in ("b", "a"):
        world.external_run(name)
    world.annotations = {ANNOTATION_RETRAIN: "now"}
    for _ in range(3):
        world.reconcile()
    assert {"a", "b"} <= set(world.jobs)
    assert [run.spec.trigger.type for run in world.runs.values()] == ["Spec", "External", "External"]
    world.calm(rounds=120)
    assert [run.spec.trigger.type for run in world.runs.values()][3:] == ["Manual"], "ours waited for their end"
    assert sorted(run.status.revision for run in world.runs.values()) == [1, 2, 3, 4]


def test_a_run_that_no_node_takes_starts_anew_when_the_spec_is_mended() -> None:
    world = World()
    world.reconcile()
    (name,) = world.runs
    pod = PodView(f"{name}-x", world.now, unschedulable="no node has disk=ssd")
    world.jobs[name] = replace(world.jobs[name], pods=(pod,))
    for _ in range(3):
        world.reconcile()
    assert world.condition("Trained") == ("False", "Unschedulable")
    assert world.jobs_made == [name], "as long as the spec is the same, it waits"
    world.change(spec(serving={"replicas": 1}))
    for _ in range(3):
        world.reconcile()
    assert world.jobs_made == [name, name]
    assert world.jobs[name].pods == ()
    world.calm()
    assert served(world) == 1
    assert len(world.runs) == 1


def test_a_run_that_trains_is_not_disturbed_by_a_change() -> None:
    world = World()
    world.reconcile()
    (name,) = world.runs
    running = PodView(f"{name}-x", world.now, phase="Running")
    world.jobs[name] = replace(world.jobs[name], pods=(running,))
    world.change(spec(seed=4))
    for _ in range(3):
        world.reconcile()
    assert world.jobs_made == [name]


def test_a_lost_result_is_read_again_by_a_new_pod() -> None:
    world = World()
    world.reconcile()
    (name,) = world.runs
    world.end_job(name)
    world.jobs[name] = replace(world.jobs[name], pods=())
    world.reconcile()
    assert name not in world.jobs
    world.calm()
    assert world.jobs_made == [name, name]
    assert served(world) == 1


# drift -----------------------------------------------------------------------------------------------------------


def watched() -> World:
    world = World()
    world.watch()
    world.calm()
    assert served(world) == 1
    return world


def policy_condition(world: World, kind: str) -> tuple[str, str]:
    found = next(condition for condition in world.policy.status.conditions if condition.type == kind)
    return found.status, found.reason


def drift_runs(world: World) -> int:
    return sum(run.spec.trigger.type == "DriftPolicy" for run in world.runs.values())


def test_a_breach_starts_exactly_one_run_that_names_it() -> None:
    world = watched()
    world.report(6)
    world.calm()
    assert policy_condition(world, "DriftDetected") == ("False", "Suspected")
    assert drift_runs(world) == 0
    world.report(6, 7)
    world.report(6, 7)
    for _ in range(5):
        world.reconcile()
    assert drift_runs(world) == 1
    assert policy_condition(world, "DriftDetected") == ("True", "Breach")
    run = next(run for run in world.runs.values() if run.spec.trigger.policy)
    assert run.spec.trigger.policy.finding == "`hour` moved"
    assert world.condition("Ready")[0] == "True", "a routine retrain stays healthy"
    world.calm()
    assert served(world) == 2
    assert drift_runs(world) == 1
    assert policy_condition(world, "DriftDetected") == ("Unknown", "NoWindowYet"), "promotion starts the count anew"


def test_cooldown_and_budget_hold_further_runs() -> None:
    world = watched()
    world.report(6, 7)
    world.calm(train="ChampionKept")
    assert drift_runs(world) == 1
    world.now = next(r for r in world.runs.values() if r.spec.trigger.policy).meta.created
    world.pass_time(20)
    world.report(8)
    world.reconcile()
    world.reconcile()
    assert drift_runs(world) == 1, "cooldown"
    world.pass_time(100)
    world.calm(train="ChampionKept")
    assert drift_runs(world) == 2
    world.report(9)
    world.pass_time(1000)
    world.calm(train="ChampionKept")
    assert drift_runs(world) == 2, "two a week"
    world.pass_time(7 * 86400)
    world.calm(train="ChampionKept")
    assert drift_runs(world) == 2, "after the second that was refused, two windows more"
    world.report(10)
    world.calm(train="ChampionKept")
    assert drift_runs(world) == 3
    assert world.condition("Ready") == ("True", "Serving"), "a challenger that is no better is no failure"


def test_broken_data_never_retrains() -> None:
    world = watched()
    world.report(6, 7, verdict="DataQuality")
    world.calm()
    assert drift_runs(world) == 0
    assert policy_condition(world, "DataValid") == ("False", "DataQuality")


def test_too_few_rows_neither_count_nor_end_a_row_of_windows() -> None:
    world = watched()
    world.report(6)
    world.report(7, verdict="InsufficientData")
    world.calm()
    assert drift_runs(world) == 0
    world.report(8)
    world.reconcile()
    world.reconcile()
    assert drift_runs(world) == 1


def test_windows_of_another_revision_do_not_count() -> None:
    world = watched()
    world.report(6, 7, revision=9)
    world.calm()
    assert drift_runs(world) == 0


@pytest.mark.parametrize(
    ("live", "weight", "pods"), [(2, 33, 1), (2, 50, 2), (10, 10, 1), (10, 50, 10), (1, 1, 1), (3, 40, 2)]
)
def test_canary_replicas(live: int, weight: int, pods: int) -> None:
    assert canary_replicas(live, weight) == pods

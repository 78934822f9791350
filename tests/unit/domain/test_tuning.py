"""A run that tunes: its trials may fail one by one, and what they left decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.domain.world import World, result_message, spec
from truekeep.contract.results import EXIT_OUTSIDE
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import PodView
from truekeep.domain.stages import job_name, stages
from truekeep.domain.stand import message_of, reason_of

TUNING = {"search": "Grid", "parameters": [{"name": "C", "values": ["0.1", "1"]}]}
RECIPE = {"estimator": "sklearn.linear_model.LogisticRegression"}


def tuned(**training: Any) -> Any:
    return spec(training={"recipe": {**RECIPE, "tuning": TUNING}, **training})


def begun(**training: Any) -> tuple[World, str, str]:
    """A world whose run tries its settings, the run's name and the Job's."""
    world = World(spec=tuned(**training))
    world.reconcile()
    (name,) = world.runs
    job = job_name(name, "Tune")
    assert world.jobs_made == [job]
    return world, name, job


def ended(world: World, job: str, reason: str, *pods: PodView) -> None:
    world.jobs[job] = replace(world.jobs[job], failed_reason=reason, finished=world.now, pods=pods)


def dead(world: World, code: int, words: str = "", name: str = "p") -> PodView:
    killed = "OOMKilled" if code == 137 else "Error"
    return PodView(name, world.now, phase="Failed", exit_code=code, exit_reason=killed, exit_message=words)


def test_only_a_recipe_that_tunes_has_the_stage() -> None:
    assert stages(tuned()) == ("Tune", "Train")
    assert stages(spec()) == ("Train",)


def test_a_model_without_tuning_is_not_trained_anew_for_the_field() -> None:
    assert training_fingerprint(spec()) == training_fingerprint(spec(training={"recipe": {**RECIPE, "tuning": None}}))
    assert training_fingerprint(tuned()) != training_fingerprint(spec())


@pytest.mark.parametrize(
    ("field", "value", "anew"), [("parallelism", 7, False), ("folds", 4, True), ("metric", "f1", True)]
)
def test_what_changes_a_trial_trains_anew(field: str, value: Any, anew: bool) -> None:
    other = spec(training={"recipe": {**RECIPE, "tuning": {**TUNING, field: value}}})
    assert (training_fingerprint(other) != training_fingerprint(tuned())) == anew


def test_the_run_says_how_many_trials_are_done() -> None:
    world, name, job = begun()
    pod = PodView("p", world.now, phase="Running")
    world.jobs[job] = replace(world.jobs[job], completions=8, succeeded=3, pods=(pod,) * 5)
    world.reconcile()
    run = world.runs[name]
    assert (reason_of(run), message_of(run)) == ("Tuning", "3 of 8 trials are done")


@pytest.mark.parametrize("reason", ["FailedIndexes", "MaxFailedIndexesExceeded"])
@pytest.mark.parametrize("code", [137, 1])
def test_trials_that_crashed_leave_the_others_to_the_training(reason: str, code: int) -> None:
    world, name, job = begun()
    ended(world, job, reason, dead(world, code))
    world.reconcile()
    assert world.jobs_made == [job, name]
    (tried,) = world.runs[name].status.attempts
    assert tried.reason == ("OutOfMemory" if code == 137 else "TuningCrashed")
    world.end_job(name)
    world.reconcile()
    world.calm()
    assert world.runs[name].status.revision == 1
    assert world.jobs_made == [job, name], "each was made once"


def test_an_operator_that_stops_before_the_training_begins_goes_on_there() -> None:
    world, name, job = begun()
    ended(world, job, "FailedIndexes", dead(world, 1))
    world.reconcile()
    del world.jobs[name]  # the status was written, the Job was refused
    world.reconcile()
    assert world.jobs_made == [job, name, name]


def test_trials_that_need_more_memory_get_it_where_the_model_allows_it() -> None:
    world, name, job = begun(retries={"memory": {"limit": "8Gi"}})
    world.jobs[job] = replace(world.jobs[job], memory="4Gi")
    ended(world, job, "FailedIndexes", dead(world, 137))
    world.reconcile()
    world.pass_time(11)
    world.reconcile()
    assert world.jobs_made == [job, job_name(name, "Tune", 2)]


def test_trials_without_the_store_are_tried_again() -> None:
    world, name, job = begun()
    words = result_message(world.runs[name], training_fingerprint(world.spec), "StoreUnreachable")
    ended(world, job, "FailedIndexes", dead(world, EXIT_OUTSIDE, words))
    world.reconcile()
    assert reason_of(world.runs[name]) == "StoreUnreachable"
    world.pass_time(11)
    world.reconcile()
    assert world.jobs_made == [job, job_name(name, "Tune", 2)]


def test_a_tuning_that_takes_the_whole_runs_time_ends_it() -> None:
    world, name, job = begun()
    ended(world, job, "DeadlineExceeded")
    world.reconcile()
    assert reason_of(world.runs[name]) == "DeadlineExceeded"
    assert world.jobs_made == [job]


def test_what_the_training_says_of_the_trials_is_in_the_status() -> None:
    world, name, job = begun()
    world.end_job(job)
    world.reconcile()
    world.end_job(name)
    body = world.jobs[name].pods[0].exit_message
    told = '{"tuning":{"trials":2,"scored":2,"metric":"roc_auc","best":1,"score":"0.8"},' + body[1:]
    pod = replace(world.jobs[name].pods[0], exit_message=told)
    world.jobs[name] = replace(world.jobs[name], pods=(pod,))
    world.reconcile()
    tuning = world.runs[name].status.tuning
    assert tuning is not None
    assert (tuning.best, tuning.score) == (1, "0.8")


def test_a_spec_that_changes_between_the_stages_is_never_mixed() -> None:
    world, name, job = begun()
    world.end_job(job)
    world.change(spec(training={"recipe": {**RECIPE, "seed": 4, "tuning": TUNING}}))
    world.reconcile()
    assert reason_of(world.runs[name]) == "SpecChanged"
    assert name not in world.jobs_made

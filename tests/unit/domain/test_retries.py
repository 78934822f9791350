"""A stage that failed is tried again where that may help, as often as is allowed, and each try is made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.domain.world import SETTINGS, World, spec
from truekeep.api.model import ModelSpec
from truekeep.api.retries import Retries
from truekeep.api.trainingrun import Stage
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import RunObserved
from truekeep.domain.run import decide
from truekeep.domain.stages import job_name
from truekeep.domain.stand import finished, message_of, reason_of

OOM: dict[str, Any] = {"exit_code": 137, "exit_reason": "OOMKilled", "exit_message": "fold 3 of 5"}
CRASH: dict[str, Any] = {"exit_code": 1, "exit_message": "Traceback\nKeyError: 'x'"}
EVICTED: dict[str, Any] = {"exit_code": 143, "disruption": "EvictionByEvictionAPI"}


def with_retries(limits: str = "4Gi", timeout: int = 3600, **retries: Any) -> ModelSpec:
    training = {**spec().training.dump(), "timeoutSeconds": timeout, "retries": retries}
    return spec(training={**training, "resources": {"limits": {"memory": limits}}})


def begun(body: ModelSpec | None = None, *order: Stage) -> tuple[World, str]:
    """A world whose run's first Job is there, and the run's name."""
    world = World(spec=body or spec(), order=lambda spec: order or ("Train",))
    world.reconcile()
    (name,) = world.runs
    return world, name


def fail(world: World, name: str, stage: Stage = "Train", **pod: Any) -> None:
    """The newest try of the stage ends so, and the operator looks."""
    newest = max((job for job in world.jobs.values() if job.stage == stage), key=lambda job: job.attempt)
    world.end_job(newest.meta.name, **pod)
    world.reconcile()


def wait(world: World, seconds: float) -> None:
    world.pass_time(seconds)
    world.reconcile()


def tries(world: World, name: str) -> list[tuple[int, str]]:
    return [(each.number, each.reason) for each in world.runs[name].status.attempts]


def test_a_crash_is_tried_again_after_growing_pauses_and_then_no_more() -> None:
    world, name = begun()
    for number, pause in ((1, 10), (2, 20)):
        fail(world, name, **CRASH)
        assert reason_of(world.runs[name]) == "TrainerCrashed"
        assert "KeyError: 'x'" in message_of(world.runs[name]), "the last lines"
        wait(world, pause - 1)
        assert len(world.jobs_made) == number, "not yet"
        wait(world, 1)
        assert world.jobs_made[-1] == job_name(name, "Train", number + 1)
    fail(world, name, **CRASH)
    assert finished(world.runs[name])
    assert tries(world, name) == [(1, "TrainerCrashed"), (2, "TrainerCrashed"), (3, "TrainerCrashed")]
    message = message_of(world.runs[name])
    for word in ("spec.training.retries.limit (2)", "before: TrainerCrashed (2 times)", "KeyError: 'x'"):
        assert word in message
    world.calm()
    assert len(world.runs) == 1, "no further run either"
    assert world.reasons().count("TrainerCrashed") == 6, "an Event for each, about the run and about the Model"


def test_a_try_that_succeeds_makes_a_revision_and_the_failures_stay_to_be_read() -> None:
    world, name = begun()
    fail(world, name, **CRASH)
    wait(world, 10)
    world.calm()
    assert world.runs[name].status.revision == 1
    assert tries(world, name) == [(1, "TrainerCrashed")]
    assert world.runs[name].status.job == f"{name}-try2"


def test_the_log_of_a_try_that_failed_stays_until_the_run_is_over() -> None:
    world, name = begun()
    fail(world, name, **CRASH)
    wait(world, 10)
    assert set(world.jobs) == {name, f"{name}-try2"}
    world.calm()
    world.pass_time(700)
    world.reconcile()
    assert world.jobs == {}


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_the_model_says_how_often(limit: int) -> None:
    world, name = begun(with_retries(limit=limit))
    for _ in range(limit + 1):
        fail(world, name, **CRASH)
        wait(world, 300)
    assert finished(world.runs[name])
    assert len(world.jobs_made) == limit + 1


def test_without_permission_lack_of_memory_ends_a_run_at_once() -> None:
    world, name = begun()
    fail(world, name, **OOM)
    assert finished(world.runs[name])
    assert reason_of(world.runs[name]) == "OutOfMemory"
    message = message_of(world.runs[name])
    for word in ("(4Gi)", "spec.training.retries.memory", "its last lines: fold 3 of 5"):
        assert word in message


def test_with_permission_each_try_has_more_memory_up_to_the_limit() -> None:
    world, name = begun(with_retries("2Gi", limit=5, memory={"limit": "7Gi", "factor": "1.5"}))
    seen = []
    for _ in range(6):
        newest = max(world.jobs.values(), key=lambda job: job.attempt)
        seen.append(newest.memory)
        fail(world, name, **OOM)
        wait(world, 300)
    assert seen[:4] == ["2Gi", "3Gi", "4608Mi", "6912Mi"]
    assert seen[4] == "7Gi"
    assert finished(world.runs[name])
    assert len(world.jobs_made) == 5
    assert "spec.training.retries.memory.limit (7Gi) allows no more" in message_of(world.runs[name])
    assert [each.memory for each in world.runs[name].status.attempts] == seen[:5]


def test_memory_that_was_enough_stays_for_the_tries_after() -> None:
    world, name = begun(with_retries("2Gi", memory={"limit": "8Gi"}))
    fail(world, name, **OOM)
    wait(world, 10)
    fail(world, name, **EVICTED)
    wait(world, 20)
    assert [job.memory for job in world.jobs.values()] == ["2Gi", "4Gi", "4Gi"]


def test_another_stage_begins_with_what_the_spec_says() -> None:
    world, name = begun(with_retries("2Gi", memory={"limit": "8Gi"}), "Tune", "Train")
    fail(world, name, "Tune", **OOM)
    wait(world, 10)
    world.end_job(job_name(name, "Tune", 2))
    world.reconcile()
    assert world.jobs[job_name(name, "Tune", 2)].memory == "4Gi"
    assert world.jobs[name].memory == "2Gi"
    assert world.jobs[name].attempt == 1


def test_what_comes_from_outside_is_tried_while_there_is_time_and_never_counts() -> None:
    world, name = begun(with_retries(timeout=600, limit=0))
    for _ in range(5):
        fail(world, name, **EVICTED)
        if finished(world.runs[name]):
            break
        wait(world, 250)
    assert reason_of(world.runs[name]) == "Evicted"
    assert "spec.training.timeoutSeconds (600) leaves no time" in message_of(world.runs[name])
    assert len(world.jobs_made) == 3, "at 0, 250 and 500 s; at 750 s the time is over"


def test_a_store_that_comes_back_within_the_time_is_enough() -> None:
    world, name = begun()
    for _ in range(4):
        world.end_job(world.jobs_made[-1], "StoreUnreachable")
        world.reconcile()
        world.reconcile()
        assert world.condition("Trained") == ("False", "StoreUnreachable"), "it says what it waits for"
        wait(world, 300)
    world.calm()
    assert len(world.runs) == 1
    assert world.runs[name].status.revision == 1
    assert tries(world, name) == [(number, "StoreUnreachable") for number in range(1, 5)]


@pytest.mark.parametrize("reason", ["DataInvalid", "ParametersInvalid", "GatesFailed", "ChampionKept"])
def test_what_was_judged_is_never_tried_again(reason: str) -> None:
    world, name = begun(with_retries(limit=10, memory={"limit": "64Gi"}, onDeadline="Retry"))
    world.end_job(name, reason)
    world.reconcile()
    assert finished(world.runs[name])
    assert reason_of(world.runs[name]) == reason
    world.calm()
    assert world.jobs_made == [name]
    assert tries(world, name) == []


def late(world: World, name: str) -> None:
    newest = max(world.jobs.values(), key=lambda job: job.attempt)
    world.jobs[newest.meta.name] = replace(newest, failed_reason="DeadlineExceeded", finished=world.now, pods=())
    world.reconcile()


def test_a_deadline_ends_a_run() -> None:
    world, name = begun()
    world.pass_time(3600)
    late(world, name)
    assert finished(world.runs[name])
    assert reason_of(world.runs[name]) == "DeadlineExceeded"


def test_a_deadline_is_tried_again_where_that_is_allowed_with_all_of_the_time() -> None:
    world, name = begun(with_retries(timeout=600, limit=1, onDeadline="Retry"))
    world.pass_time(600)
    late(world, name)
    assert not finished(world.runs[name])
    wait(world, 10)
    assert world.seconds[f"{name}-try2"] == 590
    world.pass_time(600)
    late(world, name)
    assert finished(world.runs[name])
    assert tries(world, name) == [(1, "DeadlineExceeded"), (2, "DeadlineExceeded")]


def test_a_further_try_has_what_is_left_of_the_time() -> None:
    world, name = begun(with_retries(timeout=600))
    world.pass_time(100)
    fail(world, name, **CRASH)
    wait(world, 10)
    assert world.seconds[f"{name}-try2"] == 490


def test_a_spec_that_changes_meanwhile_ends_the_run_and_is_trained_itself() -> None:
    world, name = begun()
    world.end_job(name, "StoreUnreachable")
    world.reconcile()
    world.change(spec(seed=7))
    world.reconcile()
    assert reason_of(world.runs[name]) == "SpecChanged"
    world.calm()
    assert world.jobs_made[0] == name
    assert f"{name}-try2" not in world.jobs_made
    assert world.condition("Ready") == ("True", "Serving")


def test_more_memory_that_somebody_gives_meanwhile_is_taken() -> None:
    world, name = begun()
    fail(world, name, **CRASH)
    world.change(with_retries("16Gi"))
    wait(world, 10)
    assert world.jobs[f"{name}-try2"].memory == "16Gi"


def test_new_defaults_train_nothing_anew() -> None:
    plain = spec()
    assert plain.training.retries == Retries()
    assert training_fingerprint(plain) == training_fingerprint(with_retries(limit=7, memory={"limit": "64Gi"}))


def test_a_lost_status_does_not_begin_at_the_first_try_again() -> None:
    world, name = begun()
    fail(world, name, **CRASH)
    wait(world, 10)
    fail(world, name, **CRASH)
    run = world.runs[name]
    world.runs[name] = replace(run, status=run.status.model_copy(update={"attempts": []}))
    world.reconcile()
    wait(world, 40)
    assert world.jobs_made == [name, f"{name}-try2", f"{name}-try3"]


def test_jobs_that_somebody_deletes_do_not_change_the_count() -> None:
    world, name = begun()
    fail(world, name, **CRASH)
    world.jobs.clear()
    world.reconcile()
    assert len(world.jobs_made) == 1, "the pause holds"
    wait(world, 10)
    assert world.jobs_made == [name, f"{name}-try2"]


def test_of_very_many_tries_the_status_keeps_the_newest_and_those_that_count() -> None:
    world, name = begun(with_retries(timeout=604800, limit=2))
    fail(world, name, **CRASH)
    wait(world, 10)
    for _ in range(60):
        fail(world, name, **EVICTED)
        wait(world, 300)
    kept = world.runs[name].status.attempts
    assert len(kept) == 24
    assert (kept[0].number, kept[0].reason) == (1, "TrainerCrashed")
    assert kept[-1].number == 61
    assert world.jobs_made[-1] == f"{name}-try62"


ENDS: Sequence[Callable[[World, str], None]] = (
    lambda world, job: world.end_job(job, **CRASH),
    lambda world, job: world.end_job(job, **OOM),
    lambda world, job: world.end_job(job, **EVICTED),
    lambda world, job: world.end_job(job, "StoreUnreachable"),
    lambda world, job: world.end_job(job),
)


@given(
    st.lists(st.tuples(st.sampled_from(range(len(ENDS))), st.none() | st.integers(0, 2)), max_size=12),
    st.sampled_from((("Train",), ("Tune", "Train"), ("Tune", "Fit", "Train"))),
    st.integers(0, 3),
)
@settings(max_examples=120)
def test_killed_anywhere_no_try_is_lost_or_doubled(
    script: list[tuple[int, int | None]], order: tuple[Stage, ...], limit: int
) -> None:
    world = World(
        spec=with_retries("1Gi", timeout=604800, limit=limit, memory={"limit": "64Gi"}), order=lambda spec: order
    )
    world.reconcile()
    (name,) = world.runs
    for end, killed in script:
        for job in list(world.jobs):
            ENDS[end](world, job)
        world.reconcile(stop_after=killed)
        world.reconcile()
        world.pass_time(301)
        world.reconcile(stop_after=killed)
        world.reconcile()
    world.calm(rounds=200)
    assert len(world.jobs_made) == len(set(world.jobs_made)), "a try was made twice"
    status = world.runs[name].status
    for stage in order:
        numbers = [each.number for each in status.attempts if each.stage == stage]
        assert numbers == list(range(1, len(numbers) + 1)), "a try was lost"
        made = [job for job in world.jobs_made if job in {job_name(name, stage, n) for n in range(1, 40)}]
        assert len(made) in {len(numbers), len(numbers) + 1, 0}
        counted = [each for each in status.attempts if each.stage == stage and each.reason in COUNTED]
        assert len(counted) <= limit + 1
    again = decide(RunObserved(world.runs[name], world.model), SETTINGS, world.now)
    assert again.create_job is None


COUNTED = {"TrainerCrashed", "TuningCrashed", "ImageCrashed", "OutOfMemory"}


def test_an_operator_that_was_away_for_too_long_makes_no_further_try() -> None:
    world, name = begun(with_retries(timeout=600))
    fail(world, name, **CRASH)
    wait(world, 700)
    assert finished(world.runs[name])
    assert reason_of(world.runs[name]) == "TrainerCrashed"
    assert "leaves no time" in message_of(world.runs[name])
    assert world.jobs_made == [name]


def test_little_time_is_all_that_a_further_try_gets() -> None:
    world, name = begun(with_retries(timeout=60))
    world.pass_time(45)
    fail(world, name, **CRASH)
    wait(world, 10)
    assert world.seconds[f"{name}-try2"] == 5

"""A run of several stages: one Job after the other, of one spec, and each made once."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.domain.world import World, result_message, spec
from truekeep.api.names import ANNOTATION_FINGERPRINT
from truekeep.api.trainingrun import Stage
from truekeep.domain.observed import PodView
from truekeep.domain.stages import ALL, job_name
from truekeep.domain.stand import message_of, reason_of

ORDERS: tuple[tuple[Stage, ...], ...] = (("Train",), ("Tune", "Train"), ("Fit", "Train"), ("Tune", "Fit", "Train"))


def begun(*order: Stage) -> tuple[World, str]:
    """A world of such runs whose first Job is there, and the run's name."""
    world = World(order=lambda spec: order)
    world.reconcile()
    (name,) = world.runs
    return world, name


@pytest.mark.parametrize("order", ORDERS)
def test_each_stage_begins_when_the_one_before_is_complete(order: tuple[Stage, ...]) -> None:
    world, name = begun(*order)
    for number, stage in enumerate(order, 1):
        assert world.jobs_made == [job_name(name, each) for each in order[:number]]
        for _ in range(3):
            world.reconcile()
            world.pass_time(5)
        assert len(world.jobs_made) == number, "the next one waits"
        world.end_job(job_name(name, stage))
        world.reconcile()
    world.calm()
    assert [world.runs[name].status.revision, len(world.runs)] == [1, 1]
    world.pass_time(700)
    world.reconcile()
    assert world.jobs == {}, "all of them are cleared away"


def test_the_last_stage_bears_the_runs_name() -> None:
    assert [job_name("m-1", stage) for stage in ALL] == ["m-1-tune", "m-1-fit", "m-1"]


@given(
    st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True),
    st.sampled_from(ALL),
    st.integers(1, 2000),
)
def test_a_name_fits_and_is_always_the_same(run: str, stage: Stage, attempt: int) -> None:
    name = job_name(run, stage, attempt)
    assert name == job_name(run, stage, attempt)
    assert len(name) + (len("-99999") if stage == "Tune" else 0) <= 63
    assert name.startswith(run) or (name[:20].startswith(run[:20]) and len(run) > 40)


def test_names_of_long_runs_differ() -> None:
    runs = ["a" * 62 + "x", "a" * 62 + "y"]
    names = [job_name(run, stage, attempt) for run, stage, attempt in product(runs, ALL, (1, 2, 11))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("stage", ["Tune", "Fit"])
def test_a_stage_that_crashes_ends_the_run_with_its_last_words(stage: Stage) -> None:
    world, name = begun(stage, "Train")
    world.spec = spec(training={**world.spec.training.dump(), "retries": {"limit": 0}})
    world.end_job(job_name(name, stage), exit_code=9, exit_message="Traceback\nValueError: no such column")
    world.reconcile()
    world.pass_time(1)
    world.calm()
    assert world.condition("Trained")[0] == "False"
    assert "ValueError: no such column" in message_of(world.runs[name])
    assert name not in world.jobs_made, "what comes after it never began"


def test_a_stage_may_say_that_the_data_is_bad() -> None:
    world, name = begun("Tune", "Train")
    world.end_job(job_name(name, "Tune"), "DataInvalid")
    world.calm()
    assert reason_of(world.runs[name]) == "DataInvalid"
    assert world.jobs_made == [job_name(name, "Tune")]


def test_an_earlier_stage_can_not_hand_a_revision_over() -> None:
    world, name = begun("Fit", "Train")
    job = world.jobs[job_name(name, "Fit")]
    lie = result_message(world.runs[name], job.meta.annotations[ANNOTATION_FINGERPRINT])
    pod = PodView("x", world.now, phase="Succeeded", exit_code=0, exit_message=lie)
    world.jobs[job.meta.name] = replace(job, complete=True, finished=world.now, pods=(pod,))
    world.reconcile()
    assert world.runs[name].status.revision is None
    assert world.jobs_made == [job_name(name, "Fit"), name]


def test_two_specs_are_never_mixed() -> None:
    world, name = begun("Tune", "Train")
    world.change(spec(seed=5))
    world.reconcile()
    assert len(world.runs) == 1, "what is under way goes on to the end of its stage"
    world.end_job(job_name(name, "Tune"))
    world.reconcile()
    assert reason_of(world.runs[name]) == "SpecChanged"
    world.calm()
    assert name not in world.jobs_made
    assert len(world.runs) == 2
    assert world.condition("Ready") == ("True", "Serving")
    assert world.status.last_failure is None


def test_a_spec_that_changes_and_changes_back_is_trained() -> None:
    world, name = begun("Tune", "Train")
    world.change(spec(seed=5))
    world.end_job(job_name(name, "Tune"))
    world.reconcile()
    world.change(spec())
    world.calm()
    assert len(world.runs) >= 2
    assert world.condition("Ready") == ("True", "Serving")


def test_what_is_no_part_of_training_may_change_between_stages() -> None:
    world, name = begun("Tune", "Train")
    world.change(spec(serving={"replicas": 1}))
    world.end_job(job_name(name, "Tune"))
    world.calm()
    assert world.runs[name].status.revision == 1


def test_a_stage_has_what_is_left_of_the_runs_time() -> None:
    world, name = begun("Tune", "Train")
    world.pass_time(1000)
    world.end_job(job_name(name, "Tune"))
    world.reconcile()
    assert world.seconds[job_name(name, "Tune")] == 3600
    assert world.seconds[name] == 2600


def test_a_stage_does_not_begin_when_the_time_is_over() -> None:
    world, name = begun("Tune", "Train")
    world.pass_time(3600)
    world.end_job(job_name(name, "Tune"))
    world.reconcile()
    assert reason_of(world.runs[name]) == "DeadlineExceeded"
    assert "stage Train did not begin" in message_of(world.runs[name])


def test_a_job_that_somebody_deleted_is_made_again() -> None:
    world, name = begun("Tune", "Train")
    world.end_job(job_name(name, "Tune"))
    world.reconcile()
    del world.jobs[name]
    world.calm()
    assert world.jobs_made == [job_name(name, "Tune"), name, name]
    assert world.runs[name].status.revision == 1


def test_a_run_whose_first_job_is_gone_stays_where_it_is() -> None:
    world, name = begun("Tune", "Train")
    world.end_job(job_name(name, "Tune"))
    world.reconcile()
    del world.jobs[job_name(name, "Tune")]
    world.calm()
    assert world.jobs_made == [job_name(name, "Tune"), name]

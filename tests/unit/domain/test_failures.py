"""Why a try failed, from what Kubernetes says of its pod and its Job: a table."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.domain.world import START, spec
from truekeep.api.trainingrun import Stage, TrainingRunSpec, TrainingRunStatus
from truekeep.domain.failures import REMEDIES, may_be_repeated, remedy, told, why_failed
from truekeep.domain.observed import JobView, Meta, PodView, RunView
from truekeep.domain.pods import OBSTACLES, Trouble, obstacle, refused
from truekeep.domain.progress import progress
from truekeep.domain.stand import says

WORKING = Trouble("Training", "pod x is training")
QUOTA = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 40Mi."
DISK = 'Usage of EmptyDir volume "tmp" exceeds the limit "4Gi". '


def job(stage: Stage = "Train", reason: str = "PodFailurePolicy", **pod: Any) -> JobView:
    """A Job that failed with its pod, or without one."""
    meta = Meta("ns", "r", "uid-r", START)
    pods = (PodView("x", START, **{"phase": "Failed", **pod}),) if pod else ()
    ended = START + timedelta(minutes=3)
    said = "Pod ns/x has condition DisruptionTarget matching FailJob rule at index 0"
    return JobView(meta, False, reason, said, finished=ended, pods=pods, stage=stage, memory="2Gi")


CASES: list[tuple[str, JobView, str, tuple[str, ...]]] = [
    ("out of memory", job(exit_code=137, exit_reason="OOMKilled"), "OutOfMemory", ("(2Gi)", "retries.memory")),
    ("killed, and nobody says by whom", job(exit_code=137, exit_reason="Error"), "OutOfMemory", ("2Gi",)),
    ("by the Eviction API", job(exit_code=143, disruption="EvictionByEvictionAPI"), "Evicted", ("pod x was evicted",)),
    (
        "its node ran out of memory",
        job(exit_code=137, exit_reason="Evicted", disruption="TerminationByKubelet", ended_because=QUOTA),
        "Evicted",
        ("low on resource: memory",),
    ),
    (
        "evicted, and killed as it did not go",
        job(exit_code=137, exit_reason="OOMKilled", disruption="EvictionByEvictionAPI"),
        "Evicted",
        (),
    ),
    ("made room", job(exit_code=143, disruption="PreemptionByScheduler"), "Preempted", ("higher priority",)),
    ("taint of a node that is gone", job(disruption="DeletionByTaintManager"), "NodeLost", ("with its node",)),
    ("cleared away after its node", job(disruption="DeletionByPodGC"), "NodeLost", ()),
    ("its node shut down", job(exit_reason="Terminated", exit_code=143), "NodeLost", ()),
    ("a disruption of another kind", job(disruption="Sunspots", exit_code=1), "PodLost", ("Sunspots",)),
    ("deleted by hand", job(exit_code=143, deleting=True), "PodLost", ("was taken away",)),
    ("deleted by force", job(exit_code=137, deleting=True), "PodLost", ()),
    ("no container ever ended", job(phase="Failed"), "PodLost", ()),
    ("gone without a word", job(), "PodLost", ("is gone", "DisruptionTarget")),
    (
        "wrote too much",
        job(exit_code=137, exit_reason="Evicted", ended_because=DISK),
        "OutOfDisk",
        ("EmptyDir", "read less"),
    ),
    ("crash", job(exit_code=1, exit_message="Traceback\nKeyError: 'x'"), "TrainerCrashed", ("code 1", "KeyError: 'x'")),
    ("segmentation fault", job(exit_code=139), "TrainerCrashed", ("code 139", "left no word")),
    ("a trial crashed", job("Tune", exit_code=1), "TuningCrashed", ("stage Tune",)),
    ("a team's image crashed", job("Fit", exit_code=2, theirs=True), "ImageCrashed", ("spec.training.image",)),
    ("ours beside a team's image", job("Fit", exit_code=2), "TrainerCrashed", ()),
    ("too late", job(reason="DeadlineExceeded"), "DeadlineExceeded", ("spec.training.timeoutSeconds (3600)",)),
    (
        "too late, for want of a node",
        job(reason="DeadlineExceeded", phase="Pending", unschedulable="0/3 nodes are available"),
        "DeadlineExceeded",
        ("0/3 nodes are available",),
    ),
    (
        "too late, with a log",
        job(reason="DeadlineExceeded", exit_code=143, exit_message="fold 3 of 5"),
        "DeadlineExceeded",
        ("its last lines: fold 3 of 5",),
    ),
]


@pytest.mark.parametrize(("failed", "reason", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_end_has_its_own_reason_and_says_why(failed: JobView, reason: str, words: tuple[str, ...]) -> None:
    trouble = why_failed(failed, spec(), WORKING)
    assert trouble.reason == reason
    text = told(trouble, "try 2 begins")
    for word in (*words, "try 2 begins"):
        assert word in text
    assert trouble.reason in REMEDIES, "every failure of a try is classified"


def test_what_a_pod_said_while_it_was_there_is_kept() -> None:
    seen = Trouble("Preempted", "pod x made room")
    assert why_failed(job(), spec(), seen) is seen
    late = Trouble("DeadlineExceeded", "too long; its last lines: fold 3")
    assert why_failed(job(reason="DeadlineExceeded"), spec(), late) is late
    stuck = Trouble("Unschedulable", "0/3 nodes are available")
    assert "at the end 0/3 nodes are available" in why_failed(job(reason="DeadlineExceeded"), spec(), stuck).message
    assert why_failed(job(exit_code=1), spec(), seen).reason == "TrainerCrashed", "what is there goes first"


@pytest.mark.parametrize(
    ("reason", "how"),
    [
        ("StoreUnreachable", "Outside"),
        ("Evicted", "Outside"),
        ("Preempted", "Outside"),
        ("NodeLost", "Outside"),
        ("PodLost", "Outside"),
        ("TrainerCrashed", "Counted"),
        ("OutOfMemory", "Memory"),
        ("DeadlineExceeded", "Deadline"),
        ("OutOfDisk", "Never"),
        ("DataInvalid", "Never"),
        ("ParametersInvalid", "Never"),
        ("ImportInvalid", "Never"),
        ("GatesFailed", "Never"),
        ("ChampionKept", "Never"),
        ("SomethingNew", "Never"),
    ],
)
def test_what_helps_against_what(reason: str, how: str) -> None:
    assert remedy(reason) == how


def test_the_exit_code_of_bad_input_is_believed_of_our_own_image_alone() -> None:
    ours = why_failed(job(exit_code=3, exit_message="no request"), spec(), WORKING)
    theirs = why_failed(job("Fit", exit_code=3, theirs=True), spec(), WORKING)
    assert (may_be_repeated(ours), may_be_repeated(theirs)) == (False, True)


@pytest.mark.parametrize(
    ("who", "reason"),
    [("EvictionByEvictionAPI", "Evicted"), ("PreemptionByScheduler", "Preempted"), ("DeletionByPodGC", "NodeLost")],
)
def test_of_a_pod_that_nobody_saw_go_the_job_knows_by_whom(who: str, reason: str) -> None:
    assert why_failed(replace(job(), disruption=who), spec(), WORKING).reason == reason


def test_of_several_pods_the_one_that_failed_tells() -> None:
    good = PodView("y", START + timedelta(minutes=1), phase="Succeeded", exit_code=0)
    failed = job("Tune", exit_code=137, exit_reason="OOMKilled")
    both = JobView(failed.meta, False, "MaxFailedIndexesExceeded", pods=(*failed.pods, good), stage="Tune")
    assert why_failed(both, spec(), WORKING).reason == "OutOfMemory"


def test_all_obstacles_are_known_as_such() -> None:
    """What the last words of a run that ran out of time may quote."""
    seen = {
        trouble.reason
        for pod in (
            {"unschedulable": "no node"},
            {"waiting_reason": "ImagePullBackOff"},
            {"waiting_reason": "CreateContainerConfigError"},
            {"waiting_reason": "ContainerCreating", "waiting_message": "Secret lake not found"},
            {"waiting_reason": "ContainerCreating"},
        )
        if (trouble := obstacle([PodView("x", START, **pod)], None, START + timedelta(hours=1)))
    }
    seen |= {refused("exceeded quota: small").reason, refused("no such PriorityClass").reason}
    assert seen == OBSTACLES


def test_the_longest_that_was_seen_of_a_log_is_kept_while_a_run_that_is_late_ends() -> None:
    view = RunView(Meta("ns", "r", "uid-r", START), TrainingRunSpec(model_ref={"name": "m"}), TrainingRunStatus())
    ending = JobView(Meta("ns", "r", "uid-r", START), failing="DeadlineExceeded")
    pod = PodView("x", START, phase="Failed", exit_code=143, exit_message="fold 3 of 5", deleting=True)
    first = progress(view, replace(ending, pods=(pod,)), spec(), START)
    assert (first.state, first.reason) == ("Working", "DeadlineExceeded")
    assert "fold 3 of 5" in first.message
    view = replace(view, status=says(view, view.status, first, START).status)
    assert progress(view, ending, spec(), START) == first

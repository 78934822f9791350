"""Why a try of a stage failed, in one word, and whether another try may help. All of it is decided here.

What is wrong with the data, the parameters or the model stays wrong, and is never tried again. What came from outside
(the store, the node) is tried again for as long as the run has time. What may lie in the work itself is tried again a
stated number of times, and lack of memory or time only where the Model allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from truekeep.api.model import ModelSpec
from truekeep.api.trainingrun import Stage
from truekeep.contract.results import EXIT_INPUT, EXIT_OUTSIDE
from truekeep.domain.observed import JobView, PodView
from truekeep.domain.pods import EXIT_OUT_OF_MEMORY, OBSTACLES, Trouble, newest, obstacle, tail

# Outside: while the run has time. Counted: as often as spec.training.retries.limit says. Memory, Deadline: counted,
# too, and only where spec.training.retries allows it. Never: it can't help.
Remedy = Literal["Outside", "Counted", "Memory", "Deadline", "Never"]
REMEDIES: Mapping[str, Remedy] = {
    "StoreUnreachable": "Outside",
    "Evicted": "Outside",
    "Preempted": "Outside",
    "NodeLost": "Outside",
    "PodLost": "Outside",
    "TrainerCrashed": "Counted",
    "TuningCrashed": "Counted",
    "ImageCrashed": "Counted",
    "OutOfMemory": "Memory",
    "DeadlineExceeded": "Deadline",
    "OutOfDisk": "Never",
}
DEADLINE = "DeadlineExceeded"  # as Kubernetes says it, too
# A run that ended with these says nothing of the data, the settings or the model.
OUTSIDE = frozenset(reason for reason, remedy in REMEDIES.items() if remedy == "Outside")
# Taken away by the cluster: a pod says why only as long as it is there.
LOST = OUTSIDE - {"StoreUnreachable"}
DISRUPTIONS: Mapping[str, str] = {
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
    "PreemptionByScheduler": "Preempted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
}
ENDED_BY_NODE: Mapping[str, str] = {
    "Evicted": "Evicted",
    "Preempting": "Preempted",
    "NodeLost": "NodeLost",
    "Shutdown": "NodeLost",
    "NodeShutdown": "NodeLost",
    "Terminated": "NodeLost",
}
WORDS: Mapping[str, str] = {
    "Evicted": "was evicted",
    "Preempted": "made room for a pod of higher priority",
    "NodeLost": "went with its node",
    "PodLost": "was taken away",
}
CRASHES: Mapping[Stage, str] = {"Tune": "TuningCrashed", "Fit": "ImageCrashed", "Train": "TrainerCrashed"}


def remedy(reason: str) -> Remedy:
    """Whether another try may help after this; what is not known can't be helped."""
    return REMEDIES.get(reason, "Never")


def why_failed(job: JobView, spec: ModelSpec, seen: Trouble) -> Trouble:
    """Why a Job failed whose pods handed no result over. seen: what was said of its pod while that was there."""
    if job.failed_reason == DEADLINE:
        return seen if seen.reason == DEADLINE else too_late(job, spec, seen)
    pod = _culprit(job.pods)
    if pod is None and seen.reason in LOST:
        return seen
    if pod is None:
        reason = DISRUPTIONS.get(job.disruption or "", "PodLost")
        said = f": {job.failed_message}" if job.failed_message else ""
        return Trouble(reason, f"the pod of stage {job.stage} {WORDS[reason]}, and is gone{said}")
    return why_ended(pod, job, spec)


def why_ended(pod: PodView, job: JobView, spec: ModelSpec) -> Trouble:
    """Why a pod ended that handed no result over."""
    if full := out_of_disk(pod):
        return full
    lost = why_lost(pod)
    if lost is not None:
        return lost
    if pod.exit_reason == "OOMKilled" or pod.exit_code == EXIT_OUT_OF_MEMORY:
        return _out_of_memory(pod, job, spec)
    who = f"spec.training.image in pod {pod.name}" if pod.theirs else f"pod {pod.name}"
    words = f"{who} of stage {job.stage} ended with code {pod.exit_code}"
    said = tail(pod.exit_message)
    # Beside a team's image run containers of ours: what they do is not the image's fault.
    stage: Stage = "Train" if job.stage == "Fit" and not pod.theirs else job.stage
    code = None if pod.theirs else pod.exit_code  # theirs says nothing to us
    return Trouble(CRASHES[stage], words if said else f"{words} and left no word", code, said)


def may_be_repeated(trouble: Trouble) -> bool:
    """Whether a crash may be one that a second try does not meet: the exit code of bad input says that it is not."""
    return trouble.exit_code != EXIT_INPUT


def why_lost(pod: PodView) -> Trouble | None:
    """Why a pod was or is being taken away, None where it is not."""
    judged = pod.exit_code in {0, EXIT_INPUT, EXIT_OUTSIDE}
    if pod.disruption is not None:
        reason = DISRUPTIONS.get(pod.disruption, "PodLost")
    elif pod.exit_reason is not None and pod.exit_reason in ENDED_BY_NODE:
        reason = ENDED_BY_NODE[pod.exit_reason]
    elif (pod.phase == "Failed" and pod.exit_code is None) or (pod.deleting and not judged):
        reason = "PodLost"
    else:
        return None
    said = pod.ended_because or pod.disruption or pod.exit_reason
    return Trouble(reason, f"pod {pod.name} {WORDS[reason]}" + (f": {said}" if said else ""), pod.exit_code)


def out_of_disk(pod: PodView) -> Trouble | None:
    """Whether the kubelet ended a pod for writing more than it may, and not because its node ran out of something."""
    said = pod.ended_because
    if pod.disruption is None and pod.exit_reason == "Evicted" and ("EmptyDir" in said or "ephemeral" in said):
        words = f"pod {pod.name} wrote more to its disk than it may: {said}; read less data at once"
        return Trouble("OutOfDisk", words, pod.exit_code)
    return None


def _culprit(pods: Sequence[PodView]) -> PodView | None:
    """Of several pods the newest that ended badly, else the newest."""
    bad = [pod for pod in pods if pod.phase == "Failed" or pod.exit_code not in (None, 0) or pod.disruption]
    return newest(bad) or newest(pods)


def _out_of_memory(pod: PodView, job: JobView, spec: ModelSpec) -> Trouble:
    limits = spec.training.resources.limits
    limit = job.memory or (limits.memory if limits and limits.memory else "4Gi, the default")
    message = (
        f"pod {pod.name} needed more memory than its limit ({limit}); raise spec.training.resources.limits.memory, "
        "allow more with spec.training.retries.memory, or shorten spec.data.window"
    )
    return Trouble("OutOfMemory", message, pod.exit_code, tail(pod.exit_message))


def too_late(job: JobView, spec: ModelSpec, seen: Trouble) -> Trouble:
    """A Job that took, or is ended for having taken, longer than the run may."""
    waited = obstacle(job.pods, job.create_error, job.finished or job.meta.created)
    waited = waited or (seen if seen.reason in OBSTACLES else None)  # its pods may be gone already
    why = f"; at the end {waited.message}" if waited else ""
    message = f"the run took longer than spec.training.timeoutSeconds ({spec.training.timeout_seconds}){why}"
    pod = newest(job.pods)
    return Trouble(DEADLINE, message, None, tail(pod.exit_message) if pod is not None else "")


def told(trouble: Trouble, *more: str) -> str:
    """One text of it: the sentence, what else there is to say, and the last lines of the log."""
    sentence = "; ".join(part for part in (trouble.message, *more) if part)
    return f"{sentence}; its last lines: {trouble.last_lines}" if trouble.last_lines else sentence

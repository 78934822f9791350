"""What a run says of itself while a Job of it is under way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from truekeep.api.model import ModelSpec
from truekeep.api.trainingrun import Stage
from truekeep.domain.failures import DEADLINE, LOST, told, too_late, why_lost
from truekeep.domain.mounts import mounts
from truekeep.domain.observed import JobView, RunView
from truekeep.domain.pods import Trouble, newest, obstacle
from truekeep.domain.retries import before
from truekeep.domain.stand import Stand, message_of, reason_of

# While a pod of the stage runs.
DOING: Mapping[Stage, tuple[str, str]] = {
    "Tune": ("Tuning", "trying settings"),
    "Fit": ("Fitting", "fitting"),
    "Train": ("Training", "training"),
}


def progress(run: RunView, job: JobView, spec: ModelSpec, now: datetime) -> Stand:
    """Where a run stands whose Job has not ended: it works, or something keeps its pods from running."""
    if job.suspended:
        queue = f"waits until Kueue admits it from its queue {job.queue} (spec.training.queueName)"
        words = queue if job.queue else "is suspended; whoever suspended it lets it go on"
        return Stand("Working", "Suspended", f"the training Job {words}")
    if job.failing == DEADLINE:
        return _late(run, job, spec)
    trouble = obstacle(job.pods, job.create_error, now, mounts(spec))
    if trouble is not None:
        return Stand("Stuck", trouble.reason, trouble.message)
    return _lost(run, job) or _working(run, job)


def _working(run: RunView, job: JobView) -> Stand:
    pod = newest(job.pods)
    tries = f"; before: {before(run.status.attempts)}" if run.status.attempts else ""
    if pod is None or pod.phase != "Running":
        return Stand("Working", "Starting", f"the pod of stage {job.stage} is starting{tries}")
    reason, doing = DOING[job.stage]
    if job.stage == "Tune" and job.completions is not None:
        words = f"{job.succeeded} of {job.completions} trials are done"
        return Stand("Working", reason, words + (f" (try {job.attempt}{tries})" if job.attempt > 1 else ""))
    count = max(job.attempt, len(job.pods))
    return Stand("Working", reason, f"pod {pod.name} is {doing}" + (f" (try {count}{tries})" if count > 1 else ""))


def _lost(run: RunView, job: JobView) -> Stand | None:
    """The pod is being taken away, or was: it says why only as long as it is there, and then the status does."""
    pod = newest(job.pods)
    lost = why_lost(pod) if pod is not None else None
    if lost is not None:
        return Stand("Working", lost.reason, lost.message)
    if pod is None and reason_of(run) in LOST and job.meta.name == run.status.job:
        return Stand("Working", reason_of(run), message_of(run))
    return None


def _late(run: RunView, job: JobView, spec: ModelSpec) -> Stand:
    """The Job is being ended for having taken too long. The longest that was seen of the log is kept."""
    seen = Trouble(reason_of(run), message_of(run))
    words = told(too_late(job, spec, seen))
    return Stand("Working", DEADLINE, max(words, seen.message, key=len) if seen.reason == DEADLINE else words)

"""What becomes of a Model's captures: whether those that are too old are deleted, as the Model asks."""

from __future__ import annotations

from datetime import datetime

from truekeep.api.names import retention_name
from truekeep.domain.conditions import Finding
from truekeep.domain.mounts import mounts
from truekeep.domain.observed import JobView, ModelObserved
from truekeep.domain.pods import newest, obstacle, tail


def swept(observed: ModelObserved, now: datetime) -> Finding | None:
    """How the last sweep went: who keeps data longer than he promised must hear of it. None where nobody promised."""
    capture = observed.model.spec.serving.capture
    if capture is None or capture.retention_days is None:
        return None
    name = retention_name(observed.model.meta.name)
    jobs = sorted(observed.sweeps, key=lambda job: (job.meta.created, job.meta.name))
    if jobs and not jobs[-1].complete:
        failed = _failure(jobs[-1], observed, now)
        if failed is not None:
            return failed
    done = [job for job in jobs if job.complete]
    if not done:
        return Finding("CapturesSwept", "Unknown", "NoSweepYet", f"the CronJob {name} sweeps once a day")
    return Finding("CapturesSwept", "True", "Swept", _words(done[-1]) or f"the last sweep of {name} succeeded")


def _failure(job: JobView, observed: ModelObserved, now: datetime) -> Finding | None:
    """Why a sweep failed, or does not begin; None where it is under way."""
    again = "captures stay longer than spec.serving.capture.retentionDays until a sweep succeeds"
    if job.failed_reason is None:
        trouble = obstacle(job.pods, job.create_error, now, mounts(observed.model.spec))
        return Finding("CapturesSwept", "False", trouble.reason, f"{trouble.message}; {again}") if trouble else None
    words = _words(job) or f"the last sweep failed ({job.failed_reason}): {job.failed_message}"
    return Finding("CapturesSwept", "False", "SweepFailed", f"{words}; {again}")


def _words(job: JobView) -> str:
    """What its last pod said."""
    pod = newest([pod for pod in job.pods if pod.exit_code is not None])
    return tail(pod.exit_message) if pod else ""

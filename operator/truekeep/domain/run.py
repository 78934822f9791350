"""What to do about a TrainingRun: wait for its turn, go through its stages, read how it ended, number the revision."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from truekeep.api.names import ANNOTATION_AUTHOR, ANNOTATION_FINGERPRINT, ANNOTATION_GENERATION, ANNOTATION_IMAGE
from truekeep.api.trainingrun import Stage, TrainingRunStatus
from truekeep.contract.results import TrainResult
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.failures import LOST, OUTSIDE, remedy, told, why_failed
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import JobView, ModelView, RunObserved, RunView
from truekeep.domain.plan import Attempt, Note, RunPlan, Settings
from truekeep.domain.pods import Trouble
from truekeep.domain.progress import progress
from truekeep.domain.retries import again, before, deadline, due_at, failed, memory, no_time, number, record, recorded
from truekeep.domain.stages import LAST, Order, furthest, job_name, stages
from truekeep.domain.stand import (
    DECLINED,
    VOID,
    Stand,
    State,
    finished,
    message_of,
    reason_of,
    says,
    stand_again,
    succeeded,
)

# A further run may help: nothing is wrong with the data or the settings.
RETRYABLE = OUTSIDE
POLL_SECONDS = 15.0
LEAST_SECONDS = 60  # that a Job gets
# Of an Indexed Job, which Kubernetes calls failed also where a single index of it is.
SOME_FAILED = frozenset({"FailedIndexes", "MaxFailedIndexesExceeded"})


def decide(observed: RunObserved, settings: Settings, now: datetime, order: Order = stages) -> RunPlan:
    """What to do about a run. Pure: the same observation and time, the same answer. order: the stages of a spec."""
    run = observed.run
    if finished(run):
        return _retire_jobs(observed, settings, now)
    if run.meta.deleting:
        return RunPlan(status=run.status)
    if observed.model is None:
        name = run.spec.model_ref.name
        message = f"there is no Model {name} in this namespace; the run starts when there is one"
        return says(run, run.status, Stand("Stuck", "ModelNotFound", message), now)
    job = furthest(observed.jobs)
    if job is not None:
        return _follow_job(observed, observed.model, job, now, order)
    ahead = _ahead(observed, observed.model)
    if ahead is not None:
        message = f"waits for run {ahead.meta.name}: a model is trained by one run at a time"
        return says(run, run.status, Stand("Working", "Queued", message), now, POLL_SECONDS)
    return _begin(run, observed.model, run.status, order(observed.model.spec)[0], now)


def _ahead(observed: RunObserved, model: ModelView) -> RunView | None:
    """The unfinished run that goes first, if one does: the older one, by name where they are of one second."""
    if model.spec.retraining is not None and model.spec.retraining.concurrency == "Allow":
        return None
    mine = (observed.run.meta.created, observed.run.meta.name)
    others = [
        other
        for other in observed.siblings
        if not finished(other) and not other.meta.deleting and (other.meta.created, other.meta.name) < mine
    ]
    return min(others, key=lambda other: (other.meta.created, other.meta.name), default=None)


def _begin(run: RunView, model: ModelView, status: TrainingRunStatus, stage: Stage, now: datetime) -> RunPlan:
    """Make the Job of a stage, or of its next try once that is due, with what is left of the run's time."""
    tries = failed(status, stage)
    if tries and status.training_fingerprint != training_fingerprint(model.spec):
        return _ended(run, status, _changed(f"stage {stage} was tried first"), now)
    if tries and now < (due := due_at(status, stage)):
        reason, again_at = tries[-1].reason, f"try {number(status, stage)} begins at {due:%H:%M:%S} UTC"
        message = message_of(run) if reason_of(run) == reason else f"{tries[-1].message}; {again_at}"
        stand = Stand("Stuck" if _stalls(reason) else "Working", reason, message)
        return says(run, status, stand, now, (due - now).total_seconds())
    count = number(status, stage)
    name = job_name(run.meta.name, stage, count)
    status = status.model_copy(update={"job": name, "start_time": status.start_time or whole_seconds(now)})
    seconds = math.ceil((deadline(status, model.spec, now) - now).total_seconds())
    if tries and seconds <= 0:
        message = f"{tries[-1].message}; {no_time(model.spec)}"
        return _ended(run, status, Stand("Failed", tries[-1].reason, message), now)
    # A first try's Job that somebody deleted may have left its result in the store: there is time to read it.
    seconds = seconds if tries else max(seconds, LEAST_SECONDS)
    attempt = Attempt(count, seconds, memory(status, stage, model.spec.training.retries.memory))
    plan = says(run, status, Stand("Working", "Starting", f"the Job of stage {stage} is being made"), now, POLL_SECONDS)
    return replace(plan, create_job=stage, attempt=attempt)


def _follow_job(observed: RunObserved, model: ModelView, job: JobView, now: datetime, order: Order) -> RunPlan:
    run = observed.run
    status = run.status.model_copy(
        update={
            "job": job.meta.name,
            "start_time": run.status.start_time or whole_seconds(job.meta.created),
            "training_fingerprint": job.meta.annotations.get(ANNOTATION_FINGERPRINT, run.status.training_fingerprint),
            "image": job.meta.annotations.get(ANNOTATION_IMAGE, run.status.image),
            "author": job.meta.annotations.get(ANNOTATION_AUTHOR, run.status.author),
            "model_generation": _number(job.meta.annotations.get(ANNOTATION_GENERATION)) or run.status.model_generation,
        }
    )
    if recorded(status, job):
        return _after_failure(run, model, status, job, now, order)
    result = _result(job, run.meta.uid)
    if result is not None and result.reason not in OUTSIDE:
        return _finish(observed, model, status, result, now)
    if job.failed_reason is not None:
        seen = Trouble(reason_of(run), message_of(run))
        trouble = Trouble(result.reason, result.message) if result else why_failed(job, model.spec, seen)
        return _try_again(run, model, status, job, trouble, now, order)
    if job.complete and job.stage != LAST:
        return _go_on(run, model, status, job, now, order)
    if job.complete:
        # The pod and its message are gone, but the result is in the store: a new pod finds it there.
        stand = Stand("Working", "ResultLost", "the pod is gone with its message; a new one reads the result again")
        return replace(says(run, status, stand, now, 2.0), delete_jobs=(job.stage,))
    return _wait_for(observed, model, status, job, now)


def _wait_for(
    observed: RunObserved, model: ModelView, status: TrainingRunStatus, job: JobView, now: datetime
) -> RunPlan:
    """What to say while a Job is under way."""
    run = observed.run
    stand = progress(run, job, model.spec, now)
    if stand.state == "Stuck" and _may_start_anew(job, status, model):
        message = f"the Model changed while the pod could not start, so its Job is made anew; it was {stand.reason}"
        if len(observed.jobs) == 1 and not status.attempts:
            status = status.model_copy(update={"start_time": None})  # nothing ran yet: all of its time is left
        plan = says(run, status, Stand("Working", "Starting", message), now, 2.0)
        return replace(plan, delete_jobs=(job.stage,))
    return says(run, status, stand, now, POLL_SECONDS)


def _try_again(
    run: RunView,
    model: ModelView,
    status: TrainingRunStatus,
    job: JobView,
    trouble: Trouble,
    now: datetime,
    order: Order,
) -> RunPlan:
    """Write down that a try failed; the next look makes the next one, where there is one."""
    earlier = before(status.attempts)
    status = record(status, job, trouble, now)
    if _trials_are_over(status, job, trouble, model, now):
        return _go_on(run, model, status, job, now, order)
    after = again(status, job, trouble, model.spec, now)
    message = told(trouble, after.words, f"before: {earlier}" if earlier else "")
    if after.due is None:
        return _ended(run, status, Stand("Failed", trouble.reason, message), now)
    stand = Stand("Stuck" if _stalls(trouble.reason) else "Working", trouble.reason, message)
    note = Note("Warning", trouble.reason, message)
    return says(run, status, stand, now, max((after.due - now).total_seconds(), 0.0), [note])


def _after_failure(
    run: RunView, model: ModelView, status: TrainingRunStatus, job: JobView, now: datetime, order: Order
) -> RunPlan:
    """What follows a try whose failure is in the status."""
    last = failed(status, job.stage)[-1]
    if _trials_are_over(status, job, Trouble(last.reason, last.message), model, now):
        return _go_on(run, model, status, job, now, order)
    return _begin(run, model, status, job.stage, now)


def _trials_are_over(
    status: TrainingRunStatus, job: JobView, trouble: Trouble, model: ModelView, now: datetime
) -> bool:
    """Whether some trials of a tuning failed, and no other try would bring them: the training then decides whether
    those that are done are enough. Its Job tried a crash again already, each trial by itself."""
    if job.failed_reason not in SOME_FAILED:
        return False
    return remedy(trouble.reason) == "Counted" or again(status, job, trouble, model.spec, now).due is None


def _stalls(reason: str) -> bool:
    """Whether a run that waits for its next try needs somebody: the store does not mend itself, a lost pod does."""
    return reason not in LOST and reason in OUTSIDE


def _go_on(
    run: RunView, model: ModelView, status: TrainingRunStatus, job: JobView, now: datetime, order: Order
) -> RunPlan:
    """From a stage that is complete to the next, unless that one would be of another spec."""
    wanted = order(model.spec)
    if status.training_fingerprint != training_fingerprint(model.spec) or job.stage not in wanted:
        return _ended(run, status, _changed(f"stage {job.stage} began"), now)
    following = wanted[wanted.index(job.stage) + 1]
    if now >= deadline(status, model.spec, now):
        message = (
            f"the run took longer than spec.training.timeoutSeconds ({model.spec.training.timeout_seconds}); "
            f"stage {following} did not begin any more"
        )
        return _ended(run, status, Stand("Failed", "DeadlineExceeded", message), now)
    return _begin(run, model, status, following, now)


def _changed(since: str) -> Stand:
    message = (
        f"the Model changed after {since}, and one run never mixes two specs; a run of its own is started for the new "
        "one"
    )
    return Stand("Declined", "SpecChanged", message)


def _ended(run: RunView, status: TrainingRunStatus, stand: Stand, now: datetime) -> RunPlan:
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    return says(run, status, stand, now, 1.0)


def _may_start_anew(job: JobView, status: TrainingRunStatus, model: ModelView) -> bool:
    """Whether a stuck Job stands for a spec that was mended since, and nothing is lost with it: no pod of it ran yet.

    A Job can't be changed; without this a mended node selector would wait for the old Job's deadline."""
    idle = all(pod.phase == "Pending" and pod.exit_code is None and pod.restarts == 0 for pod in job.pods)
    return idle and status.model_generation not in (None, model.meta.generation)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _result(job: JobView, run_uid: str) -> TrainResult | None:
    """What a pod of the Job handed over; the one of the newest pod that did. Other words are a log's, not a result."""
    for pod in sorted(job.pods, key=lambda pod: (pod.created, pod.name), reverse=True):
        if pod.theirs or pod.exit_code is None or not pod.exit_message.lstrip().startswith("{"):
            continue
        try:
            result = TrainResult.model_validate_json(pod.exit_message)
        except ValidationError:
            continue
        if result.run_uid == run_uid and (job.stage == LAST or result.reason != "Succeeded"):
            return result
    return None


def _finish(
    observed: RunObserved, model: ModelView, status: TrainingRunStatus, result: TrainResult, now: datetime
) -> RunPlan:
    update: dict[str, object] = {
        "completion_time": whole_seconds(now),
        "data": result.data,
        "tuning": result.tuning,
        "metrics": list(result.metrics),
        "gates": list(result.gates),
        "champion": result.champion,
        "cut_off": result.cut_off,
        "fit_seconds": result.fit_seconds,
        "record": result.record,
        "training_fingerprint": result.training_fingerprint,
    }
    if result.reason != "Succeeded":
        state: State = "Declined" if result.reason in DECLINED else "Failed"
        stand = Stand(state, result.reason, result.message)
        return says(observed.run, status.model_copy(update=update), stand, now, 1.0)
    numbers = [other.status.revision or 0 for other in observed.siblings]
    revision = max([model.status.latest_revision, *numbers]) + 1
    update |= {"revision": revision, "artifact": result.artifact}
    stand = Stand("Succeeded", "Succeeded", f"revision {revision}: {result.message}")
    return says(observed.run, status.model_copy(update=update), stand, now, 1.0)


def _retire_jobs(observed: RunObserved, settings: Settings, now: datetime) -> RunPlan:
    run = observed.run
    plan = says(run, run.status, stand_again(run), now)
    if all(job.meta.deleting for job in (*observed.jobs.values(), *observed.earlier)):
        return plan
    done = run.status.completion_time or now
    left = (done + timedelta(seconds=settings.job_retention_seconds) - now).total_seconds()
    if left > 0:
        return replace(plan, look_again_seconds=left)
    return replace(plan, delete_jobs=tuple(observed.jobs))


__all__ = [
    "DECLINED",
    "RETRYABLE",
    "VOID",
    "decide",
    "finished",
    "message_of",
    "reason_of",
    "succeeded",
]

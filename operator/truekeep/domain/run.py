"""What to do about a TrainingRun: wait for its turn, go through its stages, read how it ended, number the revision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from truekeep.api.model import ModelSpec
from truekeep.api.names import ANNOTATION_AUTHOR, ANNOTATION_FINGERPRINT, ANNOTATION_GENERATION, ANNOTATION_IMAGE
from truekeep.api.trainingrun import TrainingRunStatus
from truekeep.contract.results import TrainResult
from truekeep.domain.conditions import Finding, find, holds, settle, whole_seconds
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import JobView, ModelView, PodView, RunObserved, RunView
from truekeep.domain.plan import FIRST_ATTEMPT, Attempt, Note, RunPlan, Settings
from truekeep.domain.pods import EXIT_OUT_OF_MEMORY, Trouble, newest, obstacle, tail
from truekeep.domain.stages import LAST, Order, Stage, furthest, job_name, stages

State = Literal["Working", "Stuck", "Succeeded", "Failed", "Declined"]
# A second try may help: nothing is wrong with the data or the settings.
RETRYABLE = frozenset({"StoreUnreachable", "PodLost"})
# How a run may end that says nothing is broken: the live model is simply the better one.
DECLINED = frozenset({"ChampionKept", "SpecChanged"})
# What says nothing about the spec that was trained, nor of the model: it is as if the run had not been.
VOID = frozenset({"SpecChanged"})
# What a run says of itself while a pod of the stage runs.
DOING: Mapping[Stage, tuple[str, str]] = {
    "Tune": ("Tuning", "trying settings"),
    "Fit": ("Fitting", "fitting"),
    "Train": ("Training", "training"),
}
POLL_SECONDS = 15.0
LEAST_SECONDS = 60  # that a Job gets


@dataclass(frozen=True)
class Stand:
    """Where a run stands."""

    state: State
    reason: str
    message: str


def finished(run: RunView) -> bool:
    """Whether the run ended, one way or the other."""
    return holds(run.status.conditions, "Complete") or holds(run.status.conditions, "Failed")


def succeeded(run: RunView) -> bool:
    """Whether the run is a revision."""
    return run.status.revision is not None and holds(run.status.conditions, "Complete")


def reason_of(run: RunView) -> str:
    """The one word for where the run stands."""
    ready = find(run.status.conditions, "Ready")
    return ready.reason if ready else "Pending"


def message_of(run: RunView) -> str:
    """The sentence for where the run stands."""
    ready = find(run.status.conditions, "Ready")
    return ready.message if ready else ""


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
        return _plan(run, run.status, Stand("Stuck", "ModelNotFound", message), now)
    job = furthest(observed.jobs)
    if job is not None:
        return _follow_job(observed, observed.model, job, now, order)
    ahead = _ahead(observed)
    if ahead is not None:
        message = f"waits for run {ahead.meta.name}: a model is trained by one run at a time"
        return _plan(run, run.status, Stand("Working", "Queued", message), now, look_again=POLL_SECONDS)
    return _begin(run, observed.model, run.status, order(observed.model.spec)[0], now)


def _begin(run: RunView, model: ModelView, status: TrainingRunStatus, stage: Stage, now: datetime) -> RunPlan:
    """Make the Job of a stage, with what is left of the run's time."""
    name = job_name(run.meta.name, stage)
    status = status.model_copy(update={"job": name, "start_time": status.start_time or whole_seconds(now)})
    left = _deadline(status, model.spec, now) - now
    # A Job that was there before may have left its result in the store: there is always time to read it.
    seconds = max(math.ceil(left.total_seconds()), LEAST_SECONDS)
    stand = Stand("Working", "Starting", f"the Job of stage {stage} is being made")
    attempt = Attempt(seconds=seconds)
    return _plan(run, status, stand, now, create_job=stage, attempt=attempt, look_again=POLL_SECONDS)


def _deadline(status: TrainingRunStatus, spec: ModelSpec, now: datetime) -> datetime:
    """When the run's time is over."""
    return (status.start_time or now) + timedelta(seconds=spec.training.timeout_seconds)


def _ahead(observed: RunObserved) -> RunView | None:
    """The unfinished run that goes first, if one does: the older one, by name where they are of one second."""
    mine = (observed.run.meta.created, observed.run.meta.name)
    others = [
        other
        for other in observed.siblings
        if not finished(other) and not other.meta.deleting and (other.meta.created, other.meta.name) < mine
    ]
    return min(others, key=lambda other: (other.meta.created, other.meta.name), default=None)


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
    result = _result(job, run.meta.uid)
    ended = job.complete or job.failed_reason is not None
    if result is not None and (result.reason != "StoreUnreachable" or ended):
        return _finish(observed, model, status, result, now)
    if job.complete and job.stage != LAST:
        return _go_on(run, model, status, job, now, order)
    if job.complete:
        # The pod and its message are gone, but the result is in the store: a new pod finds it there.
        stand = Stand("Working", "ResultLost", "the pod is gone with its message; a new one reads the result again")
        return _plan(run, status, stand, now, delete_jobs=(job.stage,), look_again=2.0)
    if job.failed_reason is not None:
        stand = _failure(job, model.spec)
        status = status.model_copy(update={"completion_time": whole_seconds(now)})
        return _plan(run, status, stand, now, look_again=1.0)
    stand = _progress(job, model.spec, now)
    if stand.state == "Stuck" and _may_start_anew(job, status, model):
        message = f"the Model changed while the pod could not start, so its Job is made anew; it was {stand.reason}"
        anew = Stand("Working", "Starting", message)
        if len(observed.jobs) == 1:
            status = status.model_copy(update={"start_time": None})  # nothing ran yet: all of its time is left
        return _plan(run, status, anew, now, delete_jobs=(job.stage,), look_again=2.0)
    return _plan(run, status, stand, now, look_again=POLL_SECONDS)


def _go_on(
    run: RunView, model: ModelView, status: TrainingRunStatus, job: JobView, now: datetime, order: Order
) -> RunPlan:
    """From a stage that is complete to the next, unless that one would be of another spec."""
    wanted = order(model.spec)
    if status.training_fingerprint != training_fingerprint(model.spec) or job.stage not in wanted:
        message = (
            f"the Model changed since stage {job.stage} began, and one run never mixes two specs; a run of its own is "
            "started for the new one"
        )
        status = status.model_copy(update={"completion_time": whole_seconds(now)})
        return _plan(run, status, Stand("Declined", "SpecChanged", message), now, look_again=1.0)
    following = wanted[wanted.index(job.stage) + 1]
    if now >= _deadline(status, model.spec, now):
        message = (
            f"the run took longer than spec.training.timeoutSeconds ({model.spec.training.timeout_seconds}); "
            f"stage {following} did not begin any more"
        )
        status = status.model_copy(update={"completion_time": whole_seconds(now)})
        return _plan(run, status, Stand("Failed", "DeadlineExceeded", message), now, look_again=1.0)
    return _begin(run, model, status, following, now)


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
        if pod.exit_code is None or not pod.exit_message.lstrip().startswith("{"):
            continue
        try:
            result = TrainResult.model_validate_json(pod.exit_message)
        except ValidationError:
            continue
        if result.run_uid == run_uid and (job.stage == LAST or result.reason != "Succeeded"):
            return result
    return None


def _progress(job: JobView, spec: ModelSpec, now: datetime) -> Stand:
    if job.suspended:
        return Stand("Working", "Suspended", "the training Job is suspended; whoever suspended it lets it go on")
    trouble = obstacle(job.pods, job.create_error, now, mounts(spec))
    if trouble is not None:
        return Stand("Stuck", trouble.reason, trouble.message)
    pod = newest(job.pods)
    if pod is not None and pod.phase == "Running":
        attempt = f" (try {len(job.pods)})" if len(job.pods) > 1 else ""
        reason, doing = DOING[job.stage]
        return Stand("Working", reason, f"pod {pod.name} is {doing}{attempt}")
    return Stand("Working", "Starting", f"the pod of stage {job.stage} is starting")


def mounts(spec: ModelSpec) -> tuple[str, ...]:
    """The Secrets and ConfigMaps that pods of this Model mount, for messages."""
    data = spec.data
    places = [spec.store.s3, data.source.s3, *(join.source.s3 for join in data.joins)]
    places += [data.label.source.s3] if data.label.source else []
    places += [spec.training.import_.s3] if spec.training.import_ else []
    places += [one.source.s3 for one in spec.evaluation.benchmarks]
    places += [spec.serving.capture.s3] if spec.serving.capture else []
    secrets = {f"Secret {p.credentials_secret_ref.name}" for p in places if p.credentials_secret_ref}
    if spec.serving.capture and spec.serving.capture.hash_key_secret_ref:
        secrets.add(f"Secret {spec.serving.capture.hash_key_secret_ref.name}")
    bundles = {f"ConfigMap {p.ca_bundle_ref.name}" for p in places if p.ca_bundle_ref}
    return tuple(sorted(secrets | bundles))


def _failure(job: JobView, spec: ModelSpec) -> Stand:
    """Why a Job failed whose pods handed no result over."""
    pod = newest(job.pods)
    if job.failed_reason == "DeadlineExceeded":
        waited = obstacle(job.pods, job.create_error, job.finished or job.meta.created + timedelta(days=1))
        why = f"; at the end {waited.message}" if waited else ""
        message = f"the run took longer than spec.training.timeoutSeconds ({spec.training.timeout_seconds}){why}"
        return Stand("Failed", "DeadlineExceeded", message)
    if pod is None:
        return Stand("Failed", "PodLost", f"the training pod is gone: {job.failed_message}")
    trouble = _pod_failure(pod, spec)
    return Stand("Failed", trouble.reason, trouble.message)


def _pod_failure(pod: PodView, spec: ModelSpec) -> Trouble:
    if pod.exit_reason == "OOMKilled" or pod.exit_code == EXIT_OUT_OF_MEMORY:
        limits = spec.training.resources.limits
        limit = limits.memory if limits and limits.memory else "4Gi, the default"
        return Trouble(
            "OutOfMemory",
            f"pod {pod.name} needed more memory than its limit ({limit}); raise "
            "spec.training.resources.limits.memory or shorten spec.data.window",
            pod.exit_code,
        )
    if pod.exit_reason in {"Evicted", "NodeLost", "Shutdown", "Preempting"} or pod.exit_code is None:
        return Trouble("PodLost", f"pod {pod.name} was taken away by its node: {pod.exit_reason or 'no reason given'}")
    last_words = tail(pod.exit_message) or "it left no word"
    return Trouble("TrainerCrashed", f"pod {pod.name} ended with code {pod.exit_code}: {last_words}", pod.exit_code)


def _finish(
    observed: RunObserved, model: ModelView, status: TrainingRunStatus, result: TrainResult, now: datetime
) -> RunPlan:
    update: dict[str, object] = {
        "completion_time": whole_seconds(now),
        "data": result.data,
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
        return _plan(observed.run, status.model_copy(update=update), stand, now, look_again=1.0)
    numbers = [other.status.revision or 0 for other in observed.siblings]
    revision = max([model.status.latest_revision, *numbers]) + 1
    update |= {"revision": revision, "artifact": result.artifact}
    stand = Stand("Succeeded", "Succeeded", f"revision {revision}: {result.message}")
    return _plan(observed.run, status.model_copy(update=update), stand, now, look_again=1.0)


def _retire_jobs(observed: RunObserved, settings: Settings, now: datetime) -> RunPlan:
    run = observed.run
    stand = _stand_again(run)
    plan = _plan(run, run.status, stand, now)
    if all(job.meta.deleting for job in (*observed.jobs.values(), *observed.earlier)):
        return plan
    done = run.status.completion_time or now
    left = (done + timedelta(seconds=settings.job_retention_seconds) - now).total_seconds()
    if left > 0:
        return RunPlan(status=plan.status, notes=plan.notes, look_again_seconds=left)
    return RunPlan(status=plan.status, notes=plan.notes, delete_jobs=tuple(observed.jobs))


def _stand_again(run: RunView) -> Stand:
    """A finished run's stand, from its own conditions: it never changes any more."""
    reason, message = reason_of(run), message_of(run)
    if succeeded(run):
        return Stand("Succeeded", reason, message)
    return Stand("Declined" if reason in DECLINED else "Failed", reason, message)


def _plan(
    run: RunView,
    status: TrainingRunStatus,
    stand: Stand,
    now: datetime,
    *,
    create_job: Stage | None = None,
    attempt: Attempt = FIRST_ATTEMPT,
    delete_jobs: tuple[Stage, ...] = (),
    look_again: float | None = None,
) -> RunPlan:
    done = stand.state in {"Succeeded", "Failed", "Declined"}

    def flag(value: bool) -> Literal["True", "False"]:
        return "True" if value else "False"

    wanted = [
        Finding("Ready", flag(stand.state == "Succeeded"), stand.reason, stand.message),
        Finding("Reconciling", flag(stand.state == "Working"), stand.reason, "" if done else stand.message),
        Finding("Stalled", flag(stand.state in {"Stuck", "Failed"}), stand.reason, stand.message),
        Finding("Complete", flag(stand.state == "Succeeded"), stand.reason),
        Finding("Failed", flag(stand.state in {"Failed", "Declined"}), stand.reason),
    ]
    generation = run.meta.generation
    status = status.model_copy(
        update={
            "observed_generation": generation,
            "conditions": settle(run.status.conditions, wanted, generation, now),
        }
    )
    notes: tuple[Note, ...] = ()
    if reason_of(run) != stand.reason:
        bad = stand.state in {"Stuck", "Failed"}
        notes = (Note("Warning" if bad else "Normal", stand.reason, stand.message or stand.reason),)
    return RunPlan(
        status=status,
        create_job=create_job,
        attempt=attempt,
        delete_jobs=delete_jobs,
        notes=notes,
        look_again_seconds=look_again,
    )

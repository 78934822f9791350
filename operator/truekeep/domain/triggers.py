"""One rule decides what starts the next run of a Model, and that it is started once.

A run's name follows from its cause, and the runs that are there are read just before one is made: a cause that was
answered is never answered again, whatever was lost in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from truekeep.api.names import ANNOTATION_RETRAIN, run_name
from truekeep.api.retraining import SchedulePlan
from truekeep.api.trainingrun import PolicyTrigger, Trigger
from truekeep.contract.canonical import digest_of
from truekeep.domain import overrides
from truekeep.domain.breaches import Breach, nothing_to_retrain, restraint, to_retrain
from truekeep.domain.calendar import due
from truekeep.domain.failures import OUTSIDE
from truekeep.domain.newdata import News, news
from truekeep.domain.observed import ModelObserved, PolicyView, RunView
from truekeep.domain.plan import RunIntent
from truekeep.domain.pods import Trouble
from truekeep.domain.restoring import came_to_nothing
from truekeep.domain.stand import VOID, finished, reason_of, succeeded

UNASKED = frozenset({"Schedule", "NewData"})
MAX_ATTEMPTS = 5
FIRST_BACKOFF = timedelta(seconds=30)
TEXT_LIMIT = 512
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Training:
    """Where training stands with what the spec asks for."""

    fingerprint: str
    active: RunView | None  # the run that is under way or waits, the oldest
    last: RunView | None  # the newest run that ended
    satisfied: bool  # some revision was trained as the spec says
    settled: bool  # nothing is to come for this spec: it is satisfied, or a further try would not help
    wanted: RunIntent | None = None
    handled_retrain: str | None = None
    wait_seconds: float | None = None
    schedule: SchedulePlan | None = None
    news: News = field(default_factory=News)
    problem: Trouble | None = None  # a schedule that can't be read


def training(observed: ModelObserved, fingerprint: str, busy: bool, now: datetime) -> Training:
    """What is trained, and what is to be trained next. busy: a rollout is under way; a retrain waits for its end."""
    runs = sorted(observed.runs, key=lambda run: (run.meta.created, run.meta.name))
    unfinished = [run for run in runs if not finished(run) and not run.meta.deleting]
    active = unfinished[0] if unfinished else None
    ended = [run for run in runs if finished(run) and not came_to_nothing(run)]
    last = ended[-1] if ended else None
    same = [run for run in ended if run.status.training_fingerprint == fingerprint]
    satisfied = any(succeeded(run) for run in same)
    retryable = [run for run in same if reason_of(run) in OUTSIDE]
    hopeless = any(not succeeded(run) and reason_of(run) not in OUTSIDE | VOID for run in same)
    settled = satisfied or hopeless or len(retryable) >= MAX_ATTEMPTS
    result = Training(
        fingerprint, active, last, satisfied, settled, handled_retrain=observed.model.status.handled_retrain
    )
    clock = due(observed, now)
    result = replace(
        result, schedule=clock.plan, problem=clock.problem, wait_seconds=clock.wait_seconds, news=news(observed)
    )
    if overrides.paused(observed.model):
        return result
    if not settled:
        void = sum(reason_of(run) in VOID for run in same)
        return _train_spec(result, observed, retryable, void, now)
    return _train_again(result, observed, busy, clock.run, now)


def _train_again(
    result: Training, observed: ModelObserved, busy: bool, scheduled: RunIntent | None, now: datetime
) -> Training:
    """A run though the spec has its revision: a person's, a policy's, or one for new data or the clock."""
    active, runs = result.active, observed.runs
    manual = _manual(observed)
    if manual is not None:
        handled = manual.trigger.value
        if any(run.meta.name == manual.name for run in runs):
            return replace(result, handled_retrain=handled)
        if active is None:
            return replace(result, wanted=manual, handled_retrain=handled)
        return result
    retraining = observed.model.spec.retraining
    if active is not None or busy or (retraining and retraining.suspend == "Now"):
        return result
    result = _train_drift(result, observed, now)
    return result if result.wanted else _train_unasked(result, observed, result.news.run or scheduled, now)


def _train_spec(
    result: Training, observed: ModelObserved, failed: Sequence[RunView], void: int, now: datetime
) -> Training:
    """A run for the spec as it is now: the first, or another try after something outside had failed.

    void: how many runs for it ended without saying anything of it."""
    if result.active is not None:
        return result
    meta = observed.model.meta
    if failed:
        done = max(run.status.completion_time or run.meta.created for run in failed)
        due = done + FIRST_BACKOFF * 2 ** (len(failed) - 1)
        if now < due:
            return replace(result, wait_seconds=(due - now).total_seconds())
    first = observed.model.status.latest_revision == 0 and not observed.runs
    why = "the Model is new" if first else "spec.data, spec.training or spec.evaluation changed"
    message = f"{why}; try {len(failed) + 1}" if failed else why
    # A run of this name can only be a deleted one's successor or a try that was never started: the count makes it new.
    name = run_name(meta.name, meta.uid, "spec", result.fingerprint, str(len(failed) + void))
    return replace(result, wanted=RunIntent(name, Trigger(type="Spec", message=message)))


def _manual(observed: ModelObserved) -> RunIntent | None:
    """The run that a new value of the annotation asks for."""
    meta = observed.model.meta
    value = meta.annotations.get(ANNOTATION_RETRAIN)
    if not value:
        return None
    value = value if len(value) <= TEXT_LIMIT else digest_of(value)
    if value == observed.model.status.handled_retrain:
        return None
    message = f"annotation {ANNOTATION_RETRAIN}: {value}"
    return RunIntent(
        run_name(meta.name, meta.uid, "manual", value), Trigger(type="Manual", message=message, value=value)
    )


def _train_drift(result: Training, observed: ModelObserved, now: datetime) -> Training:
    """A run for the first policy, by name, whose breach asks for one."""
    waits = []
    for policy in sorted(observed.policies, key=lambda policy: policy.meta.name):
        active = observed.model.status.active
        found = to_retrain(policy, active.revision) if active and not policy.meta.deleting else None
        if found is None:
            continue
        held = nothing_to_retrain(observed.model) or restraint(policy, found, observed.runs, now)
        if held is None:
            return replace(result, wanted=_drift_run(policy, found, observed))
        waits.append(held.seconds)
    soonest = min((wait for wait in waits if wait > 0), default=None)
    return result if soonest is None else _sooner(result, soonest)


def _train_unasked(result: Training, observed: ModelObserved, wanted: RunIntent | None, now: datetime) -> Training:
    """A run that new data or the clock asks for, within cooldown and budget."""
    retraining = observed.model.spec.retraining
    if wanted is None or retraining is None:
        return result
    mine = [run for run in observed.runs if run.spec.trigger.type in UNASKED]
    recent = sorted(run.meta.created for run in mine if run.meta.created > now - WEEK)
    most = retraining.max_runs_per_week
    waits = [timedelta(0)]
    if observed.runs:
        last = max(run.meta.created for run in observed.runs)
        waits.append(last + timedelta(seconds=retraining.cooldown_seconds) - now)
    if len(recent) >= most:
        waits.append(recent[-most] + WEEK - now if most else WEEK)
    longest = max(waits)
    if longest > timedelta(0):
        return _sooner(result, longest.total_seconds())
    return replace(result, wanted=wanted)


def _sooner(result: Training, seconds: float) -> Training:
    known = result.wait_seconds
    return replace(result, wait_seconds=seconds if known is None else min(known, seconds))


def _drift_run(policy: PolicyView, found: Breach, observed: ModelObserved) -> RunIntent:
    meta = observed.model.meta
    cause = PolicyTrigger(
        name=policy.meta.name,
        uid=policy.meta.uid,
        revision=found.revision,
        window_start=found.start,
        window_end=found.end,
        kind=found.kind if found.kind != "DataQuality" else None,
        finding=found.message,
    )
    name = run_name(meta.name, meta.uid, "drift", policy.meta.uid, str(found.revision), found.end.isoformat())
    message = f"DriftPolicy {policy.meta.name}, {found.start:%Y-%m-%d} to {found.end:%Y-%m-%d}: {found.message}"
    return RunIntent(name, Trigger(type="DriftPolicy", message=message[:4096], policy=cause))

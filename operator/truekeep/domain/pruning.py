"""Which TrainingRun is history that the cluster need not keep. Pure.

What goes is a run that the operator made, that ended long ago, that is not among the newest, and that nothing rests on
any more: what serves or may serve again, numbers of revisions, what was answered, pauses and budgets. What it made
stays in the store, where nothing is ever deleted; the decisions on it have been handed over before it goes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from truekeep.api.model import ModelStatus
from truekeep.api.names import ANNOTATION_RETRAIN
from truekeep.api.retraining import KEEP_RUNS
from truekeep.api.trainingrun import Trigger
from truekeep.contract.decisions import told
from truekeep.domain import overrides
from truekeep.domain.breaches import MOST_BACKOFF
from truekeep.domain.data import last_valid
from truekeep.domain.decisions import decisions, unkept
from truekeep.domain.failures import OUTSIDE
from truekeep.domain.observed import ModelObserved, RunView
from truekeep.domain.plan import ModelPlan, Note
from truekeep.domain.restoring import came_to_nothing, to_come
from truekeep.domain.stand import VOID, finished, reason_of, succeeded

# Budgets look back seven days, and the longest pause after a finding is 28.
LEAST_AGE = max(timedelta(days=30), MOST_BACKOFF)
AGAIN_SECONDS = 2.0  # one at a look, and the next one soon
REFUSED_SECONDS = 600.0  # until it is tried again
MOST_TRIALS = 5  # runs that are thought away at one look
OURS = re.compile(r"-[0-9a-f]{10}$")  # how run_name ends
EXTERNAL = Trigger().type  # what a run says that does not say who made it
Decide = Callable[[ModelObserved], ModelPlan]


@dataclass(frozen=True)
class History:
    """`spare`: what nothing needs, the oldest first. `wait_seconds`: until something more may be, by its age alone."""

    spare: tuple[RunView, ...] = ()
    wait_seconds: float | None = None


def pruned(observed: ModelObserved, plan: ModelPlan, decide: Decide, now: datetime) -> ModelPlan:
    """The plan, with one run to delete where there is one to spare and all else stays as it is planned without it.

    decide: what to do about a Model that is seen so."""
    found = history(observed, now)
    if not found.spare or plan.run is not None:
        return later(plan, found.wait_seconds)
    same = _but_for_decisions(plan)
    for run in found.spare[:MOST_TRIALS]:
        without = replace(observed, runs=tuple(each for each in observed.runs if each is not run))
        if _but_for_decisions(decide(without)) == same:
            return _delete(plan, run, without)
    return plan


def went(plan: ModelPlan) -> ModelPlan:
    """The plan once its run is deleted: there may be more."""
    return later(plan, AGAIN_SECONDS)


def stayed(plan: ModelPlan, stored: ModelStatus) -> ModelPlan:
    """The plan where the API server refused: old history makes no Model unready."""
    status = plan.status.model_copy(update={"decisions": stored.decisions})
    return later(replace(plan, status=status, delete_run=None, notes=plan.notes[:-1]), REFUSED_SECONDS)


def later(plan: ModelPlan, seconds: float | None) -> ModelPlan:
    """The plan with another look after so many seconds, or earlier."""
    waits = [wait for wait in (plan.look_again_seconds, seconds) if wait is not None]
    return replace(plan, look_again_seconds=min(waits, default=None))


def history(observed: ModelObserved, now: datetime) -> History:
    """What of the history nothing needs."""
    retraining = observed.model.spec.retraining
    keep = retraining.keep_runs if retraining else KEEP_RUNS
    mine = sorted((run for run in observed.runs if _ours(observed, run)), key=_age, reverse=True)
    beyond = mine[keep:]
    if not beyond or not _clear(observed):
        return History()
    needed = needed_runs(observed)
    spare, waits = [], []
    for run in reversed(beyond):
        ended = run.status.completion_time
        if run.meta.name in needed or run.meta.deleting or ended is None:
            continue
        left = (ended + LEAST_AGE - now).total_seconds()
        if left <= 0:
            spare.append(run)
        else:
            waits.append(left)
    return History(tuple(spare), min(waits, default=None))


def needed_runs(observed: ModelObserved) -> frozenset[str]:
    """Names of the runs that something rests on, whatever their age."""
    parts = (_serving(observed), _measures(observed), _specs(observed), _findings(observed), _asked(observed))
    return frozenset(run.meta.name for part in parts for run in part)


def _ours(observed: ModelObserved, run: RunView) -> bool:
    """Whether the operator made it, for this very Model, and it ended. What a person, Git or a pipeline created has no
    owner, or not our label; what was restored is theirs, too."""
    return (
        run.made_for == observed.model.meta.uid
        and run.spec.trigger.type != EXTERNAL
        and run.spec.restore is None
        and OURS.search(run.meta.name) is not None
        and finished(run)
    )


def _clear(observed: ModelObserved) -> bool:
    """Whether the status can be trusted to say what is needed, and nobody is in the middle of something."""
    model = observed.model
    if observed.problem or overrides.paused(model) or to_come(observed.runs) or unkept(observed):
        return False
    revisions = any(run.status.revision for run in observed.runs)
    return model.status.candidate is None and (model.status.active is not None or not revisions)


def _age(run: RunView) -> tuple[datetime, str]:
    return run.meta.created, run.meta.name


def _newest(runs: Iterable[RunView]) -> Iterator[RunView]:
    """The newest one, where there is one."""
    found = max(runs, key=_age, default=None)
    if found is not None:
        yield found


def _serving(observed: ModelObserved) -> Iterator[RunView]:
    """What serves, served lately, waits, may be gone back to, or is spoken of."""
    model, status = observed.model, observed.model.status
    served = (status.active, status.previous, status.former, status.candidate, status.awaiting)
    seen = [each for each in (*served, *status.history, *observed.deployments) if each is not None]
    names = {each.run for each in seen} | {status.run, status.last_failure.run if status.last_failure else None}
    names |= {policy.status.last_run for policy in observed.policies}
    numbers: set[int | None] = {each.revision for each in seen}
    numbers |= {model.spec.serving.pinned_revision, overrides.pin(model)}
    numbers |= {status.rollback.revision if status.rollback else None}
    numbers |= {status.last_rollout.revision if status.last_rollout else None}
    numbers |= {policy.status.watched_revision for policy in observed.policies}
    numbers |= {max((run.status.revision for run in observed.runs if run.status.revision), default=None)}
    numbers.discard(None)
    yield from (run for run in observed.runs if run.meta.name in names or run.status.revision in numbers)


def _measures(observed: ModelObserved) -> Iterator[RunView]:
    """What the next run is measured by: the newest of each kind of cause, and what it is compared with."""
    by_kind = defaultdict(list)
    for run in observed.runs:
        by_kind[run.spec.trigger.type].append(run)
    for runs in by_kind.values():
        yield from _newest(runs)
    yield from _newest(run for run in observed.runs if run.status.data and run.status.data.window_end)
    last = last_valid(observed.runs)
    yield from (run for run in observed.runs if last is not None and run.meta.name == last.run)


def _specs(observed: ModelObserved) -> Iterator[RunView]:
    """What every spec that was ever trained came to: one that Git goes back to is not trained again."""
    rejected = {each.revision for each in observed.model.status.rejected}
    by_spec = defaultdict(list)
    for run in observed.runs:
        if finished(run) and not came_to_nothing(run):
            by_spec[run.status.training_fingerprint].append(run)
    for fingerprint, runs in by_spec.items():
        if fingerprint is None:
            yield from (run for run in runs if run.spec.trigger.type == "Spec")  # its name is still taken
            continue
        won = [run for run in runs if succeeded(run)]
        lost = [run for run in runs if not succeeded(run) and reason_of(run) not in OUTSIDE | VOID]
        yield from _newest(won)
        yield from _newest(run for run in won if run.status.revision not in rejected)
        if not won:
            yield from _newest(lost)
        if not won and not lost:
            yield from runs  # the tries are counted


def _findings(observed: ModelObserved) -> Iterator[RunView]:
    """Answers to findings about revisions that are still there, and those that a pause is reckoned from."""
    there = {run.status.revision for run in observed.runs}
    by_policy: dict[str, list[RunView]] = defaultdict(list)
    for run in observed.runs:
        if run.spec.trigger.policy is not None:
            by_policy[run.spec.trigger.policy.uid].append(run)
    for runs in by_policy.values():
        yield from _newest(runs)
        yield from _in_a_row(runs)
        by_revision = defaultdict(list)
        for run in runs:
            if (cause := run.spec.trigger.policy) is not None and cause.revision in there:
                by_revision[cause.revision].append((cause.window_end, run.meta.name, run))
        yield from (max(answers, key=lambda each: each[:2])[2] for answers in by_revision.values())


def _in_a_row(runs: Sequence[RunView]) -> Iterator[RunView]:
    """The newest answers of a policy that made nothing better, as `breaches.rejected` counts them."""
    revision: int | None = None
    for run in sorted(runs, key=_age, reverse=True):
        cause = run.spec.trigger.policy
        if not finished(run) or reason_of(run) in OUTSIDE | VOID or cause is None:
            continue
        if succeeded(run) or (revision is not None and cause.revision != revision):
            return
        revision = cause.revision
        yield run


def _asked(observed: ModelObserved) -> Iterator[RunView]:
    """What the annotation's value, and the one that was handled last, asked for."""
    values = {observed.model.meta.annotations.get(ANNOTATION_RETRAIN), observed.model.status.handled_retrain}
    values.discard(None)
    yield from (run for run in observed.runs if run.spec.trigger.value in values)


def _delete(plan: ModelPlan, run: RunView, without: ModelObserved) -> ModelPlan:
    kept = plan.status.decisions
    if kept is not None and kept.told is not None:
        # All of it is in the store: that there is less to tell afterwards is no news.
        kept = kept.model_copy(update={"told": told(decisions(without))})
    what = f"revision {run.status.revision}" if run.status.revision else reason_of(run)
    words = (
        f"run {run.meta.name} ({what}), which ended at {run.status.completion_time:%Y-%m-%d %H:%M} UTC, is beyond "
        "spec.retraining.keepRuns and nothing needs it; what it made stays in the store"
    )
    return replace(
        plan,
        status=plan.status.model_copy(update={"decisions": kept}),
        delete_run=run.meta,
        notes=(*plan.notes, Note("Normal", "RunPruned", words)),
    )


def _but_for_decisions(plan: ModelPlan) -> ModelPlan:
    """What is done and said, besides handing over what is in the store already."""
    status = plan.status.model_copy(update={"decisions": None})
    return replace(plan, status=status, hand_over=(), repeat_keeper=None, look_again_seconds=None)

"""What a policy's windows ask for, and what holds an answer back. Pure.

A breach is complete with `consecutiveWindows` windows in a row in which a kind of finding counts. A window with too few
rows or labels neither counts nor ends the row; one with broken data ends it. Each kind has its own row and its own
answer. A window in a blackout neither counts nor ends a row. Broken data never starts a run, whatever else was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from truekeep.api.driftpolicy import (
    Action,
    DriftPolicySpec,
    DriftPolicyStatus,
    FindingKind,
    PerformanceVerdict,
    WindowVerdict,
)
from truekeep.domain import overrides
from truekeep.domain.failures import OUTSIDE
from truekeep.domain.observed import ModelView, PolicyView, RunView
from truekeep.domain.stand import VOID, finished, message_of, reason_of, succeeded

WEEK = timedelta(days=7)
LEAST_BACKOFF = timedelta(minutes=1)  # where the cooldown is shorter
MOST_BACKOFF = timedelta(days=28)
SKIPPED = frozenset({"InsufficientData", "Blackout"})  # windows that say nothing
ORDER: tuple[FindingKind, ...] = ("Performance", "DataDrift", "PredictionDrift")


@dataclass(frozen=True)
class Breach:
    """A kind of finding that counts in enough windows in a row, up to the newest."""

    kind: FindingKind
    revision: int
    start: datetime  # of the newest window
    end: datetime
    windows: int
    message: str


@dataclass(frozen=True)
class Restraint:
    """Why a breach starts no run now. `seconds`: until it may, 0 where another event must come first."""

    reason: str
    message: str
    seconds: float


def answer(spec: DriftPolicySpec, kind: FindingKind) -> Action | None:
    """What the policy wants done about a kind of finding; None where it names no response."""
    return next((response.action for response in spec.responses if response.finding == kind), None)


def breaches(policy: PolicyView, revision: int) -> list[Breach]:
    """All that are complete for this revision, performance first. None while the policy is suspended."""
    status = policy.status
    if policy.spec.suspend == "Now" or status.watched_revision != revision:
        return []
    by_kind = {kind: _drifted(policy, revision, kind) for kind in ORDER[1:]}
    found = [_decayed(policy, revision), *by_kind.values()]
    return [breach for breach in found if breach is not None]


def to_retrain(policy: PolicyView, revision: int) -> Breach | None:
    """The first breach that the policy answers with a run; None where the newest window's data is broken."""
    said = (window for window in policy.status.windows if window.verdict not in SKIPPED)
    newest = next((window for window in said if window.revision == revision), None)
    if newest is not None and newest.verdict == "DataQuality":
        return None
    return next(
        (breach for breach in breaches(policy, revision) if answer(policy.spec, breach.kind) == "Retrain"), None
    )


def decayed(policy: PolicyView, revision: int) -> PerformanceVerdict | None:
    """The newest window in which labels show the revision worse than its gates did, where enough in a row do. What a
    rollback goes by: an estimate never counts here, nor does anything while the policy is suspended."""
    if policy.spec.suspend == "Now" or policy.spec.performance is None:
        return None
    mine = [one for one in policy.status.performance if one.revision == revision and one.value is not None]
    return mine[0] if decayed_windows(mine) >= policy.spec.consecutive_windows else None


def consecutive(windows: Sequence[WindowVerdict], kind: FindingKind | None = None) -> int:
    """How many windows in a row, up to the newest, drifted, in this kind or any. windows: of one revision, the newest
    first."""
    count = 0
    for window in windows:
        if window.verdict in SKIPPED:
            continue
        if window.verdict != "Drift" or not window.kinds or (kind is not None and kind not in window.kinds):
            break
        count += 1
    return count


def decayed_windows(performance: Sequence[PerformanceVerdict]) -> int:
    """How many in a row, up to the newest that labels judged, are worse. Of one revision, the newest first."""
    count = 0
    for one in performance:
        if one.value is None:
            continue
        if one.verdict != "Decayed":
            break
        count += 1
    return count


def estimated_windows(performance: Sequence[PerformanceVerdict]) -> int:
    """How many in a row, up to the newest, are worse by estimate; what labels said of a window counts before it."""
    count = 0
    for one in performance:
        verdict = one.verdict if one.value is not None else one.estimated
        if verdict == "NotEstimated":
            continue
        if verdict != "Decayed":
            break
        count += 1
    return count


def shown(one: PerformanceVerdict) -> str:
    """What labels show of a window, in words."""
    return (
        f"{one.metric} {one.value} ({one.low} to {one.high}) on {one.labelled:,} labelled rows, "
        f"{float(one.coverage):.0%} of the window up to {one.end:%Y-%m-%d %H:%M}; the gates had {one.baseline}"
    )


def estimate(one: PerformanceVerdict) -> str:
    """What is estimated of a window, in words."""
    if one.estimate is None:
        return f"{one.metric} is not estimated for the window up to {one.end:%Y-%m-%d %H:%M}"
    return (
        f"{one.metric} is estimated at {one.estimate} ({one.estimate_low} to {one.estimate_high}) in the window up to "
        f"{one.end:%Y-%m-%d %H:%M}; the gates had {one.baseline}"
    )


def _decayed(policy: PolicyView, revision: int) -> Breach | None:
    found = decayed(policy, revision)
    if found is not None:
        mine = [one for one in policy.status.performance if one.revision == revision]
        return Breach("Performance", revision, found.start, found.end, decayed_windows(mine), shown(found))
    settings = policy.spec.performance
    if settings is None or settings.estimates != "Act":
        return None
    mine = [one for one in policy.status.performance if one.revision == revision and _has_verdict(one)]
    count = estimated_windows(mine)
    if count < policy.spec.consecutive_windows:
        return None
    return Breach("Performance", revision, mine[0].start, mine[0].end, count, estimate(mine[0]))


def _has_verdict(one: PerformanceVerdict) -> bool:
    return one.value is not None or one.estimated != "NotEstimated"


def _drifted(policy: PolicyView, revision: int, kind: FindingKind) -> Breach | None:
    windows = [window for window in policy.status.windows if window.revision == revision]
    count = consecutive(windows, kind)
    if count < policy.spec.consecutive_windows:
        return None
    newest = next(window for window in windows if window.verdict not in SKIPPED)
    found = next((finding.message for finding in policy.status.findings if finding.kind == kind), "")
    return Breach(kind, revision, newest.start, newest.end, count, found or f"{newest.columns} columns drifted")


def rejected(policy: PolicyView, revision: int, runs: Sequence[RunView]) -> list[RunView]:
    """Runs of the policy for this revision in a row, up to the last that ended, whose model did not beat it. The
    newest first. What failed outside (the store, a lost pod) says nothing of the model and does not count."""
    found: list[RunView] = []
    for run in sorted(_mine(policy, runs), key=lambda run: (run.meta.created, run.meta.name), reverse=True):
        cause = run.spec.trigger.policy
        if not finished(run) or reason_of(run) in OUTSIDE | VOID:
            continue
        if succeeded(run) or cause is None or cause.revision != revision:
            break
        found.append(run)
    return found


def nothing_to_retrain(model: ModelView) -> Restraint | None:
    """What holds every breach of a paused or an imported model back; None for one that is trained here."""
    if overrides.paused(model):
        return Restraint("PausedByHand", overrides.finding(model).message, 0.0)
    given = model.spec.training.import_
    if given is None:
        return None
    words = (
        f"Model {model.meta.name} was trained elsewhere, so that nothing can be trained again here; train it there, "
        "package it with truekeep import, and set spec.training.import.digest to the new artifact's"
    )
    return Restraint("NothingToRetrain", words, 0.0)


def restraint(policy: PolicyView, breach: Breach, runs: Sequence[RunView], now: datetime) -> Restraint | None:
    """What holds this breach back, the longest wait first; None for go."""
    mine = _mine(policy, runs)
    for run in mine:
        cause = run.spec.trigger.policy
        if cause and cause.revision == breach.revision and cause.window_end >= breach.end:
            return _answered(policy, breach, runs, run)
    if (behind := _too_soon(policy, breach, runs)) is not None:
        return behind
    fresh = sum(one.labelled for one in policy.status.performance if one.revision == breach.revision)
    if fresh < policy.spec.min_new_labels:
        words = f"{fresh:,} labelled rows are new since revision {breach.revision} serves, minNewLabels is "
        return Restraint("TooFewNewLabels", f"{words}{policy.spec.min_new_labels:,}", 0.0)
    if policy.spec.max_runs_per_week == 0:
        return Restraint("BudgetSpent", "maxRunsPerWeek is 0: this policy starts no run", 0.0)
    waits = [wait for wait in _waits(policy, breach.revision, runs) if wait[0] > now]
    if not waits:
        return None
    until, reason, words = max(waits)
    return Restraint(
        reason, f"{words}; the next run is not started before {_time(until)}", (until - now).total_seconds()
    )


def outlook(policy: PolicyView, status: DriftPolicyStatus, runs: Sequence[RunView], now: datetime) -> dict[str, Any]:
    """What status says of runs to come: rejected ones in a row, and before when none is started."""
    revision = status.watched_revision
    if revision is None:
        return {"rejected": 0, "next_run_time": None}
    times = [until for until, _, _ in _waits(policy, revision, runs) if until > now]
    return {"rejected": len(rejected(policy, revision, runs)), "next_run_time": max(times, default=None)}


def _answered(policy: PolicyView, breach: Breach, runs: Sequence[RunView], run: RunView) -> Restraint:
    """A run was started for this very window, or a newer one."""
    said = rejected(policy, breach.revision, runs)
    if said:
        until = _backoff(policy, said)
        words = f"{_unbeaten(said)}; the next run waits for another window, and for {_time(until)}"
        return Restraint("ChallengerNotBetter", words, 0.0)
    return Restraint("Answered", f"run {run.meta.name} answers it", 0.0)


def _too_soon(policy: PolicyView, breach: Breach, runs: Sequence[RunView]) -> Restraint | None:
    """The backing off in event time: a cooldown of an hour alone would let every window of a week start a run. After
    the second rejected run in a row two windows must pass, then four, up to 28 days; the first waits for the next."""
    said = rejected(policy, breach.revision, runs)
    newest = max((run.spec.trigger.policy.window_end for run in said if run.spec.trigger.policy), default=None)
    if newest is None:
        return None
    window = timedelta(hours=policy.spec.window.hours)
    factor: int = 2 ** min(len(said) - 1, 20)
    first = newest + max(window, min(MOST_BACKOFF, window * factor))
    if breach.end >= first:
        return None
    words = f"{_unbeaten(said)}; the next run is for a window that ends on {_time(first)} or later"
    return Restraint("ChallengerNotBetter", words, 0.0)


def _waits(policy: PolicyView, revision: int, runs: Sequence[RunView]) -> list[tuple[datetime, str, str]]:
    """Until when, why, and in words."""
    spec = policy.spec
    made = sorted(run.meta.created for run in _mine(policy, runs))
    found = []
    if 0 < spec.max_runs_per_week <= len(made):
        until = made[-spec.max_runs_per_week] + WEEK
        found.append((until, "BudgetSpent", f"{spec.max_runs_per_week} runs were started in seven days"))
    if made:
        until = made[-1] + timedelta(seconds=spec.cooldown_seconds)
        found.append((until, "Cooldown", f"the last run was started at {_time(made[-1])}"))
    if said := rejected(policy, revision, runs):
        found.append((_backoff(policy, said), "ChallengerNotBetter", _unbeaten(said)))
    return found


def _backoff(policy: PolicyView, said: Sequence[RunView]) -> datetime:
    """The cooldown once more after the end of the first rejected run, twice as long after each further one, up to 28
    days."""
    ended = said[0].status.completion_time or said[0].meta.created
    base = max(LEAST_BACKOFF, timedelta(seconds=policy.spec.cooldown_seconds))
    factor: int = 2 ** min(len(said) - 1, 20)
    return ended + min(MOST_BACKOFF, base * factor)


def _unbeaten(said: Sequence[RunView]) -> str:
    times = "" if len(said) == 1 else f", {len(said)} in a row"
    return f"run {said[0].meta.name} made nothing better ({reason_of(said[0])}{times}): {message_of(said[0])}"


def _mine(policy: PolicyView, runs: Sequence[RunView]) -> list[RunView]:
    return [run for run in runs if run.spec.trigger.policy and run.spec.trigger.policy.uid == policy.meta.uid]


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"

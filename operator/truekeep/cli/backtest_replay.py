"""A recorded history under a policy, window after window, answered by the rules that the operator answers by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from truekeep.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus, PerformanceVerdict, WindowVerdict
from truekeep.cli.backtest_performance import Performances
from truekeep.cli.history import History
from truekeep.domain import breaches
from truekeep.domain.breaches import Breach
from truekeep.domain.observed import Meta, PolicyView
from truekeep.monitor import seasons
from truekeep.monitor.judge import Settings, judge
from truekeep.monitor.report import WindowReport
from truekeep.monitor.windows import Cut, milliseconds, moment
from truekeep.profiling.schema import Profile

WEEK = timedelta(days=7)
DAY_MS = 86_400_000
KEPT = 30  # windows that a policy's status holds

Action = Literal["None", "Alert", "Retrain", "Held", "Rollback"]


@dataclass(frozen=True)
class Judged:
    """A window, and what the policy made of it. Held: a run was due, within cooldown, beyond the budget, or with too
    few new labels. Rollback: one was due; what the revision before would have done is not known, so nothing changes."""

    verdict: WindowVerdict
    report: WindowReport
    consecutive: int  # windows that drifted in a row, up to this one
    action: Action
    cause: Breach | None  # what was answered
    performance: PerformanceVerdict | None = None  # as far as it is known at the end of the history

    @property
    def strongest(self) -> str:
        """Its first finding that counts, in words."""
        return next((f.message for f in self.report.findings if f.severity != "Notice"), "")


@dataclass
class _State:
    """What the policy knows at some time."""

    revision: int = 1
    basis: int | None = None  # end, in ms, of the last run's window, where that made the references anew
    row: list[WindowVerdict] = field(default_factory=list)  # of this revision, the newest first
    watched: list[int] = field(default_factory=list)  # windows of this revision whose performance counts, in order
    runs: list[datetime] = field(default_factory=list)
    answered: dict[str, datetime] = field(default_factory=dict)  # by kind: the end of the last breach told of


@dataclass
class Replay:
    """A history under a policy; each run makes a new reference of the days before it, as a retraining would."""

    history: History
    spec: DriftPolicySpec
    first: Profile
    begin: int  # ms
    train_days: int  # 0: the first reference is kept
    performances: Performances | None = None

    def __post_init__(self) -> None:
        self._cut = Cut(self.spec.window.hours)
        self._known: dict[int, tuple[Profile, dict[int, Profile]]] = {}

    def run(self, settings: Settings, max_drop: str | None = None) -> list[Judged]:
        """All windows in order. Time is that of the events, for cooldown and budget too. `max_drop`: another one than
        the policy's."""
        cut, state = self._cut, _State()
        reference, counted = self._on(0)
        found: list[Judged] = []
        bases: list[tuple[int, int | None]] = []
        for index in [index for index in self.history.windows(cut) if cut.start(index) >= self.begin]:
            start, end = moment(cut.start(index)), moment(cut.end(index))
            report = judge(reference, counted[index], settings, self._season(index, reference, counted))
            if (excuse := seasons.blackout(self.spec.blackouts, start, end)) is not None:
                report = seasons.excused(report, excuse)
            verdict = WindowVerdict(start=start, end=end, revision=state.revision, rows=report.rows,
                                    verdict=report.verdict, kinds=list(report.kinds)[:3])  # fmt: skip
            state.row.insert(0, verdict)
            if report.verdict != "Blackout":
                state.watched.append(index)
            action, cause = self._answer(state, end, max_drop)
            found.append(Judged(verdict, report, breaches.consecutive(state.row), action, cause))
            bases.append((index, state.basis))
            if action == "Retrain":
                state = _State(
                    revision=state.revision + 1, runs=[*state.runs, end],
                    basis=milliseconds(end) if self.train_days else None,
                )  # fmt: skip
                if self.train_days:
                    reference, counted = self._on(index + 1)
        last = found[-1].verdict.end if found else moment(self.begin)
        return [self._with_performance(one, basis, last, max_drop) for one, basis in zip(found, bases, strict=True)]

    def _with_performance(
        self, one: Judged, basis: tuple[int, int | None], last: datetime, max_drop: str | None
    ) -> Judged:
        if self.performances is None or one.report.verdict == "Blackout":
            return one
        index, since = basis
        ripe = self._ripe(index, last)
        return replace(one, performance=self.performances.verdict(index, since, one.verdict.revision, max_drop, ripe))

    def _ripe(self, index: int, now: datetime) -> bool:
        assert self.performances is not None
        return self._cut.end(index) + self.performances.delay <= milliseconds(now)

    def _answer(self, state: _State, now: datetime, max_drop: str | None) -> tuple[Action, Breach | None]:
        """By the operator's own rules, on a status such as it would have then."""
        performance = [
            self.performances.verdict(index, state.basis, state.revision, max_drop, self._ripe(index, now))
            for index in reversed(state.watched)
        ] if self.performances else []  # fmt: skip
        status = DriftPolicyStatus(
            watched_revision=state.revision, windows=state.row[:KEPT], performance=_kept(performance)
        )
        spec = self.spec.model_copy(update={"suspend": "Never"})
        policy = PolicyView(Meta("", "", "", now), spec, status)
        if (breach := breaches.to_retrain(policy, state.revision)) is not None:
            return ("Retrain" if self._may(state, status, now) else "Held"), breach
        if state.row[0].verdict == "DataQuality":
            return ("Alert" if breaches.answer(spec, "DataQuality") else "None"), None
        for one in breaches.breaches(policy, state.revision):
            wanted = breaches.answer(spec, one.kind)
            if wanted in ("Alert", "Rollback") and state.answered.get(one.kind) != one.end:
                state.answered[one.kind] = one.end
                back = wanted == "Rollback" and breaches.decayed(policy, state.revision) is not None
                return ("Rollback" if back else "Alert"), one
        return "None", None

    def _may(self, state: _State, status: DriftPolicyStatus, now: datetime) -> bool:
        spec, runs = self.spec, state.runs
        if self.performances and sum(one.labelled for one in status.performance) < spec.min_new_labels:
            return False
        recent = [run for run in runs if run > now - WEEK]
        cool = not runs or now - runs[-1] >= timedelta(seconds=spec.cooldown_seconds)
        return cool and len(recent) < spec.max_runs_per_week

    def _season(self, index: int, reference: Profile, counted: dict[int, Profile]) -> Profile | None:
        """The same hours of the weeks before, where the policy compares with them and they have rows enough."""
        drift = self.spec.data
        if drift.reference != "SameHoursOfWeek":
            return None
        earlier = seasons.before(index, self.spec.window.hours, drift.reference_weeks)
        found = seasons.merged(reference, [counted[i] for i in earlier if i in counted], prediction=True)
        return found if found.rows >= self.spec.window.min_rows else None

    def _on(self, after: int) -> tuple[Profile, dict[int, Profile]]:
        """The reference of a run before window number `after` (0: the first one), and the windows counted on it."""
        if after not in self._known:
            end = self._cut.start(after)
            reference = self.history.reference(self.first, end - self.train_days * DAY_MS, end) if after else self.first
            start = after or self._cut.index(self.begin)
            if self.spec.data.reference == "SameHoursOfWeek":
                start = min(seasons.before(start, self.spec.window.hours, self.spec.data.reference_weeks))
            self._known[after] = reference, self.history.count(reference, self._cut, start)
        return self._known[after]


def _kept(performance: list[PerformanceVerdict]) -> list[PerformanceVerdict]:
    """As in a status: the newest that labels judged, and the newest that wait for them. The newest first."""
    half = KEPT // 2
    measured = [one for one in performance if one.value is not None][:half]
    waiting = [one for one in performance if one.value is None][:half]
    return sorted([*measured, *waiting], key=lambda one: one.start, reverse=True)

"""`truekeep backtest`: what a policy would have done on recorded rows, and what each threshold would have cost."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from truekeep.api.driftpolicy import DriftPolicySpec
    from truekeep.cli.history import History
    from truekeep.monitor.judge import Settings
    from truekeep.monitor.report import WindowReport
    from truekeep.profiling.schema import Profile

THRESHOLDS = (0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
WEEK = timedelta(days=7)
YEAR = timedelta(days=365.25)
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Judged:
    """A window, and what the policy made of it."""

    start: datetime
    end: datetime
    report: WindowReport
    consecutive: int  # breaches in a row, up to this one
    action: Literal["None", "Alert", "Retrain", "Held"]  # Held: a run was due, within cooldown or beyond the budget

    @property
    def strongest(self) -> str:
        """Its first finding that counts, in words."""
        return next((f.message for f in self.report.findings if f.severity != "Notice"), "")


@dataclass
class Replay:
    """A history under a policy; each run makes a new reference of the days before it, as a retraining would."""

    history: History
    spec: DriftPolicySpec
    first: Profile
    begin: int  # ms
    train_days: int  # 0: the first reference is kept

    def __post_init__(self) -> None:
        from truekeep.monitor.windows import Cut

        self._cut = Cut(self.spec.window.hours)
        self._known: dict[int, tuple[Profile, dict[int, Profile]]] = {}

    def run(self, settings: Settings) -> list[Judged]:
        """All windows in order. Time is that of the events, for cooldown and budget too."""
        from truekeep.api.driftpolicy import WindowVerdict
        from truekeep.domain.breaches import consecutive
        from truekeep.monitor import seasons
        from truekeep.monitor.judge import judge
        from truekeep.monitor.windows import moment

        cut = self._cut
        reference, counted = self._on(0)
        found: list[Judged] = []
        row: list[WindowVerdict] = []
        runs: list[datetime] = []
        revision = 1
        for index in [index for index in self.history.windows(cut) if cut.start(index) >= self.begin]:
            start, end = moment(cut.start(index)), moment(cut.end(index))
            report = judge(reference, counted[index], settings, self._season(index, reference, counted))
            if (excuse := seasons.blackout(self.spec.blackouts, start, end)) is not None:
                report = seasons.excused(report, excuse)
            verdict = WindowVerdict(start=start, end=end, revision=revision, rows=report.rows, verdict=report.verdict,
                                    kinds=list(report.kinds))  # fmt: skip
            row.insert(0, verdict)
            breaches = consecutive(row)
            action = self._action(report, breaches, runs, end)
            found.append(Judged(start, end, report, breaches, action))
            if action == "Retrain":
                runs.append(end)
                row.clear()
                revision += 1
                if self.train_days:
                    reference, counted = self._on(index + 1)
        return found

    def _season(self, index: int, reference: Profile, counted: dict[int, Profile]) -> Profile | None:
        """The same hours of the weeks before, where the policy compares with them and they have rows enough."""
        from truekeep.monitor import seasons

        drift = self.spec.data
        if drift.reference != "SameHoursOfWeek":
            return None
        earlier = seasons.before(index, self.spec.window.hours, drift.reference_weeks)
        found = seasons.merged(reference, [counted[i] for i in earlier if i in counted], prediction=True)
        return found if found.rows >= self.spec.window.min_rows else None

    def _action(
        self, report: WindowReport, breaches: int, runs: list[datetime], now: datetime
    ) -> Literal["None", "Alert", "Retrain", "Held"]:
        spec = self.spec
        actions = {response.finding: response.action for response in spec.responses}
        wanted = {actions[kind] for kind in report.kinds if kind in actions}
        if report.verdict == "Drift" and breaches >= spec.consecutive_windows and "Retrain" in wanted:
            recent = [run for run in runs if run > now - WEEK]
            cool = not runs or now - runs[-1] >= timedelta(seconds=spec.cooldown_seconds)
            return "Retrain" if cool and len(recent) < spec.max_runs_per_week else "Held"
        return (
            "Alert" if wanted and (report.verdict == "DataQuality" or breaches >= spec.consecutive_windows) else "None"
        )

    def _on(self, after: int) -> tuple[Profile, dict[int, Profile]]:
        """The reference of a run before window number `after` (0: the first one), and the windows counted on it."""
        from truekeep.monitor import seasons

        if after not in self._known:
            end = self._cut.start(after)
            reference = self.history.reference(self.first, end - self.train_days * DAY_MS, end) if after else self.first
            start = after or self._cut.index(self.begin)
            if self.spec.data.reference == "SameHoursOfWeek":
                start = min(seasons.before(start, self.spec.window.hours, self.spec.data.reference_weeks))
            self._known[after] = reference, self.history.count(reference, self._cut, start)
        return self._known[after]


def backtest(
    *,
    policy: Annotated[Path, typer.Option("--policy", "-f", help="YAML with a DriftPolicy.")],
    history: Annotated[list[Path], typer.Option(help="Parquet file, or folder of such; may be given several times.")],
    time_column: Annotated[str, typer.Option(help="The rows' time, a timestamp.")] = "truekeep.event_time",
    profile: Annotated[
        Path | None, typer.Option(help="The first reference. Default: made of the history before --begin.")
    ] = None,
    begin: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="First day (UTC) of the windows. Default: the history's."),
    ] = None,
    train_days: Annotated[
        int, typer.Option(min=0, max=3660, help="Days before a run that become its reference; 0 keeps the first one.")
    ] = 60,
    runs_per_year: Annotated[float, typer.Option(min=0, help="Runs that you want to pay for.")] = 12.0,
    output: Annotated[Literal["json", "text"], typer.Option("--output", "-o", help="How to answer.")] = "text",
    to: Annotated[Path | None, typer.Option(help="File to write the answer to. Default: standard output.")] = None,
) -> None:
    """Replay a policy over recorded rows: which windows would have fired, which runs would have started, and how many
    with each minimumEffect. Proposes the smallest one that stays within --runs-per-year.

    A run is taken to succeed at once: the days before it are the next reference. Codes: 0, done; 2, wrong input."""
    from datetime import UTC

    from truekeep.cli import laptop
    from truekeep.cli.history import History
    from truekeep.monitor.windows import milliseconds
    from truekeep.profiling.schema import PREDICTION
    from truekeep.profiling.tables import TableError
    from truekeep.profiling.values import WrongTypeError

    try:
        spec = laptop.read_policy(policy)
        assert spec is not None
        found = History([laptop.table(path) for path in _files(history)], time_column)
        starts = milliseconds(begin.replace(tzinfo=UTC)) if begin else found.span[0]
        if profile is not None:
            first = laptop.read_profile(profile)
            missing = [c.name for c in first.columns if c.name not in found.names]
            if [name for name in missing if name != PREDICTION]:
                raise laptop.InputError(f"the history lacks columns of {profile}: {', '.join(missing[:10])}")
            first = first.model_copy(update={"columns": tuple(c for c in first.columns if c.name not in missing)})
        else:
            first = _before(found, starts, train_days)
        replay = Replay(found, spec, first, starts, train_days)
        settings = laptop.settings(spec)
        judged = replay.run(settings)
        if not judged:
            raise laptop.InputError("the history has no window from --begin on; give more of it")
        chosen = sorted({*THRESHOLDS, settings.minimum_effect})
        table = [_cost(replay, replace(settings, minimum_effect=threshold)) for threshold in chosen]
        answer = _summary(judged, table, settings, runs_per_year)
        laptop.write(json.dumps(answer, indent=2) if output == "json" else _text(answer), to)
    except (laptop.InputError, TableError, WrongTypeError) as error:
        laptop.refuse(error)


def _files(given: list[Path]) -> list[Path]:
    from truekeep.cli.laptop import InputError

    found = [file for path in given for file in (sorted(path.rglob("*.parquet")) if path.is_dir() else [path])]
    if not found:
        raise InputError(f"{given[0]}: holds no Parquet file; give one, or a folder with some")
    return found


def _before(history: History, begin: int, days: int) -> Profile:
    """The reference of the days before the first window."""
    from truekeep.cli.laptop import CAPTURED_PROBABILITY, InputError
    from truekeep.profiling.schema import ColumnProfile, Profile
    from truekeep.profiling.tables import feature_type

    schema = history.tables[0].schema
    kinds = {name: feature_type(schema.field(name).type) for name in history.names}
    kept = [name for name in history.names if not name.startswith("truekeep.") or name == CAPTURED_PROBABILITY]
    columns = tuple(ColumnProfile(name=name, type=kind) for name in kept if (kind := kinds[name]) is not None)
    found = history.reference(Profile(columns=columns), begin - days * DAY_MS, begin) if days else Profile()
    if not found.rows:
        raise InputError(
            "there is no reference: give --profile, or a --begin that leaves --train-days of the history before it"
        )
    return found


def _cost(replay: Replay, settings: Settings) -> dict[str, Any]:
    judged = replay.run(settings)
    return {
        "minimumEffect": settings.minimum_effect,
        "drifted": sum(window.report.verdict == "Drift" for window in judged),
        "runs": sum(window.action == "Retrain" for window in judged),
        "held": sum(window.action == "Held" for window in judged),
    }


def _summary(judged: list[Judged], table: list[dict[str, Any]], settings: Settings, wanted: float) -> dict[str, Any]:
    years = (judged[-1].end - judged[0].start) / YEAR
    within = [row for row in table if row["runs"] <= max(wanted * years, 0)]
    return {
        "from": judged[0].start.isoformat(),
        "to": judged[-1].end.isoformat(),
        "minimumEffect": settings.minimum_effect,
        "windows": [
            {
                "start": window.start.isoformat(),
                "rows": window.report.rows,
                "verdict": window.report.verdict,
                "consecutive": window.consecutive,
                "action": window.action,
                "effect": max((c.effect or 0.0 for c in window.report.columns if not c.ignored), default=0.0),
                "message": window.strongest,
            }
            for window in judged
        ],
        "runs": [window.end.isoformat() for window in judged if window.action == "Retrain"],
        "thresholds": table,
        "proposal": {
            "runsPerYear": wanted,
            "minimumEffect": min((row["minimumEffect"] for row in within), default=None),
        },
    }


def _text(answer: dict[str, Any]) -> str:
    lines = [f"{'window':<17} {'rows':>9} {'verdict':<16} {'row':>3} {'action':<8} {'effect':>6}"]
    lines += [
        f"{w['start'][:16]:<17} {w['rows']:>9,} {w['verdict']:<16} {w['consecutive']:>3} {w['action']:<8} "
        f"{w['effect']:>6.3f}  {w['message'][:90]}"
        for w in answer["windows"]
    ]
    lines.append(f"\n{len(answer['runs'])} runs with minimumEffect {answer['minimumEffect']:g}\n")
    lines.append(f"{'minimumEffect':>13} {'drifted':>8} {'runs':>5} {'held':>5}")
    lines += [
        f"{t['minimumEffect']:>13g} {t['drifted']:>8} {t['runs']:>5} {t['held']:>5}" for t in answer["thresholds"]
    ]
    proposal = answer["proposal"]
    best = proposal["minimumEffect"]
    lines.append(
        f"\nat most {proposal['runsPerYear']:g} runs a year: "
        + (f'minimumEffect "{best:g}" or more' if best is not None else "no minimumEffect of these is enough")
    )
    return "\n".join(lines)

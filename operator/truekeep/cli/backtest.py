"""`truekeep backtest`: what a policy would have done on recorded rows, and what each threshold would have cost."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from truekeep.api.driftpolicy import DriftPolicySpec, PerformanceVerdict
    from truekeep.cli.backtest_performance import Performances
    from truekeep.cli.backtest_replay import Judged, Replay
    from truekeep.cli.history import History
    from truekeep.monitor.judge import Settings
    from truekeep.profiling.schema import Profile

THRESHOLDS = (0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
MAX_DROPS = ("0.005", "0.01", "0.02", "0.03", "0.05", "0.075", "0.1", "0.15", "0.2", "0.3")
YEAR = timedelta(days=365.25)
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
WIDTH = 100  # characters of a line of text


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
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of the label, 0 or 1, null where unknown; for a policy with performance."),
    ] = None,
    probability_column: Annotated[
        str, typer.Option(help="Column of the probability that the model gave.")
    ] = "truekeep.probability",
    performance: Annotated[
        Path | None,
        typer.Option(help="performance.json of the model's artifact. Default: measured on the days before --begin."),
    ] = None,
    label_delay_hours: Annotated[
        int, typer.Option(min=0, max=87660, help="Hours after a window's end when its labels are known.")
    ] = 0,
    output: Annotated[Literal["json", "text", "html"], typer.Option("--output", "-o", help="How to answer.")] = "text",
    to: Annotated[Path | None, typer.Option(help="File to write the answer to. Default: standard output.")] = None,
) -> None:
    """Replay a policy over recorded rows: which windows would have fired, which runs would have started, and how many
    with each minimumEffect and maxDrop. Proposes the smallest ones that stay within --runs-per-year.

    A run is taken to succeed at once: the days before it are the next reference. What the model that it made would have
    predicted is not known: the recorded predictions are held against what they showed just before the run. Codes: 0,
    done; 2, wrong input."""
    from datetime import UTC

    from truekeep.cli import laptop
    from truekeep.cli.backtest_replay import Replay
    from truekeep.cli.history import History
    from truekeep.monitor.windows import milliseconds
    from truekeep.profiling.schema import PREDICTION
    from truekeep.profiling.tables import TableError
    from truekeep.profiling.values import WrongTypeError

    try:
        spec = laptop.read_policy(policy)
        assert spec is not None
        found = History([laptop.table(path) for path in _files(history)], time_column, probability_column)
        starts = milliseconds(begin.replace(tzinfo=UTC)) if begin else found.span[0]
        if profile is not None:
            first = laptop.read_profile(profile)
            missing = [c.name for c in first.columns if c.name not in found.names]
            if [name for name in missing if name != PREDICTION]:
                raise laptop.InputError(f"the history lacks columns of {profile}: {', '.join(missing[:10])}")
            first = first.model_copy(update={"columns": tuple(c for c in first.columns if c.name not in missing)})
        else:
            first = _before(found, starts, train_days, label_column)
        watched = _performances(
            found, spec, (label_column, probability_column), performance, starts, train_days, label_delay_hours
        )
        replay = Replay(found, spec, first, starts, train_days, watched)
        settings = laptop.settings(spec)
        judged = replay.run(settings)
        if not judged:
            raise laptop.InputError("the history has no window from --begin on; give more of it")
        chosen = sorted({*THRESHOLDS, settings.minimum_effect})
        table = [{"minimumEffect": one} | _cost(replay.run(replace(settings, minimum_effect=one))) for one in chosen]
        answer = _summary(judged, table, settings, runs_per_year)
        if watched is not None:
            _add_performance(answer, replay, judged, settings, performance, label_delay_hours)
        answer["notes"] = _notes(spec, watched is not None, train_days, performance)
        if output == "html":
            from truekeep.cli.backtest_page import page

            laptop.write(page(answer, judged, settings, policy.name), to)
        else:
            laptop.write(json.dumps(answer, indent=2) if output == "json" else _text(answer), to)
    except (laptop.InputError, TableError, WrongTypeError) as error:
        laptop.refuse(error)


def _files(given: list[Path]) -> list[Path]:
    from truekeep.cli.laptop import InputError

    found = [file for path in given for file in (sorted(path.rglob("*.parquet")) if path.is_dir() else [path])]
    if not found:
        raise InputError(f"{given[0]}: holds no Parquet file; give one, or a folder with some")
    return found


def _before(history: History, begin: int, days: int, label: str | None) -> Profile:
    """The reference of the days before the first window."""
    from truekeep.cli.laptop import InputError
    from truekeep.profiling.schema import PREDICTION, ColumnProfile, Profile
    from truekeep.profiling.tables import feature_type

    schema = history.tables[0].schema
    kept = [name for name in history.names if not name.startswith("truekeep.") and name not in (PREDICTION, label)]
    kinds = {name: feature_type(schema.field(name).type) for name in kept}
    columns = tuple(ColumnProfile(name=name, type=kind) for name in kept if (kind := kinds[name]) is not None)
    if PREDICTION in history.names:
        columns += (ColumnProfile(name=PREDICTION, type="Number"),)
    found = history.reference(Profile(columns=columns), begin - days * DAY_MS, begin) if days else Profile()
    if not found.rows:
        raise InputError(
            "there is no reference: give --profile, or a --begin that leaves --train-days of the history before it"
        )
    return found


def _performances(
    history: History, spec: DriftPolicySpec, columns: tuple[str | None, str], given: Path | None, begin: int, days: int,
    delay: int,
) -> Performances | None:  # fmt: skip
    """What judges performance; None where the policy does not, or the history has no labels."""
    from truekeep.cli.backtest_performance import Performances, read_performance
    from truekeep.cli.laptop import InputError

    label, probability = columns
    if spec.performance is None:
        if label is not None or given is not None:
            raise InputError(
                "--label-column and --performance are for a policy with spec.performance; add it, or leave them out"
            )
        return None
    if label is None:
        if given is not None:
            raise InputError("--performance needs --label-column: name the history's column of labels")
        return None
    first = read_performance(given) if given is not None else None
    return Performances(history, spec, spec.performance, (label, probability), first, begin, days, delay * HOUR_MS)


def _cost(judged: list[Judged]) -> dict[str, Any]:
    return {
        "drifted": sum(window.report.verdict == "Drift" for window in judged),
        "runs": sum(window.action == "Retrain" for window in judged),
        "held": sum(window.action == "Held" for window in judged),
    }


def _summary(judged: list[Judged], table: list[dict[str, Any]], settings: Settings, wanted: float) -> dict[str, Any]:
    years = (judged[-1].verdict.end - judged[0].verdict.start) / YEAR
    return {
        "from": judged[0].verdict.start.isoformat(),
        "to": judged[-1].verdict.end.isoformat(),
        "minimumEffect": settings.minimum_effect,
        "windows": [
            {
                "start": window.verdict.start.isoformat(),
                "rows": window.report.rows,
                "verdict": window.report.verdict,
                "consecutive": window.consecutive,
                "action": window.action,
                "effect": max((c.effect or 0.0 for c in window.report.columns if not c.ignored), default=0.0),
                "message": window.strongest,
                "answers": window.cause.kind if window.cause else None,
            }
            for window in judged
        ],
        "runs": [window.verdict.end.isoformat() for window in judged if window.action == "Retrain"],
        "thresholds": table,
        "proposal": {
            "runsPerYear": wanted,
            "minimumEffect": _least(table, "minimumEffect", wanted * years),
        },
    }


def _least(table: list[dict[str, Any]], name: str, runs: float) -> float | None:
    """The smallest threshold from which on no larger one costs more than so many runs."""
    found: float | None = None
    for row in reversed(table):
        if row["runs"] > runs:
            break
        found = row[name]
    return found


def _add_performance(
    answer: dict[str, Any], replay: Replay, judged: list[Judged], settings: Settings, given: Path | None, delay: int
) -> None:
    """What is known of performance, by window; and what each maxDrop would have cost."""
    assert replay.performances is not None
    policy = replay.performances.settings
    for shown, window in zip(answer["windows"], judged, strict=True):
        shown["performance"] = None if window.performance is None else _shown(window.performance)
    table = []
    for drop in sorted({*MAX_DROPS, policy.max_drop}, key=float):
        again = replay.run(settings, drop)
        known = [window.performance for window in again if window.performance is not None]
        causes = [window.cause.kind for window in again if window.action == "Retrain" and window.cause]
        table.append(
            {"maxDrop": float(drop), "decayed": sum(one.verdict == "Decayed" for one in known)}
            | {name: count for name, count in _cost(again).items() if name != "drifted"}
            | {"runsOnPerformance": causes.count("Performance")}
        )
    baseline = replay.performances.first
    assert baseline is not None
    answer["performance"] = {
        "metric": policy.metric,
        "maxDrop": float(policy.max_drop),
        "baseline": next(one.value for one in baseline.metrics if one.name == policy.metric),
        "baselineRows": baseline.rows,
        "baselineFrom": str(given) if given is not None else "history",
        "labelDelayHours": delay,
        "maxDrops": table,
    }
    years = (judged[-1].verdict.end - judged[0].verdict.start) / YEAR
    proposal = answer["proposal"]
    proposal["maxDrop"] = _least(table, "maxDrop", proposal["runsPerYear"] * years)


def _shown(one: PerformanceVerdict) -> dict[str, Any]:
    def number(text: str | None) -> float | None:
        return None if text is None or text == "NaN" else float(text)

    return {
        "verdict": one.verdict,
        "value": number(one.value),
        "low": number(one.low),
        "high": number(one.high),
        "baseline": number(one.baseline),
        "labelled": one.labelled,
        "coverage": float(one.coverage),
        "estimated": one.estimated,
        "estimate": number(one.estimate),
        "estimateLow": number(one.estimate_low),
        "estimateHigh": number(one.estimate_high),
    }


def _notes(spec: DriftPolicySpec, watched: bool, days: int, given: Path | None) -> list[str]:
    """What a replay takes for granted, and what it can't know."""
    actions = {response.finding: response.action for response in spec.responses}
    notes = [
        f"A run is taken to succeed at once; the {days} days before it are the next reference."
        if days
        else "A run is taken to succeed at once; the first reference is kept (--train-days 0)."
    ]
    if spec.performance is not None and not watched:
        notes.append("Performance is not replayed: name the history's labels with --label-column.")
    if watched:
        notes.append(
            "What a retrained model would have predicted is not known: after a run the recorded predictions are held "
            f"against what they themselves showed in the last {spec.consecutive_windows} windows before it. So a loss "
            "counts once, and then only a further one; whether the run would have mended it, a replay can't tell."
            if days
            else "What a retrained model would have predicted is not known: after a run the recorded predictions are "
            "held against the first baseline all the same, as if no run had mended anything."
        )
        if given is None:
            notes.append(
                "The baseline is what the recorded predictions showed before --begin, with cut-off 0.5. If the model "
                "was fitted on these rows, it is too good: give --performance."
            )
        if actions.get("Performance") == "Rollback":
            notes.append("What the revision before would have done is not recorded: a rollback is told, nothing more.")
    return notes


def _text(answer: dict[str, Any]) -> str:
    known = answer.get("performance")
    head = f"{'window':<17} {'rows':>9} {'verdict':<16} {'row':>3} {'action':<8} {'effect':>6}"
    lines = [head + (f"  {known['metric'][:14]:<14} {'by labels':<16}" if known else "")]
    for w in answer["windows"]:
        lines.append(
            f"{w['start'][:16]:<17} {w['rows']:>9,} {w['verdict']:<16} {w['consecutive']:>3} {w['action']:<8} "
            f"{w['effect']:>6.3f}" + (_performance_text(w["performance"]) if known else "")
        )
        if w["message"]:
            message = f"    {w['message']}"
            lines.append(message if len(message) <= WIDTH else message[: WIDTH - 1] + "…")
    lines.append(f"\n{len(answer['runs'])} runs with minimumEffect {answer['minimumEffect']:g}")
    if known:
        lines[-1] += f" and maxDrop {known['maxDrop']:g}"
        lines.append(f"{known['metric']} was {known['baseline']:.4f} on {known['baselineRows']:,} rows; ~: an estimate")
    lines.append(f"\n{'minimumEffect':>13} {'drifted':>8} {'runs':>5} {'held':>5}")
    lines += [
        f"{t['minimumEffect']:>13g} {t['drifted']:>8} {t['runs']:>5} {t['held']:>5}" for t in answer["thresholds"]
    ]
    if known:
        lines.append(f"\n{'maxDrop':>13} {'decayed':>8} {'runs':>5} {'held':>5} {'on performance':>15}")
        lines += [
            f"{t['maxDrop']:>13g} {t['decayed']:>8} {t['runs']:>5} {t['held']:>5} {t['runsOnPerformance']:>15}"
            for t in known["maxDrops"]
        ]
    lines.append("")
    lines += proposals(answer)
    lines.append("")
    lines += [line for note in answer["notes"] for line in textwrap.wrap(note, WIDTH)]
    return "\n".join(line.rstrip() for line in lines)


def _performance_text(shown: dict[str, Any] | None) -> str:
    if shown is None or (shown["value"] is None and shown["estimate"] is None):
        return "  -"
    if shown["value"] is not None:
        return f"  {shown['value']:<14.4f} {shown['verdict']:<16}"
    guessed = f"~{shown['estimate']:.4f}"
    return f"  {guessed:<14} {shown['estimated']:<16}"


def proposals(answer: dict[str, Any]) -> list[str]:
    """What is proposed, in words, a line each; each threshold with the other as the policy has it."""
    proposal = answer["proposal"]
    found = []
    for name in ("minimumEffect", "maxDrop"):
        if name in proposal:
            best = proposal[name]
            what = f'{name} "{best:g}" or more' if best is not None else f"no {name} of these is enough"
            found.append(f"at most {proposal['runsPerYear']:g} runs a year: {what}")
    return found

"""`truekeep drift`: one table against a profile, by the same code as in the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from truekeep.monitor.judge import Settings
    from truekeep.monitor.report import ColumnReport, WindowReport
    from truekeep.profiling.schema import Profile

Format = Literal["json", "text", "html"]
SHOWN = 40  # columns of the table that is printed


def drift(
    current: Annotated[Path, typer.Argument(metavar="CUR.parquet", help="What is to be judged.")],
    *,
    profile: Annotated[Path, typer.Option(help="What it is compared with: made by truekeep profile, or by training.")],
    policy: Annotated[
        Path | None, typer.Option("--policy", "-f", help="YAML with a DriftPolicy. Default: its defaults.")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to answer.")] = "text",
    to: Annotated[Path | None, typer.Option(help="File to write the answer to. Default: standard output.")] = None,
    prediction: Annotated[
        str | None, typer.Option(help="Column of the model's probability. Default: truekeep.probability, if there.")
    ] = None,
) -> None:
    """Say whether a Parquet file has drifted from a profile.

    Drift is any finding that counts: a column that moved, or data that broke. Codes: 0, no drift; 1, drift; 2, wrong
    input, or too few rows to say (the verdict is InsufficientData then)."""
    from truekeep.cli import laptop
    from truekeep.monitor.judge import judge
    from truekeep.monitor.page import Subject, page
    from truekeep.profiling.build import window_of_table
    from truekeep.profiling.schema import PREDICTION
    from truekeep.profiling.tables import TableError

    try:
        reference = laptop.read_profile(profile)
        spec = laptop.read_policy(policy)
        table = laptop.table(current)
        if prediction and prediction not in table.names:
            raise laptop.InputError(f"{current}: has no column {prediction!r}; leave out --prediction, or name another")
        names = {name: name for name in table.names}
        names.pop(PREDICTION, None)
        probability = prediction or laptop.CAPTURED_PROBABILITY
        dropped = frozenset[str]()
        if probability in table.names:
            names[PREDICTION] = probability
        elif reference.column(PREDICTION) is not None:
            dropped = frozenset({PREDICTION})
            typer.echo(f"{current} has no column {probability}: the prediction is not compared", err=True)
        settings = laptop.settings(spec, dropped)
        if beyond := laptop.beyond_a_file(spec):
            typer.echo(f"{policy}: {beyond} needs more than one file, and is not judged here", err=True)
        counted = window_of_table(table, reference, names=names)
        report = judge(reference, counted, settings)
        title = f"{current.name} compared with {profile.name}"
        if output == "json":
            answer = json.dumps(summary(report), ensure_ascii=False, indent=2)
        elif output == "html":
            answer = page(Subject(title, reference, counted, report, settings))
        else:
            answer = text(report, reference, settings, title)
        laptop.write(answer, to)
        if verdict(report) == "InsufficientData":
            typer.echo(f"{current}: {report.rows:,} rows, fewer than {settings.min_rows:,}: not judged", err=True)
    except (laptop.InputError, TableError) as error:
        laptop.refuse(error)
    codes = {"NoDrift": laptop.EXIT_NO_DRIFT, "Drift": laptop.EXIT_DRIFT, "InsufficientData": laptop.EXIT_INPUT}
    raise typer.Exit(codes[verdict(report)])


def verdict(report: WindowReport) -> Literal["Drift", "NoDrift", "InsufficientData"]:
    """One of three words. Broken data is Drift here: a file that is half null is never fine, and `kind` tells which."""
    if report.verdict == "InsufficientData":
        return "InsufficientData"
    return "Drift" if report.kinds else "NoDrift"


def summary(report: WindowReport) -> dict[str, Any]:
    """The answer as JSON; its shape is kept."""
    return {
        "drift": verdict(report) == "Drift",
        "verdict": verdict(report),
        "rows": report.rows,
        "findings": [
            {
                "column": finding.column,
                "kind": finding.kind,
                "statistic": finding.statistic,
                "value": float(finding.value),
                "threshold": float(finding.threshold),
                "pValue": None if finding.p_value is None else float(finding.p_value),
                "effect": finding.effect,
                "message": finding.message,
            }
            for finding in report.findings
        ],
    }


def text(report: WindowReport, reference: Profile, settings: Settings, title: str) -> str:
    """The answer for a person at a terminal."""
    lines = [f"{verdict(report)}: {title}, {report.rows:,} rows and {reference.rows:,}"]
    if report.verdict == "InsufficientData":
        lines.append(f"at least {settings.min_rows:,} rows are needed (window.minRows); this says nothing about drift")
        return "\n".join(lines)
    for finding in report.findings:
        chance = "" if finding.p_value is None else f", p {finding.p_value}"
        lines.append(
            f"  {finding.severity.lower():6} {finding.kind:15} {finding.message} "
            f"[{finding.statistic} {finding.value}, from {finding.threshold}{chance}]"
        )
    judged = sorted((c for c in report.columns if c.judged), key=lambda c: (-(c.effect or 0.0), c.name))
    if judged:
        lines.append(f"\n{'column':<32} {'effect':>7} {'from':>6} {'p':>8}")
        lines += [_line(column) for column in judged[:SHOWN]]
        if len(judged) > SHOWN:
            lines.append(f"and {len(judged) - SHOWN} more")
    return "\n".join(lines)


def _line(column: ColumnReport) -> str:
    from truekeep.monitor import words

    shown = words.name(column.name)[1:-1][:32]
    return (
        f"{shown:<32} {column.effect or 0.0:>7.3f} {column.threshold or 0.0:>6.3g} {column.p_corrected or 0.0:>8.2g}"
        + ("  drifted" if column.drifted else "")
    )

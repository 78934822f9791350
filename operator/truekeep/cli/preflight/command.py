"""The command: asks, says, and ends with a code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from truekeep.cli.kube import give_up
from truekeep.cli.preflight.checks import SYSTEM, Finding, Plan, findings, fit
from truekeep.cli.preflight.cluster import Real
from truekeep.cli.shown import LEAST_WIDTH, Output, give

EXIT_UNFIT = 1
WORDS = {"Ok": "ok", "Missing": "MISSING", "Warning": "warning", "Optional": "optional", "Unknown": "unknown"}
INDENT = 22


def preflight(
    *,
    watch: Annotated[
        list[str] | None,
        typer.Option(help="An operator for this namespace alone is to be installed. Can be given again."),
    ] = None,
    system: Annotated[str, typer.Option(help="The operator's own namespace.")] = SYSTEM,
    output: Output = "text",
) -> None:
    """Say what the cluster lacks for Truekeep, and what to do about it. Nothing is written.

    Ends with 0 where it can be installed and run, 1 where something is missing, 2 where the cluster can't be asked."""
    from kubernetes import config

    try:
        config.load_kube_config()  # type: ignore[no-untyped-call]
    except Exception as error:  # of the client: a dozen kinds, none of them for a person
        give_up(error)
    found = findings(Real(), Plan(system, tuple(watch or ())))
    if output == "text":
        typer.echo("\n".join(text(found)))
    else:
        give({"fit": fit(found), "findings": [each.dump() for each in found]}, output)
    if not fit(found):
        raise typer.Exit(EXIT_UNFIT)


def text(found: Sequence[Finding]) -> Iterator[str]:
    """Lines for a terminal of 80 columns: what was found, and below it what to do."""
    from textwrap import wrap

    for each in found:
        first = f"{WORDS[each.outcome]:9}{each.check:12} "
        room = LEAST_WIDTH - INDENT
        told = wrap(each.message, room) or [""]
        yield first + told[0]
        yield from (" " * INDENT + line for line in told[1:])
        if each.remedy:
            start, *more = wrap(each.remedy, room - 2, break_long_words=False)
            yield " " * INDENT + f"→ {start}"
            yield from (" " * (INDENT + 2) + line for line in more)
    missing = sum(each.outcome == "Missing" for each in found)
    yield ""
    yield f"{missing} missing" if missing else "nothing that is needed is missing"

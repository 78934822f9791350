"""How answers are shown: text for a terminal of 80 columns, JSON and YAML for programs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

Output = Annotated[Literal["text", "json", "yaml"], typer.Option("--output", "-o", help="How to answer.")]
LEAST_WIDTH = 80


def console() -> Console:
    """Standard output, at the terminal's width; 80 columns where there is no terminal."""
    return Console(width=None if sys.stdout.isatty() else LEAST_WIDTH, highlight=False)


def give(answer: Any, output: str) -> None:
    """The answer for a program."""
    if output == "json":
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    import yaml

    typer.echo(yaml.safe_dump(answer, sort_keys=False, allow_unicode=True), nl=False)


def short_time(moment: str | None) -> str:
    """A time of Kubernetes in UTC, to the minute; `-` for none."""
    if not moment:
        return "-"
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M}"

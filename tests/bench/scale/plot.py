"""`python -m tests.bench.scale.plot FIGURES.json PLOT.svg`: how the figures grow with the Models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import altair

PANELS = (
    ("peak", "memory, at most (MiB)", 200.0),
    ("restart", "restart until steady (s)", 60.0),
    ("idle_p99", "a change to its first write, p99 (s)", 1.0),
    ("storm_p99", "the same, all changed at once, p99 (s)", 5.0),
)
WIDTH, HEIGHT = 300, 180


def panel(figures: list[dict[str, Any]], name: str, title: str, goal: float) -> altair.LayerChart:
    """One figure over the number of Models, and its goal as a dashed line."""
    x = altair.X("models:Q", title="Models", scale=altair.Scale(type="log", domain=[8, 700]))
    rows = [{"models": each["models"], "value": each[name]} for each in figures]
    lines = (
        altair.Chart(altair.InlineData(values=rows))
        .mark_line(point=True)
        .encode(x=x, y=altair.Y("value:Q", title=None))
    )
    limit = altair.Chart(altair.InlineData(values=[{"goal": goal}])).mark_rule(strokeDash=[4, 4]).encode(y="goal:Q")
    return altair.LayerChart(layer=[lines, limit]).properties(width=WIDTH, height=HEIGHT, title=title)


def main(source: Path, target: Path) -> None:
    """Draw all panels."""
    figures = json.loads(source.read_text())
    memory, restart, idle, storm = (panel(figures, *each) for each in PANELS)
    altair.vconcat(altair.hconcat(memory, restart), altair.hconcat(idle, storm)).save(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

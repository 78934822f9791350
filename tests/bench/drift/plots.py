"""The studies as pictures: Vega-Lite through altair, written as SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

WIDTH = 720
INK, SOFT, NOW, BAD, GOOD = "#1c2330", "#9aa5b4", "#1565c0", "#b3261e", "#1b6e3c"
NEVER = "never"


def write(chart: Any, path: Path) -> None:
    """As SVG on white, so that it is read on a dark page too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    configured = (
        chart.configure(background="white", font="system-ui, sans-serif", padding=12)
        .configure_axis(labelColor=INK, titleColor=INK, gridColor="#eceff3", domainColor=SOFT, tickColor=SOFT)
        .configure_title(anchor="start", fontSize=13, fontWeight="normal", color=INK)
        .configure_view(stroke=None)
        .configure_legend(labelColor=INK, titleColor=INK, orient="top", title=None, labelLimit=400)
    )
    configured.save(str(path))


def year(arms: Sequence[Mapping[str, Any]], measure: str) -> Any:
    """The metric by week, an arm a row, over that of the arm that never retrains; runs are marked."""
    weeks = pd.DataFrame(
        [
            {"arm": arm["name"], "week": week["start"], "value": week["values"][measure]}
            for arm in arms
            for week in arm["weeks"]
        ]
    )
    still = weeks[weeks.arm == NEVER]
    low, high = float(weeks.value.min()) - 0.02, float(weeks.value.max()) + 0.02
    rows = [
        _arm(arm, weeks[weeks.arm == arm["name"]], still, measure, (low, high)) for arm in arms if arm["name"] != NEVER
    ]
    return alt.vconcat(*rows, spacing=10)


def _arm(
    arm: Mapping[str, Any], mine: pd.DataFrame, still: pd.DataFrame, measure: str, ends: tuple[float, float]
) -> Any:
    span = [still.week.min(), still.week.max()]
    x: Any = alt.X("week:T", title=None, scale=alt.Scale(domain=span), axis=alt.Axis(format="%b", tickCount="month"))
    y: Any = alt.Y("value:Q", title=measure, scale=alt.Scale(domain=ends, nice=False), axis=alt.Axis(tickCount=4))
    runs = pd.DataFrame(
        [
            {"at": run["at"], "promoted": run["revision"] is not None}
            for run in arm["runs"][1:]
            if run["at"] <= still.week.max()
        ],
        columns=["at", "promoted"],
    )
    promoted, refused = runs[runs.promoted.astype(bool)], runs[~runs.promoted.astype(bool)]
    mean = sum(week["values"][measure] for week in arm["weeks"]) / len(arm["weeks"])
    spent = len(arm["runs"]) - 1
    made = sum(run["revision"] is not None for run in arm["runs"]) - 1
    title = (
        f"{arm['name']}: {spent} run{'s' if spent != 1 else ''}, {made} promoted, mean {mean:.4f} "
        f"(never: {still.value.mean():.4f})"
    )
    layers = [
        alt.Chart(promoted).mark_rule(color=GOOD, strokeWidth=1.2).encode(x="at:T"),
        alt.Chart(refused).mark_rule(color=BAD, strokeWidth=1.2, strokeDash=[2, 3]).encode(x="at:T"),
        alt.Chart(still).mark_line(color=SOFT, strokeWidth=1.5, interpolate="step-after").encode(x=x, y=y),
        alt.Chart(mine).mark_line(color=NOW, strokeWidth=2, interpolate="step-after").encode(x=x, y=y),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=96, title=title)


def price(rows: Sequence[Mapping[str, Any]], measure: str) -> Any:
    """What each arm spent and what it got."""
    table = pd.DataFrame(rows)
    x: Any = alt.X("runs:Q", title="training runs after the first", scale=alt.Scale(domain=[-1, table.runs.max() + 9]))
    ends = [float(table["low"].min()) - 0.002, float(table["high"].max()) + 0.002]
    y: Any = alt.Y("gain:Q", title=f"mean weekly {measure}, more than never", scale=alt.Scale(domain=ends, nice=False))
    color: Any = alt.Color(
        "kind:N", scale=alt.Scale(domain=["policy", "schedule", NEVER], range=[NOW, BAD, SOFT]), legend=alt.Legend()
    )
    base = alt.Chart(table)
    zero = alt.Chart(pd.DataFrame({"y": [0.0]})).mark_rule(color=SOFT, strokeDash=[4, 3]).encode(y="y:Q")
    return (
        zero
        + base.mark_rule(strokeWidth=1.5, opacity=0.5).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color)
        + base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=color)
        + base.mark_text(align="left", dx=8, color=INK).encode(x=x, y=y, text="name:N")
    ).properties(width=WIDTH, height=300)


def lateness(watched: Sequence[Mapping[str, Any]]) -> Any:
    """By metric and window: what labels showed and what was estimated, and where each said `Decayed`."""
    panels = []
    for one in watched:
        rows = pd.DataFrame(
            [
                {"week": week, "value": value, "what": what, "decayed": flag}
                for what, values, flags in (
                    ("by labels, a day after the window", one["value"], one["by_labels"]),
                    ("by the estimate, at the window's end", one["estimate"], one["by_estimate"]),
                )
                for week, value, flag in zip(one["starts"], values, flags, strict=True)
            ]
        )
        color: Any = alt.Color(
            "what:N", scale=alt.Scale(range=["#c77700", NOW]), sort=["by the estimate, at the window's end"]
        )
        x: Any = alt.X("week:T", title=None, axis=alt.Axis(format="%b", tickCount="month"))
        y: Any = alt.Y("value:Q", title=one["metric"], scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
        limit = one["baseline"] - float(one["max_drop"])
        levels = pd.DataFrame({"y": [one["baseline"], limit]})
        panels.append(
            (
                alt.Chart(levels.iloc[:1]).mark_rule(color=SOFT).encode(y="y:Q")
                + alt.Chart(levels.iloc[1:]).mark_rule(color=BAD, strokeDash=[4, 3]).encode(y="y:Q")
                + alt.Chart(rows).mark_line(strokeWidth=2).encode(x=x, y=y, color=color)
                + alt.Chart(rows[rows.decayed.astype(bool)])
                .mark_point(filled=True, size=45, opacity=1)
                .encode(x=x, y=y, color=color)
            ).properties(
                width=WIDTH,
                height=140,
                title=f"{one['metric']}: grey, what the holdout showed; red, less maxDrop {one['max_drop']}; "
                "dots, windows called Decayed",
            )
        )
    return alt.vconcat(*panels, spacing=12)


def seasons(weeks: Sequence[Mapping[str, Any]]) -> Any:
    """Riders by week, and what is said of each week against two references."""
    table = pd.DataFrame(weeks)
    x: Any = alt.X("start:T", title=None, axis=alt.Axis(format="%b", tickCount="month"))
    riders = alt.Chart(table).mark_area(color="#cfe0f2", line={"color": NOW}).encode(
        x=x, y=alt.Y("riders:Q", title="riders, median of an hour")
    )  # fmt: skip
    names = {"training": "against January and February", "season": "against the four weeks before"}
    said = pd.DataFrame(
        [
            {"start": week["start"], "against": words, "verdict": week[name]}
            for week in weeks
            for name, words in names.items()
        ]
    )
    color: Any = alt.Color("verdict:N", scale=alt.Scale(domain=["NoDrift", "Drift"], range=["#9bc6a8", BAD]))
    marks = alt.Chart(said).mark_square(size=90, opacity=1).encode(
        x=x, y=alt.Y("against:N", title=None, sort=list(names.values()), axis=alt.Axis(labelLimit=220)), color=color
    )  # fmt: skip
    return alt.vconcat(
        riders.properties(width=WIDTH - 130, height=130), marks.properties(width=WIDTH - 130, height=52), spacing=8
    )

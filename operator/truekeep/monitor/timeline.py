"""The windows up to the one that a page is about, as two drawings: how far they were, and how good the model was."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from html import escape
from typing import NamedTuple

from truekeep.api.driftpolicy import PerformanceVerdict, WindowVerdict
from truekeep.monitor import words
from truekeep.monitor.report import WindowReport

WIDTH, HEIGHT = 640, 170
SHOWN = 30  # windows; the newest ones
STYLE = """
.bNoDrift{fill:var(--good)}.bDrift,.bDataQuality{fill:var(--bad)}.bInsufficientData,.bBlackout{fill:var(--line)}
.dot{fill:var(--now)}.dot.Decayed{fill:var(--bad)}.bar{stroke:var(--now);stroke-width:2}.bar.Decayed{stroke:var(--bad)}
.guess{fill:none;stroke:var(--soft);stroke-width:1.5}.guess.Decayed{stroke:var(--bad)}
.run{stroke:var(--ink);stroke-dasharray:2 3;stroke-width:1.5}
svg.time,.ends{max-width:52rem}
"""


class Past(NamedTuple):
    """One window: its verdict, and the largest effect of a column that counts (0 where none was judged)."""

    window: WindowVerdict
    effect: float


def past(window: WindowVerdict, report: WindowReport) -> Past:
    """Of a report."""
    return Past(window, max((column.effect or 0.0 for column in report.columns if not column.ignored), default=0.0))


def drawings(
    windows: Sequence[Past],
    performance: Sequence[PerformanceVerdict],
    threshold: float,
    max_drop: float | None,
    *,
    most: int = SHOWN,
    runs: Collection[datetime] = (),
) -> Iterator[str]:
    """`windows`: the oldest first; at least two make a timeline, of the newest `most`. `runs`: starts of windows after
    which a run was started."""
    shown = sorted(windows, key=lambda one: one.window.start)[-most:]
    if len(shown) > 1:
        yield f'<h2>The last {len(shown)} windows</h2><p class="soft">Largest effect of a column; the line is '
        yield f"the threshold, {words.number(threshold)}{'; a dashed one: a run' if runs else ''}. Red: "
        yield "drift or broken data; green: neither; grey: not judged.</p>"
        yield from _effects(shown, threshold, runs)
    places = {one.window.start: place for place, one in enumerate(shown)}
    known = [
        one for one in performance if one.start in places and (one.value or one.estimate) and one.baseline != "NaN"
    ]
    if known:
        yield from _performance(known, places, max_drop, runs)
    if len(shown) > 1 or known:
        yield from _table(shown, {one.start: one for one in known})


def _effects(shown: Sequence[Past], threshold: float, runs: Collection[datetime]) -> Iterator[str]:
    top = max(0.1, 1.25 * threshold, *(one.effect for one in shown))
    wide = WIDTH / len(shown)
    bars = []
    for place, one in enumerate(shown):
        tall = max(2.0, HEIGHT * one.effect / top)
        title = f"{one.window.start:%Y-%m-%d %H:%M}: {one.window.verdict}, {words.number(one.effect)}"
        bars.append(
            f'<rect class="b{one.window.verdict}" x="{place * wide + 1:.1f}" y="{HEIGHT - tall:.1f}" '
            f'width="{max(1.0, wide - 2):.1f}" height="{tall:.1f}"><title>{title}</title></rect>'
        )
    bars += [_run((place + 1) * wide) for place, one in enumerate(shown) if one.window.start in runs]
    limit = HEIGHT * (1 - threshold / top)
    yield (
        f"{_svg('largest effect by window')}{''.join(bars)}"
        f'<line class="limit" x1="0" x2="{WIDTH}" y1="{limit:.1f}" y2="{limit:.1f}"/>{_axis()}</svg>'
    )
    yield _ends(shown[0].window.start, shown[-1].window.end)


def _performance(
    known: Sequence[PerformanceVerdict],
    places: dict[datetime, int],
    max_drop: float | None,
    runs: Collection[datetime],
) -> Iterator[str]:
    """Dots with intervals by labels, circles by estimate; what the gates had, and the limit below it. Where that is
    another one after a run, the lines are drawn anew."""
    known = sorted(known, key=lambda one: one.start)
    levels = _levels(known, places)
    baseline = levels[0][2]
    ends = [level - drop for _, _, level in levels for drop in (0.0, max_drop or 0.0)]
    for one in known:
        ends += [float(text) for text in (one.low, one.high, one.estimate) if text is not None]
    low, high = min(ends), max(ends)
    margin = 0.1 * (high - low) or 0.01
    low, high = low - margin, high + margin
    wide = WIDTH / len(places)

    def y(value: float) -> float:
        return HEIGHT * (1 - (value - low) / (high - low))

    marks = []
    for first, last, level in levels:
        marks.append(_level("base", y(level), first, last))
        if max_drop is not None:
            marks.append(_level("limit", y(level - max_drop), first, last))
    marks += [_run((place + 1) * wide) for start, place in places.items() if start in runs]
    for one in known:
        x = (places[one.start] + 0.5) * wide
        if one.estimate is not None:
            marks.append(
                f'<circle class="guess {one.estimated}" cx="{x:.1f}" cy="{y(float(one.estimate)):.1f}" r="4">'
                f"<title>{one.start:%Y-%m-%d}: estimate {one.estimate}</title></circle>"
            )
        if one.value is not None and one.low is not None and one.high is not None:
            marks.append(
                f'<line class="bar {one.verdict}" x1="{x:.1f}" x2="{x:.1f}" y1="{y(float(one.low)):.1f}" '
                f'y2="{y(float(one.high)):.1f}"/><circle class="dot {one.verdict}" cx="{x:.1f}" '
                f'cy="{y(float(one.value)):.1f}" r="4"><title>{one.start:%Y-%m-%d}: {one.value}</title></circle>'
            )
    yield f"<h2>Performance: {escape(known[0].metric)}</h2>"
    yield '<p class="soft">Dots: by labels, with 95 % intervals. Circles: estimates, made before labels came. Dashed: '
    limit = f"; the line: {words.number(baseline - max_drop)}, from where it is decay" if max_drop is not None else ""
    anew = ", at first; both are set anew after a run" if len(levels) > 1 else ""
    yield f"{words.number(baseline)}, what the gates had{limit}{anew}.</p>"
    yield (f"{_svg('performance by window')}{''.join(marks)}{_axis()}</svg>")
    yield f'<div class="ends"><span>{words.number(low)} … {words.number(high)}</span></div>'


def _table(shown: Sequence[Past], performance: dict[datetime, PerformanceVerdict]) -> Iterator[str]:
    yield '<details><summary>These windows as a table</summary><div class="wide"><table><tr><th>window</th>'
    yield "<th>rows</th><th>verdict</th><th>effect</th><th>by labels</th><th>estimate</th></tr>"
    for one in reversed(shown):
        found = performance.get(one.window.start)
        measured = f"{found.value} ({found.low} … {found.high})" if found and found.value else "–"
        guessed = found.estimate if found and found.estimate else "–"
        yield (
            f"<tr><td>{one.window.start:%Y-%m-%d %H:%M}</td><td>{one.window.rows:,}</td>"
            f'<td class="{one.window.verdict}">{one.window.verdict}</td><td>{words.number(one.effect)}</td>'
            f"<td>{escape(measured)}</td><td>{escape(guessed)}</td></tr>"
        )
    yield "</table></div></details>"


def _levels(known: Sequence[PerformanceVerdict], places: dict[datetime, int]) -> list[tuple[float, float, float]]:
    """From where to where which baseline held: x, x and the value. `known`: the oldest first."""
    wide = WIDTH / len(places)
    found: list[tuple[float, float, float]] = []
    for one in known:
        level, end = float(one.baseline), (places[one.start] + 1) * wide
        if math.isnan(level):
            continue
        if found and found[-1][2] == level:
            found[-1] = (found[-1][0], end, level)
        else:
            found.append((found[-1][1] if found else 0.0, end, level))
    last = found[-1]
    return [*found[:-1], (last[0], float(WIDTH), last[2])]


def _level(kind: str, at: float, first: float, last: float) -> str:
    return f'<line class="{kind}" x1="{first:g}" x2="{last:g}" y1="{at:.1f}" y2="{at:.1f}"/>'


def _run(at: float) -> str:
    return f'<line class="run" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}"/>'


def _svg(label: str) -> str:
    return f'<svg class="time" viewBox="0 0 {WIDTH} {HEIGHT + 2}" role="img" aria-label="{label}">'


def _axis() -> str:
    return f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT + 1}" y2="{HEIGHT + 1}"/>'


def _ends(first: datetime, last: datetime) -> str:
    return f'<div class="ends"><span>{first:%Y-%m-%d %H:%M}</span><span>{last:%Y-%m-%d %H:%M}</span></div>'

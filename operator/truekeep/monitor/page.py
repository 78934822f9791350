"""The report on a window as a page: one file, no script, nothing loaded. Names in it come from data: all is escaped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from truekeep.api.driftpolicy import PerformanceVerdict
from truekeep.monitor import timeline, words
from truekeep.monitor.judge import Settings
from truekeep.monitor.report import ColumnReport, Facts, WindowReport
from truekeep.monitor.timeline import Past
from truekeep.pages.skeleton import document, text
from truekeep.profiling.schema import CategoryProfile, NumberProfile, Profile
from truekeep.profiling.values import Floats

BINS = 32
BARS = 8  # categories shown by name
CARDS = 300  # columns shown; the strongest first
WIDTH, HEIGHT = 320, 96

_STYLE = (
    timeline.STYLE
    + """
.Drift,.Break,.DataQuality{color:var(--bad)}.Breach{color:var(--bad)}
.Notice,.InsufficientData{color:var(--warn)}.NoDrift{color:var(--good)}
article.moved{border-color:var(--bad)}
.then{fill:var(--then)}.now{fill:none;stroke:var(--now);stroke-width:2}.nowbar{fill:var(--now)}
.facts{overflow-wrap:normal}.facts td{white-space:normal}.facts td:first-child{white-space:nowrap}
td.bar{width:34%}td.bar svg{margin:0}
.key b{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;vertical-align:-.1rem;margin:0 .25rem 0 .6rem}
.key .a{background:var(--then)}.key .b{background:var(--now)}
"""
)


class Subject(NamedTuple):
    """What is shown."""

    title: str  # what was compared with what, as plain text
    reference: Profile
    window: Profile
    report: WindowReport
    settings: Settings
    windows: tuple[Past, ...] = ()  # up to this one
    performance: tuple[PerformanceVerdict, ...] = ()
    max_drop: float | None = None  # of the metric, from where it is decay


def page(subject: Subject) -> str:
    """The whole page, as HTML. The same input gives the same text."""
    windows = timeline.drawings(subject.windows, subject.performance, subject.settings.minimum_effect, subject.max_drop)
    return document(subject.title, _STYLE, [*_head(subject), *windows, *_found(subject.report), *_cards(subject)])


def _head(subject: Subject) -> Iterator[str]:
    report, settings = subject.report, subject.settings
    verdicts = {
        "NoDrift": "No drift",
        "Drift": "Drift",
        "DataQuality": "The data is broken",
        "InsufficientData": "Too few rows to judge",
        "Blackout": "Blackout: nothing counts",
    }
    judged = sum(column.judged for column in report.columns)
    yield f'<h1><span class="{report.verdict}">{verdicts[report.verdict]}</span></h1><p>{text(subject.title)}</p>'
    basis = f"{subject.reference.rows:,}"
    if report.compared_rows is not None:
        basis = f"{report.compared_rows:,} of the same hours in the weeks before"
    yield f'<p class="soft">{report.rows:,} rows, compared with {basis}. '
    if report.verdict == "InsufficientData":
        yield f"At least {settings.min_rows:,} rows are needed; this says nothing about drift.</p>"
        return
    yield (
        f"{judged} of {len(report.columns)} columns judged, {report.drifted} drifted. A column counts from an effect "
        f"of {words.number(settings.minimum_effect)}, where chance does not explain it: at most "
        f"{settings.false_alarms_per_thousand_windows} in 1,000 windows alarm although nothing moved.</p>"
    )
    if report.left_out:
        names = text(", ".join(report.left_out))
        yield f'<p class="soft">Not compared, because captures lack or hash them: {names}.</p>'


def _found(report: WindowReport) -> Iterator[str]:
    yield "<h2>Findings</h2>"
    if not report.findings:
        yield "<p>None.</p>"
        return
    yield "<ul>"
    for finding in report.findings[:CARDS]:
        chance = "" if finding.p_value is None else f", p {text(finding.p_value)}"
        yield (
            f'<li><b class="{finding.severity}">{finding.severity}</b> <span class="soft">{finding.kind}</span><br>'
            f'{text(finding.message)}<br><span class="soft">{text(finding.statistic)} {text(finding.value)}, '
            f"counts from {text(finding.threshold)}{chance}</span></li>"
        )
    yield "</ul>"


def _cards(subject: Subject) -> Iterator[str]:
    counted = {finding.column for finding in subject.report.findings if finding.severity != "Notice"}
    columns = sorted(
        subject.report.columns, key=lambda c: (c.name[:63] not in counted, c.judged, -(c.effect or 0.0), c.name)
    )
    if not columns:
        return
    yield '<h2>Columns <span class="key soft"><b class="a"></b>then<b class="b"></b>now</span></h2>'
    if len(columns) > CARDS:
        yield f'<p class="soft">The first {CARDS} of {len(columns)}, the strongest change first.</p>'
    yield '<div class="cards">'
    for column in columns[:CARDS]:
        then, now = subject.reference.column(column.name), subject.window.column(column.name)
        kind = "moved" if column.name[:63] in counted else "still"
        yield f'<article class="{kind}"><h3>{text(_name(column.name))}</h3>'
        yield from _effect(column)
        if then is not None and now is not None:
            if column.type == "Number":
                yield from _histogram(then.numeric, now.numeric)
            else:
                yield from _categories(then.categorical, now.categorical)
        yield from _facts(column)
        yield "</article>"
    yield "</div>"


def _effect(column: ColumnReport) -> Iterator[str]:
    if column.effect is None or column.threshold is None:
        yield f'<p class="soft">{column.type}, not judged: {text(column.why_not)}</p>'
        return
    chance = "" if column.p_corrected is None else f", p {column.p_corrected:.2g}"
    ignored = ", ignored by the policy" if column.ignored else ""
    yield (
        f'<p class="soft">{column.type}: {text(column.statistic or "effect")} {column.effect:.3f}{chance}, counts '
        f"from {words.number(column.threshold)}{ignored}</p>"
    )
    full = max(0.1, 1.5 * column.threshold, column.effect)
    fill, tick = WIDTH * column.effect / full, WIDTH * column.threshold / full
    kind = "nowbar" if column.drifted else "then"
    yield (
        f'<svg viewBox="0 0 {WIDTH} 8" role="img" aria-label="effect and threshold">'
        f'<rect class="track" width="{WIDTH}" height="8" rx="3"/>'
        f'<rect class="{kind}" width="{fill:.1f}" height="8" rx="3"/>'
        f'<line class="limit" x1="{tick:.1f}" x2="{tick:.1f}" y1="0" y2="8"/></svg>'
    )


def _histogram(then: NumberProfile, now: NumberProfile) -> Iterator[str]:
    """Both distributions on equal widths, from the first to the last percentile of either."""
    ends = [q.value for profile in (then, now) for q in profile.quantiles if q.q in (0.01, 0.99)]
    if not ends:
        return
    borders = _borders(then, min(ends), max(ends))
    before, after = _shares(then, borders), _shares(now, borders)
    top = max(float(before.max()), float(after.max())) or 1.0
    wide = WIDTH / len(before)
    bars = "".join(
        f'<rect class="then" x="{i * wide:.1f}" y="{HEIGHT * (1 - share / top):.1f}" width="{wide - 1:.1f}" '
        f'height="{HEIGHT * share / top:.1f}"/>'
        for i, share in enumerate(before)
        if share > 0
    )
    steps = " ".join(
        f"{x:.1f},{HEIGHT * (1 - share / top) + 1:.1f}"
        for i, share in enumerate(after)
        for x in (i * wide, (i + 1) * wide)
    )
    yield (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 2}" role="img" aria-label="distributions then and now">{bars}'
        f'<polyline class="now" points="{steps}"/><line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT + 1}" '
        f'y2="{HEIGHT + 1}"/></svg><div class="ends"><span>{words.number(float(borders[0]))}</span>'
        f"<span>{words.number(float(borders[-1]))}</span></div>"
    )


def _borders(then: NumberProfile, low: float, high: float) -> Floats:
    """Of equally wide bins; where the reference has only a few numbers, of one bin for each."""
    edges = np.array(then.edges)
    if then.resolution == 0.0 and len(edges) > 1:
        single = (
            np.flatnonzero((edges[:-1] == np.nextafter(edges[1:], -np.inf)) & (np.array(then.counts)[1:-1] > 0)) + 1
        )
        known = edges[single]
        if 1 < len(known) <= BINS:
            middles = (known[:-1] + known[1:]) / 2
            return np.concatenate([[2 * known[0] - middles[0]], middles, [2 * known[-1] - middles[-1]]])
    if not low < high or not np.isfinite(high - low):
        low, high = low - 0.5, low + 0.5
    margin = 0.02 * (high - low)
    return np.linspace(low - margin, high + margin, BINS + 1)


def _shares(profile: NumberProfile, borders: Floats) -> Floats:
    """Share of the values in each bin, shape (bins,); inside a cell they are taken as evenly spread."""
    total = sum(profile.counts)
    if not total or not profile.edges:
        return np.zeros(len(borders) - 1)
    until = np.cumsum(profile.counts)[:-1] / total
    return np.diff(np.interp(borders, np.array(profile.edges), until, left=0.0, right=1.0))


def _categories(then: CategoryProfile, now: CategoryProfile) -> Iterator[str]:
    before, after = then.by_value, now.by_value
    of_then, of_now = sum(then.counts) + then.unseen, sum(now.counts) + now.unseen
    rows = [(value, before.get(value, 0) / max(1, of_then), after.get(value, 0) / max(1, of_now)) for value in
            before.keys() | after.keys()]  # fmt: skip
    rows.sort(key=lambda row: (-max(row[1], row[2], 4 * abs(row[1] - row[2])), row[0]))
    shown = rows[:BARS]
    if len(rows) > BARS or then.other or now.other:
        rest = (1.0 if of_then else 0.0) - sum(r[1] for r in shown), (1.0 if of_now else 0.0) - sum(r[2] for r in shown)
        shown.append(("", max(0.0, rest[0]), max(0.0, rest[1])))
    top = max((max(a, b) for _, a, b in shown[:BARS]), default=0.0) or 1.0  # the rest may be cut short
    yield "<table><tr><th>value</th><th></th><th>then</th><th>now</th></tr>"
    for value, a, b in shown:
        if value or (value == "" and value in before):
            label = text(_name(value)) + ("" if value in before else ' <span class="Notice">new</span>')
        else:
            label = f'<span class="soft">{max(0, len(rows) - BARS):,} others</span>'
        yield (
            f'<tr><td>{label}</td><td class="bar"><svg viewBox="0 0 100 14"><rect class="then" y="1" '
            f'width="{min(100.0, 100 * a / top):.1f}" height="5"/>'
            f'<rect class="nowbar" y="8" width="{min(100.0, 100 * b / top):.1f}" height="5"/>'
            f"</svg></td><td>{words.percent(min(1.0, a))}</td><td>{words.percent(min(1.0, b))}</td></tr>"
        )
    yield "</table>"


def _facts(column: ColumnReport) -> Iterator[str]:
    then, now = column.reference, column.window
    rows = [("missing", words.percent(then.missing), words.percent(now.missing))]
    if column.type == "Number":
        rows.append(("median", _median(then), _median(now)))
        rows.append(("range", _range(then), _range(now)))
    else:
        rows.append(("distinct", f"{then.categories or 0:,}", f"{now.categories or 0:,}"))
    cells = "".join(f"<tr><td>{what}</td><td>{a}</td><td>{b}</td></tr>" for what, a, b in rows)
    yield f'<table class="facts"><tr><th></th><th>then</th><th>now</th></tr>{cells}</table>'


def _median(facts: Facts) -> str:
    return next((words.number(q.value) for q in facts.quantiles if q.q == 0.5), "–")


def _range(facts: Facts) -> str:
    if facts.minimum is None or facts.maximum is None:
        return "–"
    return f"{words.number(facts.minimum)} … {words.number(facts.maximum)}"


def _name(text: str) -> str:
    return words.name(text)[1:-1] if text else "(empty text)"

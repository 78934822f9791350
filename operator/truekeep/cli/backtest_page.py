"""A backtest as a page: one file, no script, nothing loaded. All text in it is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from truekeep.cli.backtest import proposals
from truekeep.cli.backtest_replay import Judged
from truekeep.monitor import timeline, words
from truekeep.monitor.judge import Settings
from truekeep.pages.skeleton import document, table, text

MOST = 400  # windows drawn; the newest ones
_STYLE = (
    timeline.STYLE
    + """
.Retrain td:first-child,.Rollback td:first-child{border-left:.25rem solid var(--bad);padding-left:.4rem}
.Alert td:first-child,.Held td:first-child{border-left:.25rem solid var(--warn);padding-left:.4rem}
td:first-child,th:first-child{white-space:nowrap}
tr[class] td:last-child{white-space:normal;min-width:14rem}
.Drift,.DataQuality{color:var(--bad)}.InsufficientData{color:var(--warn)}.NoDrift{color:var(--good)}
"""
)


def page(answer: dict[str, Any], judged: Sequence[Judged], settings: Settings, policy: str) -> str:
    """The whole page, as HTML. The same input gives the same text."""
    title = f"{policy} on {answer['from'][:10]} to {answer['to'][:10]}"
    return document(title, _STYLE, [*_head(answer, title), *_drawn(answer, judged, settings), *_tables(answer)])


def _head(answer: dict[str, Any], title: str) -> Iterator[str]:
    count = len(answer["runs"])
    known = answer.get("performance")
    limits = f"minimumEffect {words.number(answer['minimumEffect'])}"
    if known:
        limits += f", maxDrop {words.number(known['maxDrop'])}"
    yield f"<h1>{count} {'run' if count == 1 else 'runs'}</h1><p>Backtest of {text(title)}</p>"
    yield f'<p class="soft">{len(answer["windows"]):,} windows, {text(limits)}.</p><ul>'
    for line in proposals(answer):
        yield f"<li>{text(line[0].upper() + line[1:])}</li>"
    yield "</ul>"
    for note in answer["notes"]:
        yield f'<p class="soft">{text(note)}</p>'


def _drawn(answer: dict[str, Any], judged: Sequence[Judged], settings: Settings) -> Iterator[str]:
    known = answer.get("performance")
    yield from timeline.drawings(
        [timeline.past(one.verdict, one.report) for one in judged],
        [one.performance for one in judged if one.performance is not None],
        settings.minimum_effect,
        known["maxDrop"] if known else None,
        most=MOST,
        runs={one.verdict.start for one in judged if one.action == "Retrain"},
    )


def _tables(answer: dict[str, Any]) -> Iterator[str]:
    yield "<h2>What each minimumEffect would have cost</h2>"
    names = ("minimumEffect", "drifted", "runs", "held")
    yield from table(("minimumEffect", "windows drifted", "runs", "held"), _rows(answer["thresholds"], names))
    if known := answer.get("performance"):
        yield "<h2>What each maxDrop would have cost</h2>"
        columns = ("maxDrop", "decayed", "runs", "held", "runsOnPerformance")
        head = ("maxDrop", "windows decayed", "runs", "held", "runs on performance")
        yield from table(head, _rows(known["maxDrops"], columns))
        source = "the history before" if known["baselineFrom"] == "history" else known["baselineFrom"]
        yield f'<p class="soft">{text(known["metric"])} was {known["baseline"]:.4f} on {known["baselineRows"]:,} rows '
        yield f"({text(source)}).</p>"
    asked = [one for one in answer["windows"] if one["action"] != "None"]
    yield "<h2>Windows that asked for something</h2>"
    if not asked:
        yield "<p>None.</p>"
        return
    yield from table(
        ("window", "rows", "verdict", "action", "on", "what"),
        [
            (
                one["start"][:16].replace("T", " "), f"{one['rows']:,}", one["verdict"], one["action"],
                one["answers"] or "DataQuality", one["message"] or _loss(one.get("performance")),
            )
            for one in asked
        ],
        [one["action"] for one in asked],
    )  # fmt: skip


def _loss(shown: dict[str, Any] | None) -> str:
    if not shown or shown["value"] is None or shown["baseline"] is None:
        return ""
    return f"{shown['value']:.4f} ({shown['low']:.4f} to {shown['high']:.4f}), it was {shown['baseline']:.4f}"


def _rows(found: Sequence[dict[str, Any]], names: Sequence[str]) -> list[list[str]]:
    return [[f"{row[names[0]]:g}", *(f"{row[name]:,}" for name in names[1:])] for row in found]

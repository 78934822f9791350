"""A decision as a page: one file, no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from truekeep.cli.why import text
from truekeep.explain.attribution import Attribution
from truekeep.pages import skeleton

if TYPE_CHECKING:
    from truekeep.cli.why.command import Told

STYLE = """
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.2rem .8rem;margin:.4rem 0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0}
.verdict{border-left:.3rem solid var(--good);padding:.3rem .8rem;background:var(--card)}
.doubt{border-left-color:var(--bad)}.unsure{border-left-color:var(--warn)}
.up{fill:var(--now)}.down{fill:var(--then)}.bars svg{max-width:34rem}.bars text{fill:var(--ink);font-size:11px}
"""
WIDTH, HEIGHT, MIDDLE, REACH = 400, 18, 260, 120  # of a feature's bar
KINDS = {"Equal": "verdict", "Differs": "verdict doubt", "NotChecked": "verdict unsure"}


def page(request_id: str, told: Sequence[Told], notes: Sequence[str]) -> str:
    """All rows of a request that were found."""
    title = f"Why request {request_id} was answered so"
    return skeleton.document(title, STYLE, _body(title, told, notes))


def _body(title: str, told: Sequence[Told], notes: Sequence[str]) -> Iterator[str]:
    yield f"<h1>{skeleton.text(title)}</h1>"
    for words in text.doubts(told):
        yield f'<p class="verdict doubt">{skeleton.text(words)}</p>'
    for one in told:
        yield from _row(one)
    for words in notes:
        yield f'<p class="soft">{skeleton.text(words)}</p>'


def _row(told: Told) -> Iterator[str]:
    row, checked = told.row, told.checked
    which = f"{row.namespace}/{row.model}, revision {row.revision}, row {row.row} of {told.rows}"
    yield f"<h2>{skeleton.text(which)}</h2>"
    side = "at or above" if row.prediction else "below"
    words = f"Decision {row.prediction}: score {row.probability:.6g} is {side} the cut-off {row.cut_off:.6g}"
    again = f"Recomputed from the artifact: {checked.message}"
    yield f'<div class="{KINDS[checked.state]}"><p>{skeleton.text(words)}</p>'
    yield f'<p class="soft">{skeleton.text(again)}</p></div>'
    yield from skeleton.facts(
        [
            ("received", text.moment(row.received)),
            ("event", text.moment(row.event_time)),
            ("key", f"{row.key} {text.HASH}" if row.key and text.is_hash(told, None) else row.key or ""),
        ]
    )
    yield "<h3>Features as captured, and what each added</h3>"
    if checked.attribution is None:
        pairs = [(name, text.shown(told, name, value)) for name, value in row.features.items()]
        yield from skeleton.table(["feature", "value"], pairs)
        yield f'<p class="soft">{skeleton.text(f"No attribution: {checked.unexplained}")}</p>'
    else:
        yield from _attributed(told, checked.attribution)
    yield "<h3>What stands behind it</h3>"
    yield from skeleton.facts(text.facts(told))
    gaps = [("not known", gap) for gap in told.behind.gaps]
    if gaps:
        yield from skeleton.facts(gaps)


def _attributed(told: Told, found: Attribution) -> Iterator[str]:
    rows = []
    for name, added in found.ranked():
        error = f" ± {found.errors[name]:.2g}" if found.errors else ""
        rows.append((name, text.shown(told, name, told.row.features.get(name)), f"{added:+.4f}{error}"))
    rows += [("base, the mean of the background", "", f"{found.base:+.4f}"), ("all of it", "", f"{found.answer:+.4f}")]
    yield '<div class="bars">' + _bars(found) + "</div>"
    yield from skeleton.table(["feature", "value", f"added, {found.scale}"], rows)
    yield f'<p class="soft">{skeleton.text(text.method(told, found))}</p>'


def _bars(found: Attribution, most: int = 12) -> str:
    """The features that mattered most, to the right what raised the score."""
    ranked = found.ranked()[:most]
    largest = max((abs(added) for _, added in ranked), default=0.0) or 1.0
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT * len(ranked) + 4}" role="img" aria-label="what each feature added">']
    for place, (name, added) in enumerate(ranked):
        top, width = place * HEIGHT + 3, abs(added) / largest * REACH
        left = MIDDLE if added >= 0 else MIDDLE - width
        kind = "up" if added >= 0 else "down"
        parts.append(f'<text x="2" y="{top + 10}">{skeleton.text(name, 22)}</text>')
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{max(width, 0.5):.1f}" height="12" rx="2"/>'
        )
    parts.append(f'<line class="axis" x1="{MIDDLE}" x2="{MIDDLE}" y1="0" y2="{HEIGHT * len(ranked) + 4}"/></svg>')
    return "".join(parts)

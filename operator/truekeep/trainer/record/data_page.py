"""What a run's report says of its data: what is wrong, where, how often, and what could not be judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truekeep.pages.skeleton import table, text

MOST_ROWS = 200
MOST_PLACES = 5  # of one violation; the record has more
_HEAD = ("severity", "check", "column", "count", "what is wrong", "the first", "what to do")


def wrong(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What stopped a run, with its warnings. Nothing where it was not stopped."""
    if any(one.get("severity", "Fail") == "Fail" for one in found):
        yield "<h2>What is wrong with the data</h2>"
        yield from _rows(found)


def warned(data: Mapping[str, Any]) -> Iterator[str]:
    """What a run was warned of that trained all the same, and what could not be judged."""
    found = data["violations"]
    if found and all(one.get("severity", "Fail") == "Warn" for one in found):
        yield '<h3 class="warn">Warnings</h3>'
        yield from _rows(found)
    elif not found:  # a record of before 0.2 has words alone
        yield from (f'<p class="warn">{text(warning)}</p>' for warning in data.get("warnings", []))
    yield from (f'<p class="soft">{text(one)}</p>' for one in data.get("notJudged", []))


def _rows(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (
            str(one.get("severity", "Fail")),
            str(one.get("check", "")),
            str(one.get("column") or ""),
            f"{one.get('count', 1):,}",
            str(one.get("problem", "")),
            "; ".join(_place(place) for place in one.get("places", [])[:MOST_PLACES]),
            str(one.get("remedy", "")),
        )
        for one in found[:MOST_ROWS]
    ]
    yield from table(_HEAD, rows, ["bad" if row[0] == "Fail" else "warn" for row in rows], most=1200)
    if len(found) > MOST_ROWS:
        yield f'<p class="soft">And {len(found) - MOST_ROWS:,} more, all in the record.</p>'


def _place(place: Mapping[str, Any]) -> str:
    row = "" if place.get("row") is None else f" row {place['row']:,}"
    value = "" if place.get("value") is None else f"{place['value']} in "
    return f"{value}{place.get('file', '')}{row}"

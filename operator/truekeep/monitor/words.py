"""What changed, in words. Names come from data that anybody may have sent: they are cut and cleaned."""

from __future__ import annotations

import numpy as np

from truekeep.profiling.schema import CategoryProfile, ColumnProfile, NumberProfile

NAME_LENGTH = 40
MESSAGE_LENGTH = 512


def name(text: str) -> str:
    """A column's or category's name: printable, at most 40 characters, in backticks."""
    plain = "".join(letter if letter.isprintable() and letter != "`" else "?" for letter in text[: NAME_LENGTH + 1])
    return f"`{plain[: NAME_LENGTH - 1]}…`" if len(plain) > NAME_LENGTH else f"`{plain}`"


def message(column: str, *parts: str) -> str:
    """One sentence of at most 512 characters."""
    text = f"{name(column)}: {', '.join(part for part in parts if part)}"
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


def percent(share: float) -> str:
    """A share as per cent: no more digits than a reader needs, and never 0 % or 100 % for what is neither."""
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f} %"
    if 10 <= value <= 99:
        return f"{value:.0f} %"
    if 0.1 <= value <= 99.9:
        return f"{value:.1f} %"
    return "under 0.1 %" if value < 0.1 else "over 99.9 %"


def number(value: float) -> str:
    """A number with three or four digits."""
    return f"{value:.4g}"


def moved_number(reference: NumberProfile, window: NumberProfile) -> list[str]:
    """How a Number column moved: its median, what lies beyond the old tails, else its spread."""
    then, now = _quantiles(reference), _quantiles(window)
    parts = [f"median {number(then[0.5])} → {number(now[0.5])}" if number(then[0.5]) != number(now[0.5]) else ""]
    above, below = share_above(window, then[0.99]), share_above(reference, then[0.99])
    if above > max(0.02, 2 * below):
        parts.append(f"{percent(above)} above the old 99th percentile")
    under, before = share_below(window, then[0.01]), share_below(reference, then[0.01])
    if under > max(0.02, 2 * before):
        parts.append(f"{percent(under)} below the old 1st percentile")
    if len([part for part in parts if part]) < 2:
        spread_then, spread_now = then[0.75] - then[0.25], now[0.75] - now[0.25]
        if number(spread_then) != number(spread_now):
            parts.append(f"middle half spans {number(spread_then)} → {number(spread_now)}")
    moved = _largest_move(reference, window)
    if len([part for part in parts if part]) < 2 and moved:
        parts.append(moved)
    return parts


def moved_category(reference: CategoryProfile, window: CategoryProfile, most: int = 3) -> list[str]:
    """How a Category column moved: the values whose share changed most."""
    before, after = _shares(reference), _shares(window)
    values = sorted(before.keys() | after.keys(), key=lambda v: (-abs(after.get(v, 0) - before.get(v, 0)), v))
    parts = []
    for value in values[:most]:
        then, now = before.get(value, 0.0), after.get(value, 0.0)
        if then != now:
            parts.append(f"{name(value)} {percent(then)} → {percent(now)}" + ("" if value in before else " (new)"))
    return parts


def share_above(profile: NumberProfile, value: float) -> float:
    """Share of the values above an edge."""
    return profile.above(value) / max(1, sum(profile.counts))


def share_below(profile: NumberProfile, value: float) -> float:
    """Share of the values below an edge."""
    return profile.below(value) / max(1, sum(profile.counts))


def where(column: ColumnProfile) -> str:
    """What kind of gap most of a column's missing rows are."""
    kinds = {"in files that lack the column": column.absent, "NaN": column.numeric.nan, "null": column.nulls}
    return max(kinds, key=lambda kind: kinds[kind])


def _quantiles(profile: NumberProfile) -> dict[float, float]:
    return {quantile.q: quantile.value for quantile in profile.quantiles}


def _shares(profile: CategoryProfile) -> dict[str, float]:
    total = sum(profile.counts) + profile.unseen
    return {value: count / total for value, count in profile.by_value.items()} if total else {}


def _largest_move(reference: NumberProfile, window: NumberProfile) -> str:
    """Where the distribution functions are furthest apart: "x or less: 40 % → 55 %"."""
    before, after = np.cumsum(reference.counts)[:-1], np.cumsum(window.counts)[:-1]
    if not len(before) or not sum(window.counts) or not sum(reference.counts):
        return ""
    then, now = before / sum(reference.counts), after / sum(window.counts)
    at = int(np.argmax(np.abs(then - now)))
    return f"{number(reference.edges[at])} or less: {percent(float(then[at]))} → {percent(float(now[at]))}"

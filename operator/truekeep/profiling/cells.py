"""How the numbers of a reference are cut into cells, on which every later window is counted.

A cell is (previous edge, edge]: both distributions are known exactly at every edge. The reference's cells each hold
at most 1/512 of its values, except those that hold one single number (an atom: a value that occurs often, a tie):
an atom `a` has the edges just below `a` and `a` itself. Hence, for any window, the Kolmogorov-Smirnov distance at the
edges is at most the true one, and falls short of it by at most 1/512 (by nothing where all values are atoms): inside a
cell the two distribution functions can part by no more than the smaller of their masses in it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable

import numpy as np

from truekeep.profiling.grid import settle
from truekeep.profiling.schema import QUANTILES, Quantile
from truekeep.profiling.values import Floats

CELLS = 512


def edges(values: Floats, also: Iterable[float | None] = (), *, shares: int = CELLS, slack: float = 0.0) -> Floats:
    """Edges for a reference of these finite values, shape (n,), ascending, and further ones that must be among them.

    At most about 2,000, or four times `shares`, in ascending order; minimum and maximum can be told from what lies
    outside. `slack`: of a share, by which an edge between values may be moved so that counting takes less."""
    fixed = {value + 0.0 for value in also if value is not None}  # + 0.0: no negative zero
    between: set[float] = set()
    if len(values):
        ties, between = _equal_shares(values, shares)
        fixed |= ties | {below(float(values[0])), float(values[-1]) + 0.0}
        between |= {quantile.value for quantile in exact_quantiles(values)}
    ordered = np.array(sorted(fixed | between), dtype=np.float64)
    ordered = ordered[np.isfinite(ordered)]
    if slack and len(ordered):
        return settle(ordered, values, slack * len(values) / shares, np.array(sorted(fixed)))
    return ordered


def _equal_shares(values: Floats, shares: int) -> tuple[set[float], set[float]]:
    """The edges of ties, and those between them."""
    n = len(values)
    limit = n / shares
    starts = np.flatnonzero(values[1:] != values[:-1]) + 1  # of each distinct value but the first
    until = np.append(starts, n)
    counts = np.diff(until, prepend=0)
    places = np.flatnonzero(counts >= limit)
    ties = {edge for tie in (values[until[places] - 1] + 0.0).tolist() for edge in (below(tie), tie)}
    ends = until.tolist() if len(until) < n else None  # a list, because a look-up in one costs a tenth of numpy's
    found: list[int] = []
    position = 0
    for start, stop in zip([*(until[places] - counts[places]).tolist(), n], [*until[places].tolist(), n], strict=True):
        while position < start:
            full = min(start, math.floor(position + limit))
            position = ends[bisect_right(ends, full) - 1] if ends else full
            found.append(position - 1)
        position = stop
    return ties, set((values[found] + 0.0).tolist())


def finite(ordered: Floats) -> Floats:
    """The finite ones of ascending values, NaN last, as `np.sort` leaves them; a view."""
    start, stop = np.searchsorted(ordered, -np.inf, side="right"), np.searchsorted(ordered, np.inf, side="left")
    return ordered[start:stop]


def below(value: float) -> float:
    """The greatest double that is smaller."""
    return math.nextafter(value, -math.inf)


def resolution(counts: np.ndarray[tuple[int], np.dtype[np.int64]], at: Floats) -> float:
    """Largest share of the values in a cell that holds more than one number."""
    total = int(counts.sum())
    if not total:
        return 0.0
    several = np.ones(len(counts), dtype=bool)
    several[1:-1] = at[:-1] != np.nextafter(at[1:], -np.inf)
    return float(counts[several].max() / total)


def exact_quantiles(values: Floats) -> tuple[Quantile, ...]:
    """Quantiles of ascending values that are values themselves (the inverse of the empirical distribution function)."""
    if not len(values):
        return ()
    ranks = [max(0, int(np.ceil(q * len(values))) - 1) for q in QUANTILES]
    return tuple(Quantile(q=q, value=float(values[rank]) + 0.0) for q, rank in zip(QUANTILES, ranks, strict=True))


def edge_quantiles(counts: np.ndarray[tuple[int], np.dtype[np.int64]], at: Floats) -> tuple[Quantile, ...]:
    """Quantiles that are edges: the smallest that at least the fraction q of the values does not exceed.

    Above the true quantile by at most one cell. The last edge must be the maximum."""
    total = int(counts.sum())
    if not total:
        return ()
    until = np.cumsum(counts)
    places = [min(int(np.searchsorted(until, q * total, side="left")), len(at) - 1) for q in QUANTILES]
    return tuple(Quantile(q=q, value=float(at[place])) for q, place in zip(QUANTILES, places, strict=True))


def interpolated_quantiles(
    counts: np.ndarray[tuple[int], np.dtype[np.int64]], at: Floats, minimum: float, maximum: float
) -> tuple[Quantile, ...]:
    """Quantiles of a window from its cells, taking values as evenly spread inside each cell."""
    total = int(counts.sum())
    uppers = np.append(at, maximum).clip(minimum, maximum)
    lowers = np.insert(at, 0, minimum).clip(minimum, maximum)
    until = np.cumsum(counts)
    found = []
    for q in QUANTILES:
        cell = int(np.searchsorted(until, q * total, side="left"))
        cell = min(cell, len(counts) - 1)
        inside = (q * total - (until[cell] - counts[cell])) / max(1, int(counts[cell]))
        low, high = float(lowers[cell]), float(uppers[cell])
        single = cell > 0 and cell < len(at) and at[cell - 1] == below(float(at[cell]))
        # Each product apart, because high - low may be more than a double holds.
        found.append(Quantile(q=q, value=high if single else low * (1.0 - inside) + high * inside))
    return tuple(found)

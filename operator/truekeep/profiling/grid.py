"""Counting numbers on cells, many times faster than looking up each value among the edges.

A fine grid of buckets lies over the edges. Which bucket a value is in takes a multiplication by a power of two and a
rounding up, or, where the edges crowd together (tails a thousand times as long as the body is wide), a shift of the
bit pattern, which for numbers of one sign grows with the logarithm. A bucket is clean where no edge but its greatest
number lies in it: its values need no look-up. Of a tie (the edges just below a number and the number itself) at the top
of a bucket it is enough to know which values are that number. Only values in other buckets are compared with one or two
edges, or, in crowded buckets, looked up. The counts are exact either way, whatever the edges; `settle` moves edges that
may be moved to where buckets are clean.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import frexp, ldexp
from typing import Any, NamedTuple, Protocol

import numpy as np

from truekeep.profiling.values import Floats

BUCKETS = 1 << 14
FEW = 2  # edges in a bucket that values are compared with one by one
# One in so many edges at either end lies outside of the grid: tails must not stretch it. 0: none does.
OUTER = (0, 250, 40, 12)
CROWDED = 0.03  # share of the edges in crowded buckets from which another grid is tried
SETTLED = 0.4  # share of the edges that are the greatest of a bucket, from which a grid is theirs; half of a tie is not
COARSER = (2, 4, 6, 8, 10, 12)  # powers of two by which buckets may be wider
SOME = 64  # edges that are asked for it
LOOKED_UP = 8192  # up to so many values a look-up takes less than to lay a grid
BLOCK = 1 << 17  # values that are counted at once: all arrays of a block stay within a core's cache
MAXIMUM = np.int64(0x7FFFFFFFFFFFFFFF)

Ints = np.ndarray[Any, np.dtype[np.int64]]
Truths = np.ndarray[Any, np.dtype[np.bool_]]


class Scratch(NamedTuple):
    """Arrays that the next call overwrites, of the same shape (n,)."""

    numbers: Floats
    rounded: Floats
    short: np.ndarray[Any, np.dtype[np.int32]]
    buckets: Ints
    truths: Truths
    cells: Ints


_thread = threading.local()


def scratch(n: int) -> Scratch:
    """Room for n values, one for each thread.

    Arrays of this size come from the system page by page: made anew for each batch they cost a third of it all."""
    room: Scratch | None = getattr(_thread, "room", None)
    if room is None or len(room.numbers) < n:
        room = _thread.room = _room(n)
    if len(room.numbers) == n:
        return room
    return Scratch(
        room.numbers[:n], room.rounded[:n], room.short[:n], room.buckets[:n], room.truths[:n], room.cells[:n]
    )


def _room(n: int) -> Scratch:
    return Scratch(
        np.empty(n),
        np.empty(n),
        np.empty(n, np.int32),
        np.empty(n, np.int64),
        np.empty(n, np.bool_),
        np.empty(n, np.int64),
    )


class Grid:
    """For ascending finite edges, shape (k,): counts of the cells (-inf, e0], (e0, e1], …, shape (k + 1,)."""

    def __init__(self, edges: Floats) -> None:
        self.edges = edges
        self._laid: _Laid | None = None  # when it pays

    def count(self, values: Floats) -> Ints:
        """Finite values, shape (n,), in each cell."""
        tally = self.tally(len(values))
        for start in range(0, len(values), BLOCK):
            tally.add(values[start : start + BLOCK])
        return tally.counts()

    def tally(self, n: int) -> Tally:
        """For n values that come in blocks."""
        if len(self.edges) <= FEW or (self._laid is None and n <= LOOKED_UP):
            return _LookUp(self.edges)
        self._laid = self._laid or _Laid(self.edges, _layout(self.edges, BUCKETS))
        return _Tally(self._laid)


class Tally(Protocol):
    """Values, counted block by block."""

    def add(self, values: Floats) -> None:
        """Finite values, shape (n,), n at most `BLOCK`."""
        ...

    def counts(self) -> Ints:
        """How many there were in each cell."""
        ...


class _LookUp:
    def __init__(self, edges: Floats) -> None:
        self._edges = edges
        self._counts = np.zeros(len(edges) + 1, dtype=np.int64)

    def add(self, values: Floats) -> None:
        self._counts += np.bincount(np.searchsorted(self._edges, values), minlength=len(self._counts))

    def counts(self) -> Ints:
        return self._counts


def settle(edges: Floats, values: Floats, slack: float, fixed: Floats) -> Floats:
    """Edges moved to the nearest place at which a grid counts fastest, ascending.

    Each moves past at most `slack` of the `values` (ascending, shape (n,)), or not at all; those in `fixed` stay."""
    # Half as many buckets as the grid that will be laid has, so that the moved edges' own one is at least as fine.
    layout = _layout(edges, BUCKETS // 2)
    moved = layout.nearest_top(edges)
    passed = np.abs(np.searchsorted(values, moved, side="right") - np.searchsorted(values, edges, side="right"))
    stays = (passed > slack) | np.isin(edges, fixed) | ~np.isfinite(moved)
    return np.unique(np.where(stays, edges, moved) + 0.0)


@dataclass(frozen=True)
class _Layout:
    """How numbers are told apart by buckets: the greater a number, the greater its bucket or the same."""

    bits: bool
    signed: bool  # bits: of both signs
    power: int  # a bucket is 2^power wide, or 2^power bit patterns
    base: int  # which one is the first
    buckets: int

    def of(self, values: Floats, room: Scratch, truths: Truths | None = None) -> Ints:
        """Bucket of each value, and to `truths`, if it is not of bits, whether it is not the bucket's greatest."""
        if self.bits:
            buckets = room.buckets
            np.right_shift(self._pattern(values), self.power, out=buckets)
            np.clip(buckets, self.base, self.base + self.buckets - 1, out=buckets)  # first: a difference may overflow
            return np.subtract(buckets, self.base, out=buckets)
        numbers = room.numbers
        rounded = numbers if truths is None else room.rounded
        with np.errstate(over="ignore"):
            np.multiply(values, ldexp(1.0, -self.power), out=numbers)
        np.ceil(numbers, out=rounded)
        if truths is not None:
            np.not_equal(numbers, rounded, out=truths)
        np.subtract(rounded, self.base, out=rounded)
        np.clip(rounded, 0, self.buckets - 1, out=rounded)
        # By way of 32 bits, because vector units convert these alone.
        np.copyto(room.short, rounded, casting="unsafe")
        np.copyto(room.buckets, room.short)
        return room.buckets

    def nearest_top(self, values: Floats) -> Floats:
        """The nearest number that is the greatest of a bucket."""
        with np.errstate(over="ignore"):
            if not self.bits:
                found: Floats = np.rint(values * ldexp(1.0, -self.power)) * ldexp(1.0, self.power)
                return found
            # The pattern below the next multiple; halves go up.
            pattern = self._pattern(values)
            half = np.int64(1 << self.power >> 1)
            top = ((pattern + half) >> self.power << self.power) - 1
            return _of_pattern(top) if self.signed else top.view(np.float64)

    def _pattern(self, values: Floats) -> Ints:
        """Numbers that grow with the values, by their bits. Those of one sign alone do for positive edges: what is not
        positive is below the first bucket then, in whatever order."""
        if not self.signed:
            return np.ascontiguousarray(values).view(np.int64)
        bits = (values + 0.0).view(np.int64)  # + 0.0: no negative zero
        return bits ^ ((bits >> 63) & MAXIMUM)


def _of_pattern(pattern: Ints) -> Floats:
    return (pattern ^ ((pattern >> 63) & MAXIMUM)).view(np.float64)


def _layout(edges: Floats, buckets: int) -> _Layout:
    """The first in which the edges are settled, else the first that tells them apart well enough, else the one that
    does so best."""
    tried = (_over(edges, bits, outer, buckets) for outer in OUTER for bits in (False, True))
    layouts = [layout for layout in tried if layout is not None]
    some = edges[:: max(1, len(edges) // SOME)]
    settled = [layout for layout in layouts if _placed(some, layout).tops.mean() >= SETTLED]
    crowding: list[float] = []
    for layout in (ordered := [*settled, *(one for one in layouts if one not in settled)]):
        of_edges = layout.of(edges, _room(len(edges)))
        crowding.append(float((np.bincount(of_edges)[of_edges] > FEW).mean()))
        if crowding[-1] <= CROWDED:
            return layout if layout.bits else _coarsest(edges, layout)
    return ordered[int(np.argmin(crowding))]


def _coarsest(edges: Floats, layout: _Layout) -> _Layout:
    """With buckets as wide as the edges allow, where all of them are ties or the greatest of a bucket: numbers that lie
    4 KiB apart in a table, as 24 hours would in one of 16,384 buckets, get into each other's way in the cache."""
    found = layout
    first, after = layout.of(edges[[0, -1]], _room(2)).tolist()
    if first == 0 or after == layout.buckets - 1:  # some lie outside
        return layout
    for wider in COARSER:
        power = layout.power + wider
        base = int(np.ceil(ldexp(float(edges[0]), -power))) - 1
        last = int(np.ceil(ldexp(float(edges[-1]), -power)))
        wide = _Layout(False, False, power, base, last - base + 2)
        if wide.buckets > layout.buckets or _Laid(edges, wide).any_doubtful:
            break
        found = wide
    return found


def _over(edges: Floats, bits: bool, outer: int, buckets: int) -> _Layout | None:
    """A layout over all edges, or those but the outer ones; None where there is none."""
    outside = len(edges) // outer if outer else 0
    low, high = float(edges[outside]), float(edges[-1 - outside])
    if bits:
        signed = low <= 0
        ends = np.array([low, high])
        first, last = (int(x) for x in _Layout(True, signed, 0, 0, 0)._pattern(ends))
        power = max(0, ((last - first) // (buckets - 4)).bit_length())
        return _Layout(True, signed, power, (first >> power) - 1, buckets)
    span = high - low
    if not 1e-290 < span < 1e290:
        return None
    power = frexp(span / (buckets - 4))[1]  # the least one above
    base = np.ceil(ldexp(low, -power)) - 1
    return _Layout(False, False, power, int(base), buckets) if np.isfinite(base) and abs(base) < 2**62 else None


class _Placed(NamedTuple):
    """Of each edge: its bucket, whether it is the greatest number of that, and whether arithmetic says it is not."""

    buckets: Ints
    tops: Truths
    inner: Truths


def _placed(edges: Floats, layout: _Layout) -> _Placed:
    room = _room(len(edges))
    inner = np.ones(len(edges), np.bool_)
    of_edges = layout.of(edges, room, inner).copy()
    with np.errstate(over="ignore"):
        following = layout.of(np.nextafter(edges, np.inf), room)
    # By the same arithmetic as any value's, which never falls as values grow.
    return _Placed(of_edges, following > of_edges, inner)


class _Laid:
    """A layout with the tables that it takes to count."""

    def __init__(self, edges: Floats, layout: _Layout) -> None:
        self.edges, self.layout = edges, layout
        of_edges, tops, inner = _placed(edges, layout)
        held = np.bincount(of_edges, minlength=layout.buckets)
        inside = np.bincount(of_edges[~tops], minlength=layout.buckets)
        # A tie: the edge inside is the number before the top, and arithmetic tells the two apart.
        ties = np.flatnonzero(tops[1:] & ~inner[1:] & inner[:-1] & (of_edges[1:] == of_edges[:-1]))
        ties = ties[(np.nextafter(edges[ties], np.inf) == edges[ties + 1]) & (inside[of_edges[ties]] == 1)]
        at = of_edges[ties]
        self.tied = at[(at > 0) & (at < layout.buckets - 1)]  # in the outermost lie many multiples of a width
        self.doubtful = inside > 0
        self.doubtful[self.tied] = False
        self.any_doubtful = bool(self.doubtful.any())
        self.crowded = held > FEW
        self.any_crowded = bool(self.crowded.any())
        self.base = (np.cumsum(held) - held).astype(np.int64)  # cell of what lies below all edges of a bucket
        padded = np.append(edges, [np.inf] * FEW)
        self.first = np.where(held > 0, padded[self.base], np.inf)
        self.second = np.where(held > 1, padded[self.base + 1], np.inf)


class _Tally:
    def __init__(self, laid: _Laid) -> None:
        self._laid = laid
        self._buckets = np.zeros(laid.layout.buckets, dtype=np.int64)  # values by bucket
        self._tops: Ints | None = None  # values by bucket that are its greatest number
        self._doubts = np.zeros(len(laid.edges) + 1, dtype=np.int64)  # values of doubtful buckets, by cell

    def add(self, values: Floats) -> None:
        laid, room = self._laid, scratch(len(values))
        ties = len(laid.tied) > 0
        buckets = laid.layout.of(values, room, room.truths if ties else None)
        per_bucket = np.bincount(buckets, minlength=len(self._buckets))
        self._buckets += per_bucket
        if ties:
            self._add_tops(buckets, per_bucket, room.truths)
        if laid.any_doubtful:
            at = np.flatnonzero(laid.doubtful.take(buckets, out=room.truths, mode="clip"))
            if len(at):
                self._compare(values.take(at), buckets.take(at))

    def _add_tops(self, buckets: Ints, per_bucket: Ints, below: Truths) -> None:
        """Of values that are the greatest of their bucket and those that are not, the rarer ones are counted."""
        others = np.count_nonzero(below)
        if self._tops is None:
            self._tops = np.zeros_like(per_bucket)
        if 2 * others > len(buckets):
            self._tops += np.bincount(buckets.take(np.flatnonzero(~below)), minlength=len(per_bucket))
            return
        self._tops += per_bucket
        if others:
            self._tops -= np.bincount(buckets.take(np.flatnonzero(below)), minlength=len(per_bucket))

    def _compare(self, values: Floats, buckets: Ints) -> None:
        """Find each value's cell by comparison with the edges of its bucket."""
        laid, room = self._laid, scratch(len(values))
        numbers, more, cells = room.numbers, room.truths, room.cells
        laid.base.take(buckets, out=cells, mode="clip")
        for edges in (laid.first, laid.second):
            np.add(cells, np.greater(values, edges.take(buckets, out=numbers, mode="clip"), out=more), out=cells)
        if laid.any_crowded:
            at = np.flatnonzero(laid.crowded.take(buckets))
            cells[at] = np.searchsorted(laid.edges, values[at])
        self._doubts += np.bincount(cells, minlength=len(self._doubts))

    def counts(self) -> Ints:
        laid = self._laid
        clean = np.where(laid.doubtful, 0, self._buckets) if laid.any_doubtful else self._buckets
        starts = np.flatnonzero(np.diff(laid.base, prepend=-1))
        found = self._doubts.copy()
        found[laid.base[starts]] += np.add.reduceat(clean, starts)
        if self._tops is not None:  # the greatest of a tie's bucket lie one cell further
            here = self._tops[laid.tied]
            found[laid.base[laid.tied]] -= here
            found[laid.base[laid.tied] + 1] += here
        return found

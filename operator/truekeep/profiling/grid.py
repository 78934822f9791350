"""Counting numbers on cells, many times faster than looking up each value among the edges.

A fine grid of equal widths lies over the edges. Which bucket of it a value is in takes one multiplication; a bucket
without an edge is inside one cell, so its values need no look-up. Values in a bucket with one or two edges are compared
with these, and only those in more crowded buckets are looked up. The counts are exact either way.

Equal widths are those of the values, or, where the edges crowd together (tails a thousand times as long as the body is
wide), of their bit patterns, which for numbers of one sign grow with the logarithm.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from truekeep.profiling.values import Floats

BUCKETS = 1 << 13  # each table of the grid stays within 64 KiB
FEW = 2  # edges in a bucket that values are compared with one by one
OUTER = (250, 40, 12)  # one in so many edges at either end lies outside of the grid: tails must not stretch it
CROWDED = 0.03  # share of the edges in crowded buckets from which another grid is tried

Ints = np.ndarray[Any, np.dtype[np.int64]]


class Scratch(NamedTuple):
    """Arrays that the next call overwrites, of the same shape (n,)."""

    numbers: Floats
    buckets: Ints
    truths: np.ndarray[Any, np.dtype[np.bool_]]
    cells: Ints


_thread = threading.local()


def scratch(n: int) -> Scratch:
    """Room for n values, one for each thread.

    Arrays of this size come from the system page by page: made anew for each batch they cost a third of it all."""
    room: Scratch | None = getattr(_thread, "room", None)
    if room is None or len(room.numbers) < n:
        room = Scratch(np.empty(n), np.empty(n, np.int64), np.empty(n, np.bool_), np.empty(n, np.int64))
        _thread.room = room
    return Scratch(room.numbers[:n], room.buckets[:n], room.truths[:n], room.cells[:n])


class Grid:
    """For ascending finite edges, shape (k,): counts of the cells (-inf, e0], (e0, e1], …, shape (k + 1,)."""

    def __init__(self, edges: Floats) -> None:
        self.edges = edges
        layouts = [(False, OUTER[0]), (True, OUTER[0]), *((False, outer) for outer in OUTER[1:])]
        crowding = []
        for bits, outer in layouts:
            crowding.append(self._lay(bits, outer))
            if len(edges) <= FEW or crowding[-1] <= CROWDED:
                return
        self._lay(*layouts[int(np.argmin(crowding))])

    def count(self, values: Floats) -> Ints:
        """Finite values, shape (n,), in each cell."""
        if len(self.edges) <= FEW:
            return np.bincount(np.searchsorted(self.edges, values), minlength=len(self.edges) + 1)
        room = scratch(len(values))
        buckets = self._buckets(values, room.numbers, room.buckets)
        per_bucket = np.bincount(buckets, minlength=BUCKETS)
        clean = np.where(self._doubtful, 0, per_bucket)
        cells = len(self.edges) + 1
        counts = np.add.reduceat(clean, self._starts)
        found = np.zeros(cells, dtype=np.int64)
        found[self._base[self._starts]] = counts
        doubtful = int(per_bucket.sum() - clean.sum())
        if doubtful:
            if doubtful < len(values):
                doubts = self._doubtful.take(buckets, out=room.truths, mode="clip")
                at = np.flatnonzero(doubts)
                values, buckets = values.take(at), buckets.take(at)
            found += np.bincount(self._compared(values, buckets), minlength=cells)
        return found

    def _compared(self, values: Floats, buckets: Any) -> Any:
        """Cell of each value, by comparison with the edges of its bucket."""
        numbers, _, more, cells = scratch(len(values))
        self._base.take(buckets, out=cells, mode="clip")
        for edges in (self._first, self._second):
            np.add(cells, np.greater(values, edges.take(buckets, out=numbers, mode="clip"), out=more), out=cells)
        if self._any_crowded:
            at = np.flatnonzero(self._crowded.take(buckets))
            cells[at] = np.searchsorted(self.edges, values[at])
        return cells

    def _buckets(self, values: Floats, numbers: Floats, buckets: Ints) -> Ints:
        """Bucket of each value; both arrays are overwritten, and the second is returned."""
        numbers, buckets = numbers[: len(values)], buckets[: len(values)]
        if not self._scale:
            buckets[:] = 0
            return buckets
        with np.errstate(over="ignore"):
            np.subtract(_pattern(values) if self._bits else values, self._low, out=numbers)
            numbers *= self._scale
        np.clip(numbers, 0, BUCKETS - 1, out=numbers)
        np.copyto(buckets, numbers, casting="unsafe")
        return buckets

    def _lay(self, bits: bool, outer: int) -> float:
        """Lay the grid; how much of the edges are in crowded buckets."""
        edges, self._bits = self.edges, bits
        outside = len(edges) // outer
        ends = edges[[outside, -1 - outside]] if len(edges) else np.zeros(2)
        low, high = (_pattern(ends) if self._bits else ends).tolist()
        self._low = low
        # Where the ends are too close, or too far apart for a double, all are in one bucket, and looked up.
        scale = (BUCKETS - 2) / (high - low) if high - low > 1e-300 else 0.0
        self._scale = scale if np.isfinite(scale) else 0.0
        # The same arithmetic for edges and for values, and it never falls as they grow: so a value in a bucket below an
        # edge's is smaller than that edge, and one in a bucket above is greater.
        of_edges = self._buckets(edges, np.empty(len(edges)), np.empty(len(edges), np.int64))
        held = np.bincount(of_edges, minlength=BUCKETS)
        self._base = (np.cumsum(held) - held).astype(np.int64)
        self._doubtful = held > 0
        self._crowded = held > FEW
        self._any_crowded = bool(self._crowded.any())
        self._starts = np.flatnonzero(np.diff(self._base, prepend=-1))
        padded = np.append(edges, [np.inf] * FEW)
        self._first = np.where(held > 0, padded[self._base], np.inf)
        self._second = np.where(held > 1, padded[self._base + 1], np.inf)
        return float(held[self._crowded].sum() / max(1, len(edges)))


def _pattern(values: Floats) -> Floats:
    """Numbers that grow with the values, by their bits; exact to 53 of 64 bits, which keeps the order."""
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.int64)  # + 0.0: no negative zero
    return (bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))).astype(np.float64)

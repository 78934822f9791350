"""Counts in buckets, and what can be said from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Histogram:
    """Counts between bounds: `counts[i]` values above `bounds[i - 1]` and up to `bounds[i]`; the last is unbounded."""

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """All that were counted."""
        return sum(self.counts)

    def plus(self, other: Histogram) -> Histogram:
        """Both together. Where the bounds differ, the one with more counts: the other can't be sorted in."""
        if not other.counts or not self.counts:
            return self if self.counts else other
        if self.bounds != other.bounds:
            return max(self, other, key=lambda each: each.total)
        return Histogram(self.bounds, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    def quantile(self, fraction: float) -> float | None:
        """The value below which this fraction lies, straight within a bucket; None where nothing was counted."""
        wanted, below = fraction * self.total, 0.0
        if not self.total:
            return None
        for index, count in enumerate(self.counts):
            if count and below + count >= wanted:
                if index == len(self.bounds):
                    return self.bounds[-1] if self.bounds else None
                low = self.bounds[index - 1] if index else 0.0
                return low + (self.bounds[index] - low) * (wanted - below) / count
            below += count
        return None

    def above(self, value: float) -> float:
        """How many were above, straight within a bucket."""
        found = 0.0
        for index, count in enumerate(self.counts):
            low = self.bounds[index - 1] if index else 0.0
            high = self.bounds[index] if index < len(self.bounds) else math.inf
            if low >= value:
                found += count
            elif high > value and high < math.inf:
                found += count * (high - value) / (high - low)
            elif high == math.inf:
                found += count  # nobody knows how far above the last bound: beyond every limit
        return found


def distance(one: Histogram, other: Histogram) -> float | None:
    """Kolmogorov-Smirnov distance, 0 to 1, at the bounds of the buckets: never more than that of the values themselves.
    None where one is empty or the bounds differ."""
    if one.bounds != other.bounds or not one.total or not other.total:
        return None
    pairs = zip(accumulate(one.counts), accumulate(other.counts), strict=True)
    return max(abs(a / one.total - b / other.total) for a, b in pairs)


def distance_noise(one: int, other: int, risk: float = 0.003) -> float:
    """What chance may add to the distance of samples so large, but for this risk: the sum of both deviations from their
    own distributions, each by the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant."""
    return sum(math.sqrt(math.log(4 / risk) / (2 * size)) for size in (one, other)) if one and other else math.inf

"""Counting a column on fixed cells: batch after batch, in bounded memory, and added up with other counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import Literal

import numpy as np

from truekeep.profiling import cells
from truekeep.profiling.grid import BLOCK, Grid, Tally, scratch
from truekeep.profiling.schema import CategoryProfile, ColumnProfile, NewCategory, NumberProfile
from truekeep.profiling.values import Array, Floats, WrongTypeError, categories, numbers

NEW_CATEGORIES = 2000  # distinct values outside the reference that are told apart; further ones are pooled


@dataclass
class Moments:
    """Count, mean and sum of squared deviations; they add up exactly but for rounding (Chan, Golub, LeVeque 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, other: Moments) -> None:
        """Take in the moments of further values."""
        total = self.count + other.count
        if other.count:
            delta = other.mean - self.mean
            self.mean += delta * other.count / total
            self.squares += other.squares + delta * delta * self.count * other.count / total
            self.count = total

    @classmethod
    def of(cls, values: Floats, scratch: Floats | None = None) -> Moments:
        """Of finite values, shape (n,); `scratch`, of the same shape, is overwritten."""
        if not len(values):
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.add.reduce(values)) / len(values)
            apart = np.subtract(values, mean, out=scratch)
            return cls(len(values), mean, float(np.einsum("i,i", apart, apart)))  # dot would start BLAS's threads


@dataclass
class NumberSketch:
    """A Number column on the cells of `edges`."""

    edges: Floats
    counts: np.ndarray[tuple[int], np.dtype[np.int64]] = field(init=False)
    nan: int = 0
    infinite: int = 0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    moments: Moments = field(default_factory=Moments)
    grid: Grid | None = None  # of these edges; made at the first value

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.edges) + 1, dtype=np.int64)

    def empty(self) -> NumberSketch:
        """Another one on the same edges, without values."""
        self.grid = self.grid or Grid(self.edges)
        return NumberSketch(self.edges, grid=self.grid)

    def update(self, values: Floats) -> None:
        """Take in values, shape (n,), NaN and infinities among them."""
        self.grid = self.grid or Grid(self.edges)
        tally = self.grid.tally(len(values))
        for start in range(0, len(values), BLOCK):
            self._add(values[start : start + BLOCK], tally)
        self.counts += tally.counts()

    def _add(self, values: Floats, tally: Tally) -> None:
        low, high = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
        if not isfinite(low) or not isfinite(high):
            known = values.take(np.flatnonzero(np.isfinite(values)))
            nan = int(np.count_nonzero(np.isnan(values)))
            self.nan += nan
            self.infinite += len(values) - len(known) - nan
            values = known
            if not len(values):
                return
            low, high = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
        tally.add(values)
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.moments.add(Moments.of(values, scratch(len(values)).numbers))

    def merge(self, other: NumberSketch | CategorySketch) -> None:
        """Take in the counts of another sketch on the same edges; ValueError where they differ."""
        if not isinstance(other, NumberSketch) or not np.array_equal(self.edges, other.edges):
            raise ValueError("profiles on different cells can't be added; count both on the cells of one reference")
        self.counts += other.counts
        self.nan += other.nan
        self.infinite += other.infinite
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.moments.add(other.moments)

    def profile(self) -> NumberProfile:
        """As JSON; quantiles are interpolated."""
        count, mean = self.moments.count, self.moments.mean
        deviation = sqrt(self.moments.squares / count) if count and isfinite(self.moments.squares) else None
        return NumberProfile(
            edges=tuple(self.edges.tolist()),
            counts=tuple(self.counts.tolist()),
            resolution=cells.resolution(self.counts, self.edges),
            nan=self.nan,
            infinite=self.infinite,
            minimum=self.minimum + 0.0 if count else None,
            maximum=self.maximum + 0.0 if count else None,
            mean=_rounded(mean) if count and isfinite(mean) else None,
            standard_deviation=_rounded(deviation) if deviation is not None else None,
            quantiles=cells.interpolated_quantiles(self.counts, self.edges, self.minimum, self.maximum)
            if count
            else (),
        )

    @classmethod
    def of(cls, profile: NumberProfile) -> NumberSketch:
        """From a profile, to add further values or profiles to it."""
        sketch = cls(np.array(profile.edges, dtype=np.float64))
        sketch.counts = np.array(profile.counts, dtype=np.int64)
        sketch.nan, sketch.infinite = profile.nan, profile.infinite
        if profile.minimum is not None and profile.maximum is not None:
            sketch.minimum, sketch.maximum = profile.minimum, profile.maximum
            count = int(sketch.counts.sum())
            beyond = float("inf")
            deviation = profile.standard_deviation if profile.standard_deviation is not None else beyond
            mean = profile.mean if profile.mean is not None else beyond
            sketch.moments = Moments(count, mean, deviation * deviation * count)
        return sketch


@dataclass
class CategorySketch:
    """A Category column on the reference's values."""

    values: tuple[str, ...]
    counts: np.ndarray[tuple[int], np.dtype[np.int64]] = field(init=False)
    other: int = 0
    new: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)  # of each of `values`

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.values), dtype=np.int64)
        self.places = self.places or {value: place for place, value in enumerate(self.values)}

    def empty(self) -> CategorySketch:
        """Another one on the same values, without rows."""
        return CategorySketch(self.values, places=self.places)

    def update(self, found: dict[str, int]) -> None:
        """Take in counts by value."""
        for value, count in found.items():
            place = self.places.get(value)
            if place is not None:
                self.counts[place] += count
            elif value in self.new or len(self.new) < NEW_CATEGORIES:
                self.new[value] = self.new.get(value, 0) + count
            else:
                self.other += count

    def merge(self, other: NumberSketch | CategorySketch) -> None:
        """Take in the counts of another sketch on the same values; ValueError where they differ.

        Exact, but for which of more than 2,000 new values are told apart and which are pooled in `other`."""
        if not isinstance(other, CategorySketch) or self.values != other.values:
            raise ValueError("profiles on different categories can't be added; count both on those of one reference")
        self.counts += other.counts
        self.other += other.other
        self.update(other.new)

    def profile(self) -> CategoryProfile:
        """As JSON."""
        new = sorted(self.new.items(), key=lambda item: (-item[1], item[0]))
        return CategoryProfile(
            values=self.values,
            counts=tuple(self.counts.tolist()),
            other=self.other,
            new=tuple(NewCategory(value=value, count=count) for value, count in new),
        )

    @classmethod
    def of(cls, profile: CategoryProfile) -> CategorySketch:
        """From a profile, to add further values or profiles to it."""
        sketch = cls(profile.values)
        sketch.counts = np.array(profile.counts, dtype=np.int64)
        sketch.other = profile.other
        sketch.new = {new.value: new.count for new in profile.new}
        return sketch


class ColumnSketch:
    """One column of a window, on the cells of its reference."""

    def __init__(self, name: str, kind: Literal["Number", "Category"], sketch: NumberSketch | CategorySketch) -> None:
        self.name = name
        self.kind = kind
        self.sketch = sketch
        self.rows = self.nulls = self.absent = self.invalid = 0

    @classmethod
    def like(cls, reference: ColumnProfile) -> ColumnSketch:
        """Empty, on the reference's cells."""
        sketch: NumberSketch | CategorySketch
        if reference.type == "Number":
            sketch = NumberSketch(np.array(reference.numeric.edges, dtype=np.float64))
        else:
            sketch = CategorySketch(reference.categorical.values)
        return cls(reference.name, reference.type, sketch)

    def empty(self) -> ColumnSketch:
        """Another one on the same cells, without rows; cheaper than `like`."""
        return ColumnSketch(self.name, self.kind, self.sketch.empty())

    def update(self, array: Array | None, rows: int) -> None:
        """Take in the column of a batch of so many rows; None: the batch has no such column."""
        self.rows += rows
        if array is None:
            self.absent += rows
            return
        try:
            if isinstance(self.sketch, NumberSketch):
                found = numbers(array)
                self.sketch.update(found.values)
                self.nulls += found.nulls
            else:
                counted = categories(array)
                self.sketch.update(counted.counts)
                self.nulls += counted.nulls
        except WrongTypeError:
            self.invalid += rows

    def merge(self, other: ColumnSketch) -> None:
        """Take in another sketch of the same column on the same cells; ValueError where they differ."""
        self.sketch.merge(other.sketch)
        self.rows += other.rows
        self.nulls += other.nulls
        self.absent += other.absent
        self.invalid += other.invalid

    def profile(self) -> ColumnProfile:
        """As JSON."""
        number = self.sketch.profile() if isinstance(self.sketch, NumberSketch) else None
        category = self.sketch.profile() if isinstance(self.sketch, CategorySketch) else None
        return ColumnProfile(
            name=self.name, type=self.kind, rows=self.rows, nulls=self.nulls, absent=self.absent,
            invalid=self.invalid, number=number, category=category,
        )  # fmt: skip

    @classmethod
    def of(cls, profile: ColumnProfile) -> ColumnSketch:
        """From a profile, to add further values or profiles to it."""
        sketch: NumberSketch | CategorySketch
        if profile.type == "Number":
            sketch = NumberSketch.of(profile.numeric)
        else:
            sketch = CategorySketch.of(profile.categorical)
        column = cls(profile.name, profile.type, sketch)
        column.rows, column.nulls = profile.rows, profile.nulls
        column.absent, column.invalid = profile.absent, profile.invalid
        return column


def _rounded(value: float) -> float:
    """To 12 digits: how a sum is split among batches and vector units must not show in a digest."""
    return float(f"{value:.12g}")

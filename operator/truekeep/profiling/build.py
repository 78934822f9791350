"""Profiles of training data, of windows of production, and their sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from truekeep.contract.artifact import SignatureFeature
from truekeep.features.times import presence
from truekeep.profiling import cells
from truekeep.profiling.schema import PREDICTION, ColumnProfile, Profile, Space
from truekeep.profiling.sketch import CategorySketch, ColumnSketch, NumberSketch
from truekeep.profiling.space import ErrorSketch, fit
from truekeep.profiling.values import Array, Floats, categories, numbers

CATEGORIES = 2000  # distinct values that a reference tells apart; rarer ones are pooled
SAMPLE_ROWS = 1 << 16  # rows of a reference that its cells are chosen from; all rows are counted on them
SAMPLE_SHARES = 704  # equal shares of a sample, of which few are more than 1/512 of the whole
SLACK = 0.125  # of a share, by which an edge may move
KEPT_ROWS = 1 << 20  # up to so many rows a column is read once and kept, beyond it is read twice
COUNTED_VALUES = 100_000  # distinct values of a column that are counted at once
SEED = 20130101  # which rows are sampled; the same for ever, so that the same input gives the same bytes


class Table(Protocol):
    """Data that can be read column by column, and more than once."""

    rows: int

    def batches(self, name: str) -> Iterator[Array]:
        """The column in parts, in the order of the rows. KeyError where there is none."""
        ...


class Arrays:
    """Columns in memory, shape (rows,) each, as a `Table`."""

    def __init__(self, columns: Mapping[str, Array], rows: int) -> None:
        self.rows = rows
        self._columns = columns

    def batches(self, name: str) -> Iterator[Array]:
        """The column, whole."""
        yield self._columns[name]


def profile(
    columns: Mapping[str, Array],
    features: Sequence[SignatureFeature],
    probabilities: np.ndarray[Any, Any],
    *,
    importance: Mapping[str, float] | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """The reference profile of training data, as JSON; the same input gives the same bytes.

    `columns`: as read, not encoded, shape (rows,) each; all features must be there (KeyError), columns that are no
    features are ignored. Of a feature of type Time is kept how often it is null. `probabilities`: shape (n,), of rows
    that the model was not fitted on, because those of its own training rows are bolder than any that production will
    see; n may differ from rows. `importance`: by feature, any non-negative scale. WrongTypeError where a column has no
    type that its feature can have. `threads` change nothing but the time it takes."""
    rows = len(columns[features[0].name])
    columns, features = _without_times(columns, features)
    found = [*profile_table(Arrays(columns, rows), features, importance=importance, threads=threads).columns]
    held_out = np.asarray(probabilities, dtype=np.float64)
    found.append(_reference(Arrays({PREDICTION: held_out}, len(held_out)), prediction(PREDICTION), None))
    return Profile(rows=rows, columns=tuple(found), space=space_of_table(Arrays(columns, rows), features)).dump()


def _without_times(
    columns: Mapping[str, Array], features: Sequence[SignatureFeature]
) -> tuple[Mapping[str, Array], Sequence[SignatureFeature]]:
    """Of a Time only whether it is there: times always move on, so that no window is like another."""
    moments = {feature.name for feature in features if feature.type == "Time"}
    if not moments:
        return columns, features
    present = {name: presence(column) if name in moments else column for name, column in columns.items()}
    return present, [one.model_copy(update={"type": "Number"}) if one.name in moments else one for one in features]


def profile_table(
    table: Table,
    features: Sequence[SignatureFeature],
    *,
    importance: Mapping[str, float] | None = None,
    threads: int = 2,
) -> Profile:
    """The reference profile of these columns of a table of any size, in memory that does not grow with its rows.

    Beyond 2^16 rows the cells are chosen from a sample of so many, and then every row is counted on them."""
    weights = importance or {}

    def column(feature: SignatureFeature) -> ColumnProfile:
        return _reference(table, feature, weights.get(feature.name))

    return Profile(rows=table.rows, columns=tuple(_each(column, features, threads)))


def space_of_table(table: Table, features: Sequence[SignatureFeature]) -> Space | None:
    """Where the rows of a table lie, all features at once; of more than 2^16 rows, those that cells are chosen from."""
    places = _places(table.rows)
    columns: dict[str, Array] = {}
    for feature in features:
        parts, start = [], 0
        for batch in table.batches(feature.name):
            if places is not None:
                here = places[np.searchsorted(places, start) : np.searchsorted(places, start + len(batch))] - start
                start += len(batch)
                parts.append(batch[here] if isinstance(batch, np.ndarray) else batch.take(here))
            else:
                parts.append(batch)
        if not parts:
            return None
        columns[feature.name] = _joined(parts)
    return fit(columns, features, table.rows if places is None else len(places))


def _joined(parts: list[Array]) -> Array:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    chunks: list[Any] = [chunk for part in parts for chunk in getattr(part, "chunks", [part])]
    return pa.chunked_array(chunks)


def window_of_table(table: Table, reference: Profile, *, names: Mapping[str, str], threads: int = 2) -> Profile:
    """The profile of a table on a reference's cells, in memory that does not grow with its rows.

    `names`: the table's columns by the reference's names; a column that is not among them counts as absent."""

    def column(then: ColumnProfile) -> ColumnProfile:
        sketch = ColumnSketch.like(then)
        if then.name not in names:
            sketch.update(None, table.rows)
        else:
            for batch in table.batches(names[then.name]):
                sketch.update(batch, len(batch))
        return sketch.profile()

    return Profile(rows=table.rows, columns=tuple(_each(column, reference.columns, threads)))


def prediction(name: str) -> SignatureFeature:
    """The prediction as a column."""
    return SignatureFeature(name=name, type="Number", minimum=0.0, maximum=1.0)


def _each(work: Callable[[Any], ColumnProfile], items: Iterable[Any], threads: int) -> list[ColumnProfile]:
    if threads == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="column") as pool:
        return list(pool.map(work, items))


def _reference(table: Table, feature: SignatureFeature, importance: float | None) -> ColumnProfile:
    found = _number(table, feature) if feature.type == "Number" else _category(table, feature)
    return found.model_copy(update={"importance": importance})


def _number(table: Table, feature: SignatureFeature) -> ColumnProfile:
    scanned = _scan(table, feature.name)
    lowest = None if feature.minimum is None else cells.below(feature.minimum)
    also: tuple[float | None, ...] = (lowest, feature.maximum)
    whole = table.rows <= SAMPLE_ROWS
    if not whole and scanned.least <= scanned.greatest:  # the sample may lack the extremes
        also = (*also, cells.below(scanned.least), scanned.greatest)
    shares, slack = (cells.CELLS, 0.0) if whole else (SAMPLE_SHARES, SLACK)
    sketch = NumberSketch(cells.edges(scanned.sample, also, shares=shares, slack=slack))
    for values in scanned.kept or (numbers(batch).values for batch in table.batches(feature.name)):
        sketch.update(values)
    quantiles = cells.exact_quantiles(scanned.sample) if whole else cells.edge_quantiles(sketch.counts, sketch.edges)
    column = ColumnSketch(feature.name, "Number", sketch)
    column.rows, column.nulls = table.rows, scanned.nulls
    counted = column.profile()
    bounds = {"declared_minimum": feature.minimum, "declared_maximum": feature.maximum}
    return counted.model_copy(update={"number": counted.numeric.model_copy(update={"quantiles": quantiles, **bounds})})


class _Scan(NamedTuple):
    """A column that was read once."""

    sample: Floats  # finite values, ascending: all, or those at places spread evenly over the rows
    kept: list[Floats]  # all values, where they are few enough to be kept
    nulls: int
    least: float  # of all finite values
    greatest: float


def _scan(table: Table, name: str) -> _Scan:
    places = _places(table.rows)
    parts: list[Floats] = []
    kept: list[Floats] = []
    nulls = start = 0
    least, greatest = np.inf, -np.inf
    for batch in table.batches(name):
        found = numbers(batch)
        nulls += found.nulls
        if table.rows <= KEPT_ROWS:
            kept.append(found.values)
        if len(found.values):
            low, high = _extremes(found.values)
            least, greatest = min(least, low), max(greatest, high)
        if places is None:
            parts.append(found.values)
        else:
            here = places[np.searchsorted(places, start) : np.searchsorted(places, start + len(batch))] - start
            if found.nulls:
                parts.append(numbers(batch[here] if isinstance(batch, np.ndarray) else batch.take(here)).values)
            else:
                parts.append(found.values.take(here))
        start += len(batch)
    sample = np.concatenate([np.empty(0), *parts])
    sample.sort()
    return _Scan(cells.finite(sample), kept, nulls, least, greatest)


def _extremes(values: Floats) -> tuple[float, float]:
    """Of the finite ones; infinity and its negative where there are none."""
    low, high = float(values.min()), float(values.max())
    if np.isfinite(low) and np.isfinite(high):
        return low, high
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (np.inf, -np.inf)


@lru_cache(maxsize=4)
def _places(rows: int) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """One row of each of 2^16 equal spans, at random within it; None where all rows are taken."""
    if rows <= SAMPLE_ROWS:
        return None
    within = np.random.default_rng(SEED).random(SAMPLE_ROWS)
    return ((np.arange(SAMPLE_ROWS) + within) * (rows / SAMPLE_ROWS)).astype(np.int64).clip(max=rows - 1)


def _category(table: Table, feature: SignatureFeature) -> ColumnProfile:
    counts, nulls, whole = _frequent(table, feature.name)
    if not whole:  # what was frequent all along is known by now; a second pass counts it exactly
        counts, rest = _counts_of(table, feature.name, counts)
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    sketch = CategorySketch(tuple(value for value, _ in frequent[:CATEGORIES]))
    sketch.update(dict(frequent[:CATEGORIES]))
    sketch.other = sum(count for _, count in frequent[CATEGORIES:]) + (0 if whole else rest)
    column = ColumnSketch(feature.name, "Category", sketch)
    column.rows, column.nulls = table.rows, nulls
    return column.profile()


def _frequent(table: Table, name: str) -> tuple[dict[str, int], int, bool]:
    """Counts by value, nulls, and whether the counts are whole.

    Beyond 100,000 distinct values counts are lowered together (Misra and Gries 1982), so that no value that has more
    than 1 in 50,000 of the rows can be lost."""
    counts: dict[str, int] = {}
    nulls = 0
    whole = True
    for batch in table.batches(name):
        found = categories(batch)
        nulls += found.nulls
        for value, count in found.counts.items():
            counts[value] = counts.get(value, 0) + count
        if len(counts) > COUNTED_VALUES:
            less = sorted(counts.values(), reverse=True)[COUNTED_VALUES // 2]
            counts = {value: count - less for value, count in counts.items() if count > less}
            whole = False
    return counts, nulls, whole


def _counts_of(table: Table, name: str, wanted: Mapping[str, int]) -> tuple[dict[str, int], int]:
    counts, rest = dict.fromkeys(wanted, 0), 0
    for batch in table.batches(name):
        for value, count in categories(batch).counts.items():
            if value in counts:
                counts[value] += count
            else:
                rest += count
    return counts, rest


class WindowSketch:
    """A window of production, counted on a reference's cells batch by batch; windows of one reference add up.

    `together`: whether rows are also measured all features at once, where the reference knows how (`space`)."""

    def __init__(self, reference: Profile, *, together: bool = False) -> None:
        self.rows = 0
        self.columns = [ColumnSketch.like(column) for column in reference.columns]
        self.errors = ErrorSketch(reference.space) if together and reference.space else None

    def empty(self) -> WindowSketch:
        """Another one of the same reference, without rows; cheaper than a new one."""
        found = WindowSketch(Profile())
        found.columns = [column.empty() for column in self.columns]
        found.errors = ErrorSketch(self.errors.space) if self.errors else None
        return found

    @classmethod
    def of(cls, profile: Profile, like: WindowSketch) -> WindowSketch:
        """From a profile that was counted as `like` is, to add it to others."""
        found = cls(Profile())
        found.rows = profile.rows
        found.columns = [ColumnSketch.of(column) for column in profile.columns]
        if like.errors:
            found.errors = ErrorSketch.of(like.errors.space, profile.errors)
        return found

    def update(self, columns: Mapping[str, Array], rows: int) -> None:
        """Take in a batch of so many rows; a column that is not among `columns` counts as absent."""
        self.rows += rows
        for column in self.columns:
            column.update(columns.get(column.name), rows)
        if self.errors:
            self.errors.update(columns, rows)

    def merge(self, other: WindowSketch) -> None:
        """Take in another window of the same reference; ValueError where it has other columns or cells."""
        self.rows += other.rows
        for mine, theirs in zip(self.columns, other.columns, strict=True):
            mine.merge(theirs)
        if self.errors and other.errors:
            self.errors.moments.add(other.errors.moments)

    def profile(self) -> Profile:
        """As JSON."""
        counted = tuple(column.profile() for column in self.columns)
        return Profile(rows=self.rows, columns=counted, errors=self.errors.told() if self.errors else None)


def window(columns: Mapping[str, Array], reference: Profile, *, together: bool = False) -> Profile:
    """The profile of one batch on a reference's cells; the prediction's column is `(prediction)`."""
    sketch = WindowSketch(reference, together=together)
    sketch.update(columns, max((len(column) for column in columns.values()), default=0))
    return sketch.profile()

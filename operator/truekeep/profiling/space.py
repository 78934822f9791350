"""All features of a row at once: how far rows lie from the plane that most of training lies near.

Each column looks as it did, and yet rows that never were come: so columns are put on one scale, the principal
components that hold 65 % of the variance make a plane, and a row's error is its distance from it (the reconstruction
error of principal component analysis: Pearson 1901; as a statistic of drift: NannyML). Its unit is a standard deviation
of a column; it is at least 0. Numbers count from the median in robust standard deviations (interquartile range /
1.349), up to 4 of them, a missing one as the median. Categories count by how frequent they were, as ranks of their
shares, an unseen one as rarer than all. The errors' moments add up, like all counts here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt
from typing import Any

import numpy as np
import pyarrow as pa

from truekeep.contract.artifact import SignatureFeature
from truekeep.features import encode
from truekeep.profiling.schema import Errors, Space, SpaceColumn
from truekeep.profiling.sketch import Moments
from truekeep.profiling.values import Array, Floats, arrow

EXPLAINED = 0.65  # of the variance, by the plane
REACH = 4.0  # standard deviations beyond which a value counts as that far
LEAST_COLUMNS = 2
LEAST_ROWS = 200
CHUNK_ROWS = 65_536
DIGITS = 9
SPREAD = 1.349  # interquartile range of a normal distribution, in standard deviations


def fit(columns: Mapping[str, Array], features: Sequence[SignatureFeature], rows: int) -> Space | None:
    """The space of training data; None with fewer than two features that vary, or 200 rows."""
    known = [_column(feature, columns[feature.name]) for feature in features]
    used = tuple(column for column in known if column is not None)
    if len(used) < LEAST_COLUMNS or rows < LEAST_ROWS:
        return None
    whole = np.column_stack([_scaled(column, columns[column.name]) for column in used])
    middle = whole.mean(axis=0)
    covariance = (whole - middle).T @ (whole - middle) / rows
    weights, vectors = np.linalg.eigh(covariance)
    order = np.argsort(-weights, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum() if weights.sum() > 0 else np.ones(len(weights))
    count = min(len(used) - 1, int(np.searchsorted(share, EXPLAINED)) + 1)
    plane = vectors[:, order[:count]].T
    plane = plane * np.where(plane[np.arange(count), np.abs(plane).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    rounded = tuple(tuple(round(float(x), DIGITS) + 0.0 for x in row) for row in plane)
    # The plane goes through the middle of training.
    moved = tuple(
        column.model_copy(update={"center": round(column.center + column.scale * float(at), DIGITS)})
        if column.type == "Number"
        else column.model_copy(
            update={
                "ranks": {name: round(rank - float(at), DIGITS) for name, rank in column.ranks.items()},
                "unseen": round(column.unseen - float(at), DIGITS),
            }
        )
        for column, at in zip(used, middle, strict=True)
    )
    space = Space(columns=moved, plane=rounded, errors=Errors(rows=0, mean=0.0, standard_deviation=0.0))
    found = errors(space, columns, rows)
    assert found is not None
    return space.model_copy(update={"errors": found.told()})


class ErrorSketch:
    """The errors of a window's rows, batch by batch."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.moments = Moments()

    @classmethod
    def of(cls, space: Space, found: Errors | None) -> ErrorSketch:
        """From what was told of some rows."""
        sketch = cls(space)
        if found is not None:
            sketch.moments = Moments(found.rows, found.mean, found.standard_deviation**2 * found.rows)
        return sketch

    def update(self, columns: Mapping[str, Array], rows: int) -> None:
        """Take in a batch; one that lacks a column, or has it as another type, says nothing."""
        found = errors(self.space, columns, rows)
        if found is not None:
            self.moments.add(found.moments)

    def told(self) -> Errors:
        """As JSON."""
        deviation = sqrt(self.moments.squares / self.moments.count) if self.moments.count else 0.0
        return Errors(rows=self.moments.count, mean=_rounded(self.moments.mean), standard_deviation=_rounded(deviation))


def errors(space: Space, columns: Mapping[str, Array], rows: int) -> ErrorSketch | None:
    """Of these rows; None where a column is missing or has another type."""
    if any(column.name not in columns for column in space.columns):
        return None
    plane = np.array(space.plane)
    sketch = ErrorSketch(space)
    try:
        for start in range(0, rows, CHUNK_ROWS):
            part = [_scaled(column, columns[column.name][start : start + CHUNK_ROWS]) for column in space.columns]
            whole = np.column_stack(part)
            apart = whole - (whole @ plane.T) @ plane
            sketch.moments.add(Moments.of(np.sqrt(np.einsum("ij,ij->i", apart, apart))))
    except encode.FeatureError:
        return None
    return sketch


def added(parts: Sequence[Errors]) -> Errors:
    """The errors of all these rows together."""
    moments = Moments()
    for part in parts:
        moments.add(Moments(part.rows, part.mean, part.standard_deviation**2 * part.rows))
    deviation = sqrt(moments.squares / moments.count) if moments.count else 0.0
    return Errors(rows=moments.count, mean=moments.mean, standard_deviation=deviation)


def _column(feature: SignatureFeature, values: Array) -> SpaceColumn | None:
    """The scale of a column; None where it has one value only."""
    if feature.type == "Number":
        known = _numbers(feature.name, values)
        known = known[np.isfinite(known)]
        if not len(known):
            return None
        low, center, high = (float(x) for x in np.quantile(known, [0.25, 0.5, 0.75]))
        scale = (high - low) / SPREAD or float(known.std())
        if not (isfinite(scale) and scale > 0 and isfinite(center)):
            return None
        return SpaceColumn(name=feature.name, type="Number", center=center, scale=scale)
    codes, names = _codes(feature.name, values)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    if len(names) < 2 or not counts.sum():
        return None
    ranks, unseen = _ranks(counts)
    return SpaceColumn(
        name=feature.name, type="Category", ranks=dict(zip(names, ranks.tolist(), strict=True)), unseen=unseen
    )


def _ranks(counts: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Floats, float]:
    """Of each category, from rare to frequent: the middle of its part of the rows, less the mean of that, per standard
    deviation of it; and of one that never was."""
    order = np.lexsort((np.arange(len(counts)), counts))
    shares = counts[order] / counts.sum()
    middles = np.empty(len(counts))
    middles[order] = np.cumsum(shares) - shares / 2
    weights = counts / counts.sum()
    mean = float(weights @ middles)
    deviation = sqrt(float(weights @ (middles - mean) ** 2)) or 1.0
    return np.clip((middles - mean) / deviation, -REACH, REACH), max(-REACH, -mean / deviation)


def _scaled(column: SpaceColumn, values: Array) -> Floats:
    """Shape (rows,): the column on the common scale, missing values in the middle."""
    if column.type == "Number":
        apart = (_numbers(column.name, values) - column.center) / column.scale
        return np.clip(np.nan_to_num(apart, nan=0.0, posinf=REACH, neginf=-REACH), -REACH, REACH)
    codes, names = _codes(column.name, values)
    table = np.array([*(column.ranks.get(name, column.unseen) for name in names), 0.0])
    return np.asarray(table[codes])


def _numbers(name: str, values: Array) -> Floats:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return values.astype(np.float64)
    return encode.numbers(name, _one(values))


def _codes(name: str, values: Array) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """Positions in the distinct texts, -1 for a null."""
    column = _one(values)
    if not _is_text_dictionary(column):
        column = encode.texts(name, column).dictionary_encode()
    codes = np.array(column.indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)
    return codes, [str(value) for value in column.dictionary.to_pylist()]


def _is_text_dictionary(column: Any) -> bool:
    return bool(pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type))


def _one(values: Array) -> Any:
    """As one Arrow array."""
    return arrow(values).combine_chunks()


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

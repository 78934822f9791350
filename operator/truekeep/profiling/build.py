"""Profiles of training data, of windows of production, and their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from truekeep.contract.artifact import SignatureFeature
from truekeep.profiling import cells
from truekeep.profiling.schema import PREDICTION, ColumnProfile, Profile
from truekeep.profiling.sketch import CategorySketch, ColumnSketch, NumberSketch
from truekeep.profiling.values import Array, categories, numbers

CATEGORIES = 2000  # distinct values that a reference tells apart; rarer ones are pooled


def profile(
    columns: Mapping[str, Array],
    features: Sequence[SignatureFeature],
    probabilities: np.ndarray[Any, Any],
    *,
    importance: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The reference profile of training data, as JSON; the same input gives the same bytes.

    `columns`: as read, not encoded, shape (rows,) each; all features must be there (KeyError), columns that are no
    features are ignored. `probabilities`: shape (n,), of rows that the model was not fitted on, because those of its
    own training rows are bolder than any that production will see; n may differ from rows. `importance`: by feature,
    any non-negative scale. WrongTypeError where a column has no type that its feature can have."""
    prediction = SignatureFeature(name=PREDICTION, type="Number", minimum=0.0, maximum=1.0)
    weights = importance or {}
    found = [_reference(columns[feature.name], feature, weights.get(feature.name)) for feature in features]
    found.append(_reference(np.asarray(probabilities, dtype=np.float64), prediction, None))
    return Profile(rows=found[0].rows, columns=tuple(found)).dump()


def _reference(array: Array, feature: SignatureFeature, importance: float | None) -> ColumnProfile:
    sketch: NumberSketch | CategorySketch
    if feature.type == "Number":
        declared = (feature.minimum, feature.maximum)
        found = numbers(array)
        finite = found.values[np.isfinite(found.values)]
        lowest = None if feature.minimum is None else cells.below(feature.minimum)
        sketch = NumberSketch(cells.edges(finite, (lowest, feature.maximum)))
        sketch.update(found.values)
        column = ColumnSketch(feature.name, "Number", sketch)
        column.rows, column.nulls = found.rows, found.nulls
        counted = column.profile()
        exact = {"quantiles": cells.exact_quantiles(finite)}
        bounds = dict(zip(("declared_minimum", "declared_maximum"), declared, strict=True))
        return counted.model_copy(
            update={"number": counted.numeric.model_copy(update={**exact, **bounds}), "importance": importance}
        )
    counts = categories(array)
    frequent = sorted(counts.counts.items(), key=lambda item: (-item[1], item[0]))
    sketch = CategorySketch(tuple(value for value, _ in frequent[:CATEGORIES]))
    column = ColumnSketch(feature.name, "Category", sketch)
    column.rows, column.nulls = counts.rows, counts.nulls
    sketch.update(dict(frequent[:CATEGORIES]))
    sketch.other = sum(count for _, count in frequent[CATEGORIES:])
    return column.profile().model_copy(update={"importance": importance})


class WindowSketch:
    """A window of production, counted on a reference's cells batch by batch; windows of one reference add up."""

    def __init__(self, reference: Profile) -> None:
        self.rows = 0
        self.columns = [ColumnSketch.like(column) for column in reference.columns]

    def update(self, columns: Mapping[str, Array], rows: int) -> None:
        """Take in a batch of so many rows; a column that is not among `columns` counts as absent."""
        self.rows += rows
        for column in self.columns:
            column.update(columns.get(column.name), rows)

    def merge(self, other: WindowSketch) -> None:
        """Take in another window of the same reference; ValueError where it has other columns or cells."""
        self.rows += other.rows
        for mine, theirs in zip(self.columns, other.columns, strict=True):
            mine.merge(theirs)

    def profile(self) -> Profile:
        """As JSON."""
        return Profile(rows=self.rows, columns=tuple(column.profile() for column in self.columns))


def window(columns: Mapping[str, Array], reference: Profile) -> Profile:
    """The profile of one batch on a reference's cells; the prediction's column is `(prediction)`."""
    sketch = WindowSketch(reference)
    sketch.update(columns, max((len(column) for column in columns.values()), default=0))
    return sketch.profile()

"""A profile as JSON. Unknown fields are ignored and new ones have defaults, so that any later version reads it.

The same shape describes the training data (the reference) and a window of production, which is counted on the
reference's own cells; profiles on the same cells add up, cell by cell.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from truekeep.api.common import Schema

SCHEMA = "truekeep.dev/profile/v1"
PREDICTION = "(prediction)"
QUANTILES: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Quantile(Schema):
    """The smallest value that at least the fraction `q` of the values does not exceed."""

    q: float
    value: float


class NumberProfile(Schema):
    """The finite values of a column, counted in the cells (-inf, e0], (e0, e1], …, (ek, inf)."""

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)  # one more than edges
    resolution: float = 0.0  # reference only: largest share of the values in a cell of more than one number
    nan: int = 0
    infinite: int = 0
    minimum: float | None = None  # of the finite values
    maximum: float | None = None
    mean: float | None = None  # None: no finite value, or beyond what a double holds
    standard_deviation: float | None = None  # of the population
    quantiles: tuple[Quantile, ...] = ()  # exact for a reference, interpolated within cells for a window
    declared_minimum: float | None = None  # the signature's
    declared_maximum: float | None = None

    def above(self, value: float) -> int:
        """Values greater than this; exact where it is an edge, as maxima and quantiles of the reference are."""
        return sum(self.counts[bisect_right(self.edges, value) :])

    def below(self, value: float) -> int:
        """Values smaller than this; exact for the minima of the reference, else it may fall short by one cell."""
        return sum(self.counts[: bisect_left(self.edges, value)])


class NewCategory(Schema):
    """A value that is none of the reference's."""

    value: str
    count: int


class CategoryProfile(Schema):
    """The values of a column, counted."""

    values: tuple[str, ...] = ()  # the reference's, the most frequent first
    counts: tuple[int, ...] = ()
    other: int = 0  # reference: beyond the most frequent; window: beyond `values` and `new`
    new: tuple[NewCategory, ...] = ()  # window: not in `values`, the most frequent first

    @property
    def unseen(self) -> int:
        """Rows with none of `values`."""
        return self.other + sum(new.count for new in self.new)

    @property
    def by_value(self) -> dict[str, int]:
        """Rows by value, as far as values are told apart."""
        return dict(zip(self.values, self.counts, strict=True)) | {new.value: new.count for new in self.new}


class ColumnProfile(Schema):
    """One feature, or the prediction."""

    name: str
    type: Literal["Number", "Category"]
    rows: int = 0
    nulls: int = 0
    absent: int = 0  # rows of files that have no such column
    invalid: int = 0  # rows of files in which the column has a type that it can't have
    number: NumberProfile | None = None
    category: CategoryProfile | None = None
    importance: float | None = None  # loss of the metric when the column is shuffled, where the trainer knows it

    @property
    def numeric(self) -> NumberProfile:
        """The numbers of a Number column."""
        return self.number or NumberProfile()

    @property
    def categorical(self) -> CategoryProfile:
        """The values of a Category column."""
        return self.category or CategoryProfile()

    @property
    def values(self) -> int:
        """Rows with a value that can be compared: not null, not NaN, not infinite."""
        if self.type == "Number":
            return sum(self.numeric.counts)
        return sum(self.categorical.counts) + self.categorical.unseen


class SpaceColumn(Schema):
    """How a column's values become numbers of one scale."""

    name: str
    type: Literal["Number", "Category"]
    center: float = 0.0
    scale: float = 1.0
    ranks: Mapping[str, float] = Field(default_factory=dict)  # by category; others get `unseen`
    unseen: float = 0.0


class Errors(Schema):
    """The errors of some rows."""

    rows: int
    mean: float
    standard_deviation: float


class Space(Schema):
    """The plane of a reference, and the errors of the reference's own rows."""

    columns: tuple[SpaceColumn, ...]
    plane: tuple[tuple[float, ...], ...]  # orthonormal, shape (components, columns)
    errors: Errors


class Profile(Schema):
    """All columns; the prediction is the last and is named `(prediction)`."""

    schema_: Literal["truekeep.dev/profile/v1"] = Field(default="truekeep.dev/profile/v1", alias="schema")
    rows: int = 0
    columns: tuple[ColumnProfile, ...] = ()
    space: Space | None = None  # reference: where its rows lie, all features at once
    errors: Errors | None = None  # window: how far its rows lie from there

    def column(self, name: str) -> ColumnProfile | None:
        """The column of this name, if it is there."""
        return next((column for column in self.columns if column.name == name), None)

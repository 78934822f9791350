"""Steps of a pipeline that scikit-learn has not, as estimators of its kind: what they learn are arrays and texts, so
that a skops file can hold them and `trust` can name them. All take and give float64, shape (rows, columns); null is
NaN, and what is not finite becomes null.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

Floats: TypeAlias = npt.NDArray[np.float64]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000  # in microseconds
# Of times outside, such as 9999-12-31 for "never", no part is taken: null.
FIRST_YEAR, LAST_YEAR = 1900, 2100
FIRST = (datetime(FIRST_YEAR, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
LAST = (datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) - 1
GREATEST = float(np.finfo(np.float32).max)
# Values of a part: the least, and how many there are until it begins again.
PERIODS = {
    "Month": (1, 12), "DayOfMonth": (1, 31), "DayOfYear": (1, 366), "DayOfWeek": (0, 7), "Hour": (0, 24),
    "Minute": (0, 60),
}  # fmt: skip


class Log(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """ln(x + offset), rounded to single precision; null where x + offset is not above 0.

    Libraries and processors disagree about a logarithm's last bit, and trees split between values that are in the data:
    what is rounded is the same everywhere."""

    def __init__(self, offset: float = 1.0) -> None:
        self.offset = offset

    def fit(self, matrix: Floats, y: Any = None) -> Log:
        """Learns how many columns there are."""
        self.n_features_in_ = matrix.shape[1]
        return self

    def transform(self, matrix: Floats) -> Floats:
        """Shape (rows, columns)."""
        shifted = matrix + self.offset
        with np.errstate(invalid="ignore", divide="ignore"):
            rounded = np.log(shifted).astype(np.float32).astype(np.float64)
        return np.asarray(np.where(shifted > 0, rounded, np.nan))


class Clip(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """Within limits, which are given or quantiles of the training rows (linear between neighbours)."""

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        low_quantile: float | None = None,
        high_quantile: float | None = None,
    ) -> None:
        self.low, self.high = low, high
        self.low_quantile, self.high_quantile = low_quantile, high_quantile

    def fit(self, matrix: Floats, y: Any = None) -> Clip:
        """Learns the limits, float64 of shape (columns,); infinite where there is none."""
        self.n_features_in_ = matrix.shape[1]
        self.low_ = self._limits(matrix, self.low, self.low_quantile, -np.inf)
        self.high_ = self._limits(matrix, self.high, self.high_quantile, np.inf)
        return self

    def transform(self, matrix: Floats) -> Floats:
        """Shape (rows, columns)."""
        raised = np.where(
            np.less(matrix, self.low_), self.low_, matrix
        )  # comparisons with NaN are false: a null stays one
        return np.asarray(np.where(raised > self.high_, self.high_, raised))

    @staticmethod
    def _limits(matrix: Floats, given: float | None, quantile: float | None, none: float) -> Floats:
        if quantile is None:
            return np.full(matrix.shape[1], none if given is None else given, dtype=np.float64)
        known = (column[~np.isnan(column)] for column in matrix.T)
        return np.array([np.quantile(one, quantile) if len(one) else none for one in known], dtype=np.float64)


class Ratio(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """The first column by the second; null where that is not finite in single precision, as forests compare."""

    def fit(self, matrix: Floats, y: Any = None) -> Ratio:
        """Learns nothing."""
        self.n_features_in_ = matrix.shape[1]
        return self

    def transform(self, matrix: Floats) -> Floats:
        """Shape (rows, 1)."""
        with np.errstate(all="ignore"):
            divided = matrix[:, 0:1] / matrix[:, 1:2]
            return np.asarray(np.where(np.abs(divided) <= GREATEST, divided, np.nan))


class Lookup(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """Each column's codes (0, 1, …) replaced by the numbers of its row in `values`, shape (columns, codes); null for a
    null and for a code that is not in there."""

    def __init__(self, values: Floats) -> None:
        self.values = values

    def fit(self, matrix: Floats, y: Any = None) -> Lookup:
        """Learns nothing."""
        self.n_features_in_ = matrix.shape[1]
        return self

    def transform(self, matrix: Floats) -> Floats:
        """Shape (rows, columns)."""
        known = (matrix >= 0) & np.less(matrix, self.values.shape[1])
        codes = np.where(known, matrix, 0).astype(np.int64)
        return np.asarray(np.where(known, self.values[np.arange(matrix.shape[1]), codes], np.nan))


class DateParts(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """Parts of times, which are microseconds since 1970 in UTC, by the clock of a zone: a column for each part (two
    where they are cyclic), for one column after the other."""

    def __init__(self, parts: Sequence[str] = ("Hour",), encoding: str = "Number", time_zone: str = "UTC") -> None:
        self.parts, self.encoding, self.time_zone = parts, encoding, time_zone

    def fit(self, matrix: Floats, y: Any = None) -> DateParts:
        """Learns when the zone's clock was changed, or will be: whatever serves need not know of zones, and a newer
        database of zones changes no answer."""
        self.n_features_in_ = matrix.shape[1]
        moments, offsets = changes(self.time_zone)
        self.changes_ = np.array(moments, dtype=np.float64)
        self.offsets_ = np.array(offsets, dtype=np.float64)
        return self

    def transform(self, matrix: Floats) -> Floats:
        """Shape (rows, columns · numbers)."""
        made: list[Floats] = []
        for column in matrix.T:
            known = (column >= FIRST) & (column <= LAST)
            moments = np.where(known, column, 0.0)
            local = (moments + self.offsets_[np.searchsorted(self.changes_, moments, side="right")]).astype(np.int64)
            for part in self.parts:
                value = part_of(part, local)
                made += [np.where(known, one, np.nan) for one in encoded(part, self.encoding, value)]
        return np.column_stack(made)


def part_of(part: str, local: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A part of local times (microseconds since 1970), shape (rows,)."""
    if part == "Minute":
        return local // MINUTE % 60
    if part == "Hour":
        return local // HOUR % 24
    days = local // DAY
    if part == "DayOfWeek":
        return (days + 3) % 7  # 1970 began on a Thursday
    dates = days.astype("datetime64[D]")
    if part == "Year":
        return dates.astype("datetime64[Y]").astype(np.int64) + 1970
    if part == "Month":
        return dates.astype("datetime64[M]").astype(np.int64) % 12 + 1
    start = dates.astype("datetime64[M]" if part == "DayOfMonth" else "datetime64[Y]").astype("datetime64[D]")
    day: npt.NDArray[np.int64] = (dates - start).astype(np.int64) + 1
    return day


def encoded(part: str, encoding: str, value: npt.NDArray[np.int64]) -> list[Floats]:
    """The number, or where it is on a circle: sine and cosine."""
    if encoding == "Number" or part == "Year":
        return [value.astype(np.float64)]
    start, period = PERIODS[part]
    angles = 2 * np.pi * np.arange(period) / period
    place = (value - start) % period
    return [np.sin(angles)[place], np.cos(angles)[place]]


@lru_cache(maxsize=32)
def changes(zone: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """When a zone's offset from UTC changes, in microseconds since 1970, and the offsets before, between and after."""
    clock = ZoneInfo(zone)

    def offset(seconds: int) -> int:
        found = (EPOCH + timedelta(seconds=seconds)).astimezone(clock).utcoffset()
        return 0 if found is None else found // timedelta(microseconds=1)

    first, last, day = FIRST // SECOND, LAST // SECOND, 86_400
    moments: list[int] = []
    offsets = [offset(first)]
    for start in range(first, last, day):
        if offset(start + day) == offsets[-1]:
            continue
        low, high = start, start + day  # the offset before, and after
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
        moments.append(high * SECOND)
        offsets.append(offset(high))
    return tuple(moments), tuple(offsets)

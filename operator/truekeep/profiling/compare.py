"""Which columns of a window lie elsewhere than the reference's: an effect, and whether chance explains it.

The effect of numbers is the Kolmogorov-Smirnov distance, of categories the total variation less sampling noise, and of
missing values the difference of their shares. A column counts where its effect reaches the least one that matters *and*
its test is significant after correction over all columns (Holm).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from truekeep.profiling import statistics
from truekeep.profiling.schema import PREDICTION, CategoryProfile, ColumnProfile, NumberProfile, Profile

DISCRETE = 50  # distinct numbers in the reference up to which the chi-square test decides
FEW_VALUES = 50  # with fewer, only missing values are compared

Statistic = Literal["KolmogorovSmirnov", "TotalVariation", "Missing"]


class Shift(NamedTuple):
    """One column that is not where it was."""

    column: str
    statistic: Statistic
    effect: float  # 0 to 1
    p_value: float  # corrected over all columns
    then: str  # what is typical of the reference, in words
    now: str


def shifts(
    reference: Profile, window: Profile, minimum_effect: float, alpha: float = 0.001, left_out: Collection[str] = ()
) -> list[Shift]:
    """The columns that moved, the farthest first. `window` was counted on the reference's cells."""
    measured = [
        shift
        for then in reference.columns
        if then.name != PREDICTION and then.name not in left_out
        for shift in _measured(then, window.column(then.name) or _absent(then, window.rows))
    ]
    corrected = statistics.holm(np.array([one.p_value for one in measured])).tolist()
    found = [
        one._replace(p_value=p_value)
        for one, p_value in zip(measured, corrected, strict=True)
        if one.effect >= minimum_effect and p_value <= alpha
    ]
    return sorted(found, key=lambda one: (-one.effect, one.column))


def missing(column: ColumnProfile) -> int:
    """Rows without a value."""
    return column.nulls + column.absent + column.numeric.nan


def _measured(then: ColumnProfile, now: ColumnProfile) -> Iterator[Shift]:
    yield _missing(then, now)
    if min(then.values, now.values) < FEW_VALUES:
        return
    if then.type == "Number":
        yield _numbers(then.name, then.numeric, now.numeric)
    else:
        yield _categories(then.name, then.categorical, now.categorical)


def _missing(then: ColumnProfile, now: ColumnProfile) -> Shift:
    """The two shares without a value, by the normal limit of the test of two shares, which is fair for hundreds."""
    before, after = missing(then) / max(1, then.rows), missing(now) / max(1, now.rows)
    pooled = (missing(then) + missing(now)) / max(1, then.rows + now.rows)
    error = np.sqrt(pooled * (1 - pooled) * (1 / max(1, then.rows) + 1 / max(1, now.rows)))
    p_value = float(2 * special.ndtr(-abs(after - before) / error)) if error > 0 else 1.0
    return Shift(then.name, "Missing", abs(after - before), p_value, f"{before:.1%} missing", f"{after:.1%} missing")


def _numbers(name: str, then: NumberProfile, now: NumberProfile) -> Shift:
    first, second = np.array(then.counts), np.array(now.counts)
    found = statistics.kolmogorov_smirnov(first, second)
    p_value = found.p_value
    if then.resolution == 0.0 and np.count_nonzero(first) <= DISCRETE:
        p_value = statistics.chi_square(*statistics.pool(first, second)).p_value
    return Shift(name, "KolmogorovSmirnov", found.value, p_value, _typical(then), _typical(now))


def _typical(profile: NumberProfile) -> str:
    return "no value" if profile.mean is None else f"mean {profile.mean:.4g}"


def _categories(name: str, then: CategoryProfile, now: CategoryProfile) -> Shift:
    names = sorted(then.by_value.keys() | now.by_value.keys())  # an order that tells nothing of the counts
    first = np.array([*(then.by_value.get(one, 0) for one in names), then.other])
    second = np.array([*(now.by_value.get(one, 0) for one in names), now.other])
    pooled = statistics.pool(first, second)
    p_value, effect = statistics.chi_square(*pooled).p_value, statistics.corrected_total_variation(*pooled)
    return Shift(name, "TotalVariation", effect, p_value, _frequent(then), _frequent(now))


def _frequent(profile: CategoryProfile) -> str:
    counts = profile.by_value
    whole = sum(counts.values()) + profile.other
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:2]
    return ", ".join(f"{value!r:.40} {count / max(1, whole):.1%}" for value, count in most) or "no value"


def _absent(reference: ColumnProfile, rows: int) -> ColumnProfile:
    return ColumnProfile(name=reference.name, type=reference.type, rows=rows, absent=rows)

"""Whether a column is broken, as against drifted.

| finding | of what | Break from | else |
| --- | --- | --- | --- |
| MissingColumn | no file has the column | always | |
| Type | rows of files where the column has another type | 1 % of rows | Notice |
| NullFraction | null, NaN, or in a file without the column: points above the reference | 20 points, or all | Breach from 1 point |
| Infinite | infinite values: points above the reference | 20 points | Breach from 1 point, Notice from one value |
| OutOfRange | outside the Model's minimum and maximum: points above the reference | 20 points | Breach from 1 point |
| Constant | one single value, which had less than half of the reference's rows | always | |
| NewCategories | values that training has not seen: points above what was to be expected | 50 points | Breach from 1 point, as DataDrift |
| OutsideTraining | beyond the smallest and greatest value of training | never | Notice from 1 point |
| NoReference | values where training had none, or none on both sides | never | Notice |

A Break is DataQuality and blocks retraining: what comes is not the world that changed but a pipe that broke. New
categories are the world's (a destination that opens for the season) until they are more than half of the rows: then the
encoding changed. Being outside of training's range is drift, and `minimumEffect` says how much of it counts: the
Kolmogorov-Smirnov distance is never smaller than that share. A column that is constant at its usual value (no rain all
week) is no defect. Every share is tested against the reference as a sample (Fisher), one-sided; what is expected of
unseen categories is the share of training's rows whose category occurs once (Good and Turing).
"""

# ruff: noqa: E501  the table

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from truekeep.api.driftpolicy import FindingKind
from truekeep.monitor import words
from truekeep.monitor.report import Severity
from truekeep.profiling import cells, statistics
from truekeep.profiling.schema import PREDICTION, CategoryProfile, ColumnProfile, NumberProfile

MINOR_POINTS = 0.01
BREAK_POINTS = 0.20
RECODED_POINTS = 0.50
USUAL_SHARE = 0.50
FEW_VALUES = 50  # with fewer, a column is not judged


class Defect(NamedTuple):
    """Something about a column that is no shift of its distribution."""

    kind: FindingKind
    statistic: str
    severity: Severity
    value: float  # share of rows, 0 to 1, above what the reference explains
    threshold: float
    p_value: float  # not corrected yet; 0.0 where it is no question of chance
    message: str


def tests(reference: ColumnProfile) -> int:
    """How many shares of such a column are tested: what to correct their significance for."""
    return 2 if reference.type == "Category" else 4


def missing(column: ColumnProfile) -> int:
    """Rows without a value."""
    return column.nulls + column.absent + column.numeric.nan


def defects(reference: ColumnProfile, window: ColumnProfile) -> list[Defect]:
    """What is wrong with a column; the first is the gravest of its kind. `window` has at least one row."""
    if window.absent == window.rows:
        return [_whole(reference, "MissingColumn", "no captured file has the column")]
    found = [*_types(reference, window)]
    if missing(window) == window.rows:
        if missing(reference) == reference.rows:
            return [*found, _notice(reference, "NoReference", 1.0, "no value in training, and none now")]
        before = words.percent(missing(reference) / max(1, reference.rows))
        whole = _whole(reference, "NullFraction", f"no value in any row, missing were {before}")
        p_value = statistics.excess(window.rows, window.rows, missing(reference), reference.rows)
        return [*found, whole._replace(p_value=p_value)]
    if not reference.values:
        share = window.values / window.rows
        return [
            *found,
            _notice(reference, "NoReference", share, f"had no value in training, {words.percent(share)} now"),
        ]
    found += _gaps(reference, window)
    if reference.type == "Number":
        found += [*_infinite(reference, window), *_range(reference, window)]
    found += [*_constant(reference, window), *_new_categories(reference, window)]
    return found


def _types(reference: ColumnProfile, window: ColumnProfile) -> Iterator[Defect]:
    if window.invalid:
        share = window.invalid / window.rows
        text = words.message(
            reference.name, f"{words.percent(share)} of rows hold another type than a {reference.type}"
        )
        severity: Severity = "Break" if share >= MINOR_POINTS else "Notice"
        yield Defect("DataQuality", "Type", severity, share, MINOR_POINTS, 0.0, text)


def _gaps(reference: ColumnProfile, window: ColumnProfile) -> Iterator[Defect]:
    before, now = missing(reference), missing(window)
    points = now / window.rows - before / max(1, reference.rows)
    if points < MINOR_POINTS:
        return
    text = f"{words.percent(before / max(1, reference.rows))} → {words.percent(now / window.rows)} missing"
    p_value = statistics.excess(now, window.rows, before, reference.rows)
    yield _defect(reference, "NullFraction", points, p_value, f"{text} ({words.where(window)})")


def _infinite(reference: ColumnProfile, window: ColumnProfile) -> Iterator[Defect]:
    before, now = reference.numeric.infinite, window.numeric.infinite
    points = now / window.rows - before / max(1, reference.rows)
    if points >= MINOR_POINTS:
        p_value = statistics.excess(now, window.rows, before, reference.rows)
        yield _defect(reference, "Infinite", points, p_value, f"{words.percent(now / window.rows)} infinite")
    elif now and not before:
        yield _notice(reference, "Infinite", points, f"{now} infinite value{'s' if now > 1 else ''}")


def _range(reference: ColumnProfile, window: ColumnProfile) -> Iterator[Defect]:
    then, now = reference.numeric, window.numeric
    outside = outside_declared(then, now)
    before = outside_declared(then, then)
    points = outside / window.rows - before / max(1, reference.rows)
    if points >= MINOR_POINTS:
        low = "" if then.declared_minimum is None else words.number(then.declared_minimum)
        high = "" if then.declared_maximum is None else words.number(then.declared_maximum)
        p_value = statistics.excess(outside, window.rows, before, reference.rows)
        text = f"{words.percent(outside / window.rows)} outside the range {low}…{high} that the Model declares"
        yield _defect(reference, "OutOfRange", points, p_value, text)
        return
    if then.minimum is None or then.maximum is None or not window.values:
        return
    beyond = now.above(then.maximum) + now.below(then.minimum)
    share = beyond / window.values
    if share >= MINOR_POINTS:
        text = f"{words.percent(share)} outside of training's {words.number(then.minimum)}…{words.number(then.maximum)}"
        # The two extremes themselves would lie outside of a training without them.
        p_value = statistics.excess(beyond, window.values, min(2, reference.values), reference.values)
        yield _notice(reference, "OutsideTraining", share, text, "DataDrift")._replace(p_value=p_value)


def outside_declared(reference: NumberProfile, counted: NumberProfile) -> int:
    """Values outside the range that the reference's signature declares."""
    outside = 0
    if reference.declared_maximum is not None:
        outside += counted.above(reference.declared_maximum)
    if reference.declared_minimum is not None:
        outside += counted.below(reference.declared_minimum)
    return outside


def _constant(reference: ColumnProfile, window: ColumnProfile) -> Iterator[Defect]:
    if window.values < FEW_VALUES or reference.name == PREDICTION:
        return
    share: float | None
    if reference.type == "Number":
        value, share = _single_number(reference.numeric, window.numeric)
    else:
        value, share = _single_category(reference.categorical, window.categorical)
    if share is not None and share < USUAL_SHARE:
        yield _whole(reference, "Constant", f"is {value} in every row, that was {words.percent(share)}")


def _single_number(then: NumberProfile, now: NumberProfile) -> tuple[str, float | None]:
    """The one number that all rows have, and its share of the reference; None where there are several, then or now."""
    if now.minimum is None or now.minimum != now.maximum or then.minimum == then.maximum:
        return "", None
    value = now.minimum
    place = bisect_left(then.edges, value)
    atom = place > 0 and then.edges[place - 1 : place + 1] == (cells.below(value), value)
    # In a cell of many numbers this very one is rare.
    return words.number(value), then.counts[place] / sum(then.counts) if atom else 0.0


def _single_category(then: CategoryProfile, now: CategoryProfile) -> tuple[str, float | None]:
    """Likewise of categories."""
    present = [value for value, count in now.by_value.items() if count]
    if len(present) != 1 or now.other or len(then.values) < 2:
        return "", None
    return words.name(present[0]), then.by_value.get(present[0], 0) / (sum(then.counts) + then.other)


def _new_categories(reference: ColumnProfile, window: ColumnProfile) -> Iterator[Defect]:
    then, now = reference.categorical, window.categorical
    if reference.type != "Category" or not window.values:
        return
    unseen = now.unseen
    expected = then.other + sum(count == 1 for count in then.counts)
    points = unseen / window.values - expected / reference.values
    if points < MINOR_POINTS:
        return
    p_value = statistics.excess(unseen, window.values, expected, reference.values)
    names = ", ".join(f"{words.name(new.value)} {words.percent(new.count / window.values)}" for new in now.new[:3])
    text = f"{words.percent(unseen / window.values)} of rows have a value that training has not seen: {names}"
    if points >= RECODED_POINTS:
        text += "; was the coding changed?"
        message = words.message(reference.name, text)
        yield Defect("DataQuality", "NewCategories", "Break", points, RECODED_POINTS, p_value, message)
    else:
        message = words.message(reference.name, text)
        yield Defect("DataDrift", "NewCategories", "Breach", points, MINOR_POINTS, p_value, message)


def _defect(reference: ColumnProfile, statistic: str, points: float, p_value: float, text: str) -> Defect:
    severity: Severity = "Break" if points > BREAK_POINTS else "Breach"
    limit = BREAK_POINTS if severity == "Break" else MINOR_POINTS
    return Defect("DataQuality", statistic, severity, points, limit, p_value, words.message(reference.name, text))


def _whole(reference: ColumnProfile, statistic: str, text: str) -> Defect:
    return Defect("DataQuality", statistic, "Break", 1.0, BREAK_POINTS, 0.0, words.message(reference.name, text))


def _notice(
    reference: ColumnProfile, statistic: str, share: float, text: str, kind: FindingKind = "DataQuality"
) -> Defect:
    return Defect(kind, statistic, "Notice", share, MINOR_POINTS, 0.0, words.message(reference.name, text))

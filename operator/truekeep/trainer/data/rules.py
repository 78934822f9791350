"""The rules that a Model declares of its data, a function a limit: what breaks it, or why it can't tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.api.data import Data
from truekeep.api.rules import Between, Leakage, Rule, Skew
from truekeep.contract.canonical import digest_of
from truekeep.contract.requests import LastRun
from truekeep.sources.columns import NO_TIME, Values, Want, codes, nulls, select
from truekeep.trainer.data import leakage
from truekeep.trainer.data.violations import Mask, Rows, Unjudged, Violation, broken, shown_count
from truekeep.trainer.text import MICROSECONDS, counted, decimal, iso

Said = Iterator[Violation | Unjudged]
_ROWS = ("source", "timeColumn", "key", "window", "label", "sample")  # fields of spec.data that say which rows are used
FEWEST_EXPECTED = 30  # positives that the last run lets expect, for a positive rate to be judged

# What nobody declares is checked all the same, as a warning.
LEAKAGE = Rule(name="leakage", severity="Warn", leakage=Leakage())
SKEW = Rule(name="skew", severity="Warn", skew=Skew())


@dataclass(frozen=True)
class Known:
    """What a judgement takes besides the rows."""

    now: int = 0  # microseconds since 1970
    newest: int = NO_TIME  # event in the data, likewise
    defaults: bool = True  # whether what nobody declares is checked, too: leakage and skew
    last: LastRun | None = None  # the newest earlier run whose data was in order
    # By feature, the categories that the live revision was trained on; a text says why they are not known.
    categories: Callable[[], Mapping[str, Sequence[str]] | str] = lambda: "there is no live revision yet"
    # The skew of these rows against what the live revision was asked; a text says why it can't be told.
    skew: Callable[[Rows, Data, Rule, int], list[Violation] | str] | None = None


def of(data: Data) -> list[Rule]:
    """The declared rules, and what is checked besides, where no rule speaks of it."""
    declared = list(data.rules)
    if not any(rule.leakage and rule.column is None for rule in declared):
        declared.append(LEAKAGE)
    if not any(rule.skew for rule in declared):
        declared.append(SKEW)
    return declared


def rows_digest(data: Data) -> str:
    """Digest of what says which rows are used: where it is the same, the counts of two runs can be compared."""
    said = data.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return digest_of({name: said[name] for name in _ROWS if name in said})


def further(data: Data) -> list[Want]:
    """Columns that only rules look at."""
    known = {data.time_column, data.key, data.label.column, *(feature.name for feature in data.features)}
    names = [rule.column for rule in data.rules if rule.column is not None and rule.column not in known]
    return [Want(name, "Category") for name in dict.fromkeys(names)]


def judge(rows: Rows, data: Data, rule: Rule, known: Known) -> Said:
    """What one rule says of the rows."""
    if rule.min_rows is not None:
        yield from _volume(rows, rule)
    if rule.max_age_seconds is not None:
        yield from _freshness(rows, data, rule, known)
    if rule.max_duplicate_fraction is not None:
        yield from _uniqueness(rows, data, rule)
    if rule.max_null_fraction is not None:
        yield from _nulls(rows, data, rule)
    if rule.range is not None:
        yield from _range(rows, rule)
    if rule.categories is not None:
        yield from _categories(rows, rule, known)
    if rule.last_run is not None:
        yield from _last_run(rows, data, rule, known)
    if rule.leakage is not None:
        others = {one.column for one in data.rules if one.leakage and one is not rule and one.column}
        names = [rule.column] if rule.column else [one.name for one in data.features if one.name not in others]
        yield from leakage.judge(rows, data, rule, names)
    if rule.skew is not None:
        yield from _skew(rows, data, rule, known)


def _volume(rows: Rows, rule: Rule) -> Said:
    have = int(rows.used.sum())
    if rule.min_rows is not None and have < rule.min_rows:
        problem = f"{counted(have, 'labelled row')}, fewer than minRows {rule.min_rows:,}"
        yield broken(rule, None, problem, "widen spec.data.window, or wait for labels", count=have)


def _freshness(rows: Rows, data: Data, rule: Rule, known: Known) -> Said:
    age = (known.now - known.newest) // MICROSECONDS
    if rule.max_age_seconds is None or age <= rule.max_age_seconds:
        return
    problem = f"the newest event is of {iso(known.newest)}, {age:,} s ago, more than maxAgeSeconds "
    problem += f"{rule.max_age_seconds:,}"
    newest = np.flatnonzero(rows.times == known.newest)
    yield broken(rule, data.time_column, problem, "see why no new data comes", rows.main.places(newest[:1]))


def _uniqueness(rows: Rows, data: Data, rule: Rule) -> Said:
    limit = float(rule.max_duplicate_fraction or 0)
    if rule.column in (None, data.key):
        if rows.before and rows.duplicates / rows.before > limit:
            problem = f"{shown_count(rows.duplicates, rows.before)} share their key, "
            problem += f"more than maxDuplicateFraction {rule.max_duplicate_fraction}"
            remedy = "see which writer repeats rows; the last of each is taken"
            yield broken(rule, data.key, problem, remedy, rows.repeats, rows.duplicates)
        return
    found = column_of(rows, data, str(rule.column))
    if found is None:
        return  # missing, and told so already
    values, known = found
    repeated = np.flatnonzero(_repeated(values) & known)
    whole = int(known.sum())
    if whole and len(repeated) / whole > limit:
        problem = f"{shown_count(len(repeated), whole, 'value')} occur more than once, "
        problem += f"more than maxDuplicateFraction {rule.max_duplicate_fraction}"
        remedy = "see which writer repeats rows, or raise the limit"
        places = rows.origin(str(rule.column)).places(repeated, values)
        yield broken(rule, rule.column, problem, remedy, places, len(repeated))


def _repeated(values: Values) -> Mask:
    """Rows whose value another row has, too; of nulls no matter what."""
    if isinstance(values, np.ndarray):
        _, position = np.unique(values, return_inverse=True)
    else:
        position, _ = codes(values)
        position = position + 1
    return np.asarray(np.bincount(position, minlength=1)[position] > 1)


def _nulls(rows: Rows, data: Data, rule: Rule) -> Said:
    for name in [rule.column] if rule.column else [feature.name for feature in data.features]:
        found = column_of(rows, data, name)
        if found is None:
            continue
        known = found[1]
        missing, whole = int((~known).sum()), len(known)
        if name == data.label.column:
            missing, whole = int((~known & rows.ripe).sum()), int(rows.ripe.sum())
        if whole and missing / whole > float(rule.max_null_fraction or 0):
            problem = f"{shown_count(missing, whole)} without a value, more than maxNullFraction "
            problem += str(rule.max_null_fraction)
            wrong = np.flatnonzero(~known & rows.ripe if name == data.label.column else ~known)
            remedy = "see where the values are lost, or raise the limit"
            yield broken(rule, name, problem, remedy, rows.origin(name).places(wrong), missing)


def _range(rows: Rows, rule: Rule) -> Said:
    want = Want(str(rule.column), "Number")
    if rule.range is None or want not in rows.columns:
        return
    values: npt.NDArray[np.float64] = np.asarray(rows.columns[want])
    low, high = rule.range.minimum, rule.range.maximum
    outside = np.zeros(len(values), dtype=np.bool_)
    if low is not None:
        outside |= values < float(low)  # a comparison with NaN is false
    if high is not None:
        outside |= values > float(high)
    whole, wrong = int((~np.isnan(values)).sum()), np.flatnonzero(outside)
    if whole and len(wrong) / whole > float(rule.range.max_fraction):
        bounds = " or ".join(
            f"{side} {limit}" for side, limit in (("below", low), ("above", high)) if limit is not None
        )
        problem = f"{shown_count(len(wrong), whole, 'value')} are {bounds}, more than maxFraction "
        problem += rule.range.max_fraction
        places = rows.origins[want].places(wrong, values)
        yield broken(rule, rule.column, problem, "correct them, or change the rule", places, len(wrong))


def _categories(rows: Rows, rule: Rule, known: Known) -> Said:
    want = Want(str(rule.column), "Category")
    if rule.categories is None or want not in rows.columns:
        return
    if rule.categories.allowed is not None:
        allowed: Sequence[str] = rule.categories.allowed
        whose = "the rule allows"
    else:
        champions = known.categories()
        if isinstance(champions, str) or want.name not in champions:
            why = champions if isinstance(champions, str) else f"the live revision knows no categories of {want.name}"
            yield Unjudged(rule.name, why)
            return
        allowed, whose = champions[want.name], "the live revision was trained on"
    values: Any = rows.columns[want]
    present = ~nulls(values, "Category")
    taken = np.asarray(
        pc.is_in(values, value_set=pa.array(list(allowed), pa.string())).to_numpy(zero_copy_only=False), dtype=np.bool_
    )
    wrong = np.flatnonzero(present & ~taken)
    whole = int(present.sum())
    if whole and len(wrong) / whole > float(rule.categories.max_fraction):
        counts: Any = pc.value_counts(select(values, wrong))  # type: ignore[arg-type]
        by_count = sorted(counts.to_pylist(), key=lambda one: (-one["counts"], one["values"]))
        listed = ", ".join(f"{one['values']!r:.40} {one['counts']:,}" for one in by_count[:5])
        more = f" and {len(by_count) - 5} more" if len(by_count) > 5 else ""
        problem = f"{shown_count(len(wrong), whole, 'value')} are none of the {len(allowed)} that {whose}, more than "
        problem += f"maxFraction {rule.categories.max_fraction} ({listed}{more})"
        remedy = "see whether the coding changed, or allow them"
        places = rows.origins[want].places(wrong, values)
        yield broken(rule, rule.column, problem, remedy, places, len(wrong))


def _last_run(rows: Rows, data: Data, rule: Rule, known: Known) -> Said:
    last = known.last
    if rule.last_run is None:
        return
    if last is None or not last.rows:
        yield Unjudged(rule.name, "there is no earlier run to compare with")
        return
    if last.rows_digest != rows_digest(data):
        yield Unjudged(rule.name, f"source, time column, key, window, label or sample changed since run {last.run}")
        return
    have = int(rows.used.sum())
    if rule.last_run.rows is not None:
        words = f"{counted(have, 'labelled row')}, {{ratio}} times the {last.rows:,} of run {last.run}"
        remedy = "see where rows are lost or repeated, or change the rule"
        yield from _between(rule, None, have / last.rows, rule.last_run.rows, (words, "lastRun.rows", remedy, have))
    if rule.last_run.positive_rate is not None:
        positives = int((rows.labels[rows.used] == 1).sum())
        if last.positives is None:
            yield Unjudged(rule.name, f"run {last.run} did not tell how many of its labels were 1")
            return
        before = last.positives / last.rows
        if before * have < FEWEST_EXPECTED:
            why = f"after run {last.run} {decimal(before * have, 1)} positives are expected, fewer than the "
            yield Unjudged(rule.name, f"{why}{FEWEST_EXPECTED} that it takes")
            return
        rate = positives / have
        words = f"{shown_count(positives, have)} are positive, {{ratio}} times the {decimal(before)} of run {last.run}"
        remedy = "see whether the label's meaning or its source changed, or change the rule"
        bounds, about = rule.last_run.positive_rate, "lastRun.positiveRate"
        yield from _between(rule, data.label.column, rate / before, bounds, (words, about, remedy, positives))


def _between(
    rule: Rule, column: str | None, ratio: float, bounds: Between, told: tuple[str, str, str, int]
) -> Iterator[Violation]:
    words, about, remedy, count = told
    words = words.replace("{ratio}", decimal(ratio))
    if bounds.minimum is not None and ratio < float(bounds.minimum):
        yield broken(rule, column, f"{words}, less than {about}.minimum {bounds.minimum}", remedy, count=count)
    if bounds.maximum is not None and ratio > float(bounds.maximum):
        yield broken(rule, column, f"{words}, more than {about}.maximum {bounds.maximum}", remedy, count=count)


def _skew(rows: Rows, data: Data, rule: Rule, known: Known) -> Said:
    if known.skew is None:
        if rule is not SKEW:
            yield Unjudged(rule.name, "no request of a live revision is captured (spec.serving.capture)")
        return
    found = known.skew(rows, data, rule, known.now)
    yield from [Unjudged(rule.name, found)] if isinstance(found, str) else found


def column_of(rows: Rows, data: Data, name: str) -> tuple[Values, Mask] | None:
    """A column's values, and which rows have one; None where it could not be read."""
    fixed: dict[str, tuple[Values, Mask]] = {
        data.time_column: (rows.times, ~nulls(rows.times, "Time")),
        data.key: (rows.key, ~nulls(rows.key, "Category")),
        data.label.column: (rows.labels, ~nulls(rows.labels, "Label")),
    }
    if name in fixed:
        return fixed[name]
    kinds = {feature.name: feature.type for feature in data.features}
    want = Want(name, kinds.get(name, "Category"))
    if want not in rows.columns:
        return None
    values = rows.columns[want]
    return values, ~nulls(values, want.kind)

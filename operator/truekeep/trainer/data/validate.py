"""What the Model declares of its data, held against what was read. Everything is counted, not just the first.

A violation names column, file (object), row, value, limit and remedy; all that are of severity Fail stop the run before
anything is fitted, those of severity Warn are reported with the result. `rules` has what the Model declares as rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.api.data import Data, Feature
from truekeep.sources.columns import Kind, Values, Want, codes, nulls
from truekeep.sources.read import Found, Table
from truekeep.trainer.data import rules
from truekeep.trainer.data.rules import Known
from truekeep.trainer.data.violations import (
    EXAMPLES,
    Judged,
    Mask,
    Origin,
    Place,
    Rows,
    Unjudged,
    Violation,
    refuse,
    summary,
)
from truekeep.trainer.text import counted

DEFAULT_MAX_CATEGORIES = 250
CATEGORY_LENGTH = 256  # characters


def check(rows: Rows, data: Data, known: Known) -> Judged:
    """All that is wrong, and what could not be judged."""
    return Judged.of(_said(rows, data, known))


def _said(rows: Rows, data: Data, known: Known) -> Iterator[Violation | Unjudged]:
    yield from rows.found
    yield from _identity(rows, data)
    for feature in data.features:
        yield from _feature(rows, feature)
    for rule in rules.of(data) if known.defaults else data.rules:
        yield from rules.judge(rows, data, rule, known)
    yield from _labels(rows, data)


def relevant(
    table: Table, used: Mask, essential: set[str], optional: Callable[[Found], bool] = lambda _: False
) -> Iterator[Violation]:
    """The problems of a table's files that touch rows in use, or columns without which no row can be placed; without
    those that are `optional`."""
    groups: dict[tuple[str, str, str], list[Found]] = {}
    for problem in table.problems:
        if optional(problem):
            continue
        if problem.column in essential or _touches(table, used, problem):
            groups.setdefault((problem.column, problem.bad.problem, problem.bad.remedy), []).append(problem)
    for (column, said, advice), problems in groups.items():
        places = tuple(place for problem in problems for place in _places(table, problem))
        rows = sum(0 if one.bad.positions is None else len(one.bad.positions) for one in problems)
        what = f"{counted(rows, 'row' if not column else 'value')} {said}" if rows else said
        remedy = advice
        if not rows and (others := _elsewhere(table, column)):
            what, remedy = f"{what} ({others} in other files)", f"write it as {others} there, too"
        yield Violation("type", column or None, what, remedy, rows or len(problems), places)


def _elsewhere(table: Table, column: str) -> str:
    """What a column is in other files that can't be read in some as a whole; "" where there are none."""
    said = [one.bad.problem for one in table.problems if one.column == column and one.bad.positions is None]
    kinds = [kind for kind in table.known.get(column, "").split(" or ") if kind]
    return " or ".join(kind for kind in kinds if not any(f"of type {kind}," in problem for problem in said))


def concerns(problem: Found, wants: Collection[Want]) -> bool:
    """Whether it is about one of these columns."""
    return any(want.name == problem.column and problem.kind in (want.kind, None) for want in wants)


def _touches(table: Table, used: Mask, problem: Found) -> bool:
    mine = used & (table.file_of == problem.file)
    if problem.bad.positions is None:
        return bool(mine.any()) or not problem.column
    return not problem.column or bool(np.isin(problem.bad.positions, table.row_of[mine]).any())


def _places(table: Table, problem: Found) -> list[Place]:
    file = table.files[problem.file]
    if problem.bad.positions is None:
        return [Place(file)]
    return [
        Place(file, int(row), repr(value)[:62])
        for row, value in zip(problem.bad.positions[:EXAMPLES], problem.bad.values, strict=False)
    ]


def _identity(rows: Rows, data: Data) -> Iterator[Violation]:
    """Time and key, without which a row is nothing."""
    remedy = "every row needs one; correct or remove these rows"
    columns: tuple[tuple[str, Values, Kind], ...] = (
        (data.time_column, rows.times, "Time"),
        (data.key, rows.key, "Category"),
    )
    for name, values, kind in columns:
        wrong = np.flatnonzero(nulls(values, kind) & ~rows.main.told(name))
        if len(wrong):
            problem = f"{counted(len(wrong), 'row')} without a value"
            yield Violation("null", name, problem, remedy, len(wrong), rows.main.places(wrong))


def _feature(rows: Rows, feature: Feature) -> Iterator[Violation]:
    want = Want(feature.name, feature.type)
    if want not in rows.columns:
        return  # missing, and told so already
    values, origin = rows.columns[want], rows.origins[want]
    null = nulls(values, want.kind) & ~origin.told(feature.name)
    if len(null) and null.all():
        remedy = "see where the values are lost, or remove the feature"
        yield Violation("null", feature.name, "no row has a value, so the model can't use it", remedy, severity="Warn")
    if feature.nulls == "Refuse" and null.any():
        what = " (null or NaN)" if want.kind == "Number" else ""
        problem = f"{counted(int(null.sum()), 'row')} without a value{what}, and the Model declares nulls: Refuse"
        wrong = np.flatnonzero(null)
        remedy = "fill them, or declare nulls: Allow"
        yield Violation("null", feature.name, problem, remedy, len(wrong), origin.places(wrong))
    if isinstance(values, np.ndarray):
        yield from _range(values, origin, feature)
    else:
        yield from _categories(values, origin, feature)


def _range(values: npt.NDArray[np.float64], origin: Origin, feature: Feature) -> Iterator[Violation]:
    limits = (("below the minimum", feature.minimum, np.less), ("above the maximum", feature.maximum, np.greater))
    for words, limit, beyond in limits:
        if limit is None:
            continue
        wrong = np.flatnonzero(beyond(values, float(limit)))  # a comparison with NaN is false
        if len(wrong):
            problem = f"{counted(len(wrong), 'value')} {words} {limit}"
            remedy = f"correct them, or change the feature's {words.rpartition(' ')[2]}"
            yield Violation("range", feature.name, problem, remedy, len(wrong), origin.places(wrong, values))


def _categories(values: Any, origin: Origin, feature: Feature) -> Iterator[Violation]:
    position, distinct = codes(values)
    limit = feature.max_categories or DEFAULT_MAX_CATEGORIES
    if len(distinct) > limit:
        problem = f"{len(distinct):,} distinct values, more than maxCategories {limit}"
        remedy = "raise maxCategories, or bring rare values together; an identifier is no feature"
        places = origin.places(np.flatnonzero(position == limit)[:1], values)
        yield Violation("categories", feature.name, problem, remedy, len(distinct) - limit, places)
    long = [number for number, text in enumerate(distinct.to_pylist()) if len(text) > CATEGORY_LENGTH]
    if long:
        wrong = np.flatnonzero(np.isin(position, long))
        problem = f"{counted(len(wrong), 'value')} longer than {CATEGORY_LENGTH} characters"
        remedy = "free text is no Category; shorten it"
        yield Violation("categories", feature.name, problem, remedy, len(wrong), origin.places(wrong, values))


def _labels(rows: Rows, data: Data) -> Iterator[Violation]:
    used = rows.used
    labels = rows.labels[used]
    positives = int((labels == 1).sum())
    if rows.found and not len(labels):
        return  # that the label can't be read is told already
    if positives in (0, len(labels)):
        seen = f"all {len(labels):,} labelled rows are {labels[0]}" if len(labels) else "there is no labelled row"
        young = int((~rows.ripe).sum())
        unlabelled = int((rows.ripe & (rows.labels < 0)).sum())
        problem = f"{seen} ({unlabelled:,} without a label, {young:,} too young for one); both classes are needed"
        yield Violation("label", data.label.column, problem, "check the label's source and spec.data.window")


__all__ = ["Known", "Origin", "Rows", "Violation", "check", "concerns", "refuse", "relevant", "summary"]

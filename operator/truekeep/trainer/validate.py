"""What the Model declares of its data, held against what was read. Everything is counted, not just the first.

A violation names column, file (object), row, value, limit and remedy; all that are of severity Fail stop the run before
anything is fitted, those of severity Warn are reported with the result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from truekeep.api.data import Data, Feature, Rule
from truekeep.sources.columns import Kind, Values, Want, codes, nulls
from truekeep.sources.read import Found, Table
from truekeep.trainer.faults import DataInvalid
from truekeep.trainer.text import MICROSECONDS, counted, decimal, iso

DEFAULT_MAX_CATEGORIES = 250
CATEGORY_LENGTH = 256  # characters
EXAMPLES = 20  # places of one violation that go into the record
MESSAGE_LENGTH = 2000

Mask = npt.NDArray[np.bool_]


class Place(NamedTuple):
    """Where a value lies. `row` counts from 1, headers not counted; None: the file as a whole."""

    file: str
    row: int | None = None
    value: str | None = None

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file} row {self.row}"
        return where if self.value is None else f"{self.value} in {where}"


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with one column, however often."""

    check: str  # schema, type, null, range, categories, label, or the name of a rule
    column: str | None
    problem: str
    remedy: str
    count: int = 1  # rows, or files where a file is wrong as a whole
    places: tuple[Place, ...] = ()
    severity: Literal["Fail", "Warn"] = "Fail"

    def __str__(self) -> str:
        subject = f"{self.column}: " if self.column else ""
        first = f", {'first' if self.count > 1 else 'namely'} {self.places[0]}" if self.places else ""
        return f"{subject}{self.problem}{first}; {self.remedy}"

    def dump(self) -> dict[str, Any]:
        """For the record."""
        places = [{"file": place.file, "row": place.row, "value": place.value} for place in self.places[:EXAMPLES]]
        return {
            **{"check": self.check, "column": self.column, "problem": self.problem, "remedy": self.remedy},
            **{"count": self.count, "severity": self.severity, "places": places},
        }


@dataclass(frozen=True)
class Origin:
    """Where the rows of a column come from: a table, and the position in it of each row, -1 where it has none."""

    table: Table
    positions: npt.NDArray[np.int64]

    def told(self, column: str) -> Mask:
        """Rows whose value is a null only because it could not be converted, which is a violation of its own."""
        table = self.table
        mask = np.zeros(len(table) + 1, dtype=np.bool_)
        for problem in table.problems:
            if problem.column == column:
                mine = table.file_of == problem.file
                rows = problem.bad.positions
                mask[:-1] |= mine if rows is None else mine & np.isin(table.row_of, rows)
        return np.asarray(mask[self.positions])

    def places(self, rows: npt.NDArray[np.int64], values: Any = None) -> tuple[Place, ...]:
        """The first of these rows, with their values."""
        return tuple(
            self.place(int(row), None if values is None else _shown(values[int(row)])) for row in rows[:EXAMPLES]
        )

    def place(self, row: int, value: object = None) -> Place:
        """The place of one row's value; where no row was joined, nothing can be said but the source."""
        position = int(self.positions[row])
        if position < 0:
            return Place(f"(no row of {self.table.name} matches)", None, None if value is None else str(value))
        file = self.table.files[self.table.file_of[position]]
        return Place(file, int(self.table.row_of[position]), None if value is None else f"{value!s:.60}")


@dataclass
class Rows:
    """The rows in the window, as they are judged: features of all sources joined, labels, and where all comes from."""

    times: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    ripe: Mask
    columns: dict[Want, Values]
    origins: dict[Want, Origin]
    main: Origin
    key: Values
    duplicates: int = 0  # rows of a key that occurs more than once, before all but the last were dropped
    before: int = 0  # rows before that
    found: list[Violation] = field(default_factory=list)  # of schema and types

    @property
    def used(self) -> Mask:
        """Rows that can train: ripe and labelled."""
        return self.ripe & (self.labels >= 0) & ~nulls(self.times, "Time")


def check(rows: Rows, data: Data, newest: int, now: int) -> list[Violation]:
    """Every violation. Times in microseconds since 1970: `newest` event in the data, and `now`."""
    found = list(rows.found)
    found += _identity(rows, data)
    for feature in data.features:
        found += _feature(rows, feature)
    for rule in data.rules:
        found += _rule(rows, data, rule, newest, now)
    found += _labels(rows, data)
    return found


def refuse(found: Iterable[Violation]) -> None:
    """DataInvalid where one of them is of severity Fail, with a text that names as many as there is room for."""
    wrong = [violation for violation in found if violation.severity == "Fail"]
    if wrong:
        fault = DataInvalid(summary(wrong))
        fault.details = [violation.dump() for violation in wrong]
        raise fault


def summary(found: list[Violation], length: int = MESSAGE_LENGTH) -> str:
    """Example: 2 checks of the data failed: (1) distance: 3 values are …; (2) …"""
    many = len(found) > 1
    text = f"{len(found)} checks of the data failed: " if many else ""
    for number, violation in enumerate(found, 1):
        part = (f"({number}) " if many else "") + f"{violation}. "
        rest = len(found) - number + 1
        if len(text) + len(part) > length and number > 1:
            return f"{text}And {rest} more, all in the run's record."
        text += part[: length - 1]
    return text.rstrip()


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
    for (column, said, remedy), problems in groups.items():
        places = tuple(place for problem in problems for place in _places(table, problem))
        rows = sum(0 if one.bad.positions is None else len(one.bad.positions) for one in problems)
        what = f"{counted(rows, 'row' if not column else 'value')} {said}" if rows else said
        yield Violation("type", column or None, what, remedy, rows or len(problems), places)


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
        problem = f"{counted(int(null.sum()), 'row')} without a value, and the Model declares nulls: Refuse"
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


def _rule(rows: Rows, data: Data, rule: Rule, newest: int, now: int) -> Iterator[Violation]:
    if rule.min_rows is not None and (have := int(rows.used.sum())) < rule.min_rows:
        problem = f"{counted(have, 'labelled row')}, fewer than minRows {rule.min_rows:,}"
        yield _broken(rule, None, problem, "widen spec.data.window, or wait for labels")
    if rule.max_age_seconds is not None and (age := (now - newest) // MICROSECONDS) > rule.max_age_seconds:
        problem = f"the newest event is of {iso(newest)}, {age:,} s ago, "
        problem += f"more than maxAgeSeconds {rule.max_age_seconds:,}"
        yield _broken(rule, data.time_column, problem, "see why no new data comes")
    if rule.max_duplicate_fraction is not None:
        fraction = rows.duplicates / rows.before if rows.before else 0.0
        if fraction > float(rule.max_duplicate_fraction):
            problem = f"{rows.duplicates:,} of {counted(rows.before, 'row')} ({decimal(fraction)}) share their key, "
            problem += f"more than maxDuplicateFraction {rule.max_duplicate_fraction}"
            yield _broken(rule, data.key, problem, "see which writer repeats rows; the last of each is taken")
    if rule.max_null_fraction is not None:
        masks = _null_masks(rows, data)
        for name in [rule.column] if rule.column else [feature.name for feature in data.features]:
            mask = masks.get(name)
            fraction = float(mask.mean()) if mask is not None and len(mask) else 0.0
            if mask is not None and fraction > float(rule.max_null_fraction):
                problem = f"{int(mask.sum()):,} of {counted(len(mask), 'row')} ({decimal(fraction)}) without a value, "
                problem += f"more than maxNullFraction {rule.max_null_fraction}"
                yield _broken(rule, name, problem, "see where the values are lost, or raise the limit")


def _null_masks(rows: Rows, data: Data) -> Mapping[str, Mask]:
    """By column: which rows have no value. Of the label: which ripe rows have none."""
    masks = {want.name: nulls(values, want.kind) for want, values in rows.columns.items()}
    masks[data.time_column] = nulls(rows.times, "Time")
    masks[data.key] = nulls(rows.key, "Category")
    masks[data.label.column] = nulls(rows.labels[rows.ripe], "Label")
    return masks


def _broken(rule: Rule, column: str | None, problem: str, remedy: str) -> Violation:
    return Violation(rule.name, column, f"rule {rule.name}: {problem}", remedy, severity=rule.severity)


def _shown(value: Any) -> str:
    return repr(value.as_py()) if hasattr(value, "as_py") else f"{value:g}"

"""What is judged, and what is wrong with it: rows with their origins, violations with their places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from truekeep.api.rules import Rule
from truekeep.api.trainingrun import DataViolation
from truekeep.sources.columns import Values, Want, nulls
from truekeep.sources.read import Table
from truekeep.trainer.faults import DataInvalid
from truekeep.trainer.text import counted, decimal

EXAMPLES = 20  # places of one violation that go into the record
MESSAGE_LENGTH = 2000
SHOWN_PROBLEM = 300  # characters of a problem in the status

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

    check: str  # schema, type, null, range, categories, label, leakage, skew, or the name of a rule
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

    def told(self) -> DataViolation:
        """For the run's status."""
        first = self.places[0] if self.places else None
        return DataViolation(
            check=self.check[:63],
            column=self.column,
            severity=self.severity,
            count=self.count,
            file=first.file[:1024] if first else None,
            row=first.row if first else None,
            problem=self.problem if len(self.problem) <= SHOWN_PROBLEM else f"{self.problem[: SHOWN_PROBLEM - 2]} …",
        )


class Unjudged(NamedTuple):
    """A check that could not be judged: it holds nothing up, and is never taken for one that was passed."""

    check: str
    why: str

    def __str__(self) -> str:
        return f"{self.check}: not judged: {self.why}"


@dataclass(frozen=True)
class Judged:
    """What all checks said."""

    found: tuple[Violation, ...] = ()  # Fail first
    unjudged: tuple[Unjudged, ...] = ()

    @classmethod
    def of(cls, said: Iterable[Violation | Unjudged]) -> Judged:
        """In order: those that stop the run first."""
        answers = list(said)
        found = [one for one in answers if isinstance(one, Violation)]
        unjudged = tuple(one for one in answers if isinstance(one, Unjudged))
        return cls(tuple(sorted(found, key=lambda one: one.severity != "Fail")), unjudged)


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
            self.place(int(row), None if values is None else shown(values[int(row)])) for row in rows[:EXAMPLES]
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
    repeats: tuple[Place, ...] = ()  # the first that were dropped
    found: list[Violation] = field(default_factory=list)  # of schema and types

    def origin(self, name: str) -> Origin:
        """Where the values of a column come from; those of time and key from the main source, as do those of a label
        (or the row that it is of)."""
        return next((origin for want, origin in self.origins.items() if want.name == name), self.main)

    @property
    def used(self) -> Mask:
        """Rows that can train: ripe and labelled."""
        return self.ripe & (self.labels >= 0) & ~nulls(self.times, "Time")


def refuse(found: Iterable[Violation]) -> None:
    """DataInvalid where one of them is of severity Fail, with a text that names as many as there is room for."""
    everything = list(found)
    wrong = [violation for violation in everything if violation.severity == "Fail"]
    if wrong:
        fault = DataInvalid(summary(wrong))
        fault.details = [violation.dump() for violation in everything]
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


def shown_count(part: int, whole: int, what: str = "row") -> str:
    """Example: 3 of 60 rows (0.0500)."""
    return f"{part:,} of {counted(whole, what)} ({decimal(part / whole if whole else 0.0)})"


def broken(
    rule: Rule, column: str | None, problem: str, remedy: str, places: tuple[Place, ...] = (), count: int = 1
) -> Violation:
    """What breaks a rule, of its severity."""
    return Violation(rule.name, column, f"rule {rule.name}: {problem}", remedy, count, places, rule.severity)


def shown(value: Any) -> str:
    """A value as messages show it."""
    return repr(value.as_py()) if hasattr(value, "as_py") else f"{value:g}"

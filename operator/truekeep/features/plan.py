"""What a recipe's transformers make of the features, column by column, before anything is fitted.

Steps run in their order on a table of named columns. Most put what they make in the place of what they took; with
`originals: Keep` both stay. Indicator columns of categories are made at the end, because what is learned decides how
many there are: no step can take them. Pure: `truekeep check` and the trainer ask the same question here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

from truekeep.api.features import DatePart, Kind, Transformer

ColumnType = Literal["Number", "Category", "Time"]
PATH = "spec.training.recipe.transformers"

PART_NAMES: dict[DatePart, str] = {
    "Year": "year",
    "Month": "month",
    "DayOfMonth": "day-of-month",
    "DayOfYear": "day-of-year",
    "DayOfWeek": "day-of-week",
    "Hour": "hour",
    "Minute": "minute",
}
_CYCLIC = ("-sin", "-cos")
_TAKES: dict[Kind, tuple[ColumnType, ...]] = {
    "impute": ("Number", "Category"),
    "scale": ("Number",),
    "log": ("Number",),
    "clip": ("Number",),
    "ratio": ("Number",),
    "dateParts": ("Time",),
    "oneHot": ("Category",),
    "ordinal": ("Category",),
    "targetEncode": ("Category",),
}


class PlanError(ValueError):
    """Steps that do not fit together. The text names field, value, reason and remedy."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path, self.message = path, message


class Input(Protocol):
    """A feature, as the Model or a signature declares it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def type(self) -> ColumnType:
        """Its type."""


@dataclass(frozen=True, eq=False)
class Column:
    """One column on its way. `origin`: the features that it is made of. `filled`: never null; `scaled`: on a common
    scale already."""

    name: str
    type: ColumnType
    origin: tuple[str, ...]
    filled: bool = False
    scaled: bool = False


@dataclass(frozen=True)
class Stage:
    """A step: what it takes, and makes. Of kinds that make one column of one, they lie in the same order; `flags` are
    the indicators of nulls, in that order too. `passes`: other columns that somebody needs later."""

    step: Transformer
    takes: tuple[Column, ...]
    makes: tuple[Column, ...]
    flags: tuple[Column, ...]
    passes: tuple[Column, ...]


@dataclass(frozen=True)
class Plan:
    """All steps; then the columns that are left for the estimator, and those that become indicators first."""

    inputs: tuple[Column, ...]
    stages: tuple[Stage, ...]
    columns: tuple[Column, ...]
    indicators: tuple[tuple[Transformer, Column], ...]


@dataclass
class _Table:
    """Columns by name, those that wait to become indicators, and all that lie in the matrix."""

    visible: dict[str, Column]
    waiting: list[tuple[Transformer, Column]] = field(default_factory=list)

    def needs(self, column: Column) -> bool:
        return self.visible.get(column.name) is column or any(column is one for _, one in self.waiting)


def plan(features: Sequence[Input], steps: Sequence[Transformer]) -> Plan:
    """The steps on these features. PlanError where a column is not there, is of a wrong type or is there twice."""
    inputs = tuple(Column(one.name, one.type, (one.name,)) for one in features)
    table = _Table({column.name: column for column in inputs})
    there = list(inputs)
    stages: list[Stage] = []
    for number, step in enumerate(steps):
        path = f"{PATH}[{number}]"
        takes = tuple(_taken(table, step, name, path, steps[number + 1 :]) for name in step.takes)
        if step.one_hot:
            table.waiting += [(step, column) for column in takes]
        made, flags = ((), ()) if step.one_hot else _made(step, takes, path)
        if not step.keeps:
            for column in takes:
                table.visible.pop(column.name, None)
        for column in (*made, *flags):
            if column.name in table.visible:
                raise PlanError(
                    f"{path} ({step.name})",
                    f"makes a column {column.name}, but there is one of this name; choose another name for the step, "
                    "or leave originals out",
                )
            table.visible[column.name] = column
        if step.one_hot:
            continue
        passes = tuple(column for column in there if table.needs(column))
        stages.append(Stage(step, takes, made, flags, passes))
        there = [*made, *flags, *passes]
    _check_times(inputs, steps)
    columns = tuple(column for column in there if table.visible.get(column.name) is column and column.type != "Time")
    if not columns and not table.waiting:
        raise PlanError(PATH, "no column is left for the estimator; drop fewer originals, or add a feature")
    return Plan(inputs, tuple(stages), columns, tuple(table.waiting))


def _taken(table: _Table, step: Transformer, name: str, path: str, later: Iterable[Transformer]) -> Column:
    where = f"{path} ({step.name})"
    column = table.visible.get(name)
    if column is None:
        after = next((one.name for one in later if name == one.name or name.endswith(f".{one.name}")), None)
        hint = f"; {after} makes it, which is later: move that up" if after else ""
        raise PlanError(where, f"there is no column {name}{hint}; there are {_listed(table.visible)}")
    if column.type not in _TAKES[step.kind]:
        raise PlanError(
            where,
            f"{step.kind} takes columns of type {' or '.join(_TAKES[step.kind])}, but {name} is of type {column.type}; "
            f"{_REMEDIES[column.type]}",
        )
    if step.impute and step.impute.strategy in ("Median", "Mean") and column.type == "Category":
        raise PlanError(
            where, f"{step.impute.strategy} is for numbers, but {name} is a Category; use MostFrequent or Constant"
        )
    if step.impute and step.impute.value is not None and column.type == "Number":
        _number(step.impute.value, where, name)
    if step.date_parts:
        _check_zone(step.date_parts.time_zone, where)
    return column


_REMEDIES: dict[ColumnType, str] = {
    "Number": "declare the feature a Category, or take another kind",
    "Category": "make it a number first, by ordinal or targetEncode, or take another kind",
    "Time": "make numbers of it first, by dateParts",
}


def _number(text: str, where: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise PlanError(where, f"impute.value {text!r} is no number, but {name} is one; write decimal text")
    return value


def _check_zone(zone: str, where: str) -> None:
    try:
        ZoneInfo(zone)
    except (OSError, ValueError, LookupError):
        raise PlanError(
            where, f"dateParts.timeZone {zone} is no zone of the IANA database; write one such as Europe/Berlin"
        ) from None


def _made(step: Transformer, takes: tuple[Column, ...], path: str) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """What a step makes of its columns, and the indicators of their nulls."""
    if step.ratio:
        origin = tuple(dict.fromkeys(name for column in takes for name in column.origin))
        return (Column(step.name, "Number", origin),), ()
    if step.date_parts:
        suffixes = [suffix for part in step.date_parts.parts for suffix in part_names(part, step.date_parts.encoding)]
        return tuple(
            Column(f"{column.name}.{suffix}", "Number", column.origin, scaled=suffix.endswith(_CYCLIC))
            for column in takes
            for suffix in suffixes
        ), ()
    flags: tuple[Column, ...] = ()
    if step.impute and step.impute.indicator == "Add":
        flags = tuple(
            Column(f"{column.name}.null", "Number", column.origin, filled=True, scaled=True) for column in takes
        )
    return tuple(_one(step, column) for column in takes), flags


def _one(step: Transformer, column: Column) -> Column:
    return Column(
        name=f"{column.name}.{step.name}" if step.keeps else column.name,
        type=column.type if step.impute else "Number",
        origin=column.origin,
        filled=bool(step.impute or step.target_encode) or (column.filled and bool(step.scale or step.clip)),
        scaled=bool(step.scale),
    )


def part_names(part: DatePart, encoding: Literal["Number", "Cyclic"]) -> tuple[str, ...]:
    """How the columns of a part end."""
    name = PART_NAMES[part]
    return (name,) if encoding == "Number" or part == "Year" else tuple(f"{name}{end}" for end in _CYCLIC)


def _check_times(inputs: Sequence[Column], steps: Sequence[Transformer]) -> None:
    for column in inputs:
        if column.type == "Time" and not any(step.date_parts and column.name in step.takes for step in steps):
            raise PlanError(
                PATH,
                f"the feature {column.name} is of type Time, and no step makes numbers of it; add one with dateParts, "
                "or remove the feature",
            )


def _listed(names: Iterable[str], most: int = 20) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")

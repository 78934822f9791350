"""From declared sources to the rows that train: read, cut to the window, joined, labelled, validated, in time's order.

What was read is kept with it (`Dataset.read`, `pins`, `schema`), because the record must say it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.api.common import Place
from truekeep.api.data import Data, Join
from truekeep.api.trainingrun import DataRead
from truekeep.contract.canonical import digest_of
from truekeep.sources import join
from truekeep.sources.columns import NO_LABEL, NO_TIME, Values, Want, empty, select
from truekeep.sources.errors import Changed, OutOfMemory, SourceInvalid, TooLarge
from truekeep.sources.memory import Guard, limit
from truekeep.sources.objects import SUFFIXES
from truekeep.sources.places import Opened
from truekeep.sources.read import Found, Pin, Selection, Table, read_table
from truekeep.sources.sample import Sampler
from truekeep.trainer.data import rules, validate
from truekeep.trainer.data.rules import Known
from truekeep.trainer.data.violations import EXAMPLES, Judged, Origin, Rows, Violation, refuse
from truekeep.trainer.faults import DataChanged, DataInvalid, DataTooLarge, InputFault
from truekeep.trainer.text import MICROSECONDS, counted, moment

DAY = 86400 * MICROSECONDS
VIOLATIONS = 16  # that the status tells
Say = Callable[[str], None]


@dataclass(frozen=True)
class Dataset:
    """Labelled rows in the order of their events. Arrays have shape (rows,); `times` in microseconds since 1970.

    `columns` holds the Model's features, and of those that only the champion knows what the data still has."""

    times: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    columns: dict[Want, Values]
    read: DataRead
    pins: tuple[Pin, ...]
    schema: dict[str, dict[str, str]]  # source -> column -> type
    superseded: int = 0  # rows in the window that a later row of the same key replaced
    violations: tuple[Violation, ...] = ()  # of severity Warn

    def __len__(self) -> int:
        return len(self.times)

    def named(self, wants: Sequence[Want], rows: slice = slice(None)) -> dict[str, Any]:
        """Columns by name, as `features.encode` takes them; only wanted ones that there are."""
        return {want.name: self.columns[want][rows] for want in wants if want in self.columns}


class DataFault(DataInvalid):
    """The data is not as declared; with what was read of it until then."""

    def __init__(self, fault: InputFault, read: DataRead, pins: tuple[Pin, ...], schema: Any) -> None:
        super().__init__(str(fault), fault.details)
        self.reason = fault.reason
        self.read, self.pins, self.schema = read, pins, schema
        self.superseded: int | None = None


def load(
    data: Data,
    also: Sequence[Want],
    opened: Opened,
    now: int,
    say: Say,
    known: Known | None = None,
) -> Dataset:
    """Read all that the Model declares, and the columns `also` where they are there. `now` in microseconds since 1970.
    `known`: what rules compare with; without it nothing is checked but what the Model declares.

    DataFault where the data is not as declared, StoreError where the store is at fault, OutOfMemory where the rows do
    not fit."""
    return _Loader(data, also, opened, replace(known or Known(defaults=False), now=now), say).load()


class _Loader:
    def __init__(self, data: Data, also: Sequence[Want], opened: Opened, known: Known, say: Say) -> None:
        self.data = data
        self.features = [Want(feature.name, feature.type) for feature in data.features]
        self.also = [want for want in also if want not in self.features]
        keys = [data.key, *(column for one in data.joins for column in one.by)]
        times = [data.time_column, *(one.time_column for one in data.joins)]
        self.declared = [
            *self.features,
            Want(data.label.column, "Label"),
            *(Want(name, "Category") for name in keys),
            *(Want(name, "Time") for name in times),
            *rules.further(data),
        ]
        self.opened = opened
        self.known = known
        self.say = say
        self.tables: list[Table] = []
        self.found: list[Violation] = []
        self.newest = NO_TIME
        self.guard = Guard(limit())
        self.sampler = Sampler(data.sample) if data.sample else None

    def load(self) -> Dataset:
        rows, judged = None, Judged()
        try:
            rows = self._rows()
            judged = validate.check(rows, self.data, replace(self.known, newest=self.newest))
            refuse(judged.found)
        except DataInvalid as fault:
            judged = judged if judged.found else Judged.of(self.found)
            # Nothing was used, so there is no window: what is new is counted from the run before.
            read = self._read(rows, judged).model_copy(update={"window_start": None, "window_end": None})
            raise DataFault(fault, read, self._pins(), self._schema()) from fault
        read = self._read(rows, judged)
        used = np.flatnonzero(rows.used)
        order = used[np.argsort(rows.times[used], kind="stable")]
        wanted = {*self.features, *self.also}
        return Dataset(
            rows.times[order],
            rows.labels[order],
            {want: select(values, order) for want, values in rows.columns.items() if want in wanted},
            read,
            self._pins(),
            self._schema(),
            superseded=rows.before - len(rows.times),
            violations=judged.found,
        )

    def _rows(self) -> Rows:
        main = self._main()
        key: Any = main.columns[Want(self.data.key, "Category")]
        last, duplicates = join.last_of_each(key)
        before = len(main)
        repeats = Origin(main, np.arange(before)).places(np.flatnonzero(~last)[:EXAMPLES])
        main = main.select(last)
        self.tables[0] = main
        times: Any = main.columns[Want(self.data.time_column, "Time")]
        mine = Origin(main, np.arange(len(main)))
        labels = self._labels(main)
        columns, origins = self._columns(main, times)
        essential = {self.data.time_column, self.data.key, ""}
        self.found += validate.relevant(main, np.ones(len(main), dtype=np.bool_), essential, self._optional)
        young = times > self.newest - self.data.label.matures_after_seconds * MICROSECONDS
        return Rows(
            times=times,
            labels=labels,
            ripe=~young if self.data.label.matures_after_seconds else np.ones(len(main), dtype=np.bool_),
            columns=columns,
            origins=origins,
            main=mine,
            key=main.columns[Want(self.data.key, "Category")],
            duplicates=duplicates,
            before=before,
            repeats=repeats,
            found=self.found,
        )

    def _optional(self, problem: Found) -> bool:
        """Whether it is about a column that only the champion needs."""
        return validate.concerns(problem, self.also) and not validate.concerns(problem, self.declared)

    def _main(self) -> Table:
        """The rows of the source that lie in the window; those whose time is unknown, too, to be told of."""
        time, key = Want(self.data.time_column, "Time"), Want(self.data.key, "Category")
        by = [Want(column, "Category") for one in self.data.joins for column in one.by]
        label = [Want(self.data.label.column, "Label")] if self.data.label.source is None else []
        wants = list(dict.fromkeys([time, key, *label, *by, *self.features, *self.also, *rules.further(self.data)]))
        back = self.data.window.days * DAY if self.data.window else None

        def keep(values: Values) -> npt.NDArray[np.bool_]:
            times: Any = values
            self.newest = max(self.newest, int(times.max(initial=NO_TIME)))
            if back is None or self.newest == NO_TIME:
                return np.ones(len(times), dtype=np.bool_)
            return np.asarray((times == NO_TIME) | (times > self.newest - back))

        def skip(greatest: int) -> bool:
            return back is not None and self.newest != NO_TIME and greatest <= self.newest - back

        selection = Selection(time, keep, skip, self.sampler, key)
        table = self._read_table("source", self.data.source.place, wants, selection)
        if self.sampler is not None:
            self.say(f"sampled by the hash of {key.name}: {len(table):,} of {counted(self.sampler.seen, 'row')} stay")
        needed = [time, key, *label, *rules.further(self.data)]
        self._require(table, self.data.source.place, [want.name for want in needed])
        if not len(table) or self.newest == NO_TIME:
            self.found += validate.relevant(table, np.zeros(len(table), dtype=np.bool_), {"", time.name, key.name})
            if not self.found:
                raise DataInvalid(f"there is no row below {self.data.source.place.uri}; write some first")
        refuse(self.found)
        return table.select(keep(table.columns[time]))

    def _labels(self, main: Table) -> npt.NDArray[np.int8]:
        """A label for each row, NO_LABEL where there is none."""
        label = Want(self.data.label.column, "Label")
        if self.data.label.source is None:
            values: Any = main.columns[label]
            return np.asarray(values)
        key = Want(self.data.key, "Category")
        keys: Any = main.columns[key]
        location = self.data.label.source.place
        table = self._read_table("label", location, [key, label], Selection(key, join.Among(keys)))
        if not self._require(table, location, [key.name, label.name]):
            self.found += validate.relevant(table, _mask(len(table), np.empty(0, np.int64)), {"", key.name})
            return np.full(len(main), NO_LABEL, dtype=np.int8)
        positions = join.by_key(keys, table.columns[key])  # type: ignore[arg-type]
        self.found += validate.relevant(table, _mask(len(table), positions), {"", key.name})
        labels: Any = table.columns[label]
        return np.append(labels, np.int8(NO_LABEL))[positions]

    def _columns(self, main: Table, times: npt.NDArray[np.int64]) -> tuple[dict[Want, Values], dict[Want, Origin]]:
        """Every feature from the first source that has it: the main one, then the joins in order."""
        columns: dict[Want, Values] = {}
        origins: dict[Want, Origin] = {}

        def take(table: Table, positions: npt.NDArray[np.int64]) -> None:
            for want in [*self.features, *self.also]:
                if want in self.also and any(validate.concerns(problem, [want]) for problem in table.problems):
                    continue  # nobody declares it: a column that is not in order is one that is not there
                if want in table.columns and want not in columns:
                    columns[want] = _at(table.columns[want], want, positions)
                    origins[want] = Origin(table, positions)

        take(main, np.arange(len(main)))
        for want in rules.further(self.data):
            if want in main.columns:
                columns[want], origins[want] = main.columns[want], Origin(main, np.arange(len(main)))
        for one in self.data.joins:
            missing = [want for want in [*self.features, *self.also] if want not in columns]
            table, positions = self._join(one, main, times, missing)
            take(table, positions)
            essential = {"", one.time_column, *one.by}
            self.found += validate.relevant(table, _mask(len(table), positions), essential, self._optional)
        for want in self.features:
            if want not in columns:
                seen = "; ".join(f"{table.name} has {_listed(table.known)}" for table in self.tables)
                remedy = f"write the column, or correct the feature's name ({seen})"
                self.found.append(Violation("schema", want.name, "no source has this column", remedy))
        return columns, origins

    def _join(
        self, one: Join, main: Table, times: npt.NDArray[np.int64], missing: Sequence[Want]
    ) -> tuple[Table, npt.NDArray[np.int64]]:
        """A further source and, for each row of the main one, the position in it of what was known then."""
        time = Want(one.time_column, "Time")
        by = [Want(column, "Category") for column in one.by]
        oldest = int(times[times != NO_TIME].min())
        age = None if one.max_age_seconds is None else one.max_age_seconds * MICROSECONDS

        def keep(values: Values) -> npt.NDArray[np.bool_]:
            known: Any = values
            useful = known <= self.newest
            if age is not None:
                useful &= known >= oldest - age
            return np.asarray(useful | (known == NO_TIME))

        def skip(greatest: int) -> bool:
            return age is not None and greatest < oldest - age

        location = one.source.place
        wants = list(dict.fromkeys([time, *by, *missing]))
        table = self._read_table(f"join {one.name}", location, wants, Selection(time, keep, skip))
        complete = self._require(table, location, [time.name, *one.by])
        complete &= self._require(main, self.data.source.place, one.by)
        if not complete:
            return table, np.full(len(main), -1)
        positions = join.as_of(
            times,
            [main.columns[want] for want in by],  # type: ignore[misc]
            table.columns[time],  # type: ignore[arg-type]
            [table.columns[want] for want in by],  # type: ignore[misc]
            age,
        )
        matched = int((positions >= 0).sum())
        self.say(f"joined {one.name} as of each event: {matched:,} of {counted(len(main), 'row')} found a match")
        return table, positions

    def _read_table(self, name: str, location: Place, wants: Sequence[Want], selection: Selection) -> Table:
        try:
            table = read_table(self.opened(location), name, wants, selection, self.guard)
        except OutOfMemory:
            raise  # a pod with more may do it: no verdict on the data
        except Changed as error:
            raise DataChanged(str(error)) from error
        except TooLarge as error:
            raise DataTooLarge(str(error)) from error
        except SourceInvalid as error:
            raise DataInvalid(f"{name}: {error}") from error
        size = sum(pin.size for pin in table.pins) / 1e6
        rows = sum(pin.rows for pin in table.pins)
        self.say(
            f"read {name} {location.uri}: {counted(len(table.pins), 'object')}, {size:.1f} MB, "
            f"{counted(rows, 'row')}, {len(table):,} of use"
        )
        self.tables.append(table)
        if not table.pins:
            problem = f"no Parquet or CSV object lies below {location.uri} ({name})"
            self.found.append(Violation("schema", None, problem, "write files that end in " + ", ".join(SUFFIXES) + ""))
        return table

    def _require(self, table: Table, location: Place, names: Sequence[str]) -> bool:
        """Whether the table has these columns; what it lacks is a violation."""
        missing = [name for name in names if name not in table.known]
        if not table.known:  # no file, or none that can be read: that is told
            return False
        for name in missing:
            problem = f"no object of {table.name} below {location.uri} has this column"
            remedy = f"write it, or correct the name in the Model; there are {_listed(table.known)}"
            self.found.append(Violation("schema", name, problem, remedy))
        return not missing

    def _read(self, rows: Rows | None, judged: Judged) -> DataRead:
        pins = self._pins()
        names = sorted([pin.uri, pin.size, pin.sha256] for pin in pins)
        warned = [violation for violation in judged.found if violation.severity == "Warn"]
        read = DataRead(
            objects=len(pins),
            rows=0,
            rows_digest=rules.rows_digest(self.data),
            sampling="ByKeyHash" if self.sampler else "AllRows",
            sampled_from=self.sampler.seen if self.sampler else None,
            digest=digest_of(names) if pins else None,
            replayable="True" if pins and all(pin.version_id for pin in pins) else "False",
            warnings=[str(warning)[:500] for warning in warned[:10]],
            failed_checks=len(judged.found) - len(warned),
            warned_checks=len(warned),
            violations=[violation.told() for violation in judged.found[:VIOLATIONS]],
            not_judged=[str(one)[:500] for one in judged.unjudged[:VIOLATIONS]],
        )
        if rows is None:
            return read
        used = rows.times[rows.used]
        return read.model_copy(
            update={
                "rows": len(used),
                "positives": int((rows.labels[rows.used] == 1).sum()),
                "unripe": int((~rows.ripe).sum()),
                "unlabelled": int((rows.ripe & (rows.labels < 0)).sum()),
                "window_start": moment(used.min()) if len(used) else None,
                "window_end": moment(used.max()) if len(used) else None,
            }
        )

    def _pins(self) -> tuple[Pin, ...]:
        return tuple(pin for table in self.tables for pin in table.pins)

    def _schema(self) -> dict[str, dict[str, str]]:
        return {table.name: dict(table.known) for table in self.tables}


def _at(values: Values, want: Want, positions: npt.NDArray[np.int64]) -> Values:
    """The values at these positions, null at -1."""
    if isinstance(values, np.ndarray):
        return np.asarray(np.append(values, empty(want.kind, 1))[positions])
    return select(values, positions)


def _mask(rows: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which rows are at one of these positions."""
    mask = np.zeros(rows + 1, dtype=np.bool_)
    mask[positions] = True
    return mask[:rows]


def _listed(names: Iterable[str], most: int = 30) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")

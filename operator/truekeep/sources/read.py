"""Reading a source: every Parquet and CSV object of it, pinned by what names exactly its bytes.

Only wanted columns are decoded, and rows that can't be of use are dropped piece by piece, so that memory holds about
the window, or the declared sample of it, not the whole lake; where it would hold more than it may, reading ends with
words. Objects are read from the last key to the first: names usually grow with time, so the newest events are known
early and old row groups of Parquet files can be skipped by their statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from truekeep.sources import columns, files
from truekeep.sources.columns import Bad, Kind, Values, Want
from truekeep.sources.memory import Guard, limit
from truekeep.sources.objects import SUFFIXES, Objects, contents, data_files, is_data
from truekeep.sources.sample import Hashes, Sampler

__all__ = ["SUFFIXES", "Found", "Objects", "Pin", "Selection", "Table", "is_data", "read_table"]

_EVERYWHERE = "write it in every file, empty where it is unknown"


@dataclass(frozen=True)
class Pin:
    """What names exactly one object that was read."""

    source: str
    uri: str
    version_id: str | None
    etag: str
    size: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class Found:
    """A problem of one file: which column (empty: the file itself), and which rows, counted from 1 (None: all).

    `kind`: as what it could not be read; None where it is missing, or the file itself is the problem."""

    file: int
    column: str
    bad: Bad
    kind: Kind | None = None


@dataclass
class Table:
    """What was read of one source: columns of shape (rows,), and where each row comes from."""

    name: str  # what the source is for, in messages: source, label, join weather
    files: list[str] = field(default_factory=list)
    file_of: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    row_of: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    columns: dict[Want, Values] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)  # all columns of all files: name -> type, or types
    problems: list[Found] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.row_of)

    def select(self, which: npt.NDArray[Any]) -> Table:
        """The rows of a mask or at positions; problems stay."""
        return Table(
            self.name,
            self.files,
            self.file_of[which],
            self.row_of[which],
            {want: columns.select(values, which) for want, values in self.columns.items()},
            self.known,
            self.problems,
            self.pins,
        )


@dataclass(frozen=True)
class Selection:
    """Which rows are of use, told by one column, which is converted first.

    `keep`: its values -> mask. `skip`: whether a Parquet row group whose greatest value of that column is this one, in
    microseconds since 1970, can be left out unread. `sample`: which of the rows that are of use stay, by the values of
    the column `key`."""

    by: Want
    keep: Callable[[Values], npt.NDArray[np.bool_]]
    skip: Callable[[int], bool] = lambda _: False
    sample: Sampler | None = None
    key: Want | None = None


@dataclass
class _Piece:
    """Rows of one file that are of use."""

    file: int
    rows: npt.NDArray[np.int64]
    columns: dict[Want, Values]
    hashes: Hashes | None = None

    def select(self, which: npt.NDArray[np.bool_]) -> None:
        self.rows = self.rows[which]
        self.columns = {want: columns.select(values, which) for want, values in self.columns.items()}
        self.hashes = None if self.hashes is None else self.hashes[which]


def read_table(
    objects: Objects, name: str, wants: Sequence[Want], selection: Selection, guard: Guard | None = None
) -> Table:
    """Every data file of the source, in the order of the keys. StoreError where the store is at fault, SourceInvalid
    where the source as a whole is, also for more rows than `guard` allows; what is wrong with a file is a problem."""
    guard = guard or Guard(limit())
    infos = data_files(objects)
    held = _Held(wants, selection)
    pins: list[Pin] = []
    seen: list[files.File] = []
    for number, (info, content) in zip(reversed(range(len(infos))), contents(objects, reversed(infos)), strict=True):
        file = files.File()
        for raw in files.pieces(info.key, content, wants, selection.by.name, selection.skip, file):
            held.take(number, raw, file)
            guard.check(name, held.count, len(infos) - number, len(infos))
        if not file.types:
            held.drop(number)
        seen.append(file)
        uri = objects.uri(info.key)
        pins.append(Pin(name, uri, content.version_id, content.etag, content.size, content.sha256, file.rows))
    return held.table(name, seen[::-1], pins[::-1])


class _Held:
    """The rows that are held while a source is read."""

    def __init__(self, wants: Sequence[Want], selection: Selection) -> None:
        self._wants = wants
        self._selection = selection
        self._pieces: list[_Piece] = []
        self.count = 0

    def take(self, number: int, raw: files.Raw, file: files.File) -> None:
        """Convert the telling column first, and the others only for rows that are of use."""
        selection = self._selection
        rows, arrays = raw.rows, raw.columns
        keep, placed = self._of_use(raw)
        hashed: Hashes | None = None
        if selection.sample and selection.key and selection.key.name in arrays:
            selection.sample.seen += int(keep.sum())
            keys, _ = columns.convert(
                selection.key.name, arrays[selection.key.name], "Category", selection.key.name in raw.texts
            )
            hashed = selection.sample.hashes(keys)
            hashed[~placed] = 0  # is never let go
            keep &= selection.sample.keep(hashed)
        if not keep.all():
            mask = pa.array(keep)
            rows, hashed = rows[keep], None if hashed is None else hashed[keep]
            arrays = {want.name: arrays[want.name].filter(mask) for want in self._wants if want.name in arrays}
        piece = _Piece(number, rows, {}, hashed)
        for want in self._wants:
            if want.name not in arrays:
                continue
            piece.columns[want], bad = columns.convert(want.name, arrays[want.name], want.kind, want.name in raw.texts)
            if bad is not None and bad.positions is not None:
                bad = Bad(rows[bad.positions], bad.values, bad.problem, bad.remedy)
            if bad is not None:
                file.problems.append((want.name, bad, want.kind))
        self._pieces.append(piece)
        self.count += len(rows)
        if selection.sample and selection.sample.crowded(self.count):
            self._let_go(selection.sample)

    def _of_use(self, raw: files.Raw) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Masks: which rows are of use, and which can be placed; one that can't must not vanish."""
        by = self._selection.by
        placed = np.ones(len(raw.rows), dtype=np.bool_)
        if by.name not in raw.columns:
            return placed.copy(), placed
        telling, bad = columns.convert(by.name, raw.columns[by.name], by.kind, by.name in raw.texts)
        if bad is not None and bad.positions is not None:
            placed[bad.positions] = False
        return np.array(self._selection.keep(telling), dtype=np.bool_) | ~placed, placed

    def _let_go(self, sample: Sampler) -> None:
        """Rows that are out of use by what is known now, and those that the sample has no room for."""
        for piece in self._pieces:
            if self._selection.by in piece.columns:
                piece.select(np.asarray(self._selection.keep(piece.columns[self._selection.by]), dtype=np.bool_))
        sample.narrow(np.concatenate([piece.hashes for piece in self._pieces if piece.hashes is not None]))
        for piece in self._pieces:
            if piece.hashes is not None:
                piece.select(sample.keep(piece.hashes))
        self.count = sum(len(piece.rows) for piece in self._pieces)

    def drop(self, number: int) -> None:
        """Forget a file."""
        self._pieces = [piece for piece in self._pieces if piece.file != number]

    def table(self, name: str, seen: Sequence[files.File], pins: list[Pin]) -> Table:
        """All that is held, in the order of files and rows."""
        if self._selection.sample and any(piece.hashes is not None for piece in self._pieces):
            self._let_go(self._selection.sample)
        table = Table(name, [pin.uri for pin in pins], pins=pins)
        for number, file in enumerate(seen):
            for column, kind in file.types.items():
                before = table.known.get(column, kind)
                table.known[column] = before if kind in before.split(" or ") else f"{before} or {kind}"
            table.problems.extend(Found(number, *problem) for problem in _united(file.problems))
        for number, file in enumerate(seen):
            missing = [w for w in self._wants if file.types and w.name in table.known and w.name not in file.types]
            for column in dict.fromkeys(want.name for want in missing):
                remedy = "write it in every file, empty where it is unknown"
                table.problems.append(
                    Found(number, column, Bad(None, (), "is missing, but other files have it", remedy))
                )
        pieces = sorted(self._pieces, key=lambda piece: (piece.file, piece.rows[0] if len(piece.rows) else 0))
        self._pieces = []
        counts = [len(piece.rows) for piece in pieces]
        table.file_of = np.repeat(np.array([piece.file for piece in pieces], dtype=np.int32), counts)
        table.row_of = np.concatenate([piece.rows for piece in pieces]) if pieces else table.row_of
        for want in self._wants:
            if want.name in table.known and want not in table.columns:
                parts = [
                    piece.columns.pop(want) if want in piece.columns else columns.empty(want.kind, len(piece.rows))
                    for piece in pieces
                ]
                table.columns[want] = columns.concatenate(parts, want.kind)
        return table


def _united(problems: Sequence[files.Problem]) -> list[files.Problem]:
    """One problem for what is the same in several pieces of a file."""
    groups: dict[tuple[str, str, str, Kind | None], list[Bad]] = {}
    for column, bad, kind in problems:
        groups.setdefault((column, bad.problem, bad.remedy, kind), []).append(bad)
    return [(column, _one(bads), kind) for (column, _, _, kind), bads in groups.items()]


def _one(bads: Sequence[Bad]) -> Bad:
    first = bads[0]
    parts = [bad.positions for bad in bads if bad.positions is not None]
    if len(bads) == 1 or len(parts) < len(bads):
        return first if len(parts) == len(bads) else Bad(None, first.values, first.problem, first.remedy)
    shown = [value for bad in bads for value in bad.values][: columns.SHOWN]
    return Bad(np.concatenate(parts), shown, first.problem, first.remedy)

"""Labels that join by entity and time: which label is of which captured event.

A label and an event of one entity belong together where their times differ by the tolerance at most and each is the
nearest of the other. Equally near: a label goes to the earlier event, an event takes the later label, because labels
come after what they are about. Events of equal entity and time are one, and so are labels; the last of them counts.

An event beside the window, or of another revision, may be nearer to a label than those that are judged: it is read,
too, up to two tolerances from the window, and takes its label away. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.api.driftpolicy import LabelEntity
from truekeep.contract.requests import Labels
from truekeep.features.encode import FeatureError, texts
from truekeep.monitor import captures
from truekeep.monitor.captures import KEY, PROBABILITY, CaptureFile, Skipped
from truekeep.monitor.labels import SHOWN, Files, hashes_of
from truekeep.monitor.predictions import MOST_ROWS, SEED, Predicted, Scope, numbers, text
from truekeep.sources.columns import NO_LABEL, NO_TIME, Want, codes
from truekeep.sources.errors import SourceInvalid
from truekeep.sources.join import Positions
from truekeep.sources.read import Selection, read_table
from truekeep.sources.sample import hashes
from truekeep.storage.s3 import Bucket

Mask = npt.NDArray[np.bool_]


class Timed(NamedTuple):
    """Whose, and when: texts (null where there is none) and ms, shape (rows,) each."""

    entities: pa.Array[Any]
    times: Positions


class Pairs(NamedTuple):
    """`labels`: for each event the position of its label, -1 where it has none, shape (events,). `counted`: labels that
    are of an entity and the last of theirs at that time, shape (labels,)."""

    labels: Positions
    counted: Mask


NOTHING = Timed(pa.nulls(0, pa.string()), np.empty(0, np.int64))


def pairs(events: Timed, labels: Timed, tolerance: int) -> Pairs:
    """Which label is of which event. `tolerance` in ms. Of events of equal entity and time the last has the label."""
    found = np.full(len(events.times), -1, dtype=np.int64)
    if not len(labels.times):
        return Pairs(found, np.zeros(0, dtype=np.bool_))
    group, _ = codes(pa.concat_arrays([text(events.entities), text(labels.entities)]))
    times = np.concatenate([events.times, labels.times])
    least = int(times.min())
    # One number for entity and time that sorts like the pair; two entities are further apart than the tolerance.
    width = int(times.max()) - least + tolerance + 1
    at = np.where(group >= 0, group * width + (times - least), -1)
    event_at, event_place = _last_of_each(at[: len(found)])
    label_at, label_place = _last_of_each(at[len(found) :])
    counted = np.zeros(len(labels.times), dtype=np.bool_)
    counted[label_place] = True
    if len(event_at) and len(label_at):
        event_of = _nearest(label_at, event_at, tolerance, later=False)
        label_of = _nearest(event_at, label_at, tolerance, later=True)
        mutual = (label_of >= 0) & (event_of[label_of] == np.arange(len(event_at)))
        found[event_place[mutual]] = label_place[label_of[mutual]]
    return Pairs(found, counted)


def _last_of_each(at: Positions) -> tuple[Positions, Positions]:
    """The distinct numbers from 0 on, sorted, and the last position of each."""
    order = np.argsort(at, kind="stable")
    ordered = at[order]
    last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)] & (ordered >= 0)
    return ordered[last], order[last]


def _nearest(of: Positions, among: Positions, tolerance: int, *, later: bool) -> Positions:
    """For each number the position of the nearest of the sorted others, -1 where none is near enough. `later`: which of
    two that are equally near."""
    after = np.searchsorted(among, of, side="left")
    before = after - 1
    far = tolerance + 1
    ahead = np.where(after < len(among), among[np.minimum(after, len(among) - 1)] - of, far)
    behind = np.where(before >= 0, of - among[np.maximum(before, 0)], far)
    forward = ahead <= behind if later else ahead < behind
    return np.where(np.minimum(ahead, behind) > tolerance, -1, np.where(forward, after, before))


@dataclass
class _Rows:
    """What is held while captures are read; `own`: rows that are judged."""

    own: Mask
    hashed: npt.NDArray[np.uint64]
    entities: pa.Array[Any]
    times: Positions
    probabilities: npt.NDArray[np.float64]
    groups: dict[str, pa.Array[Any]]

    def __len__(self) -> int:
        return len(self.own)

    def chosen(self, mask: Mask) -> _Rows:
        """Those rows."""
        which = pa.array(mask)
        return _Rows(
            self.own[mask], self.hashed[mask], self.entities.filter(which), self.times[mask], self.probabilities[mask],
            {name: column.filter(which) for name, column in self.groups.items()},
        )  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where captures name the entity. `column`: as they have it; `hashed`: whether they have its keyed hashes."""

    column: str
    hashed: bool
    tolerance: int  # ms

    @staticmethod
    def of(entity: LabelEntity, where: Labels) -> Place:
        """`where`: the labels; their key is captured under a name of its own."""
        column = KEY if entity.column == where.key else entity.column
        return Place(column, where.hash_key_secret is not None, entity.tolerance_seconds * 1000)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """From when on and until before when events and labels may have to do with those of a window."""
        return start - 2 * self.tolerance, end + 2 * self.tolerance


def predicted(
    bucket: Bucket, mine: Sequence[CaptureFile], every: Sequence[CaptureFile], scope: Scope, place: Place,
    skipped: Skipped,
) -> Predicted:  # fmt: skip
    """The window's predictions with their times, and the events beside them; of several of one entity and time the
    last.

    Of more than 2,000,000 rows those of some entities are kept, the same ones each time, so that memory is bounded; an
    entity that has more than these alone is left out. `mine`, `every`: files of the revision, and of all."""
    first, last = place.span(scope.start, scope.end)
    keys = {file.key for file in mine}
    held: list[_Rows] = []
    below: int | None = None
    seen = 0
    random = np.random.default_rng(SEED)
    files = [file for file in every if file.name.first < last and file.name.last >= first]
    for is_mine in (True, False):
        part = [file for file in files if (file.key in keys) == is_mine]
        names = [PROBABILITY, place.column, *(scope.groups if is_mine else ())]
        shown = (place.column,) if place.hashed else ()
        for batch in captures.between(bucket, part, names, start=first, end=last, skipped=skipped, hashed=shown):
            rows = _rows(batch, scope, place, is_mine, random)
            seen += int(rows.own.sum())
            held.append(rows if below is None else rows.chosen(rows.hashed < np.uint64(below)))
            if sum(len(one) for one in held) > 2 * MOST_ROWS:
                below, held = _narrowed(held)
    if sum(len(one) for one in held) > MOST_ROWS:
        below, held = _narrowed(held)
    return _whole(held, scope, seen, below)


def _rows(batch: dict[str, Any], scope: Scope, place: Place, is_mine: bool, random: np.random.Generator) -> _Rows:
    times = np.floor(captures.event_times(batch)).astype(np.int64)
    rows = len(times)
    own = (times >= scope.start) & (times < scope.end) & is_mine & (PROBABILITY in batch)
    entities = _entities(place.column, batch[place.column]) if place.column in batch else pa.nulls(rows, pa.string())
    hashed = hashes(entities, SEED)
    unknown = np.asarray(entities.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
    hashed[unknown] = random.integers(0, 1 << 63, int(unknown.sum()), dtype=np.uint64) * np.uint64(2)
    found = _Rows(
        own, hashed, entities, times,
        numbers(batch[PROBABILITY]) if PROBABILITY in batch else np.full(rows, np.nan),
        {name: text(batch[name]) if name in batch else pa.nulls(rows, pa.string()) for name in scope.groups},
    )  # fmt: skip
    return found.chosen(own | ~unknown)  # what is not judged and of no entity takes no label away


def _entities(name: str, column: Any) -> pa.Array[Any]:
    """As text, like a Category; what has no such text is of no entity."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.equal(pc.floor(column), column), column, pa.scalar(None, column.type))
    try:
        return texts(name, column)
    except FeatureError:
        return pa.nulls(len(column), pa.string())


def _narrowed(held: list[_Rows]) -> tuple[int, list[_Rows]]:
    """From which hash on there is no room, and the rows below it."""
    below = int(np.partition(np.concatenate([one.hashed for one in held]), MOST_ROWS)[MOST_ROWS])
    return below, [one.chosen(one.hashed < np.uint64(below)) for one in held]


def _whole(held: list[_Rows], scope: Scope, seen: int, below: int | None) -> Predicted:
    if not held:
        groups: dict[str, Any] = {name: pa.nulls(0, pa.string()) for name in scope.groups}
        return Predicted(pa.nulls(0, pa.string()), np.empty(0), groups, times=np.empty(0, np.int64))
    entities: pa.Array[Any] = pa.concat_arrays([one.entities for one in held])
    times = np.concatenate([one.times for one in held])
    own = np.concatenate([one.own for one in held])
    probabilities = np.concatenate([one.probabilities for one in held])
    group, _ = codes(entities)
    at = np.where(own & (group >= 0), group * (scope.end - scope.start) + (times - scope.start), -1)
    _, last = _last_of_each(at)
    once = own & (group < 0)
    once[last] = True
    kept = once & np.isfinite(probabilities)
    beside = (~own | (once & ~kept)) & (group >= 0)  # an event without a prediction has a label all the same
    mask, rest = pa.array(kept), pa.array(beside)
    columns: dict[str, Any] = {name: pa.concat_arrays([one.groups[name] for one in held]) for name in scope.groups}
    return Predicted(
        entities.filter(mask),
        probabilities[kept],
        {name: column.filter(mask) for name, column in columns.items()},
        repeated=int((own & ~once).sum()),
        seen=seen,
        times=times[kept],
        beside=(entities.filter(rest), times[beside]),
        below=below,
    )


@dataclass(frozen=True)
class Labelled:
    """Labels with entity and time, as read for several windows at once."""

    timed: Timed
    labels: npt.NDArray[np.int8]
    problems: tuple[str, ...] = ()


def read(source: Files, where: Labels, entity: LabelEntity, spans: Sequence[tuple[int, int]]) -> Labelled:
    """The labels whose time is in one of the spans (ms, from and until before), in the order of the files. StoreError
    where the store is at fault, HashKeyError where the key of the hashes can't be read."""
    named = entity.label_column or entity.column
    who, when, label = Want(named, "Category"), Want(entity.time_column, "Time"), Want(where.column, "Label")
    earliest = min((start for start, _ in spans), default=0) * 1000
    hashed = hashes_of(where, entity.column)

    def keep(values: Any) -> Mask:
        found = np.zeros(len(values), dtype=np.bool_)
        for start, end in spans:
            found |= (values >= start * 1000) & (values < end * 1000)
        return found

    def none(*problems: str) -> Labelled:
        return Labelled(NOTHING, np.empty(0, np.int8), problems)

    if source.fault:
        return none(source.fault)
    try:
        table = read_table(
            source, "label", [who, when, label], Selection(when, keep, skip=lambda newest: newest < earliest)
        )
    except SourceInvalid as error:
        return none(str(error))
    problems = [
        f"{table.files[found.file]}: {found.column or 'the file'} {found.bad.problem}" for found in table.problems
    ]
    missing = [want.name for want in (who, when, label) if source.infos and want.name not in table.known]
    problems += [f"no file of {source.uri()} has a column {name}" for name in missing]
    if missing or not len(table):
        return none(*problems[:SHOWN])
    times: Any = table.columns[when]
    placed = times != NO_TIME
    entities: Any = hashed(table.columns[who])
    values: Any = table.columns[label]
    timed = Timed(entities.filter(pa.array(placed)), times[placed] // 1000)
    return Labelled(timed, values[placed], tuple(problems[:SHOWN]))


def labels_of(rows: Predicted, known: Labelled, place: Place, window: tuple[int, int]) -> tuple[Any, int]:
    """The labels of a window's rows, shape (rows,), 0, 1 or NO_LABEL; and how many labels of its time are of no event.

    `window`: its start, inclusive, and end, exclusive. Where rows were drawn, labels of the entities drawn count."""
    start, end = place.span(*window)
    near = (known.timed.times >= start) & (known.timed.times < end)
    if rows.below is not None:
        near &= hashes(text(known.timed.entities), SEED) < np.uint64(rows.below)
    theirs = Timed(known.timed.entities.filter(pa.array(near)), known.timed.times[near])
    others, times = rows.beside or NOTHING
    assert rows.times is not None
    events = Timed(pa.concat_arrays([others, rows.keys]), np.concatenate([times, rows.times]))
    found = pairs(events, theirs, place.tolerance)
    labels = known.labels[near]
    unmatched = found.counted & (labels != NO_LABEL) & (theirs.times >= window[0]) & (theirs.times < window[1])
    unmatched[found.labels[found.labels >= 0]] = False
    return np.append(labels, np.int8(NO_LABEL))[found.labels[len(times) :]], int(unmatched.sum())

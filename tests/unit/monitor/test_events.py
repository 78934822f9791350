"""Labels that join by entity and time: against their definition, and from captures to the verdict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import Versitygw
from tests.unit.monitor import made
from tests.unit.monitor.test_decay import POLICY, Place, told
from tests.unit.monitor.test_look import MONDAY, NOW, WEEK, quiet
from truekeep.api.driftpolicy import LabelEntity
from truekeep.contract import hashing
from truekeep.contract.requests import SECRETS_DIR_ENV
from truekeep.monitor import decay, events
from truekeep.monitor.events import Timed, pairs
from truekeep.monitor.look import look
from truekeep.monitor.predictions import Scope
from truekeep.monitor.windows import milliseconds
from truekeep.sources.columns import NO_LABEL
from truekeep.storage.s3 import Bucket

BY_TIME = POLICY.model_copy(
    update={
        "join": "EntityTime",
        "entity": LabelEntity(
            column="account", label_column="account_number", time_column="settled", tolerance_seconds=60
        ),
    }
)
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 12)), max_size=12)


def timed(rows: list[tuple[str | None, int]]) -> Timed:
    return Timed(pa.array([who for who, _ in rows], pa.string()), np.array([at for _, at in rows], dtype=np.int64))


def last_of(rows: list[tuple[str | None, int]]) -> dict[tuple[str, int], int]:
    return {(who, at): place for place, (who, at) in enumerate(rows) if who is not None}


def defined(ours: list[tuple[str | None, int]], theirs: list[tuple[str | None, int]], tolerance: int) -> list[int]:
    """The definition, word by word."""
    mine, labels = last_of(ours), last_of(theirs)

    def nearest(one: tuple[str, int], among: dict[tuple[str, int], int], sign: int) -> tuple[str, int] | None:
        near = [other for other in among if other[0] == one[0] and abs(other[1] - one[1]) <= tolerance]
        return min(near, key=lambda other: (abs(other[1] - one[1]), sign * other[1]), default=None)

    found = [-1] * len(ours)
    for event, place in mine.items():
        label = nearest(event, labels, -1)  # equally near: the later label
        if label is not None and nearest(label, mine, 1) == event:  # equally near: the earlier event
            found[place] = labels[label]
    return found


@given(ROWS, ROWS, st.integers(0, 5))
def test_pairs_are_as_defined(
    ours: list[tuple[str | None, int]], theirs: list[tuple[str | None, int]], tolerance: int
) -> None:
    found = pairs(timed(ours), timed(theirs), tolerance)
    assert found.labels.tolist() == defined(ours, theirs, tolerance)
    assert np.flatnonzero(found.counted).tolist() == sorted(last_of(theirs).values())
    matched = found.labels[found.labels >= 0]
    assert len(set(matched.tolist())) == len(matched)  # one label, one event


@given(ROWS, ROWS, st.integers(0, 5))
def test_times_since_1970_and_far_apart_make_no_difference(
    ours: list[tuple[str | None, int]], theirs: list[tuple[str | None, int]], tolerance: int
) -> None:
    base, day = 1_700_000_000_000, 86_400_000
    far = [[(who, base + at * day) for who, at in rows] for rows in (ours, theirs)]
    expected = defined(ours, theirs, tolerance)
    assert pairs(timed(far[0]), timed(far[1]), tolerance * day).labels.tolist() == expected


class Accounts(Place):
    """Ten accounts; each event has its label 20 seconds later, under the account's number."""

    def weeks(self, *numbers: int, **changed: Any) -> None:
        for number in numbers:
            self.served(number, account=lambda _: pa.array([f"{row % 10}" for row in range(2000)]), **changed)
        self.served(max(numbers) + 1, rows=20)

    def times(self, number: int) -> np.ndarray:
        start = MONDAY + number * WEEK
        rng = np.random.default_rng(number)
        made.draw(rng, 2000)
        return np.sort(rng.integers(milliseconds(start), milliseconds(start + WEEK), 2000))

    def settle(self, number: int, late: int = 20_000, rows: slice = slice(None), name: str = "") -> None:
        at = pa.array((self.times(number) + late) * 1000).cast(pa.timestamp("us", "UTC"))
        whole = pa.table(
            {"account_number": [row % 10 for row in range(2000)], "settled": at, "late": self.known[number]}
        )
        sink = pa.BufferOutputStream()
        pq.write_table(whole.take(pa.array(np.arange(2000)[rows])), sink)
        Bucket.open(self.labels).put(name or f"{number}.parquet", sink.getvalue().to_pybytes())


@pytest.fixture
def place(versitygw: Versitygw) -> Accounts:
    return Accounts(versitygw)


def ambiguous(times: np.ndarray, late: int, tolerance: int) -> int:
    """Rows that the definition gives their own label, of those times in ms, by account."""
    ours: list[tuple[str | None, int]] = [(str(row % 10), int(at)) for row, at in enumerate(times)]
    theirs: list[tuple[str | None, int]] = [(str(row % 10), int(at) + late) for row, at in enumerate(times)]
    return sum(label >= 0 for label in defined(ours, theirs, tolerance))


def test_labels_are_joined_and_those_that_are_of_nothing_are_counted(place: Accounts) -> None:
    place.weeks(0)
    place.settle(0)
    place.settle(0, late=120_000, rows=slice(0, 100), name="astray.parquet")
    result = look(place.request(matures=0, performance=BY_TIME), NOW, quiet)
    stored = place.of(place.stored(decay.MEASURED)[0])
    assert told(result)[0] == ("Holds", "Holds")
    assert stored.unmatched is not None
    assert 90 <= stored.unmatched <= 110
    assert stored.verdict.labelled >= ambiguous(place.times(0), 20_000, 60_000) - 5
    assert float(stored.verdict.coverage) > 0.98


def test_decay_is_found_through_it(place: Accounts) -> None:
    place.weeks(0, skill=0.2)
    place.settle(0)
    assert told(look(place.request(matures=0, performance=BY_TIME), NOW, quiet))[0][0] == "Decayed"


def test_beyond_the_tolerance_nothing_joins(place: Accounts) -> None:
    place.weeks(0)
    place.settle(0, late=-61_000)
    lines: list[str] = []
    look(place.request(matures=0, performance=BY_TIME), NOW, lines.append)
    stored = place.of(place.stored(decay.ESTIMATED)[0])
    assert stored.verdict.labelled < 50  # of other events of the account, by chance
    assert "labels belong to no captured row" in stored.why_not
    assert any("belong to no captured row" in line for line in lines)


def test_an_event_of_another_revision_takes_its_label_away(place: Accounts) -> None:
    """The same hour, served by the canary: its label must not go to a neighbour of the live revision."""
    place.weeks(0)
    mine = place.times(0)

    def moved(column: Any) -> Any:
        del column
        return pa.array((mine + 20_000) * 1000).cast(pa.timestamp("us", "UTC"))

    place.capture(
        MONDAY, MONDAY + WEEK, 2000, revision=2, event_time=moved,
        account=lambda _: pa.array([f"{row % 10}" for row in range(2000)]),
    )  # fmt: skip
    place.settle(0)  # exactly when the other revision's events are
    look(place.request(matures=0, performance=BY_TIME), NOW, quiet)
    stored = place.of(place.stored(decay.ESTIMATED)[0])
    assert stored.verdict.labelled < 50
    assert stored.unmatched is not None
    assert stored.unmatched < 5


def test_hashed_entities_join(place: Accounts) -> None:
    secret = b"0123456789abcdef"
    hashed = pa.array([hashing.hashed(secret, "account", f"{row % 10}") for row in range(2000)])
    place.served(0, account=lambda _: hashed, metadata={"truekeep.hashed": "account"})
    place.served(1, rows=20)
    place.settle(0)
    folder = Path(os.environ[SECRETS_DIR_ENV]) / "entity-hash"
    folder.mkdir(exist_ok=True)
    (folder / hashing.HASH_KEY).write_bytes(secret)
    request = place.request(matures=0, performance=BY_TIME, hash_key_secret="entity-hash")
    result = look(request, NOW, quiet)
    assert told(result)[0][0] == "Holds"
    assert result.performance[-1].labelled > 1900


def test_without_the_column_the_answer_says_so(place: Accounts) -> None:
    place.served(0)
    place.served(1, rows=20)
    place.settle(0)
    look(place.request(matures=0, performance=BY_TIME), NOW, quiet)
    why = place.of(place.stored(decay.ESTIMATED)[0]).why_not
    assert "no captured row has account, which performance.entity names" in why


def test_of_very_many_rows_some_entities_are_kept_with_all_that_is_theirs(
    place: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_ROWS", 700)
    place.weeks(0)
    place.settle(0)
    low = BY_TIME.model_copy(update={"min_labels": 100})
    look(place.request(matures=0, performance=low), NOW, quiet)
    stored = place.of(place.stored(decay.MEASURED)[0])
    assert stored.rows in range(200, 701, 200)  # whole accounts of 200 rows
    assert float(stored.verdict.coverage) > 0.95
    assert stored.unmatched is not None
    assert stored.unmatched < 10


def test_an_event_without_a_prediction_keeps_its_label() -> None:
    at = np.array([1000, 1030], dtype=np.int64)
    rows = events._Rows(
        np.array([True, True]), np.zeros(2, np.uint64), pa.array(["a", "a"]), at, np.array([np.nan, 0.5]), {}
    )
    scope = Scope(0, 2000, 2, "EntityTime")
    whole = events._whole([rows], scope, 2, None)
    known = events.Labelled(Timed(pa.array(["a"]), np.array([1000])), np.array([1], np.int8))
    labels, unmatched = events.labels_of(whole, known, events.Place("account", False, 100), (0, 2000))
    assert (labels.tolist(), unmatched) == ([NO_LABEL], 0)


def test_what_is_near_a_window_is_read_too() -> None:
    assert events.Place("account", False, 1000).span(10_000, 20_000) == (8_000, 22_000)

"""Train/serve skew: what the live revision was asked, in capture files as the server writes them, against the rows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.trainer.lake import START, Lake, data_of, events, parquet, replaced, with_value
from truekeep.api.common import S3Location
from truekeep.contract import layout
from truekeep.contract.artifact import UNKNOWN_CATEGORY, SignatureFeature
from truekeep.contract.hashing import hashed as hash_of
from truekeep.contract.requests import Captured
from truekeep.server.capture_rows import Files, Rows
from truekeep.sources.columns import Want
from truekeep.storage import ObjectMissing, StoreUnreachable
from truekeep.storage.s3 import Fetched, ObjectInfo
from truekeep.trainer.data import comparison, served
from truekeep.trainer.data.dataset import DataFault, Dataset, load
from truekeep.trainer.data.rules import Known
from truekeep.trainer.text import EPOCH

ROWS = 1200
PREFIX = layout.captures("shop", "late", 3)
RECEIVED = datetime(2024, 2, 1, 12, tzinfo=UTC)
CAPTURED = Captured(revision=3, location=S3Location(uri="s3://lake/captures/"), prefix=PREFIX)
FEATURES = [Want("amount", "Number"), Want("kind", "Category")]


class Captures:
    """A store of capture files."""

    endpoint = "memory"

    def __init__(self, files: Mapping[str, bytes], fault: Exception | None = None) -> None:
        self.files = dict(files)
        self.fault = fault
        self.read: list[str] = []

    def uri(self, key: str = "") -> str:
        return f"s3://lake/captures/{key}"

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        if self.fault:
            raise self.fault
        for key in sorted(self.files):
            if key.startswith(prefix) and (start_after is None or key > start_after):
                yield ObjectInfo(key, len(self.files[key]), "etag", None, RECEIVED)

    def get(self, key: str) -> bytes:
        return self.files[key]

    def fetch(self, key: str, version_id: str | None = None, *, limit: int | None = None) -> Fetched:
        self.read.append(key)
        if key not in self.files:
            raise ObjectMissing(key)
        return Fetched(self.files[key], "etag", None)

    def put(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        raise AssertionError("nothing is written")


def capture(table: pa.Table, keys: bool = True, metadata: dict[str, str] | None = None) -> bytes:
    """A capture file of these events, asked a minute after they happened."""
    columns: dict[str, Any] = {
        "truekeep.event_time": table["at"],
        "truekeep.received_at": pa.array([RECEIVED] * table.num_rows, pa.timestamp("us", "UTC")),
        "truekeep.probability": pa.array(np.full(table.num_rows, 0.5)),
    }
    if keys:
        columns["truekeep.key"] = table["id"]
    for name in ("amount", "kind"):
        if name in table.column_names:
            columns[name] = table[name]
    made = pa.table(columns).replace_schema_metadata(metadata or {})
    buffer = io.BytesIO()
    pq.write_table(made, buffer)
    return buffer.getvalue()


def name(number: int, received: datetime = RECEIVED) -> str:
    return PREFIX.removesuffix("revision=3/") + layout.capture_file(
        3, received, layout.CaptureName(0, 1, "pod-1", number)
    )


def loaded(trained: pa.Table, store: Captures, rule: dict[str, Any] | None = None, left_out: Any = ()) -> Dataset:
    captured = CAPTURED.model_copy(update={"left_out": tuple(left_out)})
    skew = comparison._Skew(captured, lambda _: store)
    now = round((RECEIVED - EPOCH).total_seconds() * 1_000_000)
    data = data_of(rules=[{"name": "as-served", **rule}] if rule else [])
    return load(data, (), Lake({"rows/a.parquet": parquet(trained)}).open, now, lambda _: None, Known(skew=skew))


def test_the_same_events_with_the_same_values_are_no_skew() -> None:
    table = events(ROWS)
    single = replaced(table, "amount", np.asarray(table["amount"]).astype(np.float32))
    dataset = loaded(table, Captures({name(1): capture(single)}))
    assert dataset.read.violations == []
    assert dataset.read.not_judged == []


class Hashes:
    """What the server does to a column that is captured as hashes."""

    def all(self, values: Any) -> list[str | None]:
        return [None if value is None else hash_of(b"k" * 16, "kind", value) for value in values]


def written_by_the_server(table: pa.Table, hashed: bool = False) -> bytes:
    """The same in the server's own way."""
    features = [SignatureFeature(name="amount", type="Number"),
                SignatureFeature(name="kind", type="Category", categories=["a", "b"])]  # fmt: skip
    hashes = {"kind": Hashes()} if hashed else {}
    metadata = {layout.HASHED_COLUMNS: "kind"} if hashed else {}
    batch = Rows()
    for row in table.to_pylist():
        code = {"a": 0.0, "b": 1.0, None: np.nan}.get(row["kind"], UNKNOWN_CATEGORY)
        amount = np.nan if row["amount"] is None else row["amount"]
        batch.add(
            row["id"],
            np.array([[amount, code]]),
            np.array([0.5]),
            round((RECEIVED - EPOCH).total_seconds() * 1_000_000),
            event_times=[round((row["at"] - EPOCH).total_seconds() * 1_000_000)],
            keys=[row["id"]],
            unknown={1: [row["kind"]]} if code == UNKNOWN_CATEGORY else None,
        )
    return Files(features, 3, 0.5, hashes=hashes, metadata=metadata).file(batch)[0]


@pytest.mark.parametrize("hashed", [False, True])
def test_files_are_read_as_the_server_writes_them(hashed: bool) -> None:
    table = with_value(events(ROWS), "amount", 3, None)
    store = Captures({name(1): written_by_the_server(table, hashed)})
    left_out = ["kind"] if hashed else []
    same = loaded(table, store, left_out=left_out)
    assert same.read.violations == []
    assert same.read.not_judged == []
    kinds = ["z" if kind == "a" else kind for kind in table["kind"].to_pylist()]
    told = loaded(replaced(table, "kind", kinds), store, left_out=left_out).read.violations
    assert [one.column for one in told] == ([] if hashed else ["kind"])
    found = served.sample(store, PREFIX, FEATURES, RECEIVED)
    assert {want.name for want in found.columns} == ({"amount"} if hashed else {"amount", "kind"})


def test_by_key_a_row_is_named_with_both_its_values() -> None:
    table = events(ROWS)
    amounts = np.asarray(table["amount"]).copy()
    amounts[5::4] += 1  # a quarter of the requests had something else
    asked = replaced(table, "amount", amounts)
    dataset = loaded(table, Captures({name(1): capture(asked)}))
    (told,) = dataset.read.violations
    assert (told.check, told.severity, told.column) == ("skew", "Warn", "amount")
    assert told.count == len(amounts[5::4])
    assert (told.file, told.row) == ("s3://lake/rows/a.parquet", 6)
    assert "had another value when the live revision was asked" in told.problem
    place = dataset.violations[0].places[0]
    assert place.value == f"{np.asarray(table['amount'])[5]:g}, served as {amounts[5]:g},"


@pytest.mark.parametrize(("share", "found"), [(20, False), (5, True)])
def test_fewer_than_the_least_effect_do_not_count(share: int, found: bool) -> None:
    table = events(ROWS)
    kinds = ["z" if number % share == 0 else kind for number, kind in enumerate(table["kind"].to_pylist())]
    rule = {"severity": "Fail", "skew": {"minimumEffect": "0.1"}}
    store = Captures({name(1): capture(replaced(table, "kind", kinds))})
    if not found:
        assert loaded(table, store, rule).read.violations == []
        return
    with pytest.raises(DataFault, match=r"kind: rule as-served: 240 of 1,200 rows \(0.2000\) had another value"):
        loaded(table, store, rule)


def test_the_last_request_of_a_key_counts() -> None:
    table = events(ROWS)
    old = capture(replaced(table, "amount", [9.0] * ROWS))
    assert loaded(table, Captures({name(1): old, name(2): capture(table)})).read.violations == []


def test_a_value_that_only_one_side_has_is_skew() -> None:
    table = events(ROWS)
    dataset = loaded(table, Captures({name(1): capture(replaced(table, "amount", [None] * ROWS, pa.float64()))}))
    assert [(one.column, one.count) for one in dataset.read.violations] == [("amount", ROWS)]
    without = loaded(table, Captures({name(1): capture(table.drop_columns("amount"))}))
    assert [one.column for one in without.read.violations] == ["amount"]
    dropped = loaded(table, Captures({name(1): capture(table.drop_columns("amount"))}), left_out=["amount"])
    assert dropped.read.violations == [], "what is not captured on purpose is not missed"
    hashed = {layout.HASHED_COLUMNS: "amount"}
    with_hash = replaced(table, "amount", ["ab" * 16] * ROWS)
    told = loaded(table, Captures({name(1): capture(with_hash, metadata=hashed)}), left_out=["amount"])
    assert told.read.violations == []


def test_without_keys_the_distributions_of_the_same_time_are_compared() -> None:
    table = events(ROWS)
    same = loaded(table, Captures({name(1): capture(table, keys=False)}))
    assert same.read.violations == []
    assert same.read.not_judged == []
    moved = replaced(table, "amount", np.asarray(table["amount"]) * 100)
    (told,) = loaded(table, Captures({name(1): capture(moved, keys=False)})).read.violations
    assert told.column == "amount"
    assert "what was served lies elsewhere (KolmogorovSmirnov 0." in told.problem
    recoded = replaced(table, "kind", [kind.upper() for kind in table["kind"].to_pylist()])
    (told,) = loaded(table, Captures({name(1): capture(recoded, keys=False)})).read.violations
    assert told.column == "kind"
    assert "TotalVariation 1.0000" in told.problem


def test_drift_is_not_taken_for_skew() -> None:
    """The world moved after the requests began: in the time that both cover the two agree."""
    table = events(2 * ROWS)
    amounts = np.asarray(table["amount"]).copy()
    amounts[ROWS:] += 5
    table = replaced(table, "amount", amounts)
    later = capture(table.slice(ROWS), keys=False)
    assert loaded(table, Captures({name(1): later})).read.violations == []
    elsewhen = table.slice(ROWS)
    times = [START + timedelta(days=90, minutes=number) for number in range(ROWS)]
    elsewhen = replaced(elsewhen, "at", times, pa.timestamp("us", "UTC"))
    only_old = loaded(table.slice(0, ROWS), Captures({name(1): capture(elsewhen, keys=False)}))
    (told,) = only_old.read.violations
    assert "of the newest" in told.problem, "of other times, that is said"


@pytest.mark.parametrize(
    ("store", "why"),
    [
        (Captures({}), "0 captured requests of the live revision, it takes 500"),
        (Captures({name(1): capture(events(499))}), "499 captured requests of the live revision, it takes 500"),
        (Captures({name(1): b"PAR1 and no more"}), "0 captured requests of the live revision, it takes 500"),
        (Captures({}, StoreUnreachable("could not list")), "the captured requests can't be read: could not list"),
    ],
)
def test_too_little_is_an_answer_of_its_own(store: Captures, why: str) -> None:
    read = loaded(events(ROWS), store, {"severity": "Fail", "skew": {}}).read
    assert read.violations == []
    assert read.not_judged == [f"as-served: not judged: {why}"]


def test_a_few_rows_of_training_are_too_few() -> None:
    read = loaded(events(300), Captures({name(1): capture(events(ROWS), keys=False)})).read
    assert read.not_judged == ["skew: not judged: 300 rows, it takes 500"]


def test_a_sample_is_bounded_and_of_the_newest() -> None:
    table = events(300)
    old = {name(n, RECEIVED - timedelta(days=20, minutes=n)): capture(table) for n in range(100)}
    new = {name(n, RECEIVED - timedelta(minutes=n)): capture(table) for n in range(60)}
    store = Captures({**old, **new})
    found = served.sample(store, PREFIX, FEATURES, RECEIVED)
    assert len(store.read) == served.MOST_FILES
    assert set(store.read) <= set(new), "the last hour has enough"
    assert len(found) == served.MOST_FILES * 300
    fewer = Captures({**old, **dict(list(new.items())[:3])})
    assert served.newest(fewer, PREFIX, RECEIVED)[-1].key == max(fewer.files)


def test_many_rows_are_thinned_evenly() -> None:
    table = events(served.MOST_ROWS // 4)
    store = Captures({name(n): capture(table) for n in range(8)})
    found = served.sample(store, PREFIX, FEATURES, RECEIVED)
    assert len(found) == served.MOST_ROWS
    assert {want.name for want in found.columns} == {"amount", "kind"}


def test_a_null_in_both_is_the_same() -> None:
    table = with_value(with_value(events(ROWS), "amount", 3, None), "kind", 4, None)
    assert loaded(table, Captures({name(1): capture(table)})).read.violations == []

"""Reading a source: which objects, which columns, which rows; and what is said of a file that is not in order."""

from __future__ import annotations

import gzip
import hashlib
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.trainer.lake import START, Memory, csv_of, events, parquet
from truekeep.sources.columns import Want
from truekeep.sources.read import Found, Selection, Table, read_table
from truekeep.storage import StoreUnreachable
from truekeep.storage.s3 import Fetched
from truekeep.trainer.text import EPOCH

AT, KEY = Want("at", "Time"), Want("id", "Category")
AMOUNT, KIND, LATE = Want("amount", "Number"), Want("kind", "Category"), Want("late", "Label")
ALL = (AT, KEY, AMOUNT, KIND, LATE)
EVERYTHING = Selection(AT, lambda values: np.ones(len(values), dtype=bool))


def read(files: dict[str, bytes], wants: tuple[Want, ...] = ALL, selection: Selection = EVERYTHING) -> Table:
    return read_table(Memory("s3://lake/rows/", files), "source", wants, selection)


def told(table: Table) -> list[tuple[int, str, list[int] | None]]:
    """The problems: file, column, rows."""
    rows = [None if one.bad.positions is None else one.bad.positions.tolist() for one in table.problems]
    return [(one.file, one.column, row) for one, row in zip(table.problems, rows, strict=True)]


def micros(minutes: int) -> int:
    return round((START - EPOCH).total_seconds() + minutes * 60) * 1_000_000


def test_parquet_csv_and_gzip_are_the_same() -> None:
    table = events(30)
    parts = [table.slice(0, 10), table.slice(10, 10), table.slice(20)]
    got = read(
        {"a.parquet": parquet(parts[0]), "b.csv": csv_of(parts[1]), "sub/c.csv.gz": gzip.compress(csv_of(parts[2]))}
    )
    assert told(got) == []
    assert got.files == [f"s3://lake/rows/{name}" for name in ("a.parquet", "b.csv", "sub/c.csv.gz")]
    assert got.file_of.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert got.row_of.tolist() == list(range(1, 11)) * 3
    np.testing.assert_allclose(got.columns[AMOUNT], table["amount"].to_numpy(), rtol=1e-12)
    assert got.columns[KIND].to_pylist() == table["kind"].to_pylist()
    assert got.columns[KEY].to_pylist() == table["id"].to_pylist()
    assert got.columns[LATE].tolist() == table["late"].to_pylist()
    assert got.columns[AT].tolist() == [micros(10 * number) for number in range(30)]


def test_every_object_is_pinned() -> None:
    files = {"a.parquet": parquet(events(10)), "b.csv": csv_of(events(5))}
    pins = read(files).pins
    assert [pin.uri for pin in pins] == ["s3://lake/rows/a.parquet", "s3://lake/rows/b.csv"]
    assert [pin.sha256 for pin in pins] == [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in files.values()]
    assert [pin.size for pin in pins] == [len(data) for data in files.values()]
    assert [pin.rows for pin in pins] == [10, 5]
    assert {pin.etag for pin in pins} == {"etag"}


def test_only_data_files_are_read() -> None:
    table = parquet(events(3))
    files = {"a.parquet": table, "_SUCCESS": b"", ".a.parquet": b"", "_tmp/b.parquet": table, "readme.txt": b"x"}
    got = read({**files, "day=1/_metadata.parquet": b"x"})
    assert [pin.uri for pin in got.pins] == ["s3://lake/rows/_tmp/b.parquet", "s3://lake/rows/a.parquet"]


def test_unwanted_columns_are_not_decoded() -> None:
    got = read({"a.csv": b"at,id,note\n2024-01-01,x,\xff\xfe\n"}, (AT, KEY))
    assert told(got) == []
    assert set(got.columns) == {AT, KEY}
    assert set(got.known) == {"at", "id", "note"}


def test_rows_out_of_use_are_dropped_and_others_keep_their_numbers() -> None:
    selection = Selection(AT, lambda values: np.asarray(values >= micros(70)))  # type: ignore[operator]
    for name, data in (("a.parquet", parquet(events(10), row_group_size=3)), ("a.csv", csv_of(events(10)))):
        got = read({name: data}, selection=selection)
        assert got.row_of.tolist() == [8, 9, 10]
        assert got.pins[0].rows == 10
        assert len(got.columns[KIND]) == 3


def test_row_groups_that_are_too_old_are_skipped_by_their_statistics() -> None:
    converted: list[int] = []

    def keep(values: Any) -> Any:
        converted.append(len(values))
        return np.ones(len(values), dtype=bool)

    selection = Selection(AT, keep, lambda greatest: greatest < micros(50))
    for kind in (pa.timestamp("us", "UTC"), pa.timestamp("ms"), pa.timestamp("ns", "UTC")):
        converted.clear()
        table = events(10).set_column(1, "at", events(10)["at"].cast(kind))
        got = read({"a.parquet": parquet(table, row_group_size=3)}, selection=selection)
        assert got.row_of.tolist() == [4, 5, 6, 7, 8, 9, 10]  # the group of rows 1 to 3 ends at minute 20
        assert sorted(converted) == [1, 3, 3]
        assert got.pins[0].rows == 10


def test_a_row_group_with_a_null_time_is_not_skipped() -> None:
    table = events(6)
    table = table.set_column(1, "at", pa.array([None, *table["at"].to_pylist()[1:]], pa.timestamp("us", "UTC")))
    selection = Selection(AT, lambda values: np.ones(len(values), dtype=bool), lambda _: True)
    assert read({"a.parquet": parquet(table, row_group_size=3)}, selection=selection).row_of.tolist() == [1, 2, 3]


def test_the_newest_key_is_read_first_and_the_order_is_kept() -> None:
    source = Memory("s3://lake/rows/", {f"{n:02d}.parquet": parquet(events(2, seed=n)) for n in range(20)})
    got = read_table(source, "source", ALL, EVERYTHING)
    assert [pin.uri[-10:] for pin in got.pins] == [f"{n:02d}.parquet" for n in range(20)]
    assert source.fetched[0] == "19.parquet"
    assert got.file_of.tolist() == [n for n in range(20) for _ in range(2)]


def test_values_that_are_wrong_are_told_by_file_and_row() -> None:
    got = read(
        {
            "a.csv": b"at,id,amount,kind,late\n2024-01-01,k1,1,a,0\n2024-01-02,k2,x,a,maybe\nnever,k3,3,b,1\n",
            "b.parquet": parquet(events(3).set_column(2, "amount", pa.array(["1", "2", "3"]))),
        }
    )
    assert sorted(told(got), key=str) == [
        (0, "amount", [2]),
        (0, "at", [3]),
        (0, "late", [2]),
        (1, "amount", None),
    ]
    assert np.isnan(got.columns[AMOUNT]).tolist() == [False, True, False, True, True, True]


def test_a_row_whose_time_is_unreadable_is_kept_to_be_told() -> None:
    selection = Selection(AT, lambda values: np.zeros(len(values), dtype=bool))
    got = read({"a.csv": b"at,id\n2024-01-01,k1\nnever,k2\n"}, (AT, KEY), selection)
    assert got.row_of.tolist() == [2]
    assert told(got) == [(0, "at", [2])]


def test_a_column_that_one_file_lacks_is_told() -> None:
    got = read({"a.csv": b"at,id,amount\n2024-01-01,k1,1\n", "b.csv": b"at,id\n2024-01-02,k2\n"})
    assert told(got) == [(1, "amount", None)]
    assert got.columns[AMOUNT].tolist()[0] == 1
    assert np.isnan(got.columns[AMOUNT][1])
    assert KIND not in got.columns


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.parquet", b"PAR1 nothing PAR1", "is no readable Parquet file"),
        ("a.parquet", parquet(events(100))[:-200], "is no readable Parquet file"),
        ("a.parquet", b"", "is no readable Parquet file"),
        ("a.csv", b"", "is no readable CSV file (it is empty"),
        ("a.csv", b"at,id\n2024-01-01,\xff\n", "is no readable CSV file"),
        ("a.csv", b"\xff\xfeat,id\n", "is no readable CSV file"),
        ("a.csv.gz", b"at,id\n2024-01-01,k\n", "is no readable CSV file"),
        ("a.csv.gz", gzip.compress(csv_of(events(1000)))[:-100], "is no readable CSV file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_problem(name: str, data: bytes, words: str) -> None:
    got = read({name: data, "b.parquet": parquet(events(3))})
    assert len(got) == 3
    [problem] = got.problems
    assert isinstance(problem, Found)
    assert problem.column == ""
    assert problem.bad.problem.startswith(words)


def test_rows_of_another_length_than_the_header_are_counted() -> None:
    got = read({"a.csv": b"at,id\n2024-01-01,k1\n2024-01-02\n2024-01-03,k3,x\n2024-01-04,k4\n"}, (AT, KEY))
    [problem] = got.problems
    assert problem.column == ""
    assert problem.bad.positions is not None
    assert problem.bad.positions.tolist() == [2, 3]
    assert list(problem.bad.values) == ["1 values", "3 values"]
    assert "has not the 2 values of the header" in problem.bad.problem


def test_a_column_that_is_there_twice_is_told() -> None:
    for name, data in {
        "a.csv": b"at,id,amount,amount\n2024-01-01,k1,1,2\n",
        "a.parquet": parquet(pa.Table.from_arrays([pa.array([1.0])] * 2, names=["amount", "amount"])),
    }.items():
        assert told(read({name: data})) == [(0, "amount", None)]


def test_a_file_without_rows_is_read() -> None:
    got = read({"a.parquet": parquet(events(1).slice(0, 0)), "b.csv": csv_of(events(1).slice(0, 0))})
    assert told(got) == []
    assert len(got) == 0
    assert len(got.columns[KIND]) == 0


def test_types_of_all_files_are_known() -> None:
    other = events(1).set_column(2, "amount", pa.array([1], pa.int64()))
    got = read({"a.parquet": parquet(events(1)), "b.parquet": parquet(other), "c.csv": csv_of(events(1))})
    assert got.known["amount"] == "double or int64 or text"


def test_quoted_newlines_commas_and_marks_at_the_front_are_read() -> None:
    got = read({"a.csv": b'\xef\xbb\xbfat,id,kind\n2024-01-01,k1,"a,\nb"\n'}, (AT, KEY, KIND))
    assert told(got) == []
    assert got.columns[KIND].to_pylist() == ["a,\nb"]
    assert got.columns[AT].tolist() == [micros(0)]


def test_a_fault_of_the_store_is_one_of_the_store() -> None:
    class Gone(Memory):
        def fetch(self, key: str, version_id: str | None = None) -> Fetched:
            raise StoreUnreachable("gone")

    with pytest.raises(StoreUnreachable):
        read_table(Gone("s3://lake/rows/", {"a.csv": b"x"}), "source", ALL, EVERYTHING)


def test_one_column_can_be_wanted_as_two_kinds() -> None:
    code = Want("code", "Number"), Want("code", "Category")
    got = read({"a.csv": b"at,id,code\n2024-01-01,k1,7\n"}, (AT, KEY, *code))
    assert got.columns[code[0]].tolist() == [7.0]
    assert got.columns[code[1]].to_pylist() == ["7"]


def test_time_zones_do_not_move_events() -> None:
    local = (START + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00")
    assert read({"a.csv": f"at,id\n{local},k1\n".encode()}, (AT, KEY)).columns[AT].tolist() == [micros(0)]

"""Further forms of a source: Hive partitions, compression, large files, and what is too much to be read."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.sources.test_read import ALL, AMOUNT, AT, EVERYTHING, KEY, KIND, micros, read, told
from tests.unit.trainer.lake import START, Memory, csv_of, events, parquet
from truekeep.sources import files, objects
from truekeep.sources.columns import Want
from truekeep.sources.errors import Changed, OutOfMemory, TooLarge
from truekeep.sources.memory import GIB, Guard, limit, used
from truekeep.sources.objects import MOST_FILES, MOST_LISTED
from truekeep.sources.read import Selection, read_table
from truekeep.storage import StoreUnreachable
from truekeep.storage.s3 import Fetched, ObjectInfo

HOSTILE = b"at,id\n" + b"2024-01-01,k\n" * 5


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def test_zstd_is_read_as_gzip_is() -> None:
    table = events(20)
    got = read({"a.csv.zst": zstd(csv_of(table.slice(0, 10))), "b.csv.gz": gzip.compress(csv_of(table.slice(10)))})
    assert told(got) == []
    assert got.columns[KEY].to_pylist() == table["id"].to_pylist()


def test_streams_one_after_the_other_in_one_file_are_all_read() -> None:
    table = events(20)
    tail = csv_of(table.slice(10)).partition(b"\n")[2]
    first = csv_of(table.slice(0, 10))
    for name, data in (
        ("a.csv.gz", gzip.compress(first) + gzip.compress(tail)),
        ("a.csv.zst", zstd(first) + zstd(tail)),
    ):
        assert read({name: data}).columns[KEY].to_pylist() == table["id"].to_pylist()


@pytest.mark.parametrize("name", ["a.csv.zst", "a.csv.gz"])
def test_a_torn_stream_is_one_problem_and_nothing_of_it_is_used(name: str) -> None:
    data = csv_of(events(20_000))
    torn = (zstd if name.endswith("zst") else gzip.compress)(data)[:-1000]
    got = read({name: torn, "b.csv": csv_of(events(3))})
    [problem] = got.problems
    assert (problem.file, problem.column) == (0, "")
    assert problem.bad.problem.startswith("is no readable CSV file")
    assert len(got) == 3


def test_folders_are_columns_read_as_what_the_model_declares() -> None:
    month, year = Want("month", "Number"), Want("month", "Category")
    country = Want("country", "Category")
    rows = events(2)
    got = read(
        {
            "month=01/country=D%C3%BC%2Fs/a.parquet": parquet(rows.slice(0, 1)),
            "month=02/country=__HIVE_DEFAULT_PARTITION__/b.csv": csv_of(rows.slice(1)),
        },
        (AT, KEY, month, year, country),
    )
    assert told(got) == []
    assert got.columns[month].tolist() == [1.0, 2.0]
    assert got.columns[year].to_pylist() == ["01", "02"]
    assert got.columns[country].to_pylist() == ["Dü/s", None]
    assert got.known["month"] == "partition"


def test_a_time_of_folders_selects_rows() -> None:
    day = Want("day", "Time")
    selection = Selection(day, lambda values: np.asarray(values) >= micros(1440))
    files = {f"day=2024-01-0{n}/a.parquet": parquet(events(3, seed=n)) for n in (1, 2, 3)}
    got = read(files, (day, KEY), selection)
    assert got.file_of.tolist() == [1] * 3 + [2] * 3
    assert got.columns[day].tolist() == [micros(1440)] * 3 + [micros(2880)] * 3


def test_a_folder_that_is_no_value_of_the_kind_is_told_for_its_rows() -> None:
    month = Want("month", "Number")
    assert told(read({"month=May/a.csv": csv_of(events(2))}, (AT, KEY, month))) == [(0, "month", [1, 2])]


def test_a_column_in_the_file_and_in_its_path_is_told() -> None:
    got = read({"kind=a/a.csv": csv_of(events(2))})
    [problem] = got.problems
    assert (problem.column, problem.bad.problem) == ("kind", "is in the file and in its path (kind=a)")
    assert told(read({"kind=a/a.csv": csv_of(events(2))}, (AT, KEY))) == []  # nobody wants it


def test_files_that_lack_a_partition_are_told() -> None:
    month = Want("month", "Number")
    files = {"month=1/a.csv": csv_of(events(1)), "z.csv": csv_of(events(1))}
    assert told(read(files, (AT, KEY, month))) == [(1, "month", None)]


def test_the_file_and_the_row_of_another_shape_are_named() -> None:
    """The seventh of nine files has other columns, the eighth a row too short."""
    good = {f"{n}.csv": csv_of(events(3, seed=n)) for n in range(9)}
    lines = good["7.csv"].splitlines(keepends=True)
    got = read(
        {**good, "6.csv": b"at,id,price\n2024-01-01,k,1\n", "7.csv": b"".join([*lines[:2], b"x,y\n", *lines[2:]])}
    )
    assert told(got) == [(7, "", [2]), (6, "amount", None), (6, "kind", None), (6, "late", None)]
    assert got.files[6].endswith("6.csv")
    assert got.row_of[got.file_of == 7].tolist() == [1, 3, 4]  # and the rows after it keep their own numbers


def test_a_large_object_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SPOOLED_FROM", 1000)
    monkeypatch.setattr(objects, "PIECE", 700)
    contents = {"a.parquet": parquet(events(300)), "b.csv": csv_of(events(300)), "c.csv": csv_of(events(3))}
    source = Memory("s3://lake/rows/", contents)
    got = read_table(source, "source", ALL, EVERYTHING)
    assert told(got) == []
    assert len(got) == 603
    assert [pin.sha256 for pin in got.pins] == [f"sha256:{hashlib.sha256(d).hexdigest()}" for d in contents.values()]
    assert [pin.size for pin in got.pins] == [len(data) for data in contents.values()]
    assert source.fetched.count("b.csv") == -(-len(contents["b.csv"]) // 700)


def test_an_object_that_is_replaced_while_it_is_read_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SPOOLED_FROM", 10)
    monkeypatch.setattr(objects, "PIECE", 10)

    class Replaced(Memory):
        def fetch(self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None) -> Fetched:
            fetched = super().fetch(key, version_id, span=span)
            return Fetched(fetched.data, f"etag-{len(self.fetched) > 2}", None)

    with pytest.raises(StoreUnreachable, match=r"a\.csv was replaced while it was read"):
        read_table(Replaced("s3://lake/rows/", {"a.csv": HOSTILE}), "source", (AT, KEY), EVERYTHING)


@pytest.mark.parametrize("spooled", [True, False])
def test_a_listing_may_say_what_the_bytes_must_be(spooled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if spooled:
        monkeypatch.setattr(objects, "SPOOLED_FROM", 10)

    class Pinned(Memory):
        def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
            yield ObjectInfo("a.csv", len(HOSTILE), "", None, START, "sha256:0")

    with pytest.raises(Changed, match=r"a\.csv was pinned with sha256:0, now it has sha256:"):
        read_table(Pinned("s3://lake/rows/", {"a.csv": HOSTILE}), "source", (AT, KEY), EVERYTHING)


@pytest.mark.parametrize(
    ("key", "size", "words"),
    [
        ("part-{}.csv", 1, f"more than {MOST_FILES:,} files of data lie below s3://lake/rows/; bring them together"),
        ("log-{}.json", 1, f"more than {MOST_LISTED:,} objects lie below s3://lake/rows/"),
        ("part-{}.csv", 4 << 30, "part-0.csv has 4.0 GiB, at most 3 GiB are read as one file; write it as several"),
    ],
)
def test_a_prefix_with_too_much_in_it_ends_the_listing(key: str, size: int, words: str) -> None:
    class Endless(Memory):
        listed = 0

        def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
            while True:
                yield ObjectInfo(key.format(self.listed), size, "", None, START)
                self.listed += 1

    source = Endless("s3://lake/rows/", {})
    with pytest.raises(TooLarge) as error:
        read_table(source, "source", ALL, EVERYTHING)
    assert words in str(error.value)
    assert source.fetched == []
    assert source.listed <= MOST_LISTED


def test_reading_ends_with_words_before_memory_does() -> None:
    amounts = iter([0.1, 0.2, 0.63, 0.65, 0.66])
    guard = Guard(2 * GIB, lambda: round(next(amounts) * 2 * GIB))
    source = Memory("s3://lake/rows/", {f"{n}.parquet": parquet(events(100, seed=n)) for n in range(4)})
    with pytest.raises(OutOfMemory) as error:
        read_table(source, "source", ALL, EVERYTHING, guard)
    assert str(error.value) == (
        "source does not fit into memory: with 300 rows of use in 3 of 4 files, 1.30 of 2.00 GiB are in use, and "
        "reading may bring it to 1.28; declare spec.data.sample, shorten spec.data.window, or raise "
        "resources.limits.memory"
    )


def test_what_is_in_use_is_less_than_the_limit_and_grows_with_what_is_held() -> None:
    before = used()
    assert 0 < before < limit()
    held = np.ones(64 << 20, dtype=np.uint8)
    assert used() - before > 32 << 20
    del held


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.parquet"])
def test_what_is_held_of_a_large_file_is_a_piece_and_the_rows_of_use(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file, of which only the last rows are of use: no piece is larger than declared, all are seen once."""
    monkeypatch.setattr(files, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(files, "BATCH_ROWS", 100)
    table = events(5000)
    packed = {"csv": csv_of, "gz": lambda t: gzip.compress(csv_of(t)), "zst": lambda t: zstd(csv_of(t))}
    data = packed.get(name.rpartition(".")[2], parquet)(table)
    seen: list[int] = []

    def keep(values: object) -> np.ndarray:
        times = np.asarray(values)
        seen.append(len(times))
        return np.asarray(times >= micros(10 * 4990))

    got = read({name: data}, selection=Selection(AT, keep))
    assert told(got) == []
    assert max(seen) <= 130
    assert sum(seen) == 5000
    assert got.row_of.tolist() == list(range(4991, 5001))
    assert got.pins[0].rows == 5000


def test_what_is_wrong_in_several_pieces_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 4096)
    rows = [f"2024-01-01,k{n},{'x' if n % 500 == 7 else n},a,0" for n in range(2000)]
    got = read({"a.csv": "\n".join(["at,id,amount,kind,late", *rows, ""]).encode()})
    assert told(got) == [(0, "amount", [8, 508, 1008, 1508])]
    assert len(got.columns[AMOUNT]) == len(got.columns[KIND]) == 2000

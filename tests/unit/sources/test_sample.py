"""A sample by the hash of the key: the same rows each time, no more than declared, and no more held on the way."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.sources.test_read import AMOUNT, AT, KEY, micros
from tests.unit.trainer.lake import Memory, csv_of, events, parquet
from truekeep.api.sample import Sample
from truekeep.sources import files
from truekeep.sources.read import Selection, Table, _Held, read_table
from truekeep.sources.sample import Sampler, hashes

TEXTS = ["", "a", "k1", "k2", "Zürich", "x" * 300, "k1", None, "äöü"]


def plain_hash(text: str, seed: int) -> int:
    """The stated hash, byte by byte."""
    state = 0xCBF29CE484222325 ^ seed
    for byte in text.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 1):
        state ^= state >> 33
        state = state * factor % 2**64
    return state


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_the_hash_is_the_stated_one(seed: int, kind: pa.DataType) -> None:
    expected = [0 if text is None else plain_hash(text, seed) for text in TEXTS]
    assert hashes(pa.array(TEXTS, kind), seed).tolist() == expected
    assert hashes(pa.array(["b", *TEXTS], kind).slice(1), seed).tolist() == expected
    assert hashes(pa.array([], kind), seed).tolist() == []
    assert hashes(pa.array([None, None], kind), seed).tolist() == [0, 0]


def read(contents: dict[str, bytes], sample: dict[str, Any], window: int | None = None) -> tuple[Table, Sampler]:
    """The sample of the rows, of the last so many minutes."""
    sampler = Sampler(Sample.model_validate(sample))
    newest = micros(0)

    def keep(values: Any) -> np.ndarray:
        nonlocal newest
        newest = max(newest, int(values.max(initial=0)))
        return np.ones(len(values), bool) if window is None else values > newest - window * 60_000_000

    selection = Selection(AT, keep, sample=sampler, key=KEY)
    return read_table(Memory("s3://lake/rows/", contents), "source", (AT, KEY, AMOUNT), selection), sampler


def parts(rows: int = 3000, many: int = 6) -> dict[str, bytes]:
    table, each = events(rows), rows // many
    return {f"{n}.parquet": parquet(table.slice(n * each, each), row_group_size=100) for n in range(many)}


def keys(table: Table) -> list[str]:
    values: Any = table.columns[KEY]
    return list(values.to_pylist())


@pytest.mark.parametrize("fraction", ["0.1", "0.333", "1", "1.0"])
def test_a_fraction_keeps_the_keys_below_it(fraction: str) -> None:
    got, sampler = read(parts(), {"fraction": fraction, "seed": 3})
    all_keys = events(3000)["id"].to_pylist()
    assert keys(got) == [key for key in all_keys if plain_hash(key, 3) < float(fraction) * 2**64]
    assert len(got) == pytest.approx(3000 * float(fraction), rel=0.15)
    assert sampler.seen == 3000


def test_a_greatest_number_keeps_the_smallest_hashes_whatever_the_order_of_files() -> None:
    contents = parts()
    got, sampler = read(contents, {"maxRows": 500})
    wanted = set(sorted(events(3000)["id"].to_pylist(), key=lambda key: plain_hash(key, 0))[:500])
    assert keys(got) == [key for key in events(3000)["id"].to_pylist() if key in wanted]
    assert sampler.seen == 3000
    names = list(contents)
    random.Random(1).shuffle(names)
    shuffled = dict(zip(contents, (contents[name] for name in names), strict=True))
    assert set(keys(read(shuffled, {"maxRows": 500})[0])) == wanted
    assert keys(read({"all.csv": csv_of(events(3000))}, {"maxRows": 500})[0]) == keys(got)
    assert set(keys(read(contents, {"maxRows": 500, "seed": 1})[0])) != wanted


def test_fewer_rows_than_the_greatest_number_all_stay() -> None:
    got, sampler = read(parts(600), {"maxRows": 600})
    assert (len(got), sampler.seen) == (600, 600)


def test_all_rows_of_a_key_go_the_same_way() -> None:
    table = events(1000)
    contents = {"a.parquet": parquet(table), "b.parquet": parquet(table)}
    for declared in ({"maxRows": 333}, {"fraction": "0.2"}):
        got = keys(read(contents, declared)[0])
        assert len(got) == 2 * len(set(got)) > 0
        assert len(got) <= 333 or "fraction" in declared


def test_the_greatest_number_is_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that fall out of the window, because a later file is newer, take nobody's place."""
    contents = parts()
    backwards = dict(zip(reversed(list(contents)), contents.values(), strict=True))
    got, _ = read(backwards, {"maxRows": 200}, window=10 * 1000)
    times = np.asarray(got.columns[AT])
    inside = [key for key in keys(got) if int(key[1:]) - int(events(1)["id"][0].as_py()[1:]) >= 2000]
    assert len(inside) <= 200
    assert (times > micros(10 * 2999) - 10 * 1000 * 60_000_000).all()


def test_no_more_is_held_on_the_way_than_twice_the_sample_and_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 500)
    held: list[int] = []
    take = _Held.take

    def watched(self: _Held, *arguments: Any) -> None:
        take(self, *arguments)
        held.append(sum(len(piece.rows) for piece in self._pieces))

    monkeypatch.setattr(_Held, "take", watched)
    got, sampler = read({"a.parquet": parquet(events(60_000))}, {"maxRows": 1000})
    assert (len(got), sampler.seen) == (1000, 60_000)
    assert len(held) == 120
    assert max(held) <= 2000


def test_rows_without_a_key_or_a_time_are_kept_to_be_told() -> None:
    data = b"at,id,amount\n" + b"".join(b"2024-01-01,k%d,1\n" % n for n in range(1000)) + b"2024-01-01,,1\nnever,x,1\n"
    for declared in ({"maxRows": 100}, {"fraction": "0.01"}):
        got, _ = read({"a.csv": data}, declared)
        assert None in keys(got)
        assert [row for row in got.row_of.tolist() if row > 1000] == [1001, 1002]
        assert [problem.column for problem in got.problems] == ["at"]

"""Tables that are read column by column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.canonical import canonical_json
from truekeep.profiling import build, cells
from truekeep.profiling.build import Arrays, profile_table, window, window_of_table
from truekeep.profiling.schema import Profile
from truekeep.profiling.tables import BATCH_ROWS, ParquetTable, TableError, feature_type

N = BATCH_ROWS + 5000
FEATURES = [SignatureFeature(name="x.y", type="Number"), SignatureFeature(name="kind", type="Category")]


def columns(seed: int = 0, n: int = N) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "x.y": pa.array(np.round(rng.standard_cauchy(n), 3), mask=rng.random(n) < 0.05),
        "kind": pa.array(rng.choice(["a", "b", "é", None], n)),
        "day": pa.array(np.arange(n), pa.timestamp("s")),
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tables") / "t.parquet"
    pq.write_table(pa.table(columns()), found, row_group_size=40_000)
    return found


def test_a_file_has_the_profile_of_its_columns(path: Path) -> None:
    from_file = profile_table(ParquetTable(path), FEATURES)
    in_memory = profile_table(Arrays(columns(), N), FEATURES, threads=1)
    assert canonical_json(from_file.dump()) == canonical_json(in_memory.dump())


def test_a_window_of_a_file_is_that_of_its_columns(path: Path) -> None:
    there = profile_table(Arrays(columns(5), N), FEATURES)
    found = window_of_table(ParquetTable(path), there, names={"x.y": "x.y", "kind": "kind"})
    whole = window({name: columns()[name] for name in ("x.y", "kind")}, there)
    for mine, theirs in zip(found.columns, whole.columns, strict=True):
        assert (mine.rows, mine.nulls, mine.numeric.counts) == (theirs.rows, theirs.nulls, theirs.numeric.counts)
        assert mine.categorical == theirs.categorical
    absent = window_of_table(ParquetTable(path), there, names={"kind": "kind"})
    assert [c.absent for c in absent.columns] == [N, 0]


def test_beyond_the_sample_cells_are_nearly_as_good_and_all_rows_are_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = profile_table(ParquetTable(path), FEATURES).columns
    monkeypatch.setattr(build, "SAMPLE_ROWS", 20_000)
    sampled = profile_table(ParquetTable(path), FEATURES).columns
    assert sampled == profile_table(ParquetTable(path), FEATURES, threads=1).columns
    mine, theirs = sampled[0].numeric, whole[0].numeric
    assert sum(mine.counts) == sum(theirs.counts)
    assert (mine.minimum, mine.maximum, mine.mean) == (theirs.minimum, theirs.maximum, theirs.mean)
    assert mine.above(mine.maximum or 0.0) == mine.below(mine.minimum or 0.0) == 0
    assert mine.resolution < 1.6 / cells.CELLS
    values = columns()["x.y"].drop_null().to_numpy()
    for quantile in mine.quantiles:
        assert quantile.q <= (values <= quantile.value).mean() <= quantile.q + 2 / cells.CELLS
    assert sampled[1] == whole[1]


def test_categories_beyond_what_is_counted_at_once_lose_no_frequent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n = 30_000
    names = np.where(rng.random(n) < 0.3, rng.integers(0, 3, n), np.arange(n) + 100).astype(str).astype(object)

    class Parts(Arrays):
        def batches(self, name: str) -> Any:
            whole = self._columns[name]
            yield from (whole[start : start + 500] for start in range(0, n, 500))

    monkeypatch.setattr(build, "SAMPLE_ROWS", 1000)
    monkeypatch.setattr(build, "COUNTED_VALUES", 400)
    (found,) = profile_table(Parts({"kind": names}, n), FEATURES[1:], threads=1).columns
    exact = {value: int((names == value).sum()) for value in ("0", "1", "2")}
    assert {value: found.categorical.by_value[value] for value in exact} == exact
    assert found.values == n
    assert len(found.categorical.values) <= 1000


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    with pytest.raises(TableError, match="can't be read as Parquet"):
        ParquetTable(broken)
    pq.write_table(pa.table({"a": np.arange(100_000.0)}), broken)
    data = bytearray(broken.read_bytes())
    data[100:2000] = b"\xff" * 1900
    broken.write_bytes(data)
    with pytest.raises((TableError, ValueError)):
        list(ParquetTable(broken).batches("a"))
    with pytest.raises(KeyError):
        next(ParquetTable(broken).batches("b"))


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (pa.int8(), "Number"),
        (pa.float32(), "Number"),
        (pa.decimal128(9, 2), "Number"),
        (pa.bool_(), "Number"),
        (pa.string(), "Category"),
        (pa.dictionary(pa.int32(), pa.string()), "Category"),
        (pa.dictionary(pa.int32(), pa.int64()), "Number"),
        (pa.null(), "Category"),
        (pa.timestamp("us"), None),
        (pa.list_(pa.int8()), None),
    ],
)
def test_what_a_column_is_taken_for(kind: Any, found: str | None) -> None:
    assert feature_type(kind) == found


def test_a_profile_of_a_profile_reads_back(path: Path) -> None:
    found = profile_table(ParquetTable(path), FEATURES)
    assert Profile.model_validate_json(canonical_json(found.dump())).dump() == found.dump()

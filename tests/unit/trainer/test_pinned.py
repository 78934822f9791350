"""Data that is read again: the same objects, whatever happened to the prefix since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.conftest import Versitygw
from tests.unit.trainer.lake import ROWS, START, events, parquet, replaced, request_of
from truekeep.contract.requests import TrainRequest
from truekeep.storage.s3 import Bucket
from truekeep.trainer.data.dataset import Dataset, load
from truekeep.trainer.data.pinned import pinned
from truekeep.trainer.faults import DataChanged

NOW = round(START.timestamp() * 1e6) + 30 * 86400 * 1_000_000


class Twice:
    """A run's data, read once, and again by its pins."""

    def __init__(self, versitygw: Versitygw, versions: bool) -> None:
        store = versitygw.location(versions=versions)
        self.all = Bucket.open(store)
        self.request: TrainRequest = request_of(store)
        self.put(events())
        self.first = self.read()

    def put(self, table: object, key: str = "a.parquet") -> None:
        self.all.put(f"lake/rows/{key}", parquet(table))  # type: ignore[arg-type]

    def read(self) -> Dataset:
        return load(self.request.data, [], Bucket.open, NOW, lambda _: None)

    def again(self) -> Dataset:
        return load(self.request.data, [], pinned(Bucket.open, self.first.pins), NOW, lambda _: None)


@pytest.fixture
def twice(versitygw: Versitygw) -> Callable[[bool], Twice]:
    return lambda versions=False: Twice(versitygw, versions)


def test_what_came_since_is_not_seen(twice: Callable[..., Twice]) -> None:
    data = twice()
    data.put(events(rows=50, start=START.replace(month=3)), "b.parquet")
    assert len(data.read()) == ROWS + 50
    again = data.again()
    assert (again.pins, again.read, len(again)) == (data.first.pins, data.first.read, ROWS)


def test_an_object_that_is_another_one_is_refused(twice: Callable[..., Twice]) -> None:
    data = twice()
    table = events()
    data.put(replaced(table, "amount", table["amount"].to_numpy() + 1))
    with pytest.raises(DataChanged, match=r"a\.parquet was read with sha256:.*, now it has sha256:"):
        data.again()


def test_an_object_that_is_gone_is_refused(twice: Callable[..., Twice]) -> None:
    data = twice()
    data.first = replace(data.first, pins=tuple(replace(p, uri=p.uri + ".parquet") for p in data.first.pins))
    with pytest.raises(DataChanged, match=r"and is gone now; put it back"):
        data.again()


def test_a_bucket_with_versions_keeps_what_was_read(twice: Callable[..., Twice]) -> None:
    data = twice(True)
    data.put(events(seed=2))
    assert data.read().read.digest != data.first.read.digest
    assert data.again().read == data.first.read


def test_a_source_is_read_below_its_own_prefix_alone(twice: Callable[..., Twice]) -> None:
    data = twice()
    elsewhere = data.request.data.source.s3.model_copy(
        update={"uri": data.request.data.source.s3.uri.replace("/rows/", "/other/")}
    )
    assert list(pinned(Bucket.open, data.first.pins)(elsewhere).list()) == []

"""A small made-up lake: sources in memory, rows whose label follows from their features, and requests for them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from truekeep.api.common import S3Location
from truekeep.api.data import Data
from truekeep.api.evaluation import Evaluation
from truekeep.api.training import Training
from truekeep.api.trainingrun import Trigger
from truekeep.contract.canonical import sha256
from truekeep.contract.requests import TrainRequest, complete_data
from truekeep.storage.s3 import Fetched, ObjectInfo

START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 2400


@dataclass
class Memory:
    """One source in memory. `fetched` are the keys that were read, in order."""

    uri_: str
    files: Mapping[str, bytes]
    fetched: list[str] = field(default_factory=list)

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        for key in sorted(self.files):
            yield ObjectInfo(key, len(self.files[key]), "etag", None, START)

    def fetch(self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None) -> Fetched:
        self.fetched.append(key)
        offset, length = span or (0, len(self.files[key]))
        return Fetched(self.files[key][offset : offset + length], "etag", None)

    def uri(self, key: str = "") -> str:
        return self.uri_ + key


class Lake:
    """Sources by folder: `rows/a.parquet` is a file of s3://lake/rows/."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.opened: dict[str, Memory] = {}

    def open(self, location: S3Location) -> Memory:
        folder = location.uri.removeprefix("s3://lake/")
        files = {key.removeprefix(folder): data for key, data in self.files.items() if key.startswith(folder)}
        return self.opened.setdefault(location.uri, Memory(location.uri, files))


def events(rows: int = ROWS, seed: int = 1, start: datetime = START, minutes: int = 10, shift: float = 0.0) -> pa.Table:
    """Rows every so many minutes: amount (Number), kind (Category), a label that they tell, and a key.

    `shift` turns the dependence on the amount around, so that a model of another `shift` is worse."""
    random = np.random.default_rng(seed)
    amount = random.normal(size=rows)
    kind = random.choice(["a", "b", "c"], size=rows)
    score = (1 - 2 * shift) * 2 * amount + (kind == "a") - 1
    late = random.random(rows) < 1 / (1 + np.exp(-score))
    first = round(start.timestamp() / 60 / minutes)
    return pa.table(
        {
            "id": [f"k{first + number}" for number in range(rows)],
            "at": pa.array([start + timedelta(minutes=minutes * n) for n in range(rows)], pa.timestamp("us", "UTC")),
            "amount": amount,
            "kind": kind,
            "late": late.astype(np.int64),
        }
    )


def replaced(table: pa.Table, name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
    """The table with another column of this name."""
    return table.set_column(table.column_names.index(name), name, pa.array(values, kind))


def with_value(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    """The table with another value in one place."""
    values = table[name].to_pylist()
    values[row] = value
    return replaced(table, name, values, table.schema.field(name).type)


def parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def csv_of(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pacsv.write_csv(table, buffer)
    return buffer.getvalue()


def data_of(**changes: Any) -> Data:
    """The data section for `events`; a change of None takes the field out."""
    declared: dict[str, Any] = {
        "source": {"s3": {"uri": "s3://lake/rows/"}},
        "timeColumn": "at",
        "key": "id",
        "label": {"column": "late"},
        "features": [{"name": "amount", "type": "Number"}, {"name": "kind", "type": "Category"}],
    }
    return Data.model_validate({key: value for key, value in {**declared, **changes}.items() if value is not None})


def request_of(store: S3Location, **changes: Any) -> TrainRequest:
    """A request to train a small model in that store, of data that lies in the same bucket below lake/."""
    bucket = store.uri.split("/")[2]
    data = changes.pop("data", data_of())
    moved = data.source.s3.model_copy(update={"uri": f"s3://{bucket}/lake/rows/"})
    data = data.model_copy(update={"source": data.source.model_copy(update={"s3": moved})})
    recipe = {
        "estimator": changes.pop("estimator", "sklearn.linear_model.LogisticRegression"),
        "parameters": [{"name": name, "value": value} for name, value in changes.pop("parameters", {}).items()],
        "seed": 7,
    }
    asked: dict[str, Any] = {
        "namespace": "shop",
        "model": "late",
        "model_uid": "model-uid",
        "model_generation": 3,
        "run": "late-1",
        "run_uid": "run-uid",
        "trigger": Trigger(type="Spec", message="first"),
        "training_fingerprint": sha256(b"training"),
        "image": "truekeep/trainer@sha256:abc",
        "operator_version": "0.1.0",
        "store": store,
        "data": complete_data(data, store),
        "training": Training.model_validate({"recipe": recipe}),
        "evaluation": Evaluation.model_validate(changes.pop("evaluation", {})),
    }
    return TrainRequest(**{**asked, **changes})

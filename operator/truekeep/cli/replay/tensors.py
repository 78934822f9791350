"""Rows as a request of the Open Inference Protocol (V2, JSON), a tensor per column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Tensor:
    """An input that the served model takes, as its metadata says."""

    name: str
    datatype: str  # FP64, INT64, BYTES, …


def inputs_of(metadata: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The inputs of a model's metadata. ValueError where there are none."""
    inputs = tuple(Tensor(each["name"], each["datatype"]) for each in metadata.get("inputs", ()))
    if not inputs:
        raise ValueError(f"the model's metadata names no inputs: {json.dumps(metadata)[:200]}")
    return inputs


def request(identity: str, rows: pa.Table, inputs: Sequence[Tensor], identifiers: Sequence[str]) -> bytes:
    """The body of one request for all rows. `identifiers` (event time and key) go along as text; the server captures
    them and never feeds them to the model. A null stays null. KeyError where the rows lack an input."""
    texts = [Tensor(name, "BYTES") for name in identifiers]
    named = {tensor.name for tensor in texts}
    tensors = [
        {
            "name": tensor.name,
            "shape": [rows.num_rows],
            "datatype": tensor.datatype,
            "data": [_value(value, tensor.datatype) for value in rows[tensor.name].to_pylist()],
        }
        for tensor in (*texts, *(tensor for tensor in inputs if tensor.name not in named))
    ]
    return json.dumps({"id": identity, "inputs": tensors}, separators=(",", ":")).encode()


def _value(value: Any, datatype: str) -> Any:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value) if datatype == "BYTES" else value

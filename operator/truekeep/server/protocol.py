"""Bodies of the Open Inference Protocol V2: JSON to columns, and answers to JSON.

A column is a tensor of shape [n] or [n, 1], its data flat or nested. What a tensor's values must be follows from its
datatype; whether the model can take them is judged by `features.encode.Encoder` afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from truekeep.server.limits import Limits

PROBABILITY = "probability"
PREDICTION = "prediction"
OUTPUTS: Mapping[str, str] = {PROBABILITY: "FP64", PREDICTION: "INT64"}

_NULL = type(None)
_BOOL: frozenset[type] = frozenset((bool, _NULL))
_INT: frozenset[type] = frozenset((int, _NULL))
_FLOAT: frozenset[type] = frozenset((int, float, _NULL))
_TEXT: frozenset[type] = frozenset((str, _NULL))
_KINDS: Mapping[str, frozenset[type]] = {
    "BOOL": _BOOL,
    **{f"{sign}INT{bits}": _INT for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": _FLOAT for bits in (16, 32, 64)},
    "BYTES": _TEXT,
}
_RANGES: Mapping[str, tuple[int, int]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_MEANING: Mapping[str, str] = {"BOOL": "true or false", "BYTES": "text"}


class RequestError(Exception):
    """A request that is not answered with a prediction: an HTTP status and a text for the client."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


@dataclass(slots=True)
class InferRequest:
    """A request as columns of plain Python values, each `rows` long."""

    id: str | None
    columns: dict[str, list[Any]]
    rows: int
    outputs: tuple[str, ...]


def parse(body: bytes, limits: Limits) -> InferRequest:
    """The request in a body. RequestError (400, 413) that names the tensor where it is not valid."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            400,
            f"the body is not valid JSON: {error}; NaN and Infinity are no JSON: send null where a value is unknown",
        ) from None
    if type(document) is not dict:
        raise RequestError(400, "the body must be a JSON object with the member inputs")
    identifier = document.get("id")
    if identifier is not None and (type(identifier) is not str or len(identifier) > limits.id_characters):
        raise RequestError(400, f"id must be text of at most {limits.id_characters} characters")
    inputs = document.get("inputs")
    if type(inputs) is not list or not inputs:
        raise RequestError(400, "inputs must be a list of at least one tensor")
    if len(inputs) > limits.inputs:
        raise RequestError(413, f"inputs has {len(inputs)} tensors; at most {limits.inputs} are accepted")
    columns: dict[str, list[Any]] = {}
    rows = -1
    for position, tensor in enumerate(inputs):
        name, values = _column(tensor, position, limits)
        if name in columns:
            raise RequestError(400, f"inputs: tensor {_shown(name)} is there twice; send one tensor for each input")
        if rows < 0:
            rows = len(values)
        elif len(values) != rows:
            first = _shown(next(iter(columns)))
            raise RequestError(400, f"tensor {_shown(name)} has {len(values)} rows, but {first} has {rows}")
        columns[name] = values
    return InferRequest(identifier or None, columns, rows, _outputs(document.get("outputs")))


def _column(tensor: Any, position: int, limits: Limits) -> tuple[str, list[Any]]:
    """Name and values of one tensor."""
    if type(tensor) is not dict:
        raise RequestError(400, f"inputs[{position}] must be an object with name, shape, datatype and data")
    name = tensor.get("name")
    if type(name) is not str or not name:
        raise RequestError(400, f"inputs[{position}].name must be text")
    shape = tensor.get("shape")
    if (
        type(shape) is not list
        or not 1 <= len(shape) <= 2
        or any(type(size) is not int or size < 0 for size in shape)
        or shape[1:] not in ([], [1])
    ):
        raise RequestError(
            400, f"tensor {_shown(name)}: shape must be [n] or [n, 1], one tensor for a column; got {shape!r:.60}"
        )
    rows: int = shape[0]
    if rows > limits.rows:
        raise RequestError(
            413, f"tensor {_shown(name)} has {rows} rows; at most {limits.rows} are accepted: split the request"
        )
    values = tensor.get("data")
    if values is None and type(tensor.get("parameters")) is dict and "binary_data_size" in tensor["parameters"]:
        raise RequestError(400, f"tensor {_shown(name)}: binary data is not supported; send data as JSON")
    if type(values) is not list:
        raise RequestError(400, f"tensor {_shown(name)}: data must be a list of {rows} values")
    if values and type(values[0]) is list:
        values = _flat(name, values)
    if len(values) != rows:
        raise RequestError(400, f"tensor {_shown(name)}: shape says {rows} rows, but data has {len(values)} values")
    if not rows:
        raise RequestError(400, f"tensor {_shown(name)} has no rows; send at least one")
    _check(name, tensor.get("datatype"), values)
    return name, values


def _flat(name: str, values: list[Any]) -> list[Any]:
    """[[a], [b]] as [a, b]."""
    if any(type(value) is not list or len(value) != 1 for value in values):
        raise RequestError(400, f"tensor {_shown(name)}: nested data must be lists of one value each, [[1], [2]]")
    return [value[0] for value in values]


def _check(name: str, datatype: Any, values: list[Any]) -> None:
    """RequestError where a value is not of the datatype; null is of every datatype."""
    allowed = _KINDS.get(datatype) if type(datatype) is str else None
    if allowed is None:
        raise RequestError(
            400, f"tensor {_shown(name)}: datatype {datatype!r:.40} is unknown; use one of {', '.join(_KINDS)}"
        )
    kinds = set(map(type, values))
    if not kinds <= allowed:
        row = next(row for row, value in enumerate(values) if type(value) not in allowed)
        found = "data nested too deep" if type(values[row]) is list else f"{values[row]!r:.60}"
        meaning = _MEANING.get(datatype, "whole numbers" if allowed is _INT else "numbers")
        raise RequestError(400, f"tensor {_shown(name)}, row {row}: {datatype} takes {meaning} or null, not {found}")
    if allowed is _INT:
        low, high = _RANGES[datatype]
        known = values if _NULL not in kinds else [value for value in values if value is not None]
        if known and (min(known) < low or max(known) > high):
            raise RequestError(400, f"tensor {_shown(name)}: a value lies outside of {datatype} ({low} to {high})")


def _outputs(wanted: Any) -> tuple[str, ...]:
    """The names of the outputs to return, in the order asked for."""
    if wanted is None or wanted == []:
        return tuple(OUTPUTS)
    if type(wanted) is not list or any(type(output) is not dict for output in wanted):
        raise RequestError(400, "outputs must be a list of objects with a name")
    names = [output.get("name") for output in wanted]
    for name in names:
        if type(name) is not str or name not in OUTPUTS:
            raise RequestError(400, f"outputs: {_shown(name)} is unknown; the model gives {', '.join(OUTPUTS)}")
    return tuple(dict.fromkeys(names))


def response(
    model: str,
    version: str,
    identifier: str,
    *,
    outputs: Sequence[str],
    probability: npt.NDArray[np.float64],
    prediction: npt.NDArray[np.int64],
) -> bytes:
    """The answer's body. Both arrays have shape (rows,)."""
    shape = [len(probability)]
    data: dict[str, npt.NDArray[Any]] = {PROBABILITY: probability, PREDICTION: prediction}
    return orjson.dumps(
        {
            "model_name": model,
            "model_version": version,
            "id": identifier,
            "outputs": [
                {"name": name, "datatype": OUTPUTS[name], "shape": shape, "data": data[name]} for name in outputs
            ],
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def error_body(message: str) -> bytes:
    """What every refusal looks like."""
    return orjson.dumps({"error": message})


def _shown(name: Any) -> str:
    return str(name)[:100] if type(name) is str else f"{name!r:.60}"

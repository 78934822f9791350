"""Bodies of the Open Inference Protocol V2: JSON and binary tensors to columns, and answers to either.

A column is a tensor of shape [n] or [n, 1], its data flat or nested, as JSON or as bytes behind the JSON (the binary
tensor extension). One tensor of shape [n, features] may carry all features, in the order of the model's metadata. What
a tensor's values must be follows from its datatype; whether the model can take them is judged by
`features.encode.Encoder` afterwards. In JSON null is a missing value, in binary floats NaN is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from truekeep.server.limits import Limits
from truekeep.server.quick import Read, Reader

PROBABILITY = "probability"
PREDICTION = "prediction"
OUTPUTS: Mapping[str, str] = {PROBABILITY: "FP64", PREDICTION: "INT64"}
EXTENSIONS = ("binary_tensor_data",)

Values: TypeAlias = "list[Any] | npt.NDArray[Any]"
Headers: TypeAlias = "list[tuple[bytes, bytes]]"
JSON: Headers = [(b"content-type", b"application/json")]

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
_SIMPLE = {datatype: kinds for datatype, kinds in _KINDS.items() if kinds is not _INT}
_RANGES: Mapping[str, tuple[int, int]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_BINARY: Mapping[str, str] = {  # little-endian, as numpy calls them
    "BOOL": "u1",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
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
    """A request as columns, each `rows` long: lists of plain Python values, or arrays where it was binary."""

    id: str | None
    columns: dict[str, Values]
    rows: int
    outputs: Mapping[str, bool]  # wanted, in order; True: as binary data
    # Where the short way was taken: the features as (rows, features), and by position the columns that hold a category
    # which training has never seen. `columns` then has the rest.
    matrix: npt.NDArray[np.float64] | None = None
    unknown: Mapping[int, Values] = field(default_factory=dict)


_BOTH: Mapping[str, bool] = dict.fromkeys(OUTPUTS, False)


def parse(
    body: bytes,
    limits: Limits,
    names: Sequence[str] = (),
    header_length: int | None = None,
    reader: Reader | None = None,
) -> InferRequest:
    """The request in a body. `names`: the model's inputs in order, for one tensor that carries all of them;
    `header_length`: how many bytes of the body are JSON, where binary data follows; `reader`: knows the short way.

    RequestError (400, 413) that names the tensor where it is not valid."""
    binary: _Binary | None = None
    if header_length is not None:
        if not 0 < header_length <= len(body):
            raise RequestError(
                400, f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes"
            )
        binary = _Binary(memoryview(body)[header_length:])
        body = body[:header_length]
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            400,
            f"the body is not valid JSON: {error}; NaN and Infinity are no JSON: send null where a value is unknown",
        ) from None
    if type(document) is not dict:
        raise RequestError(400, "the body must be a JSON object with the member inputs")
    identifier = checked_id(document.get("id"), limits)
    inputs = document.get("inputs")
    if type(inputs) is not list or not inputs:
        raise RequestError(400, "inputs must be a list of at least one tensor")
    check_count(len(inputs), limits)
    wanted, parameters = document.get("outputs"), document.get("parameters")
    outputs = _BOTH if wanted is None and parameters is None else _outputs(wanted, parameters)
    read = None if reader is None or binary is not None else reader.read(inputs)
    if read is not None and (rest := _beside(read, limits)) is not None:
        return InferRequest(identifier, rest, len(read.matrix), outputs, read.matrix, read.unknown)
    columns = Columns(names, limits)
    _add_all(columns, inputs, binary)
    if binary is not None:
        binary.end()
    return InferRequest(identifier, columns.values, columns.rows, outputs)


def _beside(read: Read, limits: Limits) -> dict[str, Values] | None:
    """What a request has besides its features; None where it is wrong, which the long way says in its own words."""
    if not read.others:
        return {}
    columns = Columns((), limits)
    try:
        for position, tensor in read.others:
            _add(columns, tensor, position, None)
    except RequestError:
        return None
    return columns.values if columns.rows == len(read.matrix) else None


def checked_id(identifier: Any, limits: Limits) -> str | None:
    """The request's id, None where it has none."""
    if identifier is not None and (type(identifier) is not str or len(identifier) > limits.id_characters):
        raise RequestError(400, f"id must be text of at most {limits.id_characters} characters")
    return identifier or None


def check_count(tensors: int, limits: Limits) -> None:
    """RequestError where there are too many tensors."""
    if tensors > limits.inputs:
        raise RequestError(413, f"inputs has {tensors} tensors; at most {limits.inputs} are accepted")


class Columns:
    """Tensors, one after the other, as columns of equal length."""

    def __init__(self, names: Sequence[str], limits: Limits) -> None:
        self.names = names
        self.limits = limits
        self.values: dict[str, Values] = {}
        self.rows = -1

    def put(self, name: str, values: Values, rows: int) -> None:
        """One column."""
        if rows != self.rows:
            if self.rows >= 0:
                first = shown(next(iter(self.values)))
                raise RequestError(400, f"tensor {shown(name)} has {rows} rows, but {first} has {self.rows}")
            self.rows = rows
        if name in self.values:
            raise RequestError(400, f"inputs: tensor {shown(name)} is there twice; send one tensor for each input")
        self.values[name] = values

    def add(self, name: str, shape: Any, values: Values) -> None:
        """One tensor, whose values are flat and as many as its shape says: a column, or all features at once."""
        rows, width = self.size(name, shape)
        if width == 1 and (name in self.names or len(self.names) != 1):
            self.put(name, values, rows)
            return
        for position, feature in enumerate(self.names):
            # Row-major: every width-th value from the feature's own place on.
            self.put(feature, values[position::width], rows)

    def size(self, name: str, shape: Any) -> tuple[int, int]:
        """Rows and columns of a tensor. RequestError where they are not possible."""
        width = len(self.names)
        if (
            type(shape) is not list
            or not 1 <= len(shape) <= 2
            or any(type(size) is not int or size < 0 for size in shape)
            or (shape[1:] not in ([], [1]) and (width < 2 or shape[1:] != [width]))
        ):
            raise RequestError(
                400,
                f"tensor {shown(name)}: shape must be [n] or [n, 1], one tensor for a column"
                + (f", or [n, {width}] for all of them" if width > 1 else "")
                + f"; got {shape!r:.60}",
            )
        rows: int = shape[0]
        limit = self.limits.rows
        if rows > limit:
            raise RequestError(
                413, f"tensor {shown(name)} has {rows} rows; at most {limit} are accepted: split the request"
            )
        if not rows:
            raise RequestError(400, f"tensor {shown(name)} has no rows; send at least one")
        return rows, shape[1] if len(shape) == 2 else 1


class _Binary:
    """The bytes behind the JSON, taken from the front."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._taken = 0

    def take(self, name: str, size: Any) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._content) - self._taken:
            left = len(self._content) - self._taken
            raise RequestError(
                400, f"tensor {shown(name)}: binary_data_size is {size!r:.40}, but {left} bytes of binary data are left"
            )
        self._taken += size
        return self._content[self._taken - size : self._taken]

    def end(self) -> None:
        left = len(self._content) - self._taken
        if left:
            raise RequestError(400, f"{left} bytes of binary data belong to no tensor; check each binary_data_size")


def _add_all(columns: Columns, inputs: list[Any], binary: _Binary | None) -> None:
    """The tensors of a JSON document. The short way first, for what most tensors are: a flat column without parameters,
    of what its datatype says; whatever it does not understand is looked at closely."""
    simple = len(columns.names) != 1
    most = columns.limits.rows
    for position, tensor in enumerate(inputs):
        if simple and type(tensor) is dict and len(tensor) == 4:
            try:
                name, shape, values = tensor["name"], tensor["shape"], tensor["data"]
                (size,) = shape
                kinds = _SIMPLE[tensor["datatype"]]
            except (KeyError, TypeError, ValueError):
                pass
            else:
                if (
                    type(name) is str and name and type(values) is list and type(shape) is list and type(size) is int
                    and 0 < size == len(values) <= most
                    and (type(values[0]) in kinds if size == 1 else kinds >= set(map(type, values)))
                ):  # fmt: skip
                    columns.put(name, values, size)
                    continue
        _add(columns, tensor, position, binary)


def _add(columns: Columns, tensor: Any, position: int, binary: _Binary | None) -> None:
    """One tensor of a JSON document."""
    if type(tensor) is not dict:
        raise RequestError(400, f"inputs[{position}] must be an object with name, shape, datatype and data")
    name, shape, values, parameters = (tensor.get(key) for key in ("name", "shape", "data", "parameters"))
    if type(name) is not str or not name:
        raise RequestError(400, f"inputs[{position}].name must be text")
    rows, width = columns.size(name, shape)
    if type(parameters) is dict and "binary_data_size" in parameters:
        if values is not None:
            raise RequestError(400, f"tensor {shown(name)} has data and binary_data_size; send one of them")
        if binary is None:
            raise RequestError(
                400, f"tensor {shown(name)}: binary_data_size needs the header Inference-Header-Content-Length"
            )
        content = binary.take(name, parameters["binary_data_size"])
        columns.add(name, shape, from_bytes(name, tensor.get("datatype"), rows * width, content))
        return
    if type(values) is not list:
        raise RequestError(400, f"tensor {shown(name)}: data must be a list of {rows * width} values")
    if values and type(values[0]) is list:
        values = _flat(name, values, width)
    if len(values) != rows * width:
        what = f"{rows} rows" if width == 1 else f"{rows} rows of {width}"
        raise RequestError(400, f"tensor {shown(name)}: shape says {what}, but data has {len(values)} values")
    _check(name, tensor.get("datatype"), values)
    if type(parameters) is dict and parameters.get("content_type") == "base64":
        values = _from_base64(name, values)
    columns.add(name, shape, values)


def _flat(name: str, values: list[Any], width: int) -> list[Any]:
    """[[a, b], [c, d]] as [a, b, c, d]."""
    if any(type(value) is not list or len(value) != width for value in values):
        what = "one value each, [[1], [2]]" if width == 1 else f"{width} values each, a row a list"
        raise RequestError(400, f"tensor {shown(name)}: nested data must be lists of {what}")
    return [value for row in values for value in row]


def _from_base64(name: str, values: list[Any]) -> list[Any]:
    """MLServer's codec for bytes in JSON."""
    try:
        return [None if value is None else base64.b64decode(value, validate=True).decode() for value in values]
    except (TypeError, ValueError, binascii.Error) as error:
        raise RequestError(400, f"tensor {shown(name)}: content_type base64, but: {error}") from None


def _check(name: str, datatype: Any, values: list[Any]) -> None:
    """RequestError where a value is not of the datatype; null is of every datatype."""
    allowed = _KINDS.get(datatype) if type(datatype) is str else None
    if allowed is None:
        raise _unknown_datatype(name, datatype)
    kinds = set(map(type, values))
    if not kinds <= allowed:
        row = next(row for row, value in enumerate(values) if type(value) not in allowed)
        found = "data nested too deep" if type(values[row]) is list else f"{values[row]!r:.60}"
        meaning = _MEANING.get(datatype, "whole numbers" if allowed is _INT else "numbers")
        raise RequestError(400, f"tensor {shown(name)}, row {row}: {datatype} takes {meaning} or null, not {found}")
    if allowed is _INT:
        check_range(name, datatype, values if _NULL not in kinds else [value for value in values if value is not None])


def check_range(name: str, datatype: str, values: Sequence[int]) -> None:
    """RequestError where an integer is none of its datatype's. Any number is right where it is no integers'."""
    low, high = _RANGES.get(datatype, (0, 0))
    if high and values and (min(values) < low or max(values) > high):
        raise RequestError(400, f"tensor {shown(name)}: a value lies outside of {datatype} ({low} to {high})")


def _unknown_datatype(name: str, datatype: Any) -> RequestError:
    return RequestError(
        400, f"tensor {shown(name)}: datatype {datatype!r:.40} is unknown; use one of {', '.join(_KINDS)}"
    )


def from_bytes(name: str, datatype: Any, count: int, content: memoryview | bytes) -> Values:
    """The values of a tensor in the binary form. RequestError (400) where they are not so many."""
    if datatype == "BYTES":
        return _texts(name, count, bytes(content))
    kind = _BINARY.get(datatype) if type(datatype) is str else None
    if kind is None:
        raise _unknown_datatype(name, datatype)
    size = count * np.dtype(kind).itemsize
    if len(content) != size:
        raise RequestError(
            400, f"tensor {shown(name)}: {count} values of {datatype} are {size} bytes, but {len(content)} were sent"
        )
    values = np.frombuffer(content, dtype=kind)
    if datatype != "BOOL":
        return values
    if (values > 1).any():
        raise RequestError(400, f"tensor {shown(name)}: a BOOL is a byte 0 or 1, not {int(values.max())}")
    return values.view(np.bool_)


def _texts(name: str, count: int, content: bytes) -> list[Any]:
    """Each with its length in four bytes before it."""
    texts: list[Any] = []
    at, end = 0, len(content)
    while at + 4 <= end and len(texts) < count:
        size = int.from_bytes(content[at : at + 4], "little")
        at += 4
        if size > end - at:
            raise RequestError(
                400, f"tensor {shown(name)}, row {len(texts)}: a text of {size} bytes, but {end - at} bytes are left"
            )
        texts.append(as_text(name, len(texts), content[at : at + size]))
        at += size
    if at != end or len(texts) != count:
        raise RequestError(
            400,
            f"tensor {shown(name)}: shape says {count} values, but the binary data holds {len(texts)} and "
            f"{end - at} bytes more",
        )
    return texts


def as_text(name: str, row: int, content: bytes) -> str:
    """One value of BYTES."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RequestError(400, f"tensor {shown(name)}, row {row}: BYTES must be UTF-8 text ({error})") from None


def _outputs(wanted: Any, parameters: Any) -> Mapping[str, bool]:
    """The names of the outputs to return, in the order asked for, and which of them as binary data."""
    if parameters is not None and type(parameters) is not dict:
        raise RequestError(400, "parameters must be an object")
    binary = bool((parameters or {}).get("binary_data_output", False))
    if wanted is None or wanted == []:
        return dict.fromkeys(OUTPUTS, binary)
    if type(wanted) is not list or any(type(output) is not dict for output in wanted):
        raise RequestError(400, "outputs must be a list of objects with a name")
    found: dict[str, bool] = {}
    for output in wanted:
        name = checked_output(output.get("name"))
        own = output.get("parameters")
        found.setdefault(name, bool(own["binary_data"]) if type(own) is dict and "binary_data" in own else binary)
    return found


def checked_output(name: Any) -> str:
    """The name of an output that there is."""
    if type(name) is not str or name not in OUTPUTS:
        raise RequestError(400, f"outputs: {shown(name)} is unknown; the model gives {', '.join(OUTPUTS)}")
    return name


class Responses:
    """The bodies of one model's answers."""

    def __init__(self, model: str, version: str) -> None:
        self._model, self._version = model, version
        start = orjson.dumps({"model_name": model, "model_version": version, "id": ""})
        self._start = start[: -len(b'""}')]
        (first, second) = (self._output(name) for name in OUTPUTS)
        self._one = b',"outputs":[' + first + b"%b]}," + second + b"%d]}]}"

    @staticmethod
    def _output(name: str) -> bytes:
        """Of one row, up to its value."""
        return orjson.dumps({"name": name, "datatype": OUTPUTS[name], "shape": [1], "data": []})[: -len(b"]}")]

    def one(self, identifier: str, probability: float, prediction: int) -> bytes:
        """Of one row, all outputs as JSON: what most answers are."""
        return self._start + orjson.dumps(identifier) + self._one % (orjson.dumps(probability), prediction)

    def body(
        self,
        identifier: str,
        outputs: Mapping[str, bool],
        probability: npt.NDArray[np.float64],
        prediction: npt.NDArray[np.int64],
    ) -> tuple[Headers, bytes]:
        """Headers and body. Both arrays have shape (rows,)."""
        shape = [len(probability)]
        data: dict[str, npt.NDArray[Any]] = {PROBABILITY: probability, PREDICTION: prediction}
        described: list[dict[str, Any]] = []
        binary: list[bytes] = []
        for name, as_bytes in outputs.items():
            described.append({"name": name, "datatype": OUTPUTS[name], "shape": shape})
            if as_bytes:
                binary.append(little_endian(data[name]))
                described[-1]["parameters"] = {"binary_data_size": len(binary[-1])}
            else:
                described[-1]["data"] = data[name]
        content = orjson.dumps(
            {"model_name": self._model, "model_version": self._version, "id": identifier, "outputs": described},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        if not binary:
            return JSON, content
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"inference-header-content-length", b"%d" % len(content)),
        ]
        return headers, b"".join([content, *binary])


def little_endian(values: npt.NDArray[Any]) -> bytes:
    """The values as the binary form has them."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


def error_body(message: str) -> bytes:
    """What every refusal looks like."""
    return orjson.dumps({"error": message})


def shown(name: Any) -> str:
    """A name as an error text has it."""
    return str(name)[:100] if type(name) is str else f"{name!r:.60}"

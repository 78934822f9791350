"""The short way from the tensors of a JSON body to the matrix, for what most requests are.

Each value is touched once or twice, by calls that check and convert whole columns: `struct` packs numbers and nothing
else, a dict of the categories knows its own texts and nothing else. The long way (`protocol`, then `features.encode`)
asks each value for its type and makes Python numbers of all cells, which costs three times as much.

This way refuses nothing. Whatever it does not understand (other shapes and datatypes, wrong values, missing inputs) it
leaves to the long way, which finds out what it is and says so: both give the same numbers, and a test holds them to it.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.contract.artifact import UNKNOWN_CATEGORY, SignatureFeature
from truekeep.features.encode import Matrix

_NULL = type(None)
_NUMBERS = frozenset((int, float))
_TEXTS_NULL = frozenset((str, _NULL))
_FLOATS = frozenset(("FP64", "FP32", "FP16"))
_CODES: Mapping[str, str] = {  # of the struct module: packing says whether all are whole numbers within the range
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip
_EXACT = 2**53  # whole numbers below are floats without loss


@dataclass(slots=True)
class Read:
    """A request's features."""

    matrix: Matrix  # (rows, features)
    unknown: Mapping[int, list[Any]]  # by position: the columns that hold a category which training has never seen
    others: Sequence[tuple[int, Any]]  # tensors that are no features, with their place


@dataclass(slots=True)
class _Feature:
    name: str
    nulls: bool  # may be null
    closed: bool  # of a Category: an unknown one is refused
    codes: dict[Any, float] | None  # of a Category: by its text; null as NaN, where it may be
    numbers: dict[float, float] | None  # likewise by its number, for categories that are whole numbers


class _UnusualError(Exception):
    """Something for the long way."""


class Reader:
    """Reads requests for one signature."""

    def __init__(self, features: Sequence[SignatureFeature], others: Collection[str], most_rows: int) -> None:
        """`others`: names of inputs that are no features."""
        self._usual = all(feature.type != "Time" for feature in features)
        self._features = tuple(_feature(feature) for feature in features)
        self._numbers = [feature for feature in self._features if feature.codes is None]
        self._categories = [
            (position, feature) for position, feature in enumerate(self._features) if feature.codes is not None
        ]
        # Numbers are packed first, then categories: where that is another order, the places to take them from.
        packed = [position for position, feature in enumerate(self._features) if feature.codes is None]
        packed += [position for position, _ in self._categories]
        self._order = None if packed == sorted(packed) else np.argsort(packed)
        self._names = frozenset(feature.name for feature in features)
        self._others = frozenset(others) - self._names
        self._most = most_rows

    def read(self, inputs: list[Any]) -> Read | None:
        """The features in the member `inputs` of a body; None where the long way must look at it."""
        try:
            if not self._usual:  # times are read by the long way alone
                raise _UnusualError
            first = inputs[0]
            shape = first["shape"]
            rows = shape[0]
            if type(shape) is not list or type(rows) is not int or not 0 < rows <= self._most:
                return None
            if len(shape) == 2 and len(inputs) == 1 and len(self._features) > 1:
                return self._together(first, shape, rows)
            tensors = {tensor["name"]: tensor for tensor in inputs}
            if len(tensors) != len(inputs):
                return None
            others: Sequence[tuple[int, Any]] = ()
            if len(inputs) != len(self._features):
                others = [(at, tensor) for at, tensor in enumerate(inputs) if tensor["name"] not in self._names]
                if any(tensor["name"] not in self._others for _, tensor in others):
                    return None
            unknown: dict[int, list[Any]] = {}
            matrix = self._one(tensors, unknown) if rows == 1 else self._many(tensors, rows, unknown)
        except (
            _UnusualError,
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            OverflowError,
            struct.error,
        ):
            return None
        return Read(matrix, unknown, others)

    def _one(self, tensors: Mapping[str, Any], unknown: dict[int, list[Any]]) -> Matrix:
        cells: list[float] = []
        total = 0.0
        for position, feature in enumerate(self._features):
            tensor = tensors[feature.name]
            values = _column(tensor, 1)
            value, datatype, codes = values[0], tensor["datatype"], feature.codes
            kind = type(value)
            if codes is None or datatype != "BYTES":
                if kind is float or kind is int:
                    if datatype not in _FLOATS:
                        _pack(1, _CODES[datatype])(value)
                    total += value
                    cells.append(value if codes is None else _numbered(feature)[value])
                elif value is None and feature.nulls and (datatype in _FLOATS or datatype in _CODES):
                    cells.append(math.nan)
                else:
                    raise _UnusualError
            elif value in codes:
                cells.append(codes[value])
            elif kind is str and not feature.closed:
                cells.append(UNKNOWN_CATEGORY)
                unknown[position] = values
            else:
                raise _UnusualError
        if not math.isfinite(total):
            raise _UnusualError
        return np.array((cells,), dtype=np.float64)

    def _many(self, tensors: Mapping[str, Any], rows: int, unknown: dict[int, list[Any]]) -> Matrix:
        pack = _pack(rows, "d")
        parts: list[bytes] = []
        numbers: list[list[Any]] = []
        for feature in self._numbers:
            tensor = tensors[feature.name]
            values, datatype = _column(tensor, rows), tensor["datatype"]
            numbers.append(values)
            parts.append(_packed(values, datatype, feature.nulls))
        for position, feature in self._categories:
            tensor = tensors[feature.name]
            values, datatype = _column(tensor, rows), tensor["datatype"]
            codes: Any = feature.codes
            if datatype == "BYTES":
                try:
                    parts.append(pack(*itemgetter(*values)(codes)))
                except (KeyError, TypeError):
                    parts.append(pack(*_codes_with_unknown(values, feature)))
                    unknown[position] = values
            else:
                if not set(map(type, values)) <= _NUMBERS:
                    raise _UnusualError
                if datatype not in _FLOATS:
                    _pack(rows, _CODES[datatype])(*values)
                parts.append(pack(*map(_numbered(feature).__getitem__, values)))
        columns = np.frombuffer(b"".join(parts)).reshape(len(parts), rows)
        _check(columns[: len(numbers)], numbers)
        if self._order is not None:
            columns = columns.take(self._order, axis=0)
        return np.ascontiguousarray(columns.T)

    def _together(self, tensor: Any, shape: list[Any], rows: int) -> Read | None:
        """One tensor for all features, row-major, its data flat or a list a row."""
        width = len(self._features)
        values: list[Any] = tensor["data"]
        if shape[1] != width or type(shape[1]) is not int or not _is_plain(tensor) or type(values) is not list:
            return None
        if type(values[0]) is list:
            if len(values) != rows or set(map(type, values)) != {list} or set(map(len, values)) != {width}:
                return None
            values = list(itertools.chain.from_iterable(values))
        if len(values) != rows * width or type(tensor["name"]) is not str or not tensor["name"]:
            return None
        nulls = all(feature.nulls for feature in self._features)
        matrix = np.frombuffer(_packed(values, tensor["datatype"], nulls)).reshape(rows, width)
        _check(matrix.T, [values[position::width] for position in range(width)])
        if any(feature.codes is not None for feature in self._features):
            matrix = matrix.copy()
            for position, feature in enumerate(self._features):
                if feature.codes is not None:
                    matrix[:, position] = _codes_of_numbers(matrix[:, position], _numbered(feature))
        return Read(matrix, {}, ())


def _feature(feature: SignatureFeature) -> _Feature:
    nulls = feature.nulls == "Allow"
    if feature.type == "Number":
        return _Feature(feature.name, nulls, False, None, None)
    known = feature.categories or []
    codes: dict[Any, float] = {text: float(position) for position, text in enumerate(known)}
    numbers: dict[float, float] = {}
    for text, code in codes.items():
        if (
            len(text) <= 16
            and text.removeprefix("-").isdecimal()
            and str(int(text)) == text
            and abs(int(text)) < _EXACT
        ):
            numbers[int(text)] = code
    if nulls:
        codes[None] = math.nan
    return _Feature(feature.name, nulls, feature.unknown == "Refuse", codes, numbers)


def _numbered(feature: _Feature) -> dict[float, float]:
    if not feature.numbers:
        raise _UnusualError
    return feature.numbers


def _column(tensor: Any, rows: int) -> list[Any]:
    """The values of a tensor that is one column of so many rows, flat."""
    shape, values = tensor["shape"], tensor["data"]
    if (
        type(values) is not list or len(values) != rows or type(shape) is not list or type(shape[0]) is not int
        or shape[0] != rows or not (len(shape) == 1 or (len(shape) == 2 and type(shape[1]) is int and shape[1] == 1))
        or not (len(tensor) == 4 or _is_plain(tensor))
    ):  # fmt: skip
        raise _UnusualError
    return values


def _is_plain(tensor: Mapping[str, Any]) -> bool:
    """Whether it has no members that mean anything, besides the four that it must have."""
    if len(tensor) == 4:
        return True
    parameters = tensor["parameters"]
    if len(tensor) != 5 or (parameters is not None and type(parameters) is not dict):
        return False
    return not parameters or (len(parameters) == 1 and parameters.get("content_type", "base64") != "base64")


@lru_cache(maxsize=512)
def _pack(count: int, code: str) -> Any:
    return struct.Struct(f"={count}{code}").pack


def _packed(values: list[Any], datatype: Any, nulls: bool) -> bytes:
    """The numbers as doubles, null as NaN. What is neither number, boolean nor null is no business of this way."""
    pack = _pack(len(values), "d")
    whole = None if datatype in _FLOATS else _pack(len(values), _CODES[datatype])
    try:
        packed: bytes = pack(*values)
        if whole is not None:
            whole(*values)
        return packed
    except struct.error:
        if not nulls or whole is not None:
            raise
    packed = pack(*[math.nan if value is None else value for value in values])
    return packed


def _check(columns: npt.NDArray[np.float64], given: Sequence[list[Any]]) -> None:
    """No infinity, and no boolean, which would have been packed as 0 or 1. `columns`: (features, rows), NaN a null;
    `given`: as they were sent."""
    if np.isinf(columns).any():
        raise _UnusualError
    doubtful = columns == (columns != 0)  # 0 or 1
    if doubtful.any():
        for position in doubtful.any(axis=1).nonzero()[0].tolist():
            if bool in set(map(type, given[position])):
                raise _UnusualError


def _codes_with_unknown(values: list[Any], feature: _Feature) -> list[float]:
    assert feature.codes is not None
    kinds = set(map(type, values))
    if feature.closed or not kinds <= _TEXTS_NULL or (_NULL in kinds and not feature.nulls):
        raise _UnusualError
    codes = feature.codes
    return [codes.get(value, UNKNOWN_CATEGORY) for value in values]


def _codes_of_numbers(values: npt.NDArray[np.float64], known: Mapping[float, float]) -> npt.NDArray[np.float64]:
    if np.isnan(values).all():
        return values
    keys = np.array(sorted(known), dtype=np.float64)
    codes = np.array([known[key] for key in sorted(known)])
    missing = np.isnan(values)
    at = np.minimum(np.searchsorted(keys, np.where(missing, keys[0], values)), len(keys) - 1)
    if (keys[at] != values)[~missing].any():
        raise _UnusualError
    return np.where(missing, np.nan, codes[at])

"""From columns to the float64 matrix (rows, features) that a pipeline takes.

A Number is its value and a null is NaN. A Category is the position of its text in the signature's `categories`; a null
is NaN and an unknown value is -1. A Time is microseconds since 1970 (`features.times`) and a null is NaN. The text of a
category is the string itself, an integer in decimal digits ("1", also for 1.0, because a column of codes with nulls
often arrives as floats), and `true` or `false` for a boolean.

Two ways give the same numbers: `matrix` and `texts` for whole tables (pyarrow), `Encoder` for the few rows of one
request (plain Python, no pyarrow call).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.contract.artifact import UNKNOWN_CATEGORY, SignatureFeature
from truekeep.features import times

Values: TypeAlias = "Sequence[Any] | npt.NDArray[Any]"
Column: TypeAlias = "Sequence[Any] | npt.NDArray[Any] | pa.Array[Any] | pa.ChunkedArray[Any]"
Matrix: TypeAlias = npt.NDArray[np.float64]

_NONE = type(None)
_NUMBERS = frozenset((int, float))
_NUMBERS_BOOL_NONE = frozenset((int, float, bool, _NONE))
_TEXT = {str}


class FeatureError(ValueError):
    """A column that a model cannot take. `name` is the feature's; the text names value, reason and remedy."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


def matrix(columns: Mapping[str, Column], features: Sequence[SignatureFeature]) -> Matrix:
    """The features' columns as float64, shape (rows, features), in the order of `features`; others are ignored.

    FeatureError where a column is missing, has another length than the first, or holds values of a wrong type.
    Infinity and nulls are kept: whether they are valid is a question for the data's rules, not for the encoding."""
    rows: int | None = None
    result: Matrix | None = None
    for position, feature in enumerate(features):
        if feature.name not in columns:
            raise FeatureError(feature.name, f"the column is missing; give it as a {feature.type}")
        encode = _codes_of(feature) if feature.type == "Category" else numbers if feature.type == "Number" else moments
        encoded = encode(feature.name, columns[feature.name])
        if result is None or rows is None:
            rows = len(encoded)
            result = np.empty((rows, len(features)), dtype=np.float64, order="F")
        if len(encoded) != rows:
            raise FeatureError(feature.name, f"has {len(encoded)} rows, but {features[0].name} has {rows}")
        result[:, position] = encoded
    return result if result is not None else np.empty((0, 0), dtype=np.float64)


def numbers(name: str, column: Column) -> Matrix:
    """A Number's column as float64, shape (rows,), null as NaN. FeatureError where it is not numeric."""
    array = _arrow(name, column)
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if not (_is_number(kind) or pa.types.is_boolean(kind)):
        raise FeatureError(name, f"is of type {kind}, a Number must be numeric or boolean; declare it a Category")
    return _to_float64(array)


def moments(name: str, column: Column) -> Matrix:
    """A Time's column as float64 microseconds since 1970, shape (rows,), null as NaN. FeatureError where it is none."""
    try:
        return times.of_column(column)
    except (TypeError, ValueError) as error:
        raise FeatureError(name, str(error)) from error


def texts(name: str, column: Column) -> pa.Array[Any]:
    """A Category's column as text (`pa.string()`), nulls kept. FeatureError where a value has no category text."""
    array: pa.Array[Any] = _arrow(name, column)
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if pa.types.is_floating(kind):
        values = _to_float64(array)
        known = values[~np.isnan(values)]
        odd = known[(known != np.floor(known)) | (np.abs(known) >= 2.0**63)]
        if len(odd):
            raise FeatureError(name, f"a Category must be text, integers or booleans, not {odd[0]}; make it a Number")
        whole = pa.array(np.nan_to_num(values).astype(np.int64), mask=np.isnan(values))
        return _text_of(whole)
    if pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_text(kind):
        try:
            return _text_of(array)
        except pa.ArrowInvalid as error:
            raise FeatureError(name, f"holds bytes that are not UTF-8 text ({error})") from error
    raise FeatureError(name, f"is of type {kind}, a Category must be text, integers or booleans")


def codes(name: str, column: Column, categories: Sequence[str]) -> Matrix:
    """A Category's column as float64 positions in `categories`, shape (rows,): null NaN, unknown -1."""
    text = texts(name, column)
    found: pa.Array[Any] = pc.index_in(text, value_set=pa.array(list(categories), type=pa.string()))
    encoded = _to_float64(found)  # null, as NaN here, where the text is null or unknown
    encoded[np.isnan(encoded)] = UNKNOWN_CATEGORY
    if text.null_count:
        encoded[np.asarray(text.is_null().to_numpy(zero_copy_only=False))] = np.nan
    return encoded


def category_text(value: Any) -> str | None:
    """The text of one category value, None for a null or NaN. TypeError where it has none (a list, 1.5, Infinity)."""
    if value is None or type(value) is str:
        return value
    text: str | None = None
    if isinstance(value, bool | np.bool_):
        text = "true" if value else "false"
    elif isinstance(value, int | np.integer) or (isinstance(value, float | np.floating) and float(value).is_integer()):
        text = str(int(value))
    elif isinstance(value, str):
        text = str(value)
    elif isinstance(value, bytes):
        text = value.decode()
    elif not (isinstance(value, float | np.floating) and math.isnan(value)):
        raise TypeError(f"a Category must be text, an integer or a boolean, not {value!r:.60}")
    return text


class Encoder:
    """The encoding of one signature, prepared for requests of a few rows.

    Unlike `matrix` it judges: a request with a missing or further input, a null that the signature refuses, or a value
    that is no finite number is a FeatureError that names the input."""

    def __init__(self, features: Sequence[SignatureFeature]) -> None:
        self.features = tuple(features)
        self.names = tuple(feature.name for feature in features)
        self._known = frozenset(self.names)
        self._times = any(feature.type == "Time" for feature in features)
        self._codes: tuple[dict[Any, float] | None, ...] = tuple(
            _lookup(feature) if feature.type == "Category" else None for feature in features
        )

    def encode(self, columns: Mapping[str, Values], rows: int) -> Matrix:
        """The matrix, float64, shape (rows, features), of plain Python values (str, int, float, bool, None), or of
        arrays, in which NaN is a null."""
        if len(columns) > len(self.names) or not columns.keys() <= self._known:
            unknown = next(name for name in columns if name not in self._known)
            raise FeatureError(unknown, f"the model has no such input; it takes {_listed(self.names)}")
        if rows == 1 and not self._times and (one := self._one(columns)) is not None:
            return one
        # One list of all cells, one array of it, one look for what is not finite: with an array a column, a request of
        # a few rows would cost three times as much.
        cells: list[Any] = []
        arrays: dict[int, npt.NDArray[Any]] = {}
        nulls = 0
        for position, (feature, lookup) in enumerate(zip(self.features, self._codes, strict=True)):
            values = columns.get(feature.name)
            if values is None:
                raise FeatureError(feature.name, f"the input is missing; send a tensor of {rows} values for it")
            if len(values) != rows:
                raise FeatureError(feature.name, f"has {len(values)} values, but the first input has {rows}")
            if feature.type == "Time":
                nulls += _add_cells(cells, feature, lookup, _request_times(feature, listed(values)))
            elif lookup is None and isinstance(values, np.ndarray):
                arrays[position] = values
                nulls += _nulls_of_array(feature, values)
            else:
                nulls += _add_cells(cells, feature, lookup, listed(values))
        try:
            encoded: Matrix = np.array(cells, dtype=np.float64)
        except OverflowError:
            self._find_not_finite(columns)
            raise
        encoded = np.ascontiguousarray(encoded.reshape(len(self.names) - len(arrays), rows).T)
        if arrays:
            encoded = self._with_arrays(encoded, arrays)
        if encoded.size - np.count_nonzero(np.isfinite(encoded)) != nulls:
            self._find_not_finite(columns)
        return encoded

    def _one(self, columns: Mapping[str, Values]) -> Matrix | None:
        """The matrix of the one row that most requests are, without nulls; None where it takes a closer look."""
        cells: list[float] = []
        total = 0.0
        try:
            for name, lookup in zip(self.names, self._codes, strict=True):
                (value,) = columns[name]
                kind = type(value)
                if lookup is None:
                    if kind is not float and kind is not int:
                        return None
                    total += value
                elif kind is str:
                    value = lookup[value]
                else:
                    return None
                cells.append(value)
            if not math.isfinite(total):
                return None
            return np.array((cells,), dtype=np.float64)
        except (KeyError, ValueError, OverflowError):
            return None

    def _with_arrays(self, rest: Matrix, arrays: Mapping[int, npt.NDArray[Any]]) -> Matrix:
        """The columns of `rest` in their order, and each array at its position."""
        whole = np.empty((len(rest), len(self.names)), dtype=np.float64)
        whole[:, [position for position in range(len(self.names)) if position not in arrays]] = rest
        for position, values in arrays.items():
            whole[:, position] = values
        return whole

    def _find_not_finite(self, columns: Mapping[str, Values]) -> None:
        """FeatureError that names the number which no finite float can hold."""
        for feature in self.features:
            for row, value in enumerate(listed(columns[feature.name]) if feature.type == "Number" else ()):
                try:
                    finite = value is None or math.isfinite(value)
                except OverflowError:
                    message = f"row {row}: an integer of {value.bit_length()} bits is too large for a 64-bit float"
                    raise FeatureError(feature.name, message) from None
                if not finite:
                    raise FeatureError(feature.name, f"row {row}: {value} is not finite; send null where it is unknown")


def _add_cells(
    cells: list[Any], feature: SignatureFeature, lookup: Mapping[Any, float] | None, values: Sequence[Any]
) -> int:
    """Add a column of plain values to the cells; how many of them are null."""
    kinds = set(map(type, values))
    nulls = _nulls(feature, values) if _NONE in kinds else 0
    if lookup is None:
        cells += values if kinds <= _NUMBERS else _request_numbers(feature, values, kinds)
    elif kinds == _TEXT:
        cells += map(lookup.__getitem__, values)
    else:
        cells += _request_codes(feature, values, lookup)
    return nulls


def _request_numbers(feature: SignatureFeature, values: Sequence[Any], kinds: set[type]) -> list[Any]:
    """The numbers where some are null or booleans: null as NaN."""
    if not kinds <= _NUMBERS_BOOL_NONE:
        row = next(row for row, value in enumerate(values) if type(value) not in _NUMBERS_BOOL_NONE)
        shown = f"{values[row]!r:.60}"
        raise FeatureError(feature.name, f"row {row}: a Number must be a number or null, not {shown}")
    return [math.nan if value is None else value for value in values]


def _request_times(feature: SignatureFeature, values: Sequence[Any]) -> list[float | None]:
    found = []
    for row, value in enumerate(values):
        try:
            found.append(times.of_request(value))
        except ValueError as error:
            raise FeatureError(feature.name, f"row {row}: {error}") from error
    return found


def _request_codes(feature: SignatureFeature, values: Sequence[Any], lookup: Mapping[Any, float]) -> list[float]:
    encoded = []
    for row, value in enumerate(values):
        if type(value) is str:
            encoded.append(lookup[value])
            continue
        try:
            text = category_text(value)
        except (TypeError, UnicodeDecodeError) as error:
            raise FeatureError(feature.name, f"row {row}: {error}") from error
        if text is None and value is not None:
            raise FeatureError(feature.name, f"row {row}: NaN is no category; send null where it is unknown")
        encoded.append(math.nan if text is None else lookup[text])
    return encoded


def listed(values: Values) -> Sequence[Any]:
    """Plain Python values, NaN of an array as None."""
    if not isinstance(values, np.ndarray):
        return values
    plain: list[Any] = values.tolist()
    return [None if math.isnan(value) else value for value in plain] if values.dtype.kind == "f" else plain


def _nulls_of_array(feature: SignatureFeature, values: npt.NDArray[Any]) -> int:
    if values.dtype.kind != "f":
        return 0
    missing = np.isnan(values)
    if feature.nulls == "Refuse" and missing.any():
        row = int(np.argmax(missing))
        raise FeatureError(feature.name, f"row {row}: NaN is refused, because the Model declares nulls: Refuse")
    return int(missing.sum())


def _nulls(feature: SignatureFeature, values: Sequence[Any]) -> int:
    """How many there are, where they are allowed."""
    if feature.nulls == "Refuse":
        row = next(row for row, value in enumerate(values) if value is None)
        raise FeatureError(feature.name, f"row {row}: null is refused, because the Model declares nulls: Refuse")
    return sum(value is None for value in values)


class _Lookup(dict[Any, float]):
    """A category's position."""

    def __missing__(self, category: Any) -> float:
        return UNKNOWN_CATEGORY


class _Closed(dict[Any, float]):
    """A category's position, for a model that fails on values that it does not know."""

    def __init__(self, feature: SignatureFeature) -> None:
        super().__init__(_positions(feature))
        self._name = feature.name

    def __missing__(self, category: Any) -> float:
        raise FeatureError(
            self._name,
            f"{category!r:.60} is none of the {len(self)} categories that the model knows: {_listed([*self])}",
        )


def _lookup(feature: SignatureFeature) -> _Lookup | _Closed:
    return _Closed(feature) if feature.unknown == "Refuse" else _Lookup(_positions(feature))


def _positions(feature: SignatureFeature) -> Iterator[tuple[str, float]]:
    return ((category, float(position)) for position, category in enumerate(feature.categories or ()))


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _codes_of(feature: SignatureFeature) -> Any:
    return lambda name, column: codes(name, column, feature.categories or ())


def _arrow(name: str, column: Any) -> Any:
    """The column as one pyarrow array, dictionaries decoded."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # no chunk at all
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
    elif not isinstance(column, pa.Array):
        try:
            column = pa.array(column, from_pandas=True)  # NaN in an array of objects is a null
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise FeatureError(name, f"holds values of several types ({error})") from error
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column


def _to_float64(array: pa.Array[Any]) -> Matrix:
    # A copy where there are nulls (pyarrow writes NaN for them), else a view; callers may write into it.
    values = pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.array(values, dtype=np.float64)


def _text_of(array: pa.Array[Any]) -> pa.Array[Any]:
    text: pa.Array[Any] = pc.cast(array, pa.string())
    return text


def _is_number(kind: Any) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_text(kind: Any) -> bool:
    return (
        pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )

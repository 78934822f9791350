"""Raw columns of files as we compute with them, and what in them is not what the Model declares.

| kind     | becomes                                | null     |
| Number   | float64                                | NaN      |
| Category | pa.string()                            | null     |
| Time     | int64, microseconds since 1970 in UTC  | NO_TIME  |
| Label    | int8, 0 or 1                           | NO_LABEL |

All of shape (rows,). A value that can't be converted becomes a null and is reported with its row; a column of a wrong
type is reported as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.features import encode

Kind = Literal["Number", "Category", "Time", "Label"]
Values: TypeAlias = "npt.NDArray[Any] | pa.Array[Any]"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_TIME = np.iinfo(np.int64).min
NO_LABEL = -1
SHOWN = 1000  # values of one problem in one file that are kept to be shown

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_TRUTH = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}
_LABELS = {**{text: int(truth) for text, truth in _TRUTH.items()}, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
_NULL_TEXTS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "#N/A")
_LABEL_HELP = "write 0 or 1, true or false, and nothing where the label is not known yet"


class Want(NamedTuple):
    """A column to read, and as what. One column may be wanted twice, as two kinds."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Bad:
    """Values of one column that can't be converted: their positions (None: the whole column), and texts of some."""

    positions: npt.NDArray[np.int64] | None
    values: Sequence[str]
    problem: str
    remedy: str


def convert(name: str, raw: Any, kind: Kind, from_text: bool) -> tuple[Values, Bad | None]:
    """The column as `kind`. `from_text`: it comes from a CSV, whose columns are all text."""
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    return _CONVERTERS[kind](name, raw, from_text)


def empty(kind: Kind, rows: int) -> Values:
    """A column of nulls."""
    if kind == "Category":
        return pa.nulls(rows, pa.string())
    value, dtype = {"Number": (np.nan, np.float64), "Time": (NO_TIME, np.int64), "Label": (NO_LABEL, np.int8)}[kind]
    return np.full(rows, value, dtype=dtype)


def select(values: Values, which: npt.NDArray[Any]) -> Values:
    """The rows of a mask, shape (rows,), or at positions, where a negative one stands for a null of a Category.
    Where these are all rows in their order, the values themselves."""
    if _everything(which, len(values)):
        return values
    if isinstance(values, np.ndarray):
        return np.asarray(values[which])
    if which.dtype == np.bool_:
        return values.filter(pa.array(which))
    return values.take(pa.array(which, mask=which < 0))


def _everything(which: npt.NDArray[Any], rows: int) -> bool:
    """Whether a mask or positions take all rows in their order, as most do: then nothing needs to be copied."""
    if len(which) != rows or not rows:
        return False
    if which.dtype == np.bool_:
        return bool(which.all())
    return bool(which[0] == 0 and which[-1] == rows - 1 and (which == np.arange(rows)).all())


def concatenate(parts: Sequence[Values], kind: Kind) -> Values:
    """The parts, one after the other."""
    if not parts:
        return empty(kind, 0)
    if kind == "Category":
        return pa.concat_arrays([part.cast(pa.string()) for part in parts if isinstance(part, pa.Array)])
    return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])


def nulls(values: Values, kind: Kind) -> npt.NDArray[np.bool_]:
    """Mask of nulls, shape (rows,)."""
    if isinstance(values, np.ndarray):
        if kind == "Number":
            return np.isnan(values)
        return np.asarray(values == (NO_TIME if kind == "Time" else NO_LABEL))
    return np.asarray(values.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)


def codes(values: Any) -> tuple[npt.NDArray[np.int64], Any]:
    """A position in the distinct values for each row, -1 for a null, and the distinct values as a pyarrow array."""
    encoded = values.dictionary_encode()
    return _integers(encoded.indices, -1), encoded.dictionary


def _integers(values: Any, null: int) -> npt.NDArray[np.int64]:
    return np.array(pc.fill_null(values, null).to_numpy(zero_copy_only=False), dtype=np.int64)


def _number(name: str, raw: Any, from_text: bool) -> tuple[Values, Bad | None]:
    bad: Bad | None = None
    if from_text:
        parse = _Parser(_number_of, np.nan, np.float64, "is no number", "correct it, or leave it empty")
        values, bad = _parsed(raw, parse)
    else:
        try:
            values = encode.numbers(name, raw)
        except encode.FeatureError as error:
            return empty("Number", len(raw)), _whole(error)
    infinite = np.isinf(values)
    if bad is None and infinite.any():
        positions = np.flatnonzero(infinite)
        shown = [str(value) for value in values[positions[:SHOWN]]]
        bad = Bad(positions, shown, "is not finite", "leave it empty where it is unknown")
    values[infinite] = np.nan
    return values, bad


def _number_of(text: str) -> float | None:
    if text in _TRUTH:
        return _TRUTH[text]
    return float(text) if _NUMBER.fullmatch(text) else None


def _category(name: str, raw: Any, from_text: bool) -> tuple[Values, Bad | None]:
    if from_text:
        return pc.if_else(pc.equal(raw, pa.scalar("")), pa.scalar(None, pa.string()), raw), None
    try:
        return encode.texts(name, raw), None
    except encode.FeatureError as error:
        return empty("Category", len(raw)), _whole(error)


def _time(name: str, raw: Any, from_text: bool) -> tuple[Values, Bad | None]:
    kind = raw.type
    if pa.types.is_null(kind):
        return empty("Time", len(raw)), None
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _microseconds(
            pc.cast(raw, pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None), safe=False)
        ), None
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        remedy = "write timestamps, or ISO 8601 text such as 2013-02-28T23:59:00Z"
        return empty("Time", len(raw)), Bad(None, (), f"is of type {kind}, which is no time", remedy)
    text = _without_null_texts(raw.cast(pa.string()))
    for target in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return _microseconds(pc.cast(text, target)), None
        except pa.ArrowInvalid:
            continue  # some with, some without an offset, or some that are no time: one by one
    remedy = "write ISO 8601, such as 2013-02-28T23:59:00Z; without an offset it is UTC"
    return _parsed(text, _Parser(_time_of, NO_TIME, np.int64, "is no time", remedy))


def _time_of(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def _microseconds(times: Any) -> npt.NDArray[np.int64]:
    return _integers(pc.cast(times, pa.int64()), NO_TIME)


def _label(name: str, raw: Any, from_text: bool) -> tuple[Values, Bad | None]:
    kind = raw.type
    if from_text or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _parsed(raw.cast(pa.string()), _Parser(_LABELS.get, NO_LABEL, np.int8, "is no label", _LABEL_HELP))
    try:
        values = encode.numbers(name, raw)
    except encode.FeatureError:
        problem = f"is of type {kind}, which is no label"
        return empty("Label", len(raw)), Bad(None, (), problem, _LABEL_HELP)
    wrong = ~np.isnan(values) & (values != 0) & (values != 1)
    labels = np.where(np.isnan(values) | wrong, NO_LABEL, np.nan_to_num(values)).astype(np.int8)
    if not wrong.any():
        return labels, None
    positions = np.flatnonzero(wrong)
    return labels, Bad(positions, [f"{value:g}" for value in values[positions[:SHOWN]]], "is no label", _LABEL_HELP)


class _Parser(NamedTuple):
    """How one distinct text becomes a value, and what to say where it can't."""

    parse: Callable[[str], float | int | None]
    null: float
    dtype: type[np.generic]
    problem: str
    remedy: str


def _parsed(raw: Any, parser: _Parser) -> tuple[npt.NDArray[Any], Bad | None]:
    """Text as numbers. Arrow's own parser where it knows all values, else each distinct value by itself."""
    text = _without_null_texts(raw)
    if parser.dtype is np.float64:
        try:
            return encode.numbers("", pc.cast(text, pa.float64())), None
        except pa.ArrowInvalid:
            pass
    position, distinct = codes(text)
    known = [parser.parse(value) for value in distinct.to_pylist()]
    # One more at the end, for nulls, whose position is -1.
    values = np.array([*(parser.null if value is None else value for value in known), parser.null], dtype=parser.dtype)
    wrong = np.array([*(value is None for value in known), False])[position]
    if not wrong.any():
        return values[position], None
    positions = np.flatnonzero(wrong)
    shown = text.take(pa.array(positions[:SHOWN])).to_pylist()
    return values[position], Bad(positions, shown, parser.problem, parser.remedy)


def _without_null_texts(text: Any) -> Any:
    trimmed: Any = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.is_in(trimmed, value_set=pa.array(_NULL_TEXTS)), pa.scalar(None, pa.string()), trimmed)


def _whole(error: encode.FeatureError) -> Bad:
    problem, _, remedy = str(error).removeprefix(f"{error.name}: ").partition("; ")
    return Bad(None, (), problem, remedy or "correct the column's type, or the feature's in the Model")


_CONVERTERS: dict[Kind, Callable[[str, Any, bool], tuple[Values, Bad | None]]] = {
    "Number": _number,
    "Category": _category,
    "Time": _time,
    "Label": _label,
}

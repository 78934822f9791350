"""Steps before the estimator as plain operators of ONNX: what is learned becomes constants and tables.

Each takes and gives the name of a matrix in double precision, shape (rows, columns), null as NaN, and computes what the
step's `transform` does: where that is arithmetic, by the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from truekeep.trainer.onnx.nodes import Graph, NotConvertibleError
from truekeep.trainer.onnx.trees import single_precision

if TYPE_CHECKING:  # it brings scikit-learn, whose import the reading of the data hides
    from truekeep.features import transform


def imputer(graph: Graph, step: Any, name: str) -> str:
    statistics = np.asarray(step.statistics_, dtype=np.float64)
    if np.isnan(statistics).any():
        raise NotConvertibleError("SimpleImputer drops a column that has no value")
    missing = graph.node("IsNaN", [name])
    imputed = graph.node("Where", [missing, graph.constant(statistics), name])
    if step.indicator_ is None or not len(step.indicator_.features_):
        return imputed
    shown = graph.columns(missing, [int(column) for column in step.indicator_.features_])
    return graph.joined([imputed, graph.double(shown)])


def _null_flags(graph: Graph, step: Any, name: str) -> str:
    if step.features != "all":
        raise NotConvertibleError("MissingIndicator tells of some columns only")
    return graph.double(graph.node("IsNaN", [name]))


def scaler(graph: Graph, step: Any, name: str) -> str:
    if step.mean_ is not None and step.with_mean:
        name = graph.node("Sub", [name, graph.constant(np.asarray(step.mean_, dtype=np.float64))])
    if step.scale_ is not None:
        name = graph.node("Div", [name, graph.constant(np.asarray(step.scale_, dtype=np.float64))])
    return name


def _robust_scaler(graph: Graph, step: Any, name: str) -> str:
    name = graph.node("Sub", [name, graph.constant(np.asarray(step.center_, dtype=np.float64))])
    return graph.node("Div", [name, graph.constant(np.asarray(step.scale_, dtype=np.float64))])


def _range_scaler(graph: Graph, step: Any, name: str) -> str:
    if step.clip:
        raise NotConvertibleError("MinMaxScaler clips")
    name = graph.node("Mul", [name, graph.constant(np.asarray(step.scale_, dtype=np.float64))])
    return graph.node("Add", [name, graph.constant(np.asarray(step.min_, dtype=np.float64))])


def one_hot(graph: Graph, step: Any, name: str) -> str:
    """Every column repeated for each of its categories, compared with all of them at once."""
    if step._infrequent_enabled:
        return _one_hot_of_frequent(graph, step, name)
    check_indicators(step)
    positions = [column for column, known in enumerate(step.categories_) for _ in known]
    values = np.concatenate([np.asarray(known, dtype=np.float64) for known in step.categories_])
    repeated = graph.columns(name, positions)
    hit = graph.node("Equal", [repeated, graph.constant(values)])
    if np.isnan(values).any():
        null = graph.node("And", [graph.node("IsNaN", [repeated]), graph.constant(np.isnan(values))])
        hit = graph.node("Or", [hit, null])
    return graph.double(hit)


def _one_hot_of_frequent(graph: Graph, step: Any, name: str) -> str:
    """Where rare categories share an indicator, which unknown ones get, too: each code's place among the indicators of
    its column first, then as above."""
    if step.drop_idx_ is not None or step.handle_unknown != "infrequent_if_exist":
        raise NotConvertibleError("OneHotEncoder drops categories")
    known, places, misses = [], [], []
    for column, codes in enumerate(step.categories_):
        mapped = step._default_to_infrequent_mappings[column]
        rare = step.infrequent_categories_[column] is not None
        place = np.arange(len(codes)) if mapped is None else np.asarray(mapped)
        unknown = float(place.max()) if rare else -1.0  # the rare ones are the last
        null = np.isnan(np.asarray(codes, dtype=np.float64))
        known.append(np.asarray(codes, dtype=np.float64)[~null])
        places.append(place[~null].astype(np.float64))
        misses.append((float(place[null][0]) if null.any() else unknown, unknown))
    found = looked_up(graph, name, known, places, misses)
    counts = [int(count) for count in step._n_features_outs]
    repeated = graph.columns(found, [column for column, count in enumerate(counts) for _ in range(count)])
    wanted = np.concatenate([np.arange(count, dtype=np.float64) for count in counts])
    return graph.double(graph.node("Equal", [repeated, graph.constant(wanted)]))


def check_indicators(step: Any) -> None:
    if step.drop_idx_ is not None or step._infrequent_enabled or step.handle_unknown != "ignore":
        raise NotConvertibleError("OneHotEncoder drops or gathers categories")


def _target_encoder(graph: Graph, step: Any, name: str) -> str:
    if step.target_type_ != "binary":
        raise NotConvertibleError(f"TargetEncoder of a target that is {step.target_type_}")
    known, values, misses = [], [], []
    mean = float(step.target_mean_)
    for codes, means in zip(step.categories_, step.encodings_, strict=True):
        null = np.isnan(np.asarray(codes, dtype=np.float64))
        known.append(np.asarray(codes, dtype=np.float64)[~null])
        values.append(np.asarray(means, dtype=np.float64)[~null])
        misses.append((float(np.asarray(means)[null][0]) if null.any() else mean, mean))
    return looked_up(graph, name, known, values, misses)


def _lookup(graph: Graph, step: transform.Lookup, name: str) -> str:
    codes = np.arange(step.values.shape[1], dtype=np.float64)
    return looked_up(graph, name, [codes] * len(step.values), list(step.values), [(np.nan, np.nan)] * len(step.values))


def _log(graph: Graph, step: transform.Log, name: str) -> str:
    shifted = graph.node("Add", [name, graph.constant(np.array(float(step.offset)))])
    above = graph.node("Greater", [shifted, graph.constant(np.array(0.0))])
    rounded = single_precision(graph, graph.node("Log", [shifted]))
    return graph.node("Where", [above, rounded, graph.constant(np.array(np.nan))])


def _clip(graph: Graph, step: transform.Clip, name: str) -> str:
    low, high = (graph.constant(np.asarray(limit, dtype=np.float64)) for limit in (step.low_, step.high_))
    raised = graph.node("Where", [graph.node("Less", [name, low]), low, name])
    return graph.node("Where", [graph.node("Greater", [raised, high]), high, raised])


def _ratio(graph: Graph, step: transform.Ratio, name: str) -> str:
    from truekeep.features import transform

    divided = graph.node("Div", [graph.columns(name, [0]), graph.columns(name, [1])])
    small = graph.node("LessOrEqual", [graph.node("Abs", [divided]), graph.constant(np.array(transform.GREATEST))])
    return graph.node("Where", [small, divided, graph.constant(np.array(np.nan))])


def _date_parts(graph: Graph, step: transform.DateParts, name: str) -> str:
    return graph.joined(
        [
            made
            for column in range(step.n_features_in_)
            for made in _parts_of_one(graph, step, graph.columns(name, [column]))
        ]
    )


def _parts_of_one(graph: Graph, step: transform.DateParts, time: str) -> list[str]:
    """The parts of one column. Whole numbers below 2^53 all along, and quotients of them that are further from the next
    whole number than rounding can move them."""
    from onnx import TensorProto

    from truekeep.features import transform

    def constant(value: Any) -> str:
        return graph.constant(np.asarray(value, dtype=np.float64))

    def whole(value: str, unit: int) -> str:
        return graph.node("Floor", [graph.node("Div", [value, constant(unit)])])

    def rest(value: str, count: str, most: int) -> str:
        return graph.node("Sub", [value, graph.node("Mul", [count, constant(most)])])

    known = graph.node(
        "And",
        [
            graph.node("GreaterOrEqual", [time, constant(transform.FIRST)]),
            graph.node("LessOrEqual", [time, constant(transform.LAST)]),
        ],
    )
    local = graph.node("Where", [known, time, constant(0.0)])
    shift = constant([[step.offsets_[0]]])
    if len(step.changes_):  # the first offset, and what each change that is over has added
        over = graph.double(graph.node("GreaterOrEqual", [local, constant(step.changes_.reshape(1, -1))]))
        added = graph.node("MatMul", [over, constant(np.diff(step.offsets_).reshape(-1, 1))])
        shift = graph.node("Add", [added, shift])
    local = graph.node("Add", [local, shift])
    day, hour = whole(local, transform.DAY), whole(local, transform.HOUR)
    first_day = transform.FIRST // transform.DAY - 1  # a zone's clock may still show the day before
    days = np.arange(first_day, transform.LAST // transform.DAY + 2, dtype=np.int64)
    made: list[str] = []
    for part in step.parts:
        if part == "Hour":
            value = rest(hour, day, 24)
        elif part == "Minute":
            value = rest(whole(local, transform.MINUTE), hour, 60)
        else:
            table = transform.part_of(part, days * transform.DAY).astype(np.int16)
            place = graph.node("Cast", [graph.node("Sub", [day, constant(first_day)])], to=TensorProto.INT64)
            value = graph.double(graph.node("Gather", [graph.constant(table), place], axis=0))
        start, period = transform.PERIODS.get(part, (0, 0))
        circle = transform.encoded(part, step.encoding, np.arange(start, start + period, dtype=np.int64))
        if len(circle) == 1:
            outputs = [value]
        else:
            place = graph.node("Cast", [graph.node("Sub", [value, constant(start)])], to=TensorProto.INT64)
            outputs = [graph.node("Gather", [graph.constant(one), place], axis=0) for one in circle]
        made += [graph.node("Where", [known, one, constant(np.nan)]) for one in outputs]
    return made


def looked_up(
    graph: Graph,
    name: str,
    known: Sequence[npt.NDArray[np.float64]],
    values: Sequence[npt.NDArray[np.float64]],
    misses: Sequence[tuple[float, float]],
    *,
    axis: int = 1,
) -> str:
    """Each column's codes replaced by values: `known` codes by `values`, a null and an unknown code by the two of
    `misses`. One list for each column; the columns lie along `axis`.

    NotConvertibleError where a category is no code."""
    if any((codes != np.floor(codes)).any() or (codes < 0).any() for codes in known):
        raise NotConvertibleError("it has categories that are no codes")
    width = max((int(codes.max(initial=0.0)) for codes in known), default=0) + 1  # codes that any of the columns has
    # A column's table: null, unknown, the codes 0 to width - 1, and what is beyond all codes; one after the other.
    table = np.empty((len(known), width + 3))
    for row, (codes, found, (null, unknown)) in enumerate(zip(known, values, misses, strict=True)):
        table[row] = unknown
        table[row, 0] = null
        table[row, codes.astype(np.int64) + 2] = found
    from onnx import TensorProto

    numbered = graph.node("Where", [graph.node("IsNaN", [name]), graph.constant(np.array(-2.0)), name])
    bounds = [graph.constant(np.array(bound)) for bound in (-2.0, float(width))]
    index = graph.node("Cast", [graph.node("Clip", [numbered, *bounds])], to=TensorProto.INT64)
    offsets = np.arange(len(known), dtype=np.int64) * (width + 3) + 2
    index = graph.node("Add", [index, graph.constant(offsets if axis else offsets.reshape(-1, 1))])
    return graph.node("Gather", [graph.constant(table.ravel()), index], axis=0)


STEPS: Mapping[str, Callable[[Graph, Any, str], str]] = {
    "Clip": _clip,
    "DateParts": _date_parts,
    "Log": _log,
    "Lookup": _lookup,
    "MinMaxScaler": _range_scaler,
    "MissingIndicator": _null_flags,
    "OneHotEncoder": one_hot,
    "Ratio": _ratio,
    "RobustScaler": _robust_scaler,
    "SimpleImputer": imputer,
    "StandardScaler": scaler,
    "TargetEncoder": _target_encoder,
}

"""A fitted pipeline of the recipe as an ONNX model: the same decisions in double precision, and bytes that depend on
the model alone.

Written here instead of with skl2onnx 1.20, because that takes float32 inputs (rows near a split fall on its other
side), fails on HistGradientBoosting, and knows nothing of its categories. The pipelines are our own (`pipeline.build`),
so few parts need a translation: imputing, scaling and indicators as plain operators, all trees of a model as one
`TreeEnsemble` (ai.onnx.ml 5) with double thresholds and sets of categories. scikit-learn's forests compare in float32;
so does the translation. `onnx_nodes` holds the graph in the making, `onnx_steps` what comes before the estimator,
`onnx_trees` any library's trees, `onnx_boosters` what LightGBM and XGBoost say of theirs.

Input `X`: float64, shape (rows, features), as `features.encode` makes it. Output `probability`: float64, shape (rows,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.features.compiled import INPUT, OUTPUT
from truekeep.trainer.onnx.boosters import lightgbm, xgboost
from truekeep.trainer.onnx.nodes import Graph, NotConvertibleError
from truekeep.trainer.onnx.steps import STEPS, check_indicators, looked_up
from truekeep.trainer.onnx.trees import Meaning, Tree, ensemble, plain_tree, single_precision

__all__ = ["NotConvertibleError", "convert"]


def convert(pipeline: Any, features: int) -> bytes:
    """The ONNX model of a fitted `pipeline.build` that takes so many features. NotConvertibleError where a part has no
    translation."""
    graph = Graph()
    *preparation, (_, estimator) = pipeline.steps
    kinds = [type(step).__name__ for _, step in pipeline.steps]
    if len(kinds) == 2 and kinds[0] == "ColumnTransformer" and kinds[1] in _LINEAR and _folds(preparation[0][1]):
        _LINEAR[kinds[1]](graph, estimator, _folded(graph, preparation[0][1], estimator), output=OUTPUT)
        return graph.to_bytes(features)
    if kinds[-1] in _ESTIMATORS:
        name = INPUT
        if kinds[-1] in _ASKING and kinds[:-1] == ["ColumnTransformer"]:
            graph.meanings = _meanings(preparation[0][1])
        if len(preparation) > 1 and set(kinds[:-1]) == {"ColumnTransformer"}:
            name = _stages(graph, [step for _, step in preparation], features)
        else:
            for _, step in preparation if graph.meanings is None else ():
                name = _transform(graph, step, name)
        score = _ESTIMATORS[kinds[-1]](graph, estimator, name)
    else:
        raise NotConvertibleError(f"{kinds[-1]} has no translation to ONNX")
    graph.node("Reshape", [score, graph.constant(np.array([-1], dtype=np.int64))], output=OUTPUT)
    return graph.to_bytes(features)


# --- preparation ------------------------------------------------------------------------------------------------------


def _transform(graph: Graph, step: Any, name: str) -> str:
    kind = type(step).__name__
    if _passes(step):
        return name
    if kind == "Pipeline":
        for _, inner in step.steps:
            name = _transform(graph, inner, name)
        return name
    translate = _TRANSFORMERS.get(kind)
    if translate is None:
        raise NotConvertibleError(f"{kind} has no translation to ONNX")
    return translate(graph, step, name)


def _stages(graph: Graph, steps: Sequence[Any], features: int) -> str:
    """ColumnTransformers one after the other. Columns that a step passes on are not copied: each is remembered by the
    node that made it, and its place there, until something takes it."""
    widths = {INPUT: features}
    layout = [(INPUT, column) for column in range(features)]
    for step in steps:
        made: list[tuple[str, int]] = []
        for label, part, columns in step.transformers_:
            if label == "remainder":
                continue
            places = [layout[int(column)] for column in columns]
            if not _passes(part):
                name = _transform(graph, part, _gathered(graph, places, widths))
                widths[name] = int(part.transform(np.zeros((1, len(places)))).shape[1])
                places = [(name, column) for column in range(widths[name])]
            made += places
        layout = made
    return _gathered(graph, layout, widths)


def _gathered(graph: Graph, places: Sequence[tuple[str, int]], widths: Mapping[str, int]) -> str:
    """The columns at these places as one matrix, by at most one concatenation and one choice."""
    sources = list(dict.fromkeys(source for source, _ in places))
    starts = dict(zip(sources, np.cumsum([0, *(widths[source] for source in sources)]).tolist(), strict=False))
    wanted = [starts[source] + column for source, column in places]
    joined = graph.joined(sources)
    return joined if wanted == list(range(sum(widths[one] for one in sources))) else graph.columns(joined, wanted)


def _passes(part: Any) -> bool:
    return bool(part == "passthrough" or (type(part).__name__ == "FunctionTransformer" and part.func is None))


def _column_transformer(graph: Graph, step: Any, name: str) -> str:
    parts = [
        _transform(graph, part, graph.columns(name, [int(column) for column in columns]))
        for label, part, columns in step.transformers_
        if label != "remainder"
    ]
    return graph.joined(parts)


_TRANSFORMERS: Mapping[str, Callable[[Graph, Any, str], str]] = {**STEPS, "ColumnTransformer": _column_transformer}


def _meanings(encoder: Any) -> list[Meaning] | None:
    """What each of its columns is in the matrix; None where that takes more than an imputer or indicators."""
    found: list[Meaning] = []
    for label, part, columns in encoder.transformers_:
        positions = [int(column) for column in columns]
        kind = type(part).__name__
        if label == "remainder" or not positions:
            continue
        if _passes(part):
            found += [Meaning("Number", column) for column in positions]
        elif kind == "SimpleImputer" and not np.isnan(part.statistics_).any():
            # Trees that come behind an imputer compare in single precision.
            found += [
                Meaning("Number", column, float(np.float32(value)))
                for column, value in zip(positions, part.statistics_, strict=True)
            ]
            if part.indicator_ is not None:
                found += [Meaning("Null", positions[int(column)]) for column in part.indicator_.features_]
        elif kind == "OneHotEncoder":
            check_indicators(part)
            for column, known in zip(positions, part.categories_, strict=True):
                found += [
                    Meaning("Null", column) if np.isnan(code) else Meaning("Category", column, float(code))
                    for code in np.asarray(known, dtype=np.float64)
                ]
        else:
            return None
    return found


# --- estimators -------------------------------------------------------------------------------------------------------


def _linear(graph: Graph, model: Any, name: str) -> str:
    weights = np.asarray(np.ravel(model.coef_), dtype=np.float64)
    score = graph.node("MatMul", [name, graph.constant(weights.reshape(-1, 1))])
    score = graph.node("Add", [score, graph.constant(np.asarray(model.intercept_, dtype=np.float64))])
    return _LINEAR[type(model).__name__](graph, model, score)


def _logistic(graph: Graph, model: Any, score: str, output: str = "") -> str:
    return graph.node("Sigmoid", [score], output=output)


def _stochastic(graph: Graph, model: Any, score: str, output: str = "") -> str:
    """What SGDClassifier makes of its score, by its loss."""
    if model.loss == "log_loss":
        return _logistic(graph, model, score, output)
    if model.loss != "modified_huber":
        raise NotConvertibleError(f"SGDClassifier with the loss {model.loss} has no probabilities")
    bounds = [graph.constant(np.array(bound)) for bound in (-1.0, 1.0)]
    raised = graph.node("Add", [graph.node("Clip", [score, *bounds]), graph.constant(np.array(1.0))])
    return graph.node("Div", [raised, graph.constant(np.array(2.0))], output=output)


_LINEAR: Mapping[str, Callable[..., str]] = {"LogisticRegression": _logistic, "SGDClassifier": _stochastic}


def _folded(graph: Graph, encoder: Any, model: Any) -> str:
    """A linear model right behind a ColumnTransformer, shape (rows,).

    No indicator is made and multiplied: what a category adds to the score is looked up, and so is what a null of a
    number adds. With features as rows each step runs over long stretches of memory, and columns are chosen by copying
    such stretches; for a hundred rows that is a third of the time."""
    weights = np.asarray(np.ravel(model.coef_), dtype=np.float64)
    base = float(np.ravel(model.intercept_)[0])
    turned = graph.node("Transpose", [INPUT], perm=[1, 0])
    terms: list[str] = []
    for label, part, columns in encoder.transformers_:
        if label == "remainder" or not len(columns):
            continue
        own = weights[encoder.output_indices_[label]]
        given = graph.rows(turned, [int(column) for column in columns])
        if type(part).__name__ == "OneHotEncoder":
            terms.append(_categories_terms(graph, part, own, given))
        else:
            number = _number_terms(part, own)
            base += number.base
            shifted = graph.node("Sub", [given, graph.constant(number.mean.reshape(-1, 1))])
            term = graph.node("Mul", [shifted, graph.constant(number.slope.reshape(-1, 1))])
            missing = graph.node("IsNaN", [given])
            terms.append(graph.node("Where", [missing, graph.constant(number.null.reshape(-1, 1)), term]))
    stacked = terms[0] if len(terms) == 1 else graph.node("Concat", terms, axis=0)
    ones = graph.constant(np.ones(len(_taken(encoder))))
    return graph.node("Add", [graph.node("MatMul", [ones, stacked]), graph.constant(np.array([base]))])


def _taken(encoder: Any) -> list[int]:
    """The columns that a ColumnTransformer takes, in its order."""
    return [int(one) for label, _, columns in encoder.transformers_ if label != "remainder" for one in columns]


def _categories_terms(graph: Graph, part: Any, weights: npt.NDArray[np.float64], given: str) -> str:
    check_indicators(part)
    known = [np.asarray(codes, dtype=np.float64) for codes in part.categories_]
    split = np.split(weights, np.cumsum([len(codes) for codes in known])[:-1])
    null = [float(one[np.isnan(codes)].sum()) for one, codes in zip(split, known, strict=True)]
    found = [one[~np.isnan(codes)] for one, codes in zip(split, known, strict=True)]
    codes = [codes[~np.isnan(codes)] for codes in known]
    return looked_up(graph, given, codes, found, [(one, 0.0) for one in null], axis=0)


@dataclass(frozen=True)
class _Numbers:
    """What numbers add to a score: (x - mean) * slope, or `null` where x is missing; and `base` for all rows."""

    mean: npt.NDArray[np.float64]
    slope: npt.NDArray[np.float64]
    null: npt.NDArray[np.float64]
    base: float


def _folds(encoder: Any) -> bool:
    """Whether `_folded` knows all parts of it."""
    parts = [part for label, part, columns in encoder.transformers_ if label != "remainder" and len(columns)]
    return bool(parts) and all(type(part).__name__ == "OneHotEncoder" or _foldable(part) for part in parts)


def _foldable(part: Any) -> bool:
    """Whether `_number_terms` knows it: an imputer, and then a scaler perhaps."""
    kinds = [type(step).__name__ for _, step in part.steps] if type(part).__name__ == "Pipeline" else []
    return kinds == ["SimpleImputer", "StandardScaler"]


def _number_terms(part: Any, weights: npt.NDArray[np.float64]) -> _Numbers:
    (_, imputer), (_, scaler) = part.steps
    statistics = np.asarray(imputer.statistics_, dtype=np.float64)
    if np.isnan(statistics).any():
        raise NotConvertibleError("SimpleImputer drops a column that has no value")
    count = len(statistics)
    mean = np.zeros(len(weights)) if scaler.mean_ is None or not scaler.with_mean else np.asarray(scaler.mean_)
    slope = weights if scaler.scale_ is None else weights / np.asarray(scaler.scale_)
    null = (statistics - mean[:count]) * slope[:count]
    if imputer.indicator_ is not None:
        for place, column in enumerate(imputer.indicator_.features_):
            null[int(column)] += slope[count + place]
    return _Numbers(mean[:count], slope[:count], null, -float(mean[count:] @ slope[count:]))


def _forest(graph: Graph, model: Any, name: str) -> str:
    trees = [plain_tree(member, member.tree_.value[:, 0, 1]) for member in model.estimators_]
    total = ensemble(graph, trees, single_precision(graph, name))
    return graph.node("Div", [total, graph.constant(np.array(float(len(trees))))])


def _gradient_boosting(graph: Graph, model: Any, name: str) -> str:
    start = float(np.ravel(model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32)))[0])
    if type(model.init_).__name__ not in ("DummyClassifier", "str"):
        raise NotConvertibleError(f"an init of type {type(model.init_).__name__} has no translation to ONNX")
    trees = [
        plain_tree(member, model.learning_rate * member.tree_.value[:, 0, 0]) for member in model.estimators_[:, 0]
    ]
    total = ensemble(graph, trees, single_precision(graph, name))
    raw = graph.node("Add", [total, graph.constant(np.array(start))])
    if model.loss == "exponential":
        raw = graph.node("Mul", [raw, graph.constant(np.array(2.0))])
    return graph.node("Sigmoid", [raw])


def _hist_gradient_boosting(graph: Graph, model: Any, name: str) -> str:
    counts: list[int] = []
    if model._preprocessor is not None:
        name, counts = _native_categories(graph, model, name)
    trees = [_binned_tree(predictor, counts) for stage in model._predictors for predictor in stage]
    total = ensemble(graph, trees, name)
    baseline = float(np.ravel(model._baseline_prediction)[0])
    return graph.node("Sigmoid", [graph.node("Add", [total, graph.constant(np.array(baseline))])])


def _native_categories(graph: Graph, model: Any, name: str) -> tuple[str, list[int]]:
    """The matrix as the trees see it, categories first, each as its position among those that were fitted; what is
    missing or unknown is one position more. Returns its name, and how many categories each such column has."""
    encoder = model._preprocessor.named_transformers_["encoder"]
    categorical = np.flatnonzero(model.is_categorical_).tolist()
    rest = np.flatnonzero(~model.is_categorical_).tolist()
    known = [np.asarray(values, dtype=np.float64) for values in encoder.categories_]
    known = [values[~np.isnan(values)] for values in known]
    tables = [np.arange(len(values), dtype=np.float64) for values in known]
    misses = [(float(len(values)), float(len(values))) for values in known]
    positions = looked_up(graph, graph.columns(name, categorical), known, tables, misses)
    parts = [positions, graph.columns(name, rest)] if rest else [positions]
    return graph.joined(parts), [len(values) for values in known]


def _binned_tree(predictor: Any, counts: Sequence[int]) -> Tree:
    """A tree of HistGradientBoosting. `counts`: how many categories the first columns have."""
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(np.bool_)
    members: dict[int, list[int]] = {}
    for node in np.flatnonzero(~leaf & nodes["is_categorical"].astype(np.bool_)).tolist():
        bits = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        count = counts[int(nodes["feature_idx"][node])]
        chosen = [one for one in range(count) if int(bits[one // 32]) >> (one % 32) & 1]
        if nodes["missing_go_to_left"][node]:
            chosen.append(count)
        members[node] = chosen
    return Tree(
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        leaf=leaf,
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        missing_left=nodes["missing_go_to_left"].astype(np.bool_) & ~nodes["is_categorical"].astype(np.bool_),
        value=nodes["value"].astype(np.float64),
        members=members,
    )


# Trees that may ask the matrix itself.
_ASKING = frozenset((
    "ExtraTreesClassifier", "GradientBoostingClassifier", "LGBMClassifier", "RandomForestClassifier", "XGBClassifier",
))  # fmt: skip
_ESTIMATORS: Mapping[str, Callable[[Graph, Any, str], str]] = {
    "ExtraTreesClassifier": _forest,
    "GradientBoostingClassifier": _gradient_boosting,
    "HistGradientBoostingClassifier": _hist_gradient_boosting,
    "LGBMClassifier": lightgbm,
    "LogisticRegression": _linear,
    "RandomForestClassifier": _forest,
    "SGDClassifier": _linear,
    "XGBClassifier": xgboost,
}

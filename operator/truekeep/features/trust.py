"""Which types a model file may hold, and the only door through which one is loaded.

skops trusts every public scikit-learn estimator by default and lets a file name any loader. Here the file is read
first: each node must be a (loader, type) pair from a closed list for the one estimator that the Model asked for, so
that a file that is well-formed, but holds another estimator, a method, a function or a type of somebody's own, is
refused before anything is imported or built. What is built is checked once more: it is a Pipeline that ends in that
estimator, and its trees stay within their own arrays (scikit-learn walks them without bounds checks).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

MAX_FILES = 100_000
MAX_BYTES = 1 << 30

Pair = tuple[str, str]


class UntrustedModelError(ValueError):
    """A model file that is not loaded. The text names what it holds and what would be accepted."""


def pairs(loader: str, module: str, *names: str) -> frozenset[Pair]:
    """(loader, type) of each name in a module."""
    return frozenset((loader, f"{module}.{name}") for name in names)


_SCALARS = ("bool", "bool_", "float32", "float64", "int8", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

# What a fitted Pipeline of imputers, scalers and encoders is made of.
_PREPARATION = (
    pairs("JsonNode", "builtins", "str")
    | pairs("DictNode", "builtins", "dict")
    | pairs("ListNode", "builtins", "list")
    | pairs("TupleNode", "builtins", "tuple")
    | pairs("SliceNode", "builtins", "slice")
    | pairs("TypeNode", "builtins", "str", "int", "float", "bool")
    | pairs("TypeNode", "numpy", *_SCALARS)
    | pairs("NdArrayNode", "numpy", "ndarray", *_SCALARS)
    | pairs("DTypeNode", "numpy", "dtype")
    | pairs("RandomStateNode", "numpy.random.mtrand", "RandomState")
    | pairs("ObjectNode", "sklearn.pipeline", "Pipeline")
    | pairs("ObjectNode", "sklearn.compose._column_transformer", "ColumnTransformer")
    | pairs("ObjectNode", "sklearn.impute._base", "SimpleImputer", "MissingIndicator")
    | pairs("ObjectNode", "sklearn.preprocessing._data", "MinMaxScaler", "RobustScaler", "StandardScaler")
    | pairs("ObjectNode", "sklearn.preprocessing._encoders", "OneHotEncoder", "OrdinalEncoder")
    | pairs("ObjectNode", "sklearn.preprocessing._target_encoder", "TargetEncoder")
    # What "passthrough" becomes. With no function that could be trusted beside it, it can only pass on.
    | pairs("ObjectNode", "sklearn.preprocessing._function_transformer", "FunctionTransformer")
    | pairs("ObjectNode", "truekeep.features.transform", "Clip", "DateParts", "Log", "Lookup", "Ratio")
)
_TREE = pairs("TreeNode", "sklearn.tree._tree", "Tree")
_LOSS = (
    pairs("LossNode", "sklearn._loss._loss", "CyHalfBinomialLoss")
    | pairs("ObjectNode", "sklearn._loss.link", "Interval", "LogitLink")
    | pairs("ObjectNode", "sklearn._loss.loss", "HalfBinomialLoss")
)
_BINNED = "sklearn.ensemble._hist_gradient_boosting"

# Fixed per estimator of truekeep.api.estimators that is published as skops; a test proves that each is here and loads.
_ALLOWED: dict[str, frozenset[Pair]] = {
    "sklearn.ensemble.ExtraTreesClassifier": _TREE
    | pairs("ObjectNode", "sklearn.ensemble._forest", "ExtraTreesClassifier")
    | pairs("ObjectNode", "sklearn.tree._classes", "ExtraTreeClassifier"),
    "sklearn.ensemble.GradientBoostingClassifier": _TREE
    | _LOSS
    | pairs("LossNode", "sklearn._loss._loss", "CyExponentialLoss")
    | pairs("ObjectNode", "sklearn._loss.link", "HalfLogitLink")
    | pairs("ObjectNode", "sklearn._loss.loss", "ExponentialLoss")
    | pairs("ObjectNode", "sklearn.ensemble._gb", "GradientBoostingClassifier")
    | pairs("ObjectNode", "sklearn.tree._classes", "DecisionTreeRegressor")
    | pairs("ObjectNode", "sklearn.dummy", "DummyClassifier"),
    "sklearn.ensemble.HistGradientBoostingClassifier": _LOSS
    | pairs("ObjectNode", f"{_BINNED}.gradient_boosting", "HistGradientBoostingClassifier")
    | pairs("ObjectNode", f"{_BINNED}.binning", "_BinMapper")
    | pairs("ObjectNode", f"{_BINNED}.predictor", "TreePredictor")
    | pairs("ObjectNode", "sklearn.preprocessing._label", "LabelEncoder")
    | pairs("RandomGeneratorNode", "numpy.random._generator", "Generator")
    # With categorical_features it carries a FunctionTransformer around this one function.
    | pairs("PartialNode", "functools", "partial")
    | pairs("FunctionNode", "sklearn.utils.validation", "check_array"),
    "sklearn.ensemble.RandomForestClassifier": _TREE
    | pairs("ObjectNode", "sklearn.ensemble._forest", "RandomForestClassifier")
    | pairs("ObjectNode", "sklearn.tree._classes", "DecisionTreeClassifier"),
    "sklearn.linear_model.LogisticRegression": pairs(
        "ObjectNode", "sklearn.linear_model._logistic", "LogisticRegression"
    ),
    "sklearn.linear_model.SGDClassifier": pairs("LossNode", "sklearn._loss._loss", "CyHalfBinomialLoss")
    | pairs("LossNode", "sklearn.linear_model._sgd_fast", "ModifiedHuber")
    | pairs("ObjectNode", "sklearn.linear_model._stochastic_gradient", "SGDClassifier"),
}
ESTIMATORS = frozenset(_ALLOWED)
EVERYTHING: frozenset[Pair] = _PREPARATION.union(*_ALLOWED.values())


def trusted_types(estimator: str) -> tuple[str, ...]:
    """The names of the types that skops may build for this estimator. UntrustedModelError where it is not allowed."""
    if estimator not in _ALLOWED:
        raise UntrustedModelError(
            f"estimator {estimator!r:.100} is not allowed; use one of {', '.join(sorted(_ALLOWED))}"
        )
    return tuple(sorted({name for _, name in _PREPARATION | _ALLOWED[estimator]}))


def load_pipeline(content: bytes, estimator: str) -> Any:
    """The fitted `sklearn.pipeline.Pipeline` in a skops file.

    UntrustedModelError where it holds anything but a pipeline of preparation steps that ends in this estimator."""
    trusted = trusted_types(estimator)
    _check_nodes(read_schema(content), _PREPARATION | _ALLOWED[estimator], estimator)
    # Imported late: the check above needs neither, and a refusal should be quick.
    from skops import io as skops_io

    try:
        pipeline = skops_io.loads(content, trusted=list(trusted))
        _check_pipeline(pipeline, estimator)
    except UntrustedModelError:
        raise
    except Exception as error:  # whatever a hostile or damaged file makes skops or scikit-learn say
        raise UntrustedModelError(f"the model file is damaged ({type(error).__name__}: {error!s:.200})") from error
    return pipeline


def read_schema(content: bytes) -> Any:
    """What a skops file says that it holds. UntrustedModelError where it is none, damaged or too large."""
    if content[:2] != b"PK":
        raise UntrustedModelError("the model file is no skops file; pickle and joblib files are never loaded")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if len(entries) > MAX_FILES or size > MAX_BYTES:
                raise UntrustedModelError(
                    f"the model file unpacks to {len(entries)} files and {size} bytes; "
                    f"at most {MAX_FILES} and {MAX_BYTES} are loaded: train a smaller model"
                )
            return json.loads(archive.read("schema.json"))
    except UntrustedModelError:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, OSError, RecursionError) as error:
        raise UntrustedModelError(f"the model file is damaged ({type(error).__name__}: {error!s:.200})") from error


def nodes(schema: Any) -> Iterator[Pair]:
    """Every node, wherever it hides. A dict is a node where it has a loader; a stack, because files nest deeply."""
    stack = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            if "__loader__" in value:
                yield str(value["__loader__"]), f"{value.get('__module__')}.{value.get('__class__')}"
            stack.extend(value.values())


def _check_nodes(schema: Any, allowed: frozenset[Pair], estimator: str) -> None:
    found = 0
    for pair in nodes(schema):
        found += 1
        if pair not in allowed:
            raise UntrustedModelError(
                f"the model file holds {pair[1]:.100} (loaded by {pair[0]:.40}), which is not allowed in a "
                f"pipeline of {estimator}"
            )
    if not found:
        raise UntrustedModelError("the model file holds no model")


def _check_pipeline(pipeline: Any, estimator: str) -> None:
    from sklearn.pipeline import Pipeline

    module, _, name = estimator.rpartition(".")
    if type(pipeline) is not Pipeline:
        raise UntrustedModelError(f"the model file holds a {type(pipeline).__name__}, not a Pipeline")
    final = pipeline.steps[-1][1]
    if type(final).__name__ != name or not type(final).__module__.startswith(f"{module}."):
        raise UntrustedModelError(f"the pipeline ends in {type(final).__name__}, but the signature says {estimator}")
    if list(final.classes_) != [0, 1]:
        raise UntrustedModelError(f"the model knows the classes {list(final.classes_)!r:.100}, a binary one has [0, 1]")
    features = int(final.n_features_in_)
    for member in np.ravel(getattr(final, "estimators_", [])):
        check_tree(member.tree_, features)
    check_predictors(final)


def check_tree(tree: Any, features: int) -> None:
    """UntrustedModelError where a tree of scikit-learn would read outside of itself, or of so many features."""
    _check_walk(tree.children_left, tree.children_right, tree.feature, tree.children_left == -1, features)


def check_predictors(model: Any) -> None:
    """Likewise for the trees of a HistGradientBoosting model; others have none."""
    for predictor in (one for stage in getattr(model, "_predictors", []) for one in stage):
        rows = predictor.nodes
        leaf = rows["is_leaf"].astype(bool)
        _check_walk(rows["left"], rows["right"], rows["feature_idx"], leaf, int(model.n_features_in_))
        bitsets = rows["bitset_idx"][~leaf & rows["is_categorical"].astype(bool)]
        if len(bitsets) and int(bitsets.max()) >= len(predictor.raw_left_cat_bitsets):
            raise UntrustedModelError("a tree of the model points outside of its own categories")


def _check_walk(left: Any, right: Any, feature: Any, leaf: Any, features: int) -> None:
    """Each inner node points forward, to nodes that exist, so that a walk ends; and reads a feature that exists."""
    inner = np.flatnonzero(~leaf)
    for child in (left[inner].astype(np.int64), right[inner].astype(np.int64)):
        if (child <= inner).any() or (child >= len(leaf)).any():
            raise UntrustedModelError("a tree of the model points outside of itself")
    used = feature[inner].astype(np.int64)
    if (used < 0).any() or (used >= features).any():
        raise UntrustedModelError("a tree of the model reads a feature that does not exist")

"""Models that were trained elsewhere: the one door through which they are loaded, and how they are fed.

A skops file may hold more kinds of estimators and transformers here than the recipe's, but still only those of one
closed list of (loader, type) pairs, each of which only computes; nothing is imported or built before all nodes are
found on it. What is built is walked: its trees stay within their own arrays, and no encoder points past its columns.

The server's matrix holds a category as a number (see `features.encode`); `Feeder` gives the model what it was trained
on: the texts again, in an array of objects, or one array for each input of an ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from truekeep.contract.artifact import UNKNOWN_TEXT, Imported, ImportedInput, SignatureFeature
from truekeep.features import compiled, trust
from truekeep.features.trust import Pair, UntrustedModelError, pairs

Matrix: TypeAlias = npt.NDArray[np.float64]
Predict: TypeAlias = Callable[[Matrix], Matrix]

_UFUNCS = ("abs", "absolute", "cbrt", "exp", "expm1", "log", "log10", "log1p", "log2", "sqrt", "square")
ALLOWED: frozenset[Pair] = (
    trust.EVERYTHING
    | pairs("DictNode", "sklearn.utils._bunch", "Bunch")
    | pairs("FunctionNode", "numpy", *_UFUNCS)
    | pairs("ObjectNode", "sklearn.pipeline", "FeatureUnion")
    | pairs("ObjectNode", "sklearn.compose._column_transformer", "make_column_selector")
    | pairs("ObjectNode", "sklearn.decomposition._pca", "PCA")
    | pairs("ObjectNode", "sklearn.decomposition._truncated_svd", "TruncatedSVD")
    | pairs("ObjectNode", "sklearn.feature_selection._from_model", "SelectFromModel")
    | pairs("ObjectNode", "sklearn.feature_selection._univariate_selection", "SelectKBest", "SelectPercentile")
    | pairs("FunctionNode", "sklearn.feature_selection._univariate_selection", "chi2", "f_classif")
    | pairs("FunctionNode", "sklearn.feature_selection._mutual_info", "mutual_info_classif")
    | pairs("ObjectNode", "sklearn.feature_selection._variance_threshold", "VarianceThreshold")
    | pairs(
        "ObjectNode", "sklearn.preprocessing._data", "Binarizer", "MaxAbsScaler", "MinMaxScaler", "Normalizer",
        "PowerTransformer", "QuantileTransformer", "RobustScaler",
    )
    | pairs("ObjectNode", "sklearn.preprocessing._discretization", "KBinsDiscretizer")
    | pairs("ObjectNode", "sklearn.preprocessing._function_transformer", "FunctionTransformer")
    | pairs("ObjectNode", "sklearn.preprocessing._label", "LabelBinarizer", "LabelEncoder")
    | pairs("ObjectNode", "sklearn.preprocessing._polynomial", "PolynomialFeatures")
    | pairs("ObjectNode", "sklearn.preprocessing._target_encoder", "TargetEncoder")
    | pairs("ObjectNode", "sklearn.calibration", "CalibratedClassifierCV", "_CalibratedClassifier",
            "_SigmoidCalibration")
    | pairs("ObjectNode", "sklearn.isotonic", "IsotonicRegression")
    | pairs("ObjectNode", "sklearn.discriminant_analysis", "LinearDiscriminantAnalysis",
            "QuadraticDiscriminantAnalysis")
    | pairs("ObjectNode", "sklearn.dummy", "DummyClassifier")
    | pairs("ObjectNode", "sklearn.ensemble._bagging", "BaggingClassifier")
    | pairs("ObjectNode", "sklearn.ensemble._stacking", "StackingClassifier")
    | pairs("ObjectNode", "sklearn.ensemble._voting", "VotingClassifier")
    | pairs("ObjectNode", "sklearn.ensemble._weight_boosting", "AdaBoostClassifier")
    | pairs("ObjectNode", "sklearn.linear_model._logistic", "LogisticRegressionCV")
    | pairs("ObjectNode", "sklearn.linear_model._stochastic_gradient", "SGDClassifier")
    | pairs("ObjectNode", "sklearn.naive_bayes", "BernoulliNB", "CategoricalNB", "ComplementNB", "GaussianNB",
            "MultinomialNB")
    | pairs("ObjectNode", "sklearn.neural_network._multilayer_perceptron", "MLPClassifier")
    | pairs("ObjectNode", "sklearn.neural_network._stochastic_optimizers", "AdamOptimizer", "SGDOptimizer")
    | pairs("ObjectNode", "sklearn.tree._classes", "DecisionTreeClassifier", "ExtraTreeClassifier")
)  # fmt: skip
MOST_NAMED = 10


def load_skops(content: bytes) -> Any:
    """The fitted classifier, or pipeline that ends in one, in a skops file. UntrustedModelError, with the types, where
    it holds any that is not on the list, or where it does not fit together."""
    unknown = sorted({pair for pair in trust.nodes(trust.read_schema(content)) if pair not in ALLOWED})
    if unknown:
        named = ", ".join(f"{name:.100}" for _, name in unknown[:MOST_NAMED])
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        raise UntrustedModelError(
            f"the model file holds types that are not on the list of those that only compute: {named}{more}; use "
            "scikit-learn's own transformers and classifiers instead, or export the model to ONNX and import that"
        )
    from skops import io as skops_io

    try:
        model = skops_io.loads(content, trusted=sorted({name for _, name in ALLOWED}))
        check(model)
    except UntrustedModelError:
        raise
    except Exception as error:  # whatever a hostile or damaged file makes skops or scikit-learn say
        raise UntrustedModelError(f"the model file is damaged ({type(error).__name__}: {error!s:.200})") from error
    return model


def parts(model: Any) -> Iterator[Any]:
    """All objects of scikit-learn within a model, itself included."""
    seen: set[int] = set()
    stack = [model]
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(value)
        elif isinstance(value, np.ndarray):
            stack.extend(value.ravel().tolist() if value.dtype == object else ())
        elif type(value).__module__.partition(".")[0] == "sklearn" and not isinstance(value, type):
            yield value
            stack.extend(getattr(value, "__dict__", {}).values())


def check(model: Any) -> None:
    """UntrustedModelError where a part would read outside of its own arrays, which scikit-learn does not check."""
    for part in parts(model):
        members = getattr(part, "estimators_", ())
        for member in members.ravel() if isinstance(members, np.ndarray) else members:
            if hasattr(member, "tree_"):  # a forest looks at the number of its columns, and its trees do not again
                trust.check_tree(member.tree_, int(part.n_features_in_))
        if hasattr(part, "tree_"):
            trust.check_tree(part.tree_, int(part.n_features_in_))
        trust.check_predictors(part)
        if type(part).__name__ == "OneHotEncoder" and hasattr(part, "categories_"):
            widths = list(part._n_features_outs)
            if widths != list(part._compute_n_features_outs()):
                raise UntrustedModelError("an encoder of the model points outside of its own columns")


class Feeder:
    """From the matrix of `features.encode` to the arrays that the model was trained on."""

    def __init__(self, imported: Imported, features: Sequence[SignatureFeature]) -> None:
        self._inputs = [_Input(given, imported, features) for given in imported.inputs]

    def __call__(self, matrix: Matrix) -> list[npt.NDArray[Any]]:
        """One array an input, of shape (rows, its features). ValueError for a value that the input can't hold."""
        return [given.array(matrix) for given in self._inputs]


_DTYPES: Mapping[str, Any] = {
    "Float64": np.float64, "Float32": np.float32, "Int64": np.int64, "Boolean": np.bool_, "Text": object,
    "Mixed": object,
}  # fmt: skip
_LARGEST = {"Int64": 2.0**53, "Boolean": 1.0}  # beyond, not each whole number is a float


class _Input:
    """One array."""

    def __init__(self, given: ImportedInput, imported: Imported, features: Sequence[SignatureFeature]) -> None:
        by_name = {feature.name: (position, feature) for position, feature in enumerate(features)}
        self._given = given
        self._places: list[tuple[int, int, npt.NDArray[Any] | None]] = []  # column, feature, what a code stands for
        for place, name in enumerate(given.features):
            if not name:
                continue
            if name not in by_name:
                raise UntrustedModelError(
                    f"the signature feeds the model with {name!r:.80}, which is none of its features"
                )
            position, feature = by_name[name]
            looked_up = feature.type == "Category" and name not in imported.codes
            self._places.append((place, position, _lookup(feature, imported) if looked_up else None))
        columns = [position for _, position, lookup in self._places if lookup is None]
        self._plain = len(columns) == len(given.features) and given.type in ("Float64", "Float32")
        self._columns = slice(None) if columns == list(range(len(features))) else columns

    def array(self, matrix: Matrix) -> npt.NDArray[Any]:
        dtype = _DTYPES[self._given.type]
        if self._plain:
            return np.ascontiguousarray(matrix[:, self._columns], dtype=dtype)
        mixed: npt.NDArray[Any] = np.full((len(matrix), len(self._given.features)), np.nan, dtype=object)
        for place, position, lookup in self._places:
            values: npt.NDArray[Any] = matrix[:, position]
            if lookup is not None:
                values = lookup[np.where(np.isnan(values), len(lookup) - 2, values).astype(np.int64)]
            if (largest := _LARGEST.get(self._given.type)) is not None:
                _check_whole(self._given.features[place], values, largest)
            mixed[:, place] = values
        return mixed.astype(dtype)


def _lookup(feature: SignatureFeature, imported: Imported) -> npt.NDArray[Any]:
    """What stands for each code: the categories, then what is missing, then (at -1) what is unknown."""
    categories = feature.categories or []
    if feature.name in imported.numbers:
        numbers = {"true": 1.0, "false": 0.0}
        return np.array([*(numbers[one] if one in numbers else float(one) for one in categories), np.nan, np.nan])
    found: npt.NDArray[Any] = np.empty(len(categories) + 2, dtype=object)
    found[:] = [*categories, None if imported.missing_text == "None" else np.nan, UNKNOWN_TEXT]
    return found


def _check_whole(name: str, values: Matrix, limit: float) -> None:
    wrong = ~((values == np.floor(values)) & (np.abs(values) <= limit))
    if wrong.any():
        raise ValueError(f"{name}: the model takes whole numbers of at most {limit:.0f}, not {values[wrong][0]}")


def scikit_learn(model: Any, imported: Imported, features: Sequence[SignatureFeature]) -> Predict:
    """The probability of the positive class by a model of scikit-learn; shape (rows,)."""
    from sklearn import config_context

    feed = Feeder(imported, features)

    def predict(matrix: Matrix) -> Matrix:
        # What it refuses where it was trained, nulls above all, it must refuse here: that is found out at the import.
        with config_context(assume_finite=False, skip_parameter_validation=True):
            probabilities = model.predict_proba(feed(matrix)[0])
        return np.ascontiguousarray(probabilities[:, imported.positive], dtype=np.float64)

    return predict


def onnx(content: bytes, imported: Imported, features: Sequence[SignatureFeature]) -> Predict:
    """The probability of the positive class by an ONNX model; shape (rows,). UntrustedModelError where the file holds
    what is not allowed, is damaged, or has other inputs and outputs than the signature says."""
    feed = Feeder(imported, features)
    session = compiled.session(content, compiled.FOREIGN_OPERATORS)
    names = [given.name for given in imported.inputs]
    if sorted(one.name for one in session.get_inputs()) != sorted(names):
        raise UntrustedModelError("the model file has other inputs than its signature says")
    if imported.output not in {one.name for one in session.get_outputs()}:
        raise UntrustedModelError(f"the model file has no output {imported.output!r:.80}")
    wanted = [imported.output]

    def predict(matrix: Matrix) -> Matrix:
        (scored,) = session.run(wanted, dict(zip(names, feed(matrix), strict=True)))
        return np.ascontiguousarray(scored.reshape(len(matrix), -1)[:, imported.positive], dtype=np.float64)

    return predict

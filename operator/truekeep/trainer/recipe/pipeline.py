"""The built-in recipe: a scikit-learn Pipeline from declared features and one allow-listed estimator.

Its input is the float64 matrix of `features.encode`: a Number as it is, a Category as its code, null as NaN, an unknown
category as -1. HistGradientBoosting takes that natively. For the others categories become indicator columns
(an unknown one is none of them, null is one of its own), nulls of numbers become the median beside an indicator (but
for LightGBM and XGBoost, which take them natively), and numbers are scaled where the estimator is linear. Declared
transformers (`trainer.transformers`) come before that.
"""

from __future__ import annotations

import difflib
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from truekeep.api.estimators import ESTIMATORS
from truekeep.api.training import Recipe
from truekeep.contract.artifact import SignatureFeature
from truekeep.trainer.faults import DataInvalid, ParametersInvalid
from truekeep.trainer.recipe import transformers
from truekeep.trainer.recipe.boosters import BOOSTERS, imported, translated

MAX_NATIVE_CATEGORIES = 255
PROBABLE_LOSSES = ("log_loss", "modified_huber")  # of SGDClassifier
RESERVED = {
    "n_jobs": "threads follow the pod's CPU limit",
    "random_state": "set recipe.seed instead",
    "verbose": "progress is in the pod's log",
    "warm_start": "every run starts afresh",
    "categorical_features": "they follow from the features of type Category",
}
_OURS = "Truekeep sets it"
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline (of LightGBM and XGBoost a `boosters.Translated`), how many seconds `fit` took, and what it
    warned of."""

    pipeline: Any
    seconds: float
    warnings: tuple[str, ...]

    def probabilities(self, matrix: Matrix) -> Matrix:
        """Probability of class 1, float64, shape (rows,)."""
        return probabilities(self.pipeline, matrix)


def probabilities(pipeline: Any, matrix: Matrix) -> Matrix:
    """Probability of class 1, float64, shape (rows,)."""
    return np.ascontiguousarray(pipeline.predict_proba(matrix)[:, 1], dtype=np.float64)


def build(recipe: Recipe, features: Sequence[SignatureFeature]) -> Any:
    """The pipeline, not fitted yet. ParametersInvalid for a hyperparameter that the estimator does not take,
    DataInvalid for more categories than it can take."""
    from sklearn.pipeline import Pipeline

    estimator = _estimator(recipe)
    name = type(estimator).__name__
    if recipe.transformers:
        return _transformed(recipe, features, estimator)
    if name == "HistGradientBoostingClassifier":
        _check_native_categories(estimator, features)
        columns = [position for position, feature in enumerate(features) if feature.type == "Category"]
        estimator.set_params(categorical_features=columns or None)
        return Pipeline([("estimator", estimator)])
    preparation = (
        _indicators_only(features)
        if recipe.estimator in BOOSTERS
        else _encoded(features, scaled="linear_model" in recipe.estimator)
    )
    return Pipeline([("features", preparation), ("estimator", estimator)])


def _transformed(recipe: Recipe, features: Sequence[SignatureFeature], estimator: Any) -> Any:
    """With declared steps before what is always done."""
    from sklearn.pipeline import Pipeline

    native = type(estimator).__name__ == "HistGradientBoostingClassifier"
    booster = recipe.estimator in BOOSTERS
    prepared = transformers.prepare(
        recipe, features, native=native, fills=not (native or booster), scales="linear_model" in recipe.estimator
    )
    if native:
        left = {column.origin[0]: place for place, column in enumerate(prepared.columns) if column.type == "Category"}
        _check_native_categories(estimator, [feature for feature in features if feature.name in left])
        estimator.set_params(categorical_features=sorted(left.values()) or None)
    return Pipeline([*prepared.steps, ("estimator", estimator)])


def fit(recipe: Recipe, features: Sequence[SignatureFeature], matrix: Matrix, labels: Any, threads: int) -> Fitted:
    """Fit on `matrix`, float64 of shape (rows, features), and labels 0 or 1 of shape (rows,).

    The result depends on the data, the recipe and the seed only, not on `threads`. ParametersInvalid where
    scikit-learn refuses what only fitting can tell."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    pipeline = build(recipe, features)
    estimator = pipeline.steps[-1][1]
    if _runs_in_parallel(estimator):
        estimator.set_params(n_jobs=threads)
    with warnings.catch_warnings(record=True) as caught, threadpool_limits({"openmp": threads, "blas": 1}):
        warnings.simplefilter("always")
        started = time.perf_counter()
        try:
            (_fit_transformed if recipe.transformers else _fit)(pipeline, matrix, np.asarray(labels, dtype=np.int64))
        except (ValueError, TypeError, OverflowError) as error:
            _refuse(estimator, error)
        except Exception as error:
            if type(error).__name__ != "LightGBMError":  # which is no ValueError
                raise
            _refuse(estimator, error)
        seconds = time.perf_counter() - started
    _forget_threads(estimator)
    said = tuple(dict.fromkeys(str(one.message).partition("\n")[0] for one in caught))
    if recipe.estimator in BOOSTERS:
        pipeline = translated(recipe.estimator, pipeline, matrix.shape[1])
    return Fitted(pipeline, seconds, said)


def _fit(pipeline: Any, matrix: Matrix, labels: npt.NDArray[np.int64]) -> None:
    pipeline.fit(_without_empty_columns(pipeline.steps[-1][1], matrix), labels)


def _fit_transformed(pipeline: Any, matrix: Matrix, labels: npt.NDArray[np.int64]) -> None:
    """The steps, then the estimator on what they make. A step that looks at labels (target encoding) gives the rows of
    `fit_transform` what it learned from others, and no row its own label."""
    before, estimator = pipeline[:-1], pipeline.steps[-1][1]
    try:
        made = before.fit_transform(matrix, labels) if before.steps else matrix
    except (ValueError, TypeError, OverflowError) as error:
        raise ParametersInvalid(
            f"scikit-learn refuses the transformers: {error!s:.1500} Correct spec.training.recipe.transformers"
        ) from error
    transformers.forget(before.steps)
    estimator.fit(_without_empty_columns(estimator, made), labels)


def described(recipe: Recipe, features: Sequence[SignatureFeature], pipeline: Any) -> dict[str, Any]:
    """What the features become before the estimator, for the record: `transformers.described`."""
    return transformers.described(recipe, features, getattr(pipeline, "original", pipeline))


def parameters(recipe: Recipe) -> dict[str, Any]:
    """Hyperparameters as Python values: JSON, else the text itself."""
    return {parameter.name: _value(parameter.name, parameter.value) for parameter in recipe.parameters}


def check(recipe: Recipe) -> None:
    """ParametersInvalid for a hyperparameter that the estimator does not take. Of values that do not go together only
    fitting tells."""
    _estimator(recipe)


def _value(name: str, text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text
    if name == "class_weight" and isinstance(value, dict):
        return {int(key) if key in ("0", "1") else key: weight for key, weight in value.items()}
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _estimator(recipe: Recipe) -> Any:
    if recipe.estimator not in ESTIMATORS:
        raise ParametersInvalid(
            f"estimator {recipe.estimator!r:.100} is not allowed; use one of {', '.join(ESTIMATORS)}"
        )
    kind = imported(recipe.estimator)
    name = kind.__name__
    estimator = kind()
    booster = BOOSTERS.get(recipe.estimator)
    reserved = {**RESERVED, **booster.reserved, **dict.fromkeys(booster.fixed, _OURS)} if booster else RESERVED
    further = booster.further if booster else ()
    takes = sorted({*estimator.get_params(deep=False), *further} - set(reserved))
    chosen = parameters(recipe)
    for parameter in chosen:
        if parameter in reserved:
            raise ParametersInvalid(f"parameter {parameter} of {name} can't be set: {reserved[parameter]}; remove it")
        if parameter not in takes:
            near = difflib.get_close_matches(parameter, takes, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ParametersInvalid(f"{name} has no parameter {parameter}; {hint}It takes {', '.join(takes)}")
    if name == "SGDClassifier":
        chosen = {"loss": "log_loss", **chosen}
        if chosen["loss"] not in PROBABLE_LOSSES:
            raise ParametersInvalid(
                f"parameter loss of {name} is {chosen['loss']!r:.60}, which has no probabilities; "
                f"use one of {', '.join(PROBABLE_LOSSES)}"
            )
    estimator.set_params(**chosen, **(booster.fixed if booster else {}))
    if "random_state" in estimator.get_params(deep=False):
        estimator.set_params(random_state=recipe.seed)
    if booster:
        return estimator  # it judges its parameters itself, when it is fitted
    try:
        estimator._validate_params()
    except ValueError as error:
        _refuse(estimator, error)
    return estimator


def _refuse(estimator: Any, error: Exception) -> NoReturn:
    name = type(estimator).__name__
    raise ParametersInvalid(
        f"{name} refuses its parameters: {error!s:.1500} Correct spec.training.recipe.parameters"
    ) from error


def _check_native_categories(estimator: Any, features: Sequence[SignatureFeature]) -> None:
    limit = min(int(estimator.max_bins), MAX_NATIVE_CATEGORIES)
    for feature in features:
        if len(feature.categories or ()) > limit:
            raise DataInvalid(
                f"{feature.name}: {len(feature.categories or ())} categories, and {type(estimator).__name__} takes at "
                f"most {limit} (max_bins); bring rare values together, or use another estimator"
            )


def _encoded(features: Sequence[SignatureFeature], scaled: bool) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [position for position, feature in enumerate(features) if feature.type == "Number"]
    categories = [position for position, feature in enumerate(features) if feature.type == "Category"]
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    number = Pipeline([("impute", imputer), ("scale", StandardScaler())]) if scaled else imputer
    parts = [("number", number, numbers), ("category", OneHotEncoder(handle_unknown="ignore"), categories)]
    return ColumnTransformer([part for part in parts if part[2]])


def _indicators_only(features: Sequence[SignatureFeature]) -> Any:
    """For estimators that take nulls of numbers natively. Dense: in a sparse matrix XGBoost takes a zero for a null."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    numbers = [position for position, feature in enumerate(features) if feature.type == "Number"]
    categories = [position for position, feature in enumerate(features) if feature.type == "Category"]
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts = [("number", "passthrough", numbers), ("category", encoder, categories)]
    return ColumnTransformer([part for part in parts if part[2]])


def _without_empty_columns(estimator: Any, matrix: Matrix) -> Matrix:
    """HistGradientBoosting can't bin a column without any value; as a constant it is never split on. The others'
    imputer and encoder know such columns."""
    if type(estimator).__name__ != "HistGradientBoostingClassifier":
        return matrix
    empty = np.isnan(matrix).all(axis=0)
    if not empty.any():
        return matrix
    return np.where(empty, 0.0, matrix)


def _runs_in_parallel(estimator: Any) -> bool:
    """Forests; other estimators that take `n_jobs` make nothing of it."""
    return hasattr(estimator, "n_estimators") and "n_jobs" in estimator.get_params(deep=False)


def _forget_threads(estimator: Any) -> None:
    """Leave no trace of how many threads there were: the artifact's digest must not depend on it, and predictions of
    forests are sums whose order must not either."""
    if _runs_in_parallel(estimator):
        estimator.set_params(n_jobs=None)
    binned = getattr(estimator, "_bin_mapper", None)
    if binned is not None:
        binned.n_threads = 1

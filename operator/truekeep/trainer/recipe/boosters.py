"""LightGBM and XGBoost: what they need besides what scikit-learn's estimators need.

Their packages are extras, and only the trainer's image has them. What is published of such a model is its translation
to ONNX alone, and that is what is judged, too: metrics, cut-off and examples are those of what will answer. How far it
is from the library's own `predict_proba` is measured and recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.features.compiled import load
from truekeep.features.trust import UntrustedModelError
from truekeep.trainer.faults import ParametersInvalid
from truekeep.trainer.onnx.graph import NotConvertibleError, convert

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Booster:
    """How a library is used."""

    extra: str  # of this distribution, and the package's name to import
    tolerance: float  # largest difference of a probability from the library's own
    fixed: Mapping[str, Any]  # parameters that a recipe can't set
    reserved: Mapping[str, str]  # others that it can't set, and why
    further: tuple[str, ...] = ()  # parameters that the constructor does not name


BOOSTERS: Mapping[str, Booster] = {
    "lightgbm.LGBMClassifier": Booster(
        extra="lightgbm",
        tolerance=1e-9,
        fixed={"verbosity": -1, "deterministic": True, "force_row_wise": True},
        reserved={"objective": "labels are 0 and 1"},
        further=("extra_trees", "is_unbalance", "max_bin", "min_data_in_bin", "path_smooth", "scale_pos_weight"),
    ),
    "xgboost.XGBClassifier": Booster(
        extra="xgboost",
        tolerance=1e-5,  # it sums in single precision
        fixed={"verbosity": 0},
        reserved={
            "objective": "labels are 0 and 1",
            "booster": "only trees have a translation to ONNX",
            "callbacks": "a recipe has no code",
            "device": "trainers have no GPU",
            "early_stopping_rounds": "it needs rows apart; set n_estimators",
            "enable_categorical": "features of type Category become indicators",
            "eval_metric": "gates say what is measured",
            "feature_types": "they follow from the features",
            "missing": "nulls are known",
            "validate_parameters": "they always are",
        },
    ),
}


@dataclass(frozen=True)
class Translated:
    """A fitted pipeline as what is published of it."""

    original: Any  # the fitted Pipeline
    content: bytes  # ONNX
    tolerance: float
    predict: Callable[[Matrix], Matrix] = field(repr=False)

    def predict_proba(self, matrix: Matrix) -> Matrix:
        """As scikit-learn has it: shape (rows, 2)."""
        scored = self.predict(matrix)
        return np.column_stack([1 - scored, scored])


def imported(estimator: str) -> Any:
    """The estimator's class. ParametersInvalid where this image lacks its package."""
    import importlib

    module, _, name = estimator.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, OSError) as error:  # OSError: a shared library that it needs
        if estimator not in BOOSTERS:
            raise
        raise ParametersInvalid(
            f"estimator {estimator} needs the package {module}, which this trainer's image does not have ({error}); "
            f"use an image that was built with the extra {BOOSTERS[estimator].extra}, or an estimator of scikit-learn"
        ) from error


def translated(estimator: str, pipeline: Any, features: int) -> Translated:
    """The pipeline as ONNX. ParametersInvalid where that can't be: nothing else of it could be served."""
    try:
        content = convert(pipeline, features)
        predict, _ = load(content)
    except (NotConvertibleError, UntrustedModelError) as error:
        raise ParametersInvalid(
            f"{error}, and only ONNX is published of a model of {estimator}; correct spec.training.recipe.parameters"
        ) from error
    return Translated(pipeline, content, BOOSTERS[estimator].tolerance, predict)

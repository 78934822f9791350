"""Small fitted pipelines of every allow-listed estimator."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

SMALL: dict[str, dict[str, Any]] = {
    "sklearn.ensemble.ExtraTreesClassifier": {"n_estimators": 3, "random_state": 1},
    "sklearn.ensemble.GradientBoostingClassifier": {"n_estimators": 3, "random_state": 1},
    "sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 3, "categorical_features": [2], "random_state": 1},
    "sklearn.ensemble.RandomForestClassifier": {"n_estimators": 3, "random_state": 1},
    "sklearn.linear_model.LogisticRegression": {},
    "sklearn.linear_model.SGDClassifier": {"loss": "log_loss", "random_state": 1},
}


def rows(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """X (count, 4) with nulls and a category in column 2; y of 0 and 1."""
    random = np.random.default_rng(3)
    x = random.normal(size=(count, 4))
    x[:, 2] = random.integers(0, 5, count)
    y = (x[:, 0] + x[:, 2] / 3 + random.normal(size=count) > 1).astype(np.int64)
    x[::7, 1] = np.nan
    return x, y


def fitted(estimator: str, **parameters: Any) -> Pipeline:
    """A pipeline that ends in the estimator, with encoders before it where it needs them."""
    module, _, name = estimator.rpartition(".")
    final = getattr(importlib.import_module(module), name)(**{**SMALL.get(estimator, {}), **parameters})
    numeric = Pipeline([("impute", SimpleImputer(add_indicator=True)), ("scale", StandardScaler())])
    prepare: Any = ColumnTransformer(
        [("number", numeric, [0, 1, 3]), ("category", OneHotEncoder(handle_unknown="ignore"), [2])]
    )
    if name.startswith("Hist"):
        prepare = "passthrough"
    return Pipeline([("prepare", prepare), ("model", final)]).fit(*rows())

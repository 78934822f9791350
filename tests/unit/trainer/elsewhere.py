"""Models as a team may have trained them elsewhere: data frames, names of columns, text, nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROWS = 400


def frame(seed: int = 0, rows: int = ROWS) -> pd.DataFrame:
    """Numbers with nulls, text with nulls, codes, a column that nobody looks at, and the truth."""
    random = np.random.default_rng(seed)
    found = pd.DataFrame(
        {
            "amount": random.normal(size=rows),
            "age": random.normal(size=rows),
            "kind": random.choice(["web", "shop", "phone"], rows),
            "month": random.integers(1, 5, rows),
            "note": random.normal(size=rows),
        }
    )
    chance = 1 / (1 + np.exp(-2 * found["amount"] - (found["kind"] == "web")))
    found["late"] = (random.random(rows) < chance).astype(int)
    found.loc[::7, "age"] = np.nan
    found.loc[::9, "kind"] = None
    return found


def prepared() -> ColumnTransformer:
    """What most teams write."""
    return ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["amount", "age"]),
            ("text", make_pipeline(SimpleImputer(strategy="most_frequent"),
                                   OneHotEncoder(handle_unknown="ignore")), ["kind"]),
            ("month", "passthrough", ["month"]),
        ]
    )  # fmt: skip


def fitted(classifier: Any = None, data: pd.DataFrame | None = None) -> Pipeline:
    """The whole pipeline, fitted on a data frame that holds more columns than it looks at."""
    rows = frame() if data is None else data
    return Pipeline([("pre", prepared()), ("model", LogisticRegression() if classifier is None else classifier)]).fit(
        rows.drop(columns="late"), rows["late"]
    )


def answers(model: Any, rows: Any) -> npt.NDArray[np.float64]:
    """What the team sees."""
    return np.asarray(model.predict_proba(rows)[:, 1])

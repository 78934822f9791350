"""The lake of the bench: rows of fourteen features whose labels follow from them, and the Model's sections for them.

`python -m tests.bench.training.world FOLDER ROWS` writes it, in a process of its own: whoever measures stays small."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILES = 50
NUMBERS = [f"number_{position}" for position in range(10)]
CATEGORIES = {"carrier": 16, "origin": 3, "dest": 100, "plane": 30}
START_US = 1_704_067_200_000_000  # 2024-01-01
SPAN_US = 60 * 86400 * 1_000_000  # sixty days, whatever the number of rows
RECIPES: dict[str, tuple[str, dict[str, str]]] = {
    "boosting": ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": "120"}),
    "logistic": ("sklearn.linear_model.LogisticRegression", {"max_iter": "200"}),
    "forest": ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": "50", "max_depth": "12"}),
}
DATA: dict[str, Any] = {
    "timeColumn": "at",
    "key": "id",
    "features": [
        *({"name": name, "type": "Number"} for name in NUMBERS),
        *({"name": name, "type": "Category", "maxCategories": 100} for name in CATEGORIES),
    ],
    "rules": [
        {"name": "enough", "minRows": 10000},
        {"name": "once", "maxDuplicateFraction": "0"},
        {"name": "nulls", "maxNullFraction": "0.30"},
    ],
}
EVALUATION: dict[str, Any] = {
    "holdout": {"latestFraction": "0.2"},
    "gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.6"}],
    "slices": [{"name": "by-origin", "column": "origin", "metric": "roc_auc", "minimum": "0.55", "minRows": 500}],
    "decision": {"rule": "RecallAtFalsePositiveRate", "value": "0.1"},
    "refit": "OnAllRows",
}


def rows_of(first: int, count: int, of: int, random: np.random.Generator) -> pa.Table:
    """`count` rows from the `first` on, of `of` in all."""
    made: dict[str, Any] = {name: random.normal(size=count) for name in NUMBERS}
    made["number_3"][random.random(count) < 0.1] = np.nan
    codes = {name: random.integers(0, size, count) for name, size in CATEGORIES.items()}
    score = made["number_0"] + 0.5 * made["number_1"] * made["number_2"] + (codes["origin"] == 1)
    score += 0.1 * (codes["dest"] % 7) - 1.2
    label = (random.random(count) < 1 / (1 + np.exp(-score))).astype(np.int8)
    at = START_US + np.arange(first, first + count) * (SPAN_US // of)
    return pa.table(
        {
            "id": [f"k{number:09d}" for number in range(first, first + count)],
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            **{name: pa.array(made[name], from_pandas=True) for name in NUMBERS},
            **{
                name: pa.array([f"{name[:2].upper()}{code:03d}" for code in range(size)]).take(pa.array(codes[name]))
                for name, size in CATEGORIES.items()
            },
            "late": label,
        }
    )


def write(folder: Path, rows: int) -> None:
    """Fifty files of features, and fifty of labels beside them, as they come in later."""
    random = np.random.default_rng(rows)
    for number in range(FILES):
        first, last = rows * number // FILES, rows * (number + 1) // FILES
        table = rows_of(first, last - first, rows, random)
        for name, part in (("rows", table.drop_columns(["late"])), ("labels", table.select(["id", "late"]))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(part, folder / name / f"{number:03d}.parquet")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))

"""Evidently's defaults, in an environment of its own: `python run_evidently.py REF.parquet CUR.parquet...`."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pandas as pd
from common import answer, frame

warnings.simplefilter("ignore")
from evidently import DataDefinition, Dataset, Report  # noqa: E402
from evidently.presets import DataDriftPreset  # noqa: E402


def drifted(then: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Columns that the default tests with the default thresholds call drifted."""
    kinds = then.dtypes
    numbers = [name for name in then if kinds[name] == "float64"]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=[n for n in then if n not in numbers])
    sets = [Dataset.from_pandas(table, data_definition=definition) for table in (now, then)]
    result: Any = Report([DataDriftPreset()]).run(*sets).dict()
    found = []
    for metric in result["metrics"]:
        config = metric.get("config", {})
        if "ValueDrift" not in str(config.get("type", metric.get("metric_name", ""))):
            continue
        p_like = "p_value" in str(config.get("method", metric.get("metric_name", "")))
        value, threshold = float(metric["value"]), float(config.get("threshold", 0.05 if p_like else 0.1))
        if value < threshold if p_like else value >= threshold:
            found.append(str(config["column"]))
    return found


answer(lambda then, now: drifted(frame(then), frame(now)), sys.argv[1:])

"""whylogs' drift scores, in an environment of its own: `python run_whylogs.py REF.parquet CUR.parquet...`.

Its defaults: both tables are profiled, numbers are compared by Kolmogorov-Smirnov on their sketches, text by a
chi-square of its frequent items; the category that the algorithm itself gives its result decides."""

from __future__ import annotations

import sys
import warnings

import pandas as pd
from common import answer, frame

warnings.simplefilter("ignore")
import whylogs as why  # noqa: E402
from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores  # noqa: E402


def drifted(then: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Columns whose result is of the category DRIFT."""
    before, after = (why.log(table).profile().view() for table in (then, now))
    scores = calculate_drift_scores(target_view=after, reference_view=before, with_thresholds=True)
    return [name for name, score in scores.items() if score and score["drift_category"] == "DRIFT"]


answer(lambda then, now: drifted(frame(then), frame(now)), sys.argv[1:])

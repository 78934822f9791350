"""alibi-detect's tests for tables, in an environment of its own: `python run_alibi.py REF.parquet CUR.parquet...`.

Its defaults: Kolmogorov-Smirnov and chi-square, p 0.05, Bonferroni over the columns. It takes no missing values: they
are filled with the reference's median."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
from common import answer, frame

warnings.simplefilter("ignore")
from alibi_detect.cd import TabularDrift  # noqa: E402


def drifted(then: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Columns beyond the corrected threshold."""
    names = [str(name) for name in then]
    before, after = [], []
    categories = {}
    for place, name in enumerate(names):
        if then[name].dtype == "float64":
            middle = then[name].median()
            before.append(then[name].fillna(middle).to_numpy())
            after.append(now[name].fillna(middle).to_numpy())
        else:
            codes = pd.factorize(pd.concat([then[name], now[name]]))[0]
            before.append(codes[: len(then)].astype(float))
            after.append(codes[len(then) :].astype(float))
            categories[place] = None
    found = TabularDrift(np.column_stack(before), p_val=0.05, categories_per_feature=categories).predict(
        np.column_stack(after), drift_type="batch"
    )["data"]
    limit = found["threshold"]
    return [name for name, p in zip(names, found["p_val"], strict=True) if p < limit]


answer(lambda then, now: drifted(frame(then), frame(now)), sys.argv[1:])

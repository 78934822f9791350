"""NannyML's univariate drift, in an environment of its own: `python run_nannyml.py [--ks] REF.parquet CUR.parquet...`.

Its default method (Jensen-Shannon) for both kinds of columns, or with `--ks` Kolmogorov-Smirnov for numbers and
chi-square for text; a chunk is a window, or a tenth of the reference."""

from __future__ import annotations

import sys
import warnings

import pandas as pd
from common import answer, frame

warnings.simplefilter("ignore")
from nannyml import UnivariateDriftCalculator  # noqa: E402

FILES = [argument for argument in sys.argv[1:] if argument != "--ks"]
METHODS = (["kolmogorov_smirnov"], ["chi2"]) if "--ks" in sys.argv else (["jensen_shannon"], ["jensen_shannon"])


def drifted(then: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Columns with an alert in the window."""
    names = [str(name) for name in then]
    text = [name for name in names if then[name].dtype != "float64"]
    calculator = UnivariateDriftCalculator(
        column_names=names,
        treat_as_categorical=text,
        continuous_methods=METHODS[0],
        categorical_methods=METHODS[1],
        chunk_size=min(len(now), len(then) // 10),
    ).fit(then)
    table = calculator.calculate(now).filter(period="analysis").to_df()
    return sorted({name for name in names if bool(table[name].xs("alert", axis=1, level=-1).to_numpy().any())})


answer(lambda then, now: drifted(frame(then), frame(now)), FILES)

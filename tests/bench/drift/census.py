"""The case in which nothing must be retrained: employment in Massachusetts, a model of 2014, 2015 to 2018.

The Census tells the year of an answer and no more, and lists homes and institutions apart. So rows are shuffled within
their year (seeded) and spread evenly over it: what remains is what changed from year to year. `truekeep backtest` then
replays a policy with the defaults over three years of windows; 2015 is the reference.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from typer.testing import CliRunner

from tests.bench.drift import packages
from truekeep.cli.main import app

BEGIN = "2016-01-04"  # a Monday
LABEL, PROBABILITY = "employed", "predicted_probability"
SEED = 7
FOUR_WEEKS = 672


@dataclass(frozen=True)
class Replayed:
    """What came of a policy."""

    answer: str  # to drift of the inputs
    windows: int
    drifted: int
    columns: dict[str, int]  # what drifted most, by the number of windows
    decayed: int
    decayed_by_estimate: int
    baseline: float
    lowest: float
    highest: float
    runs: int


def history() -> pd.DataFrame:
    """All rows with `at`, in no order."""
    files = packages.census()
    later = pd.read_parquet(files["analysis"]).merge(pd.read_parquet(files["analysis_target"]), on="id")
    return spread(pd.concat([pd.read_parquet(files["reference"]), later], ignore_index=True))


def spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a time within their `year`, in place of it; columns that are no feature are left out."""
    shuffled = rows.sample(frac=1, random_state=SEED)
    parts = []
    for year, of_year in shuffled.groupby("year", sort=True):
        first, last = (np.datetime64(f"{one}-01-01", "ms").astype(np.int64) for one in (year, int(year) + 1))
        at = first + ((last - first) * np.arange(len(of_year)) / len(of_year)).astype(np.int64)
        parts.append(of_year.assign(at=pd.to_datetime(at, unit="ms", utc=True)))
    table = pd.concat(parts, ignore_index=True).drop(columns=["id", "year", "prediction"])
    texts = {name: str for name in table.columns if isinstance(table[name].dtype, pd.CategoricalDtype)}
    return table.astype(texts).astype({LABEL: "int64"})


def policy(answer: str, hours: int = FOUR_WEEKS, **window: Any) -> dict[str, Any]:
    """The defaults; performance is answered with a run, drift of the inputs as told."""
    responses = [{"finding": "Performance", "action": "Retrain"}, {"finding": "DataDrift", "action": answer}]
    return {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "DriftPolicy",
        "metadata": {"name": "census"},
        "spec": {
            "modelRef": {"name": "census"},
            "schedule": "0 6 * * *",
            "window": {"hours": hours, **window},
            "performance": {"metric": "roc_auc"},
            "responses": responses,
        },
    }


def replay(rows: pd.DataFrame, answer: str, folder: Path, **window: Any) -> Replayed:
    """`truekeep backtest` on the rows."""
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), folder / "history.parquet")
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy(answer, **window)))
    asked = ["backtest", "-f", folder / "policy.yaml", "--history", folder / "history.parquet", "--time-column", "at"]
    asked += ["--begin", BEGIN, "--train-days", 365, "--label-column", LABEL, "--probability-column", PROBABILITY]
    done = CliRunner().invoke(app, [str(one) for one in [*asked, "-o", "json"]])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    windows = [one for one in found["windows"] if one["verdict"] != "InsufficientData"]
    values = [one["performance"]["value"] for one in windows]
    named = Counter(one["message"].split("`")[1] for one in windows if one["verdict"] == "Drift")
    return Replayed(
        answer=answer,
        windows=len(windows),
        drifted=sum(one["verdict"] == "Drift" for one in windows),
        columns=dict(named.most_common()),
        decayed=sum(one["performance"]["verdict"] == "Decayed" for one in windows),
        decayed_by_estimate=sum(one["performance"]["estimated"] == "Decayed" for one in windows),
        baseline=found["performance"]["baseline"],
        lowest=min(values),
        highest=max(values),
        runs=len(found["runs"]),
    )

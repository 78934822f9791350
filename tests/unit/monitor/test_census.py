"""The real case in which nothing must be retrained: three years in which a model's performance holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.bench.drift import census

QUARTER = 2184  # hours


@pytest.fixture(scope="module")
def answers() -> pd.DataFrame:
    """See extract/README.md."""
    table = pd.read_csv(Path(__file__).parent / "extract/census.csv.gz", dtype={"SEX": str, "MAR": str})
    return census.spread(table.assign(id=np.arange(len(table)), prediction=0))


def test_nothing_is_retrained_in_three_years(answers: pd.DataFrame, tmp_path: Path) -> None:
    found = census.replay(answers, "Retrain", tmp_path, hours=QUARTER)
    assert (found.windows, found.runs, found.decayed, found.decayed_by_estimate) == (11, 0, 0, 0)
    assert found.baseline == pytest.approx(0.90, abs=0.01)
    assert 0.88 < found.lowest < found.highest < 0.93


def test_had_the_model_decayed_it_would_be(answers: pd.DataFrame, tmp_path: Path) -> None:
    """From 2017 on a fifth of the labels are drawn anew; the inputs are as they were."""
    random = np.random.default_rng(0)
    worse = (answers["at"] >= "2017-01-01") & (random.random(len(answers)) < 0.2)
    labels = np.where(worse, random.random(len(answers)) < answers.employed.mean(), answers.employed)
    found = census.replay(answers.assign(employed=labels.astype("int64")), "Alert", tmp_path, hours=QUARTER)
    assert found.runs == 1
    assert found.decayed >= 2
    assert found.decayed_by_estimate == 0  # nothing in the inputs tells

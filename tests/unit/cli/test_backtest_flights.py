"""`truekeep backtest` on real flights and their labels: a model of January and February, from March to the middle of
May. Late in April the same weather means something else, for two weeks, and then no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from tests.bench.drift import decay, year
from tests.unit.monitor import flights
from truekeep.cli.main import app
from truekeep.contract.canonical import canonical_json
from truekeep.features.encode import matrix
from truekeep.profiling.build import profile
from truekeep.scores.metrics import Scored
from truekeep.scores.results import results
from truekeep.sources.columns import NO_LABEL


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the history, and profile and performance of the model."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    folder = tmp_path_factory.mktemp("recorded")
    table = flights.table()
    table = table[table.scheduled_at < "2013-05-13"]
    late = np.where(table.arr_delay.isna(), NO_LABEL, table.arr_delay > decay.LATE_MINUTES).astype(np.int8)
    then = ((table.scheduled_at < "2013-03-01") & (late != NO_LABEL)).to_numpy()
    old, held_out = np.flatnonzero(then)[: int(0.8 * then.sum())], np.flatnonzero(then)[int(0.8 * then.sum()) :]
    known = decay.features(table.iloc[old])

    def encoded(rows: pd.DataFrame) -> Any:
        return matrix(flights.columns(rows), known)

    categories = [one.type == "Category" for one in known]
    model = HistGradientBoostingClassifier(max_iter=40, random_state=7, categorical_features=categories)
    with threadpool_limits(1):  # on a busy machine two threads wait for each other
        model.fit(encoded(table.iloc[old]), late[old])
    shown = model.predict_proba(encoded(table.iloc[held_out]))[:, 1]
    (folder / "performance.json").write_bytes(canonical_json(results(Scored(late[held_out], shown, 0.5)).dump()))
    made = profile(flights.columns(table[then]), flights.FEATURES, shown)
    (folder / "profile.json").write_text(json.dumps(made))
    later = table[(table.scheduled_at >= "2013-03-04").to_numpy()]
    labels = late[(table.scheduled_at >= "2013-03-04").to_numpy()]
    answered: dict[str, Any] = flights.columns(later) | {
        "scheduled_at": pa.array(later.scheduled_at),
        "truekeep.probability": model.predict_proba(encoded(later))[:, 1],
        "late": pa.array(labels, pa.int8(), mask=labels == NO_LABEL),
    }
    pq.write_table(pa.table(answered), folder / "history.parquet")
    return folder


def replay(folder: Path, **responses: str) -> dict[str, Any]:
    """The answer, with the policy of the docs, that answers kinds of finding as told."""
    policy = yaml.safe_load(year.BACKTESTED.read_text())
    policy["spec"]["responses"] = [{"finding": kind, "action": action} for kind, action in responses.items()]
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    given = ["backtest", "-f", folder / "policy.yaml", "--history", folder / "history.parquet", "-o", "json"]
    given += ["--time-column", "scheduled_at", "--label-column", "late", "--label-delay-hours", 24]
    given += ["--profile", folder / "profile.json", "--performance", folder / "performance.json"]
    done = CliRunner().invoke(app, [str(one) for one in given])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_two_weeks_of_lost_performance_start_one_run(recorded: Path) -> None:
    answer = replay(recorded, Performance="Retrain", DataDrift="Alert")
    windows = {window["start"][:10]: window for window in answer["windows"]}
    decayed = [start for start, window in windows.items() if window["performance"]["verdict"] == "Decayed"]
    assert decayed == ["2013-04-22", "2013-04-29"]
    # The labels of the second one are ripe a day after its end, which is within the window that follows.
    assert answer["runs"] == ["2013-05-13T00:00:00+00:00"]
    assert windows["2013-05-06"]["answers"] == "Performance"
    assert all(window["performance"]["estimated"] == "Holds" for window in windows.values()), "the inputs tell nothing"
    costs = {row["maxDrop"]: row["runs"] for row in answer["performance"]["maxDrops"]}
    assert costs[0.03] == 1
    assert costs[0.3] == 0


def test_spring_starts_runs_where_drift_does(recorded: Path) -> None:
    answer = replay(recorded, DataDrift="Retrain")
    runs = {row["minimumEffect"]: row["runs"] for row in answer["thresholds"]}
    assert answer["runs"][0] == "2013-04-22T00:00:00+00:00"
    assert runs[0.02] >= 4 > runs[0.5] >= runs[0.8] == 1
    assert answer["windows"][0]["verdict"] == "NoDrift"

"""`truekeep backtest`: a made-up year in which one column moves half-way, and comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from truekeep.cli.main import app

POLICY = """
apiVersion: truekeep.dev/v1alpha1
kind: DriftPolicy
metadata: {name: made}
spec:
  modelRef: {name: made}
  schedule: "*/5 * * * *"
  window: {hours: 168, minRows: 300}
  data: {minimumEffect: "0.1"}
  consecutiveWindows: 2
  responses: [{finding: DataDrift, action: Retrain}, {finding: DataQuality, action: Alert}]
"""
DAY = 86_400
MONDAY = 1_704_067_200  # 2024-01-01


def rows(days: int = 140, a_day: int = 100) -> pa.Table:
    """Moved from day 70 on, null in the 16th week."""
    rng = np.random.default_rng(0)
    n = days * a_day
    day = np.arange(n) / a_day
    x = rng.normal(size=n) + np.where(day >= 70, 1.0, 0.0)
    x[(day >= 105) & (day < 112)] = np.nan
    at = pa.array(((MONDAY + day * DAY) * 1000).astype(np.int64), pa.timestamp("ms", tz="UTC"))
    return pa.table({"at": at, "x": x, "kind": rng.choice(["a", "b"], n), "y": rng.random(n)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("history")
    (there / "parts").mkdir()
    table = rows()
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))  # a history is in no order
    pq.write_table(shuffled.slice(0, 5000), there / "parts" / "a.parquet")
    pq.write_table(shuffled.slice(5000), there / "parts" / "b.parquet")
    (there / "policy.yaml").write_text(POLICY)
    return there


def run(folder: Path, *options: object) -> Result:
    given = ["backtest", "-f", folder / "policy.yaml", "--history", folder / "parts", "--time-column", "at"]
    return CliRunner().invoke(app, [str(option) for option in [*given, *options]])


def answered(folder: Path, *options: object) -> dict[str, Any]:
    done = run(folder, "--begin", "2024-02-12", "-o", "json", *options)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_a_run_starts_after_two_windows_and_its_reference_is_the_new_world(folder: Path) -> None:
    answer = answered(folder, "--train-days", "14")
    windows = {window["start"][:10]: window for window in answer["windows"]}
    assert len(windows) == 14
    assert [w["action"] for w in windows.values()] == ["None"] * 5 + ["Retrain"] + ["None"] * 3 + ["Alert"] + [
        "None"
    ] * 4
    assert [w["verdict"] for w in windows.values()] == ["NoDrift"] * 4 + ["Drift"] * 2 + ["NoDrift"] * 3 + [
        "DataQuality"
    ] + ["NoDrift"] * 4
    assert windows["2024-03-18"]["consecutive"] == 2
    assert windows["2024-03-18"]["message"].startswith("`x`: median ")
    assert answer["runs"] == ["2024-03-25T00:00:00+00:00"]
    assert all(window["rows"] == 700 for window in windows.values())


def test_with_the_reference_kept_the_same_drift_costs_run_after_run(folder: Path) -> None:
    kept = folder / "kept.json"
    table = rows().slice(0, 4200).drop_columns(["at"])
    pq.write_table(table, folder / "reference.parquet")
    made = CliRunner().invoke(app, ["profile", str(folder / "reference.parquet"), "-o", str(kept)])
    assert made.exit_code == 0
    answer = answered(folder, "--train-days", "0", "--profile", kept)
    assert len(answer["runs"]) == 4  # two windows each; the null one breaks a row


def test_thresholds_are_costed_and_one_is_proposed(folder: Path) -> None:
    answer = answered(folder, "--train-days", "14", "--runs-per-year", "1")
    runs = {row["minimumEffect"]: row["runs"] for row in answer["thresholds"]}
    assert runs[0.1] == 1
    assert runs[0.8] == 0
    assert answer["proposal"] == {"runsPerYear": 1.0, "minimumEffect": min(t for t, n in runs.items() if n == 0)}
    generous = answered(folder, "--train-days", "14", "--runs-per-year", "100")
    assert generous["proposal"]["minimumEffect"] == 0.02


def test_text_tells_the_same(folder: Path) -> None:
    done = run(folder, "--begin", "2024-02-12", "--train-days", "14")
    assert done.exit_code == 0
    assert "2024-03-18T00:00        700 Drift              2 Retrain" in done.stdout
    assert "1 runs with minimumEffect 0.1" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--begin", "2024-01-01"), "there is no reference"),
        (("--begin", "2030-01-07"), "there is no reference"),
        (("--begin", "2024-02-12", "--time-column", "y"), "y has type double; the rows' time must be a timestamp"),
        (("--begin", "2024-02-12", "--time-column", "z"), "has no column 'z'"),
        (("--begin", "2024-02-12", "--history", "/nowhere.parquet"), "can't be read as Parquet"),
    ],
)
def test_wrong_input_is_named(folder: Path, options: tuple[str, ...], words: str) -> None:
    done = run(folder, *options)
    assert done.exit_code == 2
    assert words in done.stderr

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


WATCHED = POLICY.replace(
    "  responses: [{finding: DataDrift",
    '  performance: {metric: roc_auc, maxDrop: "0.05", minLabels: 100}\n'
    "  responses: [{finding: Performance, action: Retrain}, {finding: DataDrift",
)


def predicted(days: int = 168, a_day: int = 200) -> pa.Table:
    """Inputs that never move. From day 84 on half of the labels are drawn anew, from day 126 on nearly all."""
    rng = np.random.default_rng(5)
    n = days * a_day
    day = np.arange(n) / a_day
    probability = rng.beta(1, 1.5, n)
    honest = rng.random(n) < probability
    lost = np.where(day >= 126, 0.95, np.where(day >= 84, 0.5, 0.0))
    late = np.where(rng.random(n) < lost, rng.random(n) < 0.4, honest)
    at = pa.array(((MONDAY + day * DAY) * 1000).astype(np.int64), pa.timestamp("ms", tz="UTC"))
    known = pa.array(late.astype(np.int64), mask=rng.random(n) < 0.1)
    return pa.table({"at": at, "x": rng.normal(size=n), "score": probability, "late": known})


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("labelled")
    (there / "parts").mkdir()
    table = predicted().take(np.random.default_rng(1).permutation(168 * 200))
    pq.write_table(table.slice(0, 9000), there / "parts" / "a.parquet")
    pq.write_table(table.slice(9000), there / "parts" / "b.parquet")
    (there / "policy.yaml").write_text(WATCHED)
    return there


LABELS = ("--label-column", "late", "--probability-column", "score", "--train-days", "28")


def test_decay_starts_a_run_and_after_it_only_a_further_loss_does(labelled: Path) -> None:
    answer = answered(labelled, *LABELS)
    assert answer["runs"] == ["2024-04-08T00:00:00+00:00", "2024-05-20T00:00:00+00:00"]
    windows = {window["start"][:10]: window for window in answer["windows"]}
    assert {w["verdict"] for w in windows.values()} == {"NoDrift"}  # silent: no input moved
    assert [w["performance"]["verdict"] for w in windows.values()] == (
        ["Holds"] * 6 + ["Decayed"] * 2 + ["Holds"] * 4 + ["Decayed"] * 2 + ["Holds"] * 4
    )
    first = windows["2024-04-01"]
    assert (first["action"], first["answers"]) == ("Retrain", "Performance")
    assert first["performance"]["estimated"] == "Holds"  # the inputs' estimate can't see it
    assert first["performance"]["high"] < first["performance"]["baseline"] - 0.05
    assert 0.85 < first["performance"]["coverage"] < 0.95
    # After a run the baseline is what the predictions showed in the two windows that asked for it.
    assert windows["2024-04-08"]["performance"]["baseline"] < first["performance"]["baseline"] - 0.05
    assert any("What a retrained model would have predicted is not known" in note for note in answer["notes"])
    assert any("cut-off 0.5" in note for note in answer["notes"])


def test_a_window_is_judged_as_the_monitor_judges_it(labelled: Path) -> None:
    from sklearn.metrics import roc_auc_score

    table = predicted()
    day = np.arange(len(table)) / 200
    known = table["late"].to_numpy(zero_copy_only=False)
    there = (day >= 91) & (day < 98) & ~np.isnan(known)
    expected = roc_auc_score(known[there], table["score"].to_numpy()[there])
    windows = {window["start"][:10]: window for window in answered(labelled, *LABELS)["windows"]}
    found = windows["2024-04-01"]["performance"]
    assert found["value"] == pytest.approx(expected, abs=5e-5)
    assert found["labelled"] == there.sum()


def test_max_drops_are_costed_and_one_is_proposed(labelled: Path) -> None:
    answer = answered(labelled, *LABELS, "--runs-per-year", "3")
    table = {row["maxDrop"]: row for row in answer["performance"]["maxDrops"]}
    assert (table[0.05]["runs"], table[0.05]["runsOnPerformance"]) == (2, 2)
    assert table[0.3]["runs"] == 1  # by then as much is lost in all
    runs = [row["runs"] for row in answer["performance"]["maxDrops"]]
    one = [drop for drop, row in table.items() if row["runs"] <= 1]
    assert runs == sorted(runs, reverse=True)
    assert answer["proposal"]["maxDrop"] == min(one)
    none = answered(labelled, *LABELS, "--runs-per-year", "0")
    assert none["proposal"]["maxDrop"] is None


def test_labels_that_come_late_answer_late(labelled: Path) -> None:
    answer = answered(labelled, *LABELS, "--label-delay-hours", str(14 * 24))
    assert answer["runs"][0] == "2024-04-22T00:00:00+00:00"
    last = answer["windows"][-1]["performance"]
    assert (last["verdict"], last["value"], last["estimated"]) == ("InsufficientData", None, "Holds")


def test_alert_starts_no_run_and_few_new_labels_hold_one(labelled: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.yaml"
    told.write_text(WATCHED.replace("finding: Performance, action: Retrain", "finding: Performance, action: Alert"))
    answer = answered(labelled, *LABELS, "-f", told)
    assert answer["runs"] == []
    alerts = [window["start"][:10] for window in answer["windows"] if window["action"] == "Alert"]
    assert alerts[0] == "2024-04-01"
    held = tmp_path / "held.yaml"
    held.write_text(WATCHED + "  minNewLabels: 1000000\n")
    answer = answered(labelled, *LABELS, "-f", held)
    assert (answer["runs"], answer["thresholds"][0]["held"] > 0) == ([], True)
    back = tmp_path / "back.yaml"
    back.write_text(WATCHED.replace("finding: Performance, action: Retrain", "finding: Performance, action: Rollback"))
    answer = answered(labelled, *LABELS, "-f", back)
    assert (answer["runs"], [w["action"] for w in answer["windows"]].count("Rollback") > 0) == ([], True)
    assert any("a rollback is told, nothing more" in note for note in answer["notes"])


def test_the_baseline_may_be_the_artifacts_own(labelled: Path) -> None:
    from truekeep.contract.canonical import canonical_json
    from truekeep.scores.metrics import Scored
    from truekeep.scores.results import results

    rng = np.random.default_rng(0)
    probability = rng.beta(1, 1.5, 4000)
    shown = results(Scored((rng.random(4000) < 0.4 + 0.05 * (probability > 0.5)).astype(int), probability, 0.3))
    (labelled / "performance.json").write_bytes(canonical_json(shown.dump()))
    answer = answered(labelled, *LABELS, "--performance", labelled / "performance.json")
    assert answer["performance"]["baselineRows"] == 4000
    assert answer["performance"]["baseline"] < 0.6
    assert answer["runs"] == []  # a model that never was good has not become worse
    assert not any("cut-off 0.5" in note for note in answer["notes"])


def test_text_has_performance_and_stays_narrow(labelled: Path) -> None:
    done = run(labelled, "--begin", "2024-02-12", *LABELS)
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.stdout.splitlines()) <= 100
    assert "2 runs with minimumEffect 0.1 and maxDrop 0.05" in done.stdout
    assert "Decayed" in done.stdout
    assert 'runs a year: maxDrop "' in done.stdout


def test_text_of_drift_stays_narrow(folder: Path) -> None:
    done = run(folder, "--begin", "2024-02-12", "--train-days", "14")
    assert max(len(line) for line in done.stdout.splitlines()) <= 100
    assert "    `x`: median " in done.stdout


def test_the_page_has_all_of_it_and_loads_nothing(labelled: Path, tmp_path: Path) -> None:
    done = run(labelled, "--begin", "2024-02-12", *LABELS, "-o", "html", "--to", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<h1>2 runs</h1>" in page
    assert "<h2>The last 18 windows</h2>" in page
    assert "<h2>Performance: roc_auc</h2>" in page
    assert page.count('class="run"') == 4  # in both drawings
    assert page.count('class="base"') == 3  # one baseline before the first run, and one after each
    assert page.count('<circle class="dot Decayed"') == 4
    assert "What each maxDrop would have cost" in page
    assert '<tr class="Retrain">' in page
    assert "What a retrained model would have predicted is not known" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_page_without_performance(folder: Path) -> None:
    done = run(folder, "--begin", "2024-02-12", "--train-days", "14", "-o", "html")
    assert done.exit_code == 0, done.output
    assert "<h1>1 run</h1>" in done.stdout
    assert "maxDrop" not in done.stdout


def test_the_prediction_is_judged_as_one(labelled: Path) -> None:
    answer = answered(labelled, "--probability-column", "score", "--train-days", "28")
    assert any("Performance is not replayed: name the history's labels" in note for note in answer["notes"])
    assert "maxDrop" not in answer["proposal"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--label-column", "nothing"), "has no column 'nothing'"),
        (("--label-column", "x"), "x is no label"),
        (("--label-column", "late", "--probability-column", "x"), "x is no probability from 0 to 1"),
        (("--label-column", "late", "--performance", "/nowhere.json"), "give performance.json of an artifact"),
        (("--performance", "/nowhere.json"), "--performance needs --label-column"),
    ],
)
def test_wrong_labels_are_named(labelled: Path, options: tuple[str, ...], words: str) -> None:
    done = run(labelled, "--begin", "2024-02-12", "--probability-column", "score", *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_labels_without_a_policy_on_performance_are_refused(folder: Path) -> None:
    done = run(folder, "--begin", "2024-02-12", "--label-column", "y")
    assert done.exit_code == 2
    assert "are for a policy with spec.performance" in done.stderr


def test_without_labels_before_the_begin_there_is_no_baseline(labelled: Path, tmp_path: Path) -> None:
    table = predicted()
    day = np.arange(len(table)) / 200
    late = pa.array(table["late"].to_numpy(zero_copy_only=False), mask=day < 50)
    pq.write_table(table.set_column(3, "late", late), tmp_path / "rows.parquet")
    given = ["backtest", "-f", labelled / "policy.yaml", "--history", tmp_path / "rows.parquet", "--time-column", "at"]
    done = CliRunner().invoke(app, [str(one) for one in [*given, "--begin", "2024-02-12", *LABELS]])
    assert done.exit_code == 2
    assert "roc_auc has no baseline: give --performance" in done.stderr

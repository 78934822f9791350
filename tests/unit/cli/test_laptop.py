"""`truekeep profile` and `truekeep drift`, as a person calls them."""

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
from truekeep.contract.canonical import canonical_json
from truekeep.profiling.build import profile
from truekeep.profiling.schema import PREDICTION, Profile

KEYS = ["column", "kind", "statistic", "value", "threshold", "pValue", "effect", "message"]
POLICY = """
apiVersion: truekeep.dev/v1alpha1
kind: DriftPolicy
metadata: {name: flights}
spec:
  modelRef: {name: flights}
  schedule: "*/5 * * * *"
  window: {hours: 24, minRows: 200}
  data: {minimumEffect: "0.6", ignore: [kind]}
"""


def table(n: int, seed: int, **changed: Any) -> pa.Table:
    rng = np.random.default_rng(seed)
    found = {
        "amount": np.exp(rng.normal(3, 0.5, n)),
        "kind": rng.choice(["a", "b", "c"], n),
        "flag": rng.random(n) < 0.3,
        "<i>hour": rng.integers(0, 24, n),
        "at": pa.array(np.arange(n), pa.timestamp("s")),
        "truekeep.probability": rng.beta(1, 4, n),
    }
    return pa.table({**found, **{name: change(rng, n) for name, change in changed.items()}})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("tables")
    pq.write_table(table(20_000, 0), there / "ref.parquet")
    pq.write_table(table(5000, 1), there / "quiet.parquet")
    pq.write_table(table(100, 1), there / "few.parquet")
    pq.write_table(table(5000, 2, amount=lambda rng, n: np.exp(rng.normal(3.3, 0.5, n))), there / "moved.parquet")
    pq.write_table(table(5000, 3, kind=lambda _, n: pa.nulls(n, pa.string())), there / "broken.parquet")
    (there / "policy.yaml").write_text(POLICY)
    made = run("profile", there / "ref.parquet", "-o", there / "profile.json")
    assert made.exit_code == 0, made.output
    assert "left out, neither numbers nor text: at (timestamp[ms])" in made.stderr
    return there


def judged(folder: Path, name: str, *options: object) -> tuple[int, dict[str, Any]]:
    done = run("drift", "--profile", folder / "profile.json", folder / name, "-o", "json", *options)
    return done.exit_code, json.loads(done.stdout)


def test_a_profile_is_that_of_the_training_code(folder: Path) -> None:
    stored = Profile.model_validate_json((folder / "profile.json").read_bytes())
    assert [c.name for c in stored.columns] == ["amount", "kind", "flag", "<i>hour", PREDICTION]
    columns = pq.read_table(folder / "ref.parquet")
    from truekeep.contract.artifact import SignatureFeature

    features = [SignatureFeature(name=c.name, type=c.type) for c in stored.columns[:-1]]
    whole = profile({n: columns[n] for n in columns.column_names}, features, columns["truekeep.probability"].to_numpy())
    assert canonical_json(whole) + b"\n" == (folder / "profile.json").read_bytes()


def test_no_drift(folder: Path) -> None:
    assert judged(folder, "quiet.parquet") == (0, {"drift": False, "verdict": "NoDrift", "rows": 5000, "findings": []})


def test_drift_names_the_column(folder: Path) -> None:
    code, answer = judged(folder, "moved.parquet")
    assert (code, answer["drift"], answer["verdict"], answer["rows"]) == (1, True, "Drift", 5000)
    (finding,) = answer["findings"]
    assert list(finding) == KEYS
    assert (finding["column"], finding["kind"], finding["statistic"]) == ("amount", "DataDrift", "KolmogorovSmirnov")
    assert finding["value"] == pytest.approx(finding["effect"], abs=1e-4)
    assert finding["effect"] > 0.2 > finding["threshold"] == 0.03
    assert finding["pValue"] < 1e-6
    assert finding["message"].startswith("`amount`: median ")


def test_broken_data_is_never_fine(folder: Path) -> None:
    code, answer = judged(folder, "broken.parquet")
    assert (code, answer["drift"], answer["verdict"]) == (1, True, "Drift")
    assert [(f["column"], f["kind"], f["statistic"]) for f in answer["findings"]] == [
        ("kind", "DataQuality", "NullFraction")
    ]


def test_too_few_rows_are_neither_drift_nor_none(folder: Path) -> None:
    code, answer = judged(folder, "few.parquet")
    assert (code, answer) == (2, {"drift": False, "verdict": "InsufficientData", "rows": 100, "findings": []})


def test_a_policy_sets_the_limits(folder: Path) -> None:
    assert judged(folder, "moved.parquet", "-f", folder / "policy.yaml") == (
        0,
        {"drift": False, "verdict": "NoDrift", "rows": 5000, "findings": []},
    )
    code, answer = judged(folder, "broken.parquet", "-f", folder / "policy.yaml")
    assert (code, answer["verdict"]) == (0, "NoDrift")  # ignored: reported, no breach
    assert [f["column"] for f in answer["findings"]] == ["kind"]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (POLICY.replace("minRows", "minimumRows"), "spec.window.minimumRows is no field of a DriftPolicy"),
        (POLICY.replace('"0.6"', '"7"'), "spec: data.minimumEffect: "),
        (POLICY.replace("kind: DriftPolicy", "kind: Model"), "has 0 objects of kind DriftPolicy"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_wrong_policy_is_named(folder: Path, tmp_path: Path, policy: str, words: str) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(policy)
    done = run("drift", "--profile", folder / "profile.json", folder / "quiet.parquet", "-f", wrong)
    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("profile_name", "name", "words"),
    [
        ("profile.json", "nothing.parquet", "can't be read as Parquet"),
        ("profile.json", "policy.yaml", "can't be read as Parquet"),
        ("nothing.json", "quiet.parquet", "No such file"),
        ("ref.parquet", "quiet.parquet", "is no profile"),
    ],
)
def test_wrong_input_is_named(folder: Path, profile_name: str, name: str, words: str) -> None:
    done = run("drift", "--profile", folder / profile_name, folder / name)
    assert done.exit_code == 2
    assert words in done.stderr


def test_references_that_are_none_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.float64())}), tmp_path / "empty.parquet")
    pq.write_table(pa.table({"a": pa.array([[1]])}), tmp_path / "lists.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "twice.parquet")
    for name, words in (("empty", "has no rows"), ("lists", "has no column of numbers or text"), ("twice", "twice")):
        done = run("profile", tmp_path / f"{name}.parquet")
        assert done.exit_code == 2, name
        assert words in done.stderr
    done = run("profile", tmp_path / "lists.parquet", "--category", "b")
    assert "has no column 'b'; it has a" in done.stderr


def test_a_table_without_predictions_is_judged_on_its_columns(folder: Path, tmp_path: Path) -> None:
    pq.write_table(table(5000, 1).drop_columns(["truekeep.probability"]), tmp_path / "raw.parquet")
    done = run("drift", "--profile", folder / "profile.json", tmp_path / "raw.parquet")
    assert done.exit_code == 0
    assert "the prediction is not compared" in done.stderr
    named = table(5000, 1).rename_columns(["amount", "kind", "flag", "<i>hour", "at", "score"])
    pq.write_table(named, tmp_path / "named.parquet")
    done = run("drift", "--profile", folder / "profile.json", tmp_path / "named.parquet", "--prediction", "score")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "(prediction)" in done.stdout


def test_text_tells_findings_and_columns(folder: Path) -> None:
    done = run("drift", "--profile", folder / "profile.json", folder / "moved.parquet")
    assert done.exit_code == 1
    assert done.stdout.startswith("Drift: moved.parquet compared with profile.json, 5,000 rows and 20,000\n")
    assert "  breach DataDrift       `amount`: median " in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if line.endswith("drifted")] == ["amount"]


def test_html_is_one_file_and_escapes_what_comes_from_data(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = run("drift", "--profile", folder / "profile.json", folder / "moved.parquet", "-o", "html", "--to", page)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "<i>hour" not in page.read_text()
    assert "&lt;i&gt;hour" in page.read_text()


def test_a_policy_can_name_a_statistic_and_what_one_file_can_not_show_is_told(folder: Path, tmp_path: Path) -> None:
    more = POLICY.replace(
        'data: {minimumEffect: "0.6", ignore: [kind]}',
        'data: {together: {}, columns: [{name: amount, statistic: PopulationStability, minimumEffect: "0.2"}]}\n'
        "  performance: {metric: roc_auc}",
    )
    (tmp_path / "policy.yaml").write_text(more)
    done = run(
        "drift", "--profile", folder / "profile.json", folder / "moved.parquet", "-f", tmp_path / "policy.yaml",
        "-o", "json",
    )  # fmt: skip
    assert done.exit_code == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["column"], finding["statistic"], finding["threshold"]) == ("amount", "PopulationStability", 0.2)
    assert "data.together, performance needs more than one file, and is not judged here" in done.stderr

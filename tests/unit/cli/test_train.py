"""`truekeep train`: the run of the cluster, on files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from tests.unit.trainer.lake import events
from truekeep.cli.main import app
from truekeep.contract.artifact import Manifest
from truekeep.storage import artifacts
from truekeep.storage.folder import Folder

MODEL: dict[str, Any] = {
    "apiVersion": "truekeep.dev/v1alpha1",
    "kind": "Model",
    "metadata": {"name": "late"},
    "spec": {
        "store": {"s3": {"uri": "s3://models/"}},
        "data": {
            "source": {"s3": {"uri": "s3://lake/rows/"}},
            "timeColumn": "at",
            "key": "id",
            "label": {"column": "late"},
            "features": [{"name": "amount", "type": "Number"}, {"name": "kind", "type": "Category"}],
            "rules": [{"name": "enough", "minRows": 1000}],
        },
        "training": {"recipe": {"estimator": "sklearn.linear_model.LogisticRegression", "seed": 3}},
        "evaluation": {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.6"}]},
    },
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "lake" / "rows"
    folder.mkdir(parents=True)
    pq.write_table(events(), folder / "a.parquet")
    return tmp_path / "data"


def run(folder: Path, source: Path, /, **changes: Any) -> tuple[int, str, str]:
    """Exit code and both outputs; `changes` replace sections of the spec."""
    model = copy.deepcopy(MODEL)
    model["spec"] |= changes
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(model))
    done = CliRunner().invoke(app, ["train", "-f", str(path), "--data", str(source), "--out", str(folder / "out")])
    return done.exit_code, done.stdout, done.stderr


def test_a_model_that_passes_its_gates_is_an_artifact_with_a_record(tmp_path: Path, data: Path) -> None:
    code, out, err = run(tmp_path, data)
    assert (code, err) == (0, "")
    assert "Succeeded: roc_auc 0." in out
    assert "truekeep serve" in out
    folder = tmp_path / "out"
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    files = {file.path: (folder / file.path).read_bytes() for file in manifest.files}
    assert artifacts.manifest_of(files).digest() == manifest.digest()
    record = json.loads((folder / "record.json").read_text())
    assert record["outcome"]["reason"] == "Succeeded"
    assert record["artifact"]["digest"] == manifest.digest()
    assert record["data"]["objects"][0]["uri"].endswith("lake/rows/a.parquet")
    assert "Passed: this model may serve" in (folder / "report.html").read_text()
    assert f"the report is {folder / 'report.html'}" in out
    statement = json.loads((folder / "provenance.json").read_text())
    assert "sha256:" + statement["subject"][0]["digest"]["sha256"] == manifest.digest()
    assert len((folder / "openlineage.jsonl").read_text().splitlines()) == 2


def test_the_same_files_make_the_same_artifact(tmp_path: Path, data: Path) -> None:
    digests = set()
    for _ in range(2):
        assert run(tmp_path, data)[0] == 0
        digests.add(json.loads((tmp_path / "out" / "result.json").read_text())["artifact"]["digest"])
    assert len(digests) == 1


@pytest.mark.parametrize("place", [".", "rows", "lake/rows"])
def test_the_data_may_lie_by_bucket_by_prefix_or_alone(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "elsewhere" / place
    folder.mkdir(parents=True)
    pacsv.write_csv(events(), folder / "a.csv")
    assert run(tmp_path, tmp_path / "elsewhere")[0] == 0


def test_a_gate_that_fails_ends_with_one_and_leaves_no_artifact(tmp_path: Path, data: Path) -> None:
    gates = {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.999"}]}
    code, out, _ = run(tmp_path, data, evaluation=gates)
    assert code == 1
    assert "GatesFailed" in out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["openlineage.jsonl", "record.json", "report.html", "result.json"]
    assert "A gate failed" in (tmp_path / "out" / "report.html").read_text()


def test_data_that_breaks_a_rule_ends_with_two_and_says_which(tmp_path: Path, data: Path) -> None:
    rules = {**MODEL["spec"]["data"], "rules": [{"name": "enough", "minRows": 999999}]}
    code, out, _ = run(tmp_path, data, data=rules)
    assert code == 2
    assert "DataInvalid" in out
    assert "enough" in out


def test_a_model_that_the_api_server_would_refuse_ends_with_two(tmp_path: Path, data: Path) -> None:
    training = {"recipe": {"estimator": "os.system"}}
    code, _, err = run(tmp_path, data, training=training)
    assert code == 2
    assert "spec.training.recipe.estimator" in err
    assert "sklearn.linear_model.LogisticRegression" in err


def test_data_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    labels = {**MODEL["spec"]["data"], "label": {"column": "late", "source": {"s3": {"uri": "s3://lake/labels/"}}}}
    code, _, err = run(tmp_path, tmp_path / "empty", data=labels)
    assert code == 2
    assert "has nothing for s3://lake/rows/; looked for" in err


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, data: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    code, _, err = run(tmp_path, data)
    assert code == 2
    assert "holds other files" in err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_an_artifact_is_what_a_server_reads(tmp_path: Path, data: Path) -> None:
    assert run(tmp_path, data)[0] == 0
    from truekeep.server.local import LocalProcess  # noqa: F401 - it is what `truekeep serve` starts

    assert Folder(tmp_path / "out").get("signature.json")

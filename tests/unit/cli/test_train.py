"""`truekeep train`: the run of the cluster, on files."""

from __future__ import annotations

import copy
import hashlib
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


TUNED: dict[str, Any] = {
    "estimator": "sklearn.linear_model.LogisticRegression",
    "seed": 3,
    "tuning": {
        "search": "Random",
        "trials": 4,
        "parameters": [{"name": "C", "range": {"low": "0.001", "high": "10", "scale": "Log"}}],
    },
}


def test_a_tuning_tries_all_trials_and_trains_the_best(tmp_path: Path, data: Path) -> None:
    code, out, err = run(tmp_path, data, training={"recipe": TUNED})
    assert (code, err) == (0, "")
    told = json.loads((tmp_path / "out" / "record.json").read_text())["training"]["tuning"]
    assert [one["status"] for one in told["trials"]] == ["Scored"] * 4
    best = max(told["trials"], key=lambda one: float(one["mean"]))
    assert told["best"]["index"] == best["index"]
    assert f"trial {best['index']} of 4 was the best: C " in out
    assert json.loads((tmp_path / "out" / "result.json").read_text())["tuning"]["best"] == best["index"]
    alone = {**TUNED, "tuning": None, "parameters": best["parameters"]}
    del alone["tuning"]
    (tmp_path / "alone").mkdir()
    assert run(tmp_path / "alone", data, training={"recipe": alone})[0] == 0
    one, other = (tmp_path / folder / "out" / "manifest.json" for folder in (".", "alone"))
    assert one.read_bytes() == other.read_bytes()


def test_a_tuning_on_bad_data_says_what_is_wrong_with_it(tmp_path: Path, data: Path) -> None:
    declared = {**MODEL["spec"]["data"], "rules": [{"name": "enough", "minRows": 5000}]}
    code, out, _ = run(tmp_path, data, training={"recipe": TUNED}, data=declared)
    assert code == 2
    assert "DataInvalid: " in out
    assert "5,000" in out


def test_a_tuning_that_the_estimator_refuses_is_wrong_input(tmp_path: Path, data: Path) -> None:
    refused = {**TUNED["tuning"], "parameters": [{"name": "C", "range": {"low": "-5", "high": "-1"}}]}
    code, out, _ = run(tmp_path, data, training={"recipe": {**TUNED, "tuning": refused}})
    assert code == 2
    assert "ParametersInvalid: all 4 trials were refused" in out


def test_a_volume_and_an_output_of_dvc_are_folders_here(tmp_path: Path, data: Path) -> None:
    """The volume by its claim's name, the output of DVC by what `dvc fetch` put into .dvc/cache."""
    (data / "lake" / "rows").rename(data / "claim")
    declared = copy.deepcopy(MODEL["spec"]["data"])
    declared["source"] = {"pvc": {"claimName": "claim"}}
    assert run(tmp_path, data, data=declared)[0] == 0
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["data"]["declared"]["source"] == {"pvc": {"claimName": "claim", "path": ""}}
    rows = (data / "claim" / "a.parquet").read_bytes()
    digest = hashlib.md5(rows, usedforsecurity=False).hexdigest()
    cache = tmp_path / ".dvc" / "cache" / "files" / "md5" / digest[:2]
    cache.mkdir(parents=True)
    (cache / digest[2:]).write_bytes(rows)
    declared["source"] = {"dvc": {"remote": {"uri": "s3://dvc/"}, "md5": digest, "path": "rows.parquet"}}
    assert run(tmp_path, tmp_path / ".dvc" / "cache", data=declared)[0] == 0
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["data"]["replayable"] == "True"
    (cache / digest[2:]).write_bytes(rows + b" ")
    code, said, _ = run(tmp_path, tmp_path / ".dvc" / "cache", data=declared)
    assert (code, f"rows.parquet has not the MD5 {digest}" in said) == (2, True)


def test_a_source_of_two_kinds_is_refused(tmp_path: Path, data: Path) -> None:
    declared = copy.deepcopy(MODEL["spec"]["data"])
    declared["source"]["pvc"] = {"claimName": "claim"}
    code, _, told = run(tmp_path, data, data=declared)
    assert code == 2
    assert "a source has exactly one of s3, pvc and dvc" in told

"""`truekeep check` says what the API server says: each rule of the kinds takes and refuses the same objects."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.e2e.test_api import BASE, CASES, MODEL, POLICY, Case, changed, rules
from truekeep.cli.admission import faults
from truekeep.cli.main import app

ROOT = Path(__file__).parents[3]


def told(document: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    return [str(fault) for fault in faults(document, old)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.where}: {case.says}")
def test_a_rule_answers_as_the_api_server_does(case: Case) -> None:
    """tests/e2e/test_api.py puts the same cases before a real API server."""
    base = BASE[case.kind]
    old = copy.deepcopy(base) if case.update else None
    if case.update and case.kind == "Model":
        old = changed(base, (("spec.serving", {"autoscaling": {"minReplicas": 1, "maxReplicas": 3}}),))
    assert told(changed(base, case.good), old) == []
    (message,) = (text for path, text in rules() if path == case.where and case.says in text)
    assert any(message in line for line in told(changed(base, case.bad), old))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("spec.serving", {"replicas": "two"}), 'spec.serving.replicas: is "two", but must be of type integer'),
        (("spec.serving", {"replicas": 101}), "spec.serving.replicas: is 101, but the most is 100"),
        (
            ("spec.evaluation", {"gates": [{"name": "auc", "metric": "auc", "minimum": "0.5"}]}),
            "must be one of roc_auc",
        ),
        (
            ("spec.evaluation", {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": 0.5}]}),
            "spec.evaluation.gates[0].minimum: is 0.5, but must be of type string; write it in quotes",
        ),
        (("spec.data.source.s3.uri", "lake/flights"), "example: s3://lake/flights/"),
        (("spec.data.lable", {"column": "late"}), "spec.data.lable: is an unknown field; known here: features"),
        (("spec.training", {}), "spec.training"),
        (
            ("spec.data.features", [{"name": "hour", "type": "Number"}] * 2),
            "spec.data.features[1]: is the same as name of another item",
        ),
        (("apiVersion", "truekeep.dev/v9"), "apiVersion: 'truekeep.dev/v9' must be truekeep.dev/v1alpha1"),
        (("kind", "Modell"), "kind: 'Modell' is none of ours; there are DriftPolicy, Model"),
    ],
)
def test_what_is_wrong_is_named_with_its_limit_and_a_remedy(change: tuple[str, Any], words: str) -> None:
    assert any(words in line for line in told(changed(MODEL, (change,)))), told(changed(MODEL, (change,)))


def write(folder: Path, **documents: dict[str, Any]) -> Path:
    for name, document in documents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return folder


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["check", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_a_folder_that_is_in_order(tmp_path: Path) -> None:
    code, out, err = run(
        "-f", str(write(tmp_path, model=MODEL, policy=POLICY, other={"apiVersion": "v1", "kind": "X"}))
    )
    assert (code, err) == (0, "")
    assert "Model late: in order" in out
    assert "DriftPolicy late: in order" in out
    assert "1 objects of other kinds" in out


def test_a_policy_whose_model_is_elsewhere_is_told_and_with_strict_refused(tmp_path: Path) -> None:
    folder = str(write(tmp_path, policy=POLICY))
    code, out, _ = run("-f", folder)
    assert code == 0
    assert "spec.modelRef.name: Model late is in none of these files" in out
    code, _, err = run("-f", folder, "--strict")
    assert code == 2
    assert "Model late is in none of these files" in err


def test_a_time_without_quotes_is_text_as_for_kubectl(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    text = yaml.safe_dump(POLICY)
    path.write_text(text + "  blackouts: [{name: x, start: 2026-12-24T00:00:00Z, end: 2026-12-27T00:00:00Z}]\n")
    code, out, err = run("-f", str(path))
    assert (code, err) == (0, ""), out


def test_what_is_no_yaml_or_nothing_of_ours_ends_with_two(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    code, _, err = run("-f", str(bad))
    assert code == 2
    assert "can't be read" in err
    code, _, err = run("-f", str(tmp_path / "missing.yaml"))
    assert code == 2
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    code, _, err = run("-f", str(empty))
    assert code == 2
    assert "no object of truekeep.dev" in err


@pytest.mark.parametrize("example", ["flight-delay", "fraud"])
def test_the_examples_are_in_order(example: str) -> None:
    code, out, err = run("-f", str(ROOT / "manifests/examples" / example / "model.yaml"))
    assert (code, err) == (0, ""), out


def with_recipe(tmp_path: Path, **recipe: Any) -> tuple[int, str, str]:
    """`truekeep check` of a Model with this recipe."""
    given = {"estimator": "sklearn.linear_model.LogisticRegression", **recipe}
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump(changed(MODEL, (("spec.training", {"recipe": given}),))))
    done = CliRunner().invoke(app, ["check", "-f", str(file)])
    return done.exit_code, done.stdout, done.stderr


def test_a_parameter_that_the_estimator_does_not_take_is_told(tmp_path: Path) -> None:
    code, _, err = with_recipe(tmp_path, parameters=[{"name": "max_itr", "value": "100"}])
    assert code == 2
    assert "spec.training.recipe.parameters: LogisticRegression has no parameter max_itr; did you mean max_iter?" in err


def test_each_value_that_would_be_tried_in_vain_is_told(tmp_path: Path) -> None:
    tuned = [
        {"name": "C", "values": ["0.1", "-1", "many"]},
        {"name": "tol", "range": {"low": "-1", "high": "1"}},
        {"name": "max_iter", "range": {"low": "10", "high": "100", "type": "Integer"}},
    ]
    tuning = {"search": "Random", "trials": 5, "parameters": tuned}
    code, _, err = with_recipe(tmp_path, tuning=tuning)
    assert code == 2
    places = [line.split(": ")[2] for line in err.splitlines()]
    assert places == [
        "spec.training.recipe.tuning.parameters[0].values[1]",
        "spec.training.recipe.tuning.parameters[0].values[2]",
        "spec.training.recipe.tuning.parameters[1].range.low",
    ]
    sound = {**tuning, "parameters": [{"name": "C", "values": ["0.1", "1"]}, tuned[2]]}
    assert with_recipe(tmp_path, tuning=sound)[0] == 0


def test_without_the_estimators_package_it_says_what_it_did_not_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truekeep.cli.settings.find_spec", lambda name: None if name == "sklearn" else name)
    code, out, _ = with_recipe(tmp_path, parameters=[{"name": "max_itr", "value": "100"}])
    assert code == 0
    assert "in order; its parameters are not checked, because the package sklearn is missing" in out


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            [
                {"name": "log", "columns": ["carrier"], "log": {}},
                {"name": "m", "columns": ["carrier"], "targetEncode": {}},
            ],
            "spec.training.recipe.transformers[0] (log): log takes columns of type Number, but carrier is of type "
            "Category; make it a number first, by ordinal or targetEncode, or take another kind",
        ),
        (
            [{"name": "log", "columns": ["hour.log"], "log": {}}],
            "spec.training.recipe.transformers[0] (log): there is no column hour.log; there are hour, carrier",
        ),
    ],
)
def test_transformers_that_do_not_fit_together_are_told(tmp_path: Path, steps: Any, words: str) -> None:
    """What the API server's rules can't see, and a run would refuse."""
    document = changed(MODEL, (("spec.training.recipe.transformers", steps),))
    assert told(document) == []
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(document))
    done = CliRunner().invoke(app, ["check", "-f", str(path)])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())

"""A Model whose training is an import: what starts a run of it, and what never does."""

from __future__ import annotations

from tests.unit.domain.test_policy import drift_runs, message, policy_condition, watched
from tests.unit.domain.world import SPEC, spec
from truekeep.api.model import ModelSpec
from truekeep.contract.canonical import digest_of
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.mounts import mounts


def imported(digit: str = "0", uri: str = "s3://imports/") -> ModelSpec:
    location = {"uri": uri, "endpoint": "http://there:7070", "credentialsSecretRef": {"name": "imports"}}
    raw = {**SPEC, "training": {"import": {"s3": location, "digest": f"sha256:{digit * 64}"}}}
    return ModelSpec.model_validate(raw)


def test_a_breach_of_an_imported_model_starts_no_run_and_says_why() -> None:
    world = watched(responses=[{"finding": "DataDrift", "action": "Retrain"}])
    world.change(imported())
    world.calm()
    before = len(world.runs)
    world.report(6, 7)
    world.calm()
    assert drift_runs(world) == 0
    assert len(world.runs) == before
    assert policy_condition(world, "DriftDetected") == ("True", "Breach")
    assert policy_condition(world, "RetrainHeld") == ("True", "NothingToRetrain")
    assert "spec.training.import.digest" in message(world, "RetrainHeld")
    assert any(note.reason == "NothingToRetrain" and note.type == "Warning" for note in world.notes)


def test_a_new_digest_is_a_new_run_and_the_same_one_is_not() -> None:
    one, same, other = imported("0"), imported("0"), imported("1")
    assert training_fingerprint(one) == training_fingerprint(same)
    assert len({training_fingerprint(each) for each in (one, other, imported("0", "s3://elsewhere/"), spec())}) == 4


def test_the_fingerprint_of_a_recipe_says_nothing_of_imports_nor_of_gates_that_are_not_declared() -> None:
    """An upgrade of the operator, whose API has more fields, trains nothing again."""
    plain = spec()
    assert plain.training.recipe is not None
    gates = [{"name": "auc", "metric": "roc_auc", "minimum": "0.6"}]
    recipe = {"estimator": "sklearn.linear_model.LogisticRegression"}
    declared = plain.data.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert training_fingerprint(plain) == digest_of(
        {"data": declared, "recipe": recipe, "evaluation": {"gates": gates}}
    )


def test_the_secrets_of_an_import_and_of_a_benchmark_are_named_where_a_mount_fails() -> None:
    assert "Secret imports" in mounts(imported())
    location = {"uri": "s3://storms/", "credentialsSecretRef": {"name": "sets"}}
    gate = {"name": "auc", "metric": "roc_auc", "minimum": "0.6"}
    further = {"name": "storms", "source": {"s3": location}, "gates": [gate]}
    assert "Secret sets" in mounts(spec(evaluation={"benchmarks": [further]}))

"""Git decides: nothing of ours is out of sync, pipelines end with the right code, a rollback outlives self-heal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import fetch_binary
from tests.e2e.repository import Repository
from tests.e2e.shop import Shop, open_shop, parameters, small_model
from tests.story.kube import Json, Kube

NAMESPACE = "truekeep-e2e-gitops"
MODEL = "payments"
RECIPES = Path(__file__).parents[2] / "docs/recipes"
KINDS = ("models", "driftpolicies", "trainingruns")


def policy() -> Json:
    spec = {"modelRef": {"name": MODEL}, "schedule": "0 0 1 1 *", "window": {"hours": 24}}
    return {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "DriftPolicy",
        "metadata": {"name": "daily", "labels": {"team": "fraud"}},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def repository(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with open_shop(kube, NAMESPACE, {}) as shop:
        model = small_model(MODEL, serving={"rollout": {"strategy": "BlueGreen"}, "capture": None})
        model["metadata"]["labels"] = {"team": "fraud"}
        yield Repository(shop, tmp_path_factory.mktemp("models"), model, policy())


def active(shop: Shop) -> int | None:
    return (shop.model(MODEL).get("status", {}).get("active") or {}).get("revision")


def test_a_pipeline_applies_and_waits(repository: Repository) -> None:
    assert repository.run(RECIPES / "diff.sh", repository.folder, NAMESPACE).returncode == 1
    done = repository.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ready is True, Serving: revision 1 answers" in done.stdout


def test_it_ends_with_1_for_a_commit_that_fails_and_says_why(repository: Repository) -> None:
    kept = repository.model["spec"]["evaluation"]
    repository.commit(evaluation={"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.9999"}]})
    done = repository.deploy()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "GatesFailed" in done.stdout
    assert active(repository.shop) == 1
    repository.commit(evaluation=kept)
    assert repository.deploy().returncode == 0


def test_what_the_operator_did_is_no_difference_to_git(repository: Repository) -> None:
    done = repository.run(RECIPES / "diff.sh", repository.folder, NAMESPACE)
    assert done.returncode == 0, done.stdout
    for plural in KINDS:
        for item in repository.shop.kube.list(NAMESPACE, plural):
            for entry in item["metadata"]["managedFields"]:
                if entry["manager"] != "truekeep" or (plural == "trainingruns" and entry.get("subresource") is None):
                    continue
                assert entry.get("subresource") == "status", entry
                assert set(entry["fieldsV1"]) == {"f:status"}, entry


@pytest.mark.full  # Argo CD's engine is built first
def test_argo_cd_calls_nothing_out_of_sync(repository: Repository) -> None:
    assert repository.deploy().returncode == 0  # where it runs without those before
    for plural, document in (("models", repository.model), ("driftpolicies", policy())):
        live = repository.shop.kube.get(NAMESPACE, plural, document["metadata"]["name"])
        git = {**document, "metadata": {**document["metadata"], "namespace": NAMESPACE}}
        question = [{"ask": "diff", "git": git, "object": live}]
        done = subprocess.run(
            [fetch_binary("argocd-lua")], input=json.dumps(question), capture_output=True, text=True, check=True
        )
        (answer,) = json.loads(done.stdout)
        assert not answer["answer"]["outOfSync"], answer


def test_a_rollback_by_hand_outlives_self_heal_and_ends_with_a_commit(repository: Repository) -> None:
    shop = repository.shop
    repository.commit(**parameters(max_iter="14"))
    assert repository.deploy().returncode == 0
    bad = active(shop)
    assert bad is not None
    assert bad > 1
    with repository.self_heal():
        assert "truekeep resume" in repository.truekeep("pause", MODEL)
        assert f"from revision {bad} to revision 1" in repository.truekeep("rollback", MODEL)
        shop.until("revision 1 answers", 30, lambda: active(shop) == 1)
        assert repository.run(RECIPES / "diff.sh", repository.folder, NAMESPACE).returncode == 0
        ready = next(c for c in shop.model(MODEL)["status"]["conditions"] if c["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("True", "RolledBackByHand")
        repository.commit(**parameters(max_iter="15"))
        shop.until("the pause to hold the commit", 30, lambda: _reason(shop, "Ready") == "PausedByHand")
        assert len(shop.runs(MODEL)) == len({run["metadata"]["name"] for run in shop.runs(MODEL)})
        assert active(shop) == 1
        repository.truekeep("resume", MODEL)
    done = repository.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (active(shop) or 0) > bad


def _reason(shop: Shop, kind: str) -> str:
    conditions = shop.model(MODEL)["status"]["conditions"]
    return str(next(c for c in conditions if c["type"] == kind)["reason"])

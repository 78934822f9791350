"""The example of a GitOps repository: what comes first, what may be pruned, and that it renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from images import manifests

from truekeep.api.driftpolicy import DriftPolicy
from truekeep.api.model import Model

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "manifests" / "argocd" / "example"
WAVE = "argocd.argoproj.io/sync-wave"
KINDS = {"Model": Model, "DriftPolicy": DriftPolicy}


def application(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLE / "apps" / f"{name}.yaml").read_text())
    return loaded


def wave(name: str) -> int:
    return int(application(name)["metadata"]["annotations"][WAVE])


def test_the_kinds_and_the_operator_come_before_the_models() -> None:
    assert wave("truekeep") < wave("models")
    assert {file.stem for file in (EXAMPLE / "apps").glob("*.yaml")} == {"truekeep", "models"}


def test_both_are_pruned_and_healed_and_applied_on_the_server() -> None:
    for name in ("truekeep", "models"):
        policy = application(name)["spec"]["syncPolicy"]
        assert policy["automated"] == {"prune": True, "selfHeal": True}
        assert "ServerSideApply=true" in policy["syncOptions"]


def test_what_they_point_at_is_there_and_valid() -> None:
    assert (ROOT / application("truekeep")["spec"]["source"]["path"] / "kustomization.yaml").exists()
    documents = list(yaml.safe_load_all(manifests.rendered(EXAMPLE / application("models")["spec"]["source"]["path"])))
    namespace = application("models")["spec"]["destination"]["namespace"]
    assert {document["kind"] for document in documents} == set(KINDS)
    for document in documents:
        assert document["metadata"]["namespace"] == namespace
        KINDS[document["kind"]].model_validate(document)

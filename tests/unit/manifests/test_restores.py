"""Who may bring runs back from the store: who holds the verb, and nobody by the right to train alone."""

from __future__ import annotations

from typing import Any

import yaml

from tests.story.kube import ROOT
from tests.unit.manifests.admission import refusals

POLICY = "restores.truekeep.dev"
RIGHT = "truekeep.dev/models/shop/credit/restore"
BACK = {"restore": {"runUid": "u", "modelUid": "m", "latestRevision": 9}}


def run(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "credit-1"}, "spec": {"modelRef": {"name": "credit"}, **spec}}


def test_who_may_restore_does_and_who_trains_is_not_asked() -> None:
    assert refusals(POLICY, run(**BACK), rights=[RIGHT]) == []
    assert refusals(POLICY, run(trigger={"type": "External"})) == []


def test_what_is_restored_already_may_be_labelled_by_anybody_who_may_write_it() -> None:
    labelled = {**run(**BACK), "metadata": {"name": "credit-1", "labels": {"team": "risk"}}}
    assert refusals(POLICY, labelled, run(**BACK)) == []


def test_the_refusal_says_what_is_missing() -> None:
    (words,) = refusals(POLICY, run(**BACK))
    assert words.startswith("'bob' may not restore runs of Model credit: ")
    assert "the verb restore on models.truekeep.dev" in words
    assert "bind the ClusterRole truekeep-restorer in namespace shop" in words


def test_one_role_has_it_and_no_role_takes_that_one_up() -> None:
    roles = list(yaml.safe_load_all((ROOT / "manifests/operator/roles.yaml").read_text()))
    roles += list(yaml.safe_load_all((ROOT / "manifests/operator/rbac.yaml").read_text()))
    holders = [
        role["metadata"]
        for role in roles
        if any("restore" in rule["verbs"] or "*" in rule["verbs"] for rule in role.get("rules") or [])
    ]
    assert [each["name"] for each in holders] == ["truekeep-restorer"]
    assert not [label for label in holders[0]["labels"] if "aggregate" in label]

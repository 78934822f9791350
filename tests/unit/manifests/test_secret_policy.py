"""Who names a Secret must be allowed to read it: the policy as it is shipped, evaluated here without an API server."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from tests.story.kube import ROOT
from tests.unit.manifests.admission import refusals
from tests.unit.resources.samples import FULL, built
from truekeep.api.common import LocalObjectReference, Schema
from truekeep.api.driftpolicy import DriftPolicy
from truekeep.api.model import Model
from truekeep.api.secret_policy import MOST, references, render
from truekeep.api.webhook import SecretKeyReference
from truekeep.cli.admission import schemas

Json = dict[str, Any]
SHIPPED = ROOT / "manifests" / "operator" / "secrets.yaml"


def asked(kind: str, new: Json, old: Json | None = None, may: Collection[str] = ()) -> list[str]:
    """What the policy of the kind says to this change by somebody who may read these Secrets: its refusals."""
    plural = {"Model": "models", "DriftPolicy": "driftpolicies"}[kind]
    rights = {f"/secrets/shop/{name}/get" for name in may}
    before = None if old is None else {"spec": old}
    return refusals(f"{plural}.secrets.truekeep.dev", {"spec": new}, before, rights=rights)


def names(refusals: list[str]) -> set[str]:
    return {words.split("may not read Secret ")[1].split(",")[0] for words in refusals}


EVERYWHERE: Json = {
    "store": {"s3": {"uri": "s3://models/", "credentialsSecretRef": {"name": "a"}}},
    "data": {
        "source": {"s3": {"uri": "s3://lake/", "credentialsSecretRef": {"name": "b"}}},
        "label": {"source": {"dvc": {"remote": {"uri": "s3://dvc/", "credentialsSecretRef": {"name": "c"}}}}},
        "joins": [
            {"name": "one", "source": {"s3": {"uri": "s3://one/", "credentialsSecretRef": {"name": "d"}}}},
            {"name": "two", "source": {"pvc": {"claimName": "x"}}},
            {"name": "three", "source": {"dvc": {"remote": {"uri": "s3://t/", "credentialsSecretRef": {"name": "e"}}}}},
        ],
    },
    "training": {"import": {"s3": {"uri": "s3://imports/", "credentialsSecretRef": {"name": "f"}}}},
    "evaluation": {
        "benchmarks": [{"name": "b", "source": {"s3": {"uri": "s3://b/", "credentialsSecretRef": {"name": "g"}}}}]
    },
    "serving": {
        "capture": {
            "s3": {"uri": "s3://c/", "credentialsSecretRef": {"name": "h"}},
            "hashKeySecretRef": {"name": "i"},
        }
    },
    "pods": {"imagePullSecrets": [{"name": "j"}, {"name": "a"}]},
}
ALL = set("abcdefghij")
WEBHOOK: Json = {"webhook": {"url": "https://x.example", "tokenSecretRef": {"name": "pager"}}}


def test_the_shipped_policy_is_the_one_that_the_schemas_make() -> None:
    assert SHIPPED.read_text() == render(), "the kinds changed: make crds"


def test_every_field_that_names_a_secret_is_asked_about() -> None:
    for reference in ALL:
        assert names(asked("Model", EVERYWHERE, may=ALL - {reference})) == {reference}
    assert asked("Model", EVERYWHERE, may=ALL) == []
    assert names(asked("DriftPolicy", WEBHOOK)) == {"pager"}
    assert asked("DriftPolicy", WEBHOOK, may={"pager"}) == []


def test_no_other_field_of_any_kind_names_a_secret() -> None:
    """By the types that say so in Python; the policy is made by the names in the schema."""
    for kind in (Model, DriftPolicy):
        expected = {".".join(parts) for parts in _typed(kind.model_fields["spec"].annotation)}
        found = {
            ".".join(part for part in each.parts[:-1] if part != "[]") for each in references(schemas()[kind.__name__])
        }
        assert found == expected
    assert not references(schemas()["TrainingRun"])
    assert not references(schemas()["ModelApproval"])


def _typed(annotation: Any) -> Iterator[tuple[str, ...]]:
    for each in (annotation, *_inside(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            for field in each.model_fields.values():
                for leaf in (field.annotation, *_inside(field.annotation)):
                    if isinstance(leaf, type) and issubclass(leaf, LocalObjectReference | SecretKeyReference):
                        yield (str(field.alias),)
                    elif isinstance(leaf, type) and issubclass(leaf, Schema):
                        yield from ((str(field.alias), *rest) for rest in _typed(leaf))
            return


def _inside(annotation: Any) -> Iterator[Any]:
    for each in get_args(annotation):
        yield each
        yield from _inside(each)


def test_every_secret_that_a_built_pod_takes_is_asked_about() -> None:
    mounted: set[str] = set()
    for manifest in built().values():
        mounted |= set(_secrets(manifest))
    imports = {"s3": {"uri": "s3://imports/", "credentialsSecretRef": {"name": "imports"}}}
    sets = {"source": {"s3": {"uri": "s3://storms/", "credentialsSecretRef": {"name": "sets"}}}}
    whole = {**FULL, "training": {"import": imports}, "evaluation": {"benchmarks": [sets]}}
    policies = {"pager"}  # of the sample's DriftPolicy
    assert mounted - policies <= names(asked("Model", whole)), "a pod mounts a Secret that nobody asked about"
    assert {"lake", "registry", "captures"} <= mounted


def _secrets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("secretName"), str):
            yield node["secretName"]
        if isinstance(node.get("secretKeyRef"), dict):
            yield node["secretKeyRef"]["name"]
        if isinstance(node.get("secretRef"), dict):
            yield node["secretRef"]["name"]
        for each in node.get("imagePullSecrets", []):
            yield each["name"]
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from _secrets(each)


def changed(path: str, value: Any, spec: Json = EVERYWHERE) -> Json:
    new = copy.deepcopy(spec)
    node: Any = new
    *way, last = path.split(".")
    for part in way:
        node = node[int(part)] if part.isdigit() else node.setdefault(part, {})
    if value is None:
        del node[last]
    else:
        node[last] = value
    return new


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("serving.replicas", 4),
        ("training.recipe", {"parameters": [{"name": "max_iter", "value": "3"}]}),
        ("training.image", {"reference": "registry.example/other:2"}),
        ("data.window", {"days": 9}),
        ("data.joins.0.by", ["origin"]),
        ("data.joins", None),  # fewer places
        ("serving.capture.fractionPercent", 50),
        ("pods.imagePullSecrets", [{"name": "a"}]),
        ("pods.nodeSelector", {"disk": "ssd"}),
    ],
)
def test_who_may_not_read_them_may_change_all_else(path: str, value: Any) -> None:
    assert asked("Model", changed(path, value), old=EVERYWHERE) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("store.s3.credentialsSecretRef.name", "other"),
        ("store.s3.endpoint", "http://elsewhere:9000"),
        ("data.source.s3.uri", "s3://elsewhere/"),
        ("data.source.s3.credentialsSecretRef", None),  # then it takes the store's
        ("data.joins.1.source", {"s3": {"uri": "s3://lake/"}}),
        ("data.joins.2.source.dvc.remote.endpoint", "http://elsewhere:9000"),
        ("serving.capture.hashKeySecretRef.name", "other"),
        ("serving.capture.s3.caBundleRef", {"name": "mine"}),
        ("pods.imagePullSecrets", [{"name": "j"}, {"name": "other"}]),
    ],
)
def test_who_changes_where_a_secret_goes_must_be_allowed_to_read_it(path: str, value: Any) -> None:
    new = changed(path, value)
    assert asked("Model", new, old=EVERYWHERE)
    assert asked("Model", new, old=EVERYWHERE, may=ALL | {"other"}) == []


def test_a_webhook_at_another_address_needs_the_right_to_its_token() -> None:
    elsewhere = changed("webhook.url", "https://mine.example", WEBHOOK)
    assert names(asked("DriftPolicy", elsewhere, old=WEBHOOK)) == {"pager"}
    assert asked("DriftPolicy", {**WEBHOOK, "schedule": "0 * * * *"}, old=WEBHOOK) == []


def test_words_name_the_person_the_secret_the_right_and_the_remedy() -> None:
    (words,) = asked("DriftPolicy", WEBHOOK)
    assert words == (
        "'bob' may not read Secret pager, which this DriftPolicy names: who names a Secret, or changes where it is "
        "used, needs the verb get on it in namespace shop; ask an admin of the namespace for that, or name another"
    )


def test_too_many_secrets_are_refused_because_not_all_could_be_asked_about() -> None:
    most = {f"pull-{number}" for number in range(MOST + 1)}
    spec = {"pods": {"imagePullSecrets": [{"name": name} for name in sorted(most)]}}
    (words,) = asked("Model", spec, may=most)
    assert words == f"a Model names at most {MOST} different Secrets; let locations share one"
    fewer = {"pods": {"imagePullSecrets": spec["pods"]["imagePullSecrets"][:MOST]}}
    assert asked("Model", fewer, may=most) == []

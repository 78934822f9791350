"""Where the captures and the store of a Model lie: as the cluster says, or a YAML file, or what is given by hand, which
needs neither Model nor cluster. Always with the credentials of the person who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from truekeep.api.common import S3Location
from truekeep.api.model import ModelSpec
from truekeep.cli import kube, ledger, stores
from truekeep.cli.laptop import InputError, documents
from truekeep.contract.decisions import Decision
from truekeep.contract.requests import complete
from truekeep.storage.artifacts import Store


@dataclass(frozen=True)
class Place:
    """One Model. `model`: "" for all that the captures have. `percent`: share of its requests that it captures, where
    the spec is known; `decisions`: what the cluster knows; `head`: of the store's decisions, as the Model has it."""

    namespace: str
    model: str
    store: S3Location | Path
    captures: S3Location | Path | None
    percent: int | None = None
    decisions: tuple[Decision, ...] = ()
    head: str | None = None


def not_captured(place: Place) -> InputError:
    """What is said where a Model keeps none of its answers."""
    return InputError(
        f"Model {place.namespace}/{place.model} has no spec.serving.capture: nothing is kept of its answers; give "
        "--store and --captures with its former uri"
    )


@dataclass(frozen=True)
class Asked:
    """What the person gave."""

    namespace: str | None
    model: str | None
    file: Path | None
    store: str | None
    captures: str | None
    endpoint: str | None


def places(asked: Asked) -> list[Place]:
    """Where to look. InputError for what was given wrongly; whoever can't ask the cluster ends with 2."""
    if asked.file is not None:
        return _of_file(asked, asked.file)
    if asked.store is not None:
        return [_by_hand(asked, asked.store)]
    if asked.captures is not None:
        raise InputError("--captures is for --store, which says where artifacts and records are; give both")
    return _of_cluster(asked)


def store_of(place: Place) -> Store:
    """Where artifacts and records lie."""
    found: Store = stores.opened(place.store)
    return found


def _by_hand(asked: Asked, store: str) -> Place:
    if asked.namespace is None:
        raise InputError("with --store, --namespace says in which namespace the Model was; give it")
    location = stores.located("--store", store, asked.endpoint)
    if asked.captures is not None:
        return Place(
            asked.namespace, asked.model or "", location, stores.located("--captures", asked.captures, asked.endpoint)
        )
    if asked.model is None:
        raise InputError("with --store, give --captures too, or --model, whose decisions in the store name it")
    known = ledger.read(stores.opened(location), asked.namespace, asked.model)
    uri = next((one.captures for one in reversed(known.decisions) if one.captures), None)
    if uri is None:
        raise InputError(
            f"the store's decisions on {asked.namespace}/{asked.model} do not say where its captures are; give "
            "--captures"
        )
    return Place(asked.namespace, asked.model, location, stores.located("--captures", uri, asked.endpoint))


def _of_file(asked: Asked, file: Path) -> list[Place]:
    found = []
    for document in documents(file):
        if not isinstance(document, dict) or document.get("kind") != "Model":
            continue
        metadata = document.get("metadata") or {}
        namespace = asked.namespace or metadata.get("namespace")
        if asked.model not in (None, metadata.get("name")):
            continue
        if namespace is None:
            raise InputError(f"{file}: Model {metadata.get('name')} names no namespace; give --namespace")
        found.append(_of_spec(asked, namespace, str(metadata.get("name")), _spec(document.get("spec"), str(file))))
    if not found:
        raise InputError(f"{file}: has no Model{f' {asked.model}' if asked.model else ''}; give a file with one")
    return found


def _of_cluster(asked: Asked) -> list[Place]:
    who = kube.person(asked.namespace)
    manifests: Sequence[kube.Json] = who.list("models") if asked.model is None else [who.get("models", asked.model)]
    runs, approvals = who.list("trainingruns"), who.list("modelapprovals")
    found = []
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        place = _of_spec(asked, who.namespace, name, _spec(manifest["spec"], f"Model {who.namespace}/{name}"))
        kept = (manifest.get("status") or {}).get("decisions") or {}
        found.append(
            Place(
                place.namespace, name, place.store, place.captures, place.percent,
                tuple(ledger.of_cluster(manifest, runs, approvals)), kept.get("head"),
            )
        )  # fmt: skip
    if not found:
        raise InputError(f"namespace {who.namespace} has no Model; give --namespace, or --store where they are gone")
    return found


def _spec(raw: Any, where: str) -> ModelSpec:
    try:
        return ModelSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(f"{where}: spec.{'.'.join(map(str, first['loc'][:6]))}: {first['msg']}") from error


def _of_spec(asked: Asked, namespace: str, name: str, spec: ModelSpec) -> Place:
    capture = spec.serving.capture
    captures = stores.own(complete(capture.s3, spec.store.s3), asked.endpoint) if capture else None
    percent = capture.fraction_percent if capture else None
    return Place(namespace, name, stores.own(spec.store.s3, asked.endpoint), captures, percent)

"""Metadata that every child carries: labels by which it is found, and the owner with which it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from truekeep.api.common import API_VERSION
from truekeep.api.names import MANAGED_BY
from truekeep.domain.observed import Meta

Kind = Literal["Model", "TrainingRun", "DriftPolicy"]


def owner_reference(kind: Kind, owner: Meta) -> dict[str, Any]:
    """The owner of a child. It does not block the owner's deletion: that works with the operator gone, too."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def child_metadata(
    name: str,
    kind: Kind,
    owner: Meta,
    labels: Mapping[str, str],
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`metadata` of a child of one of our objects, in the owner's namespace."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": owner.namespace,
        "labels": {**MANAGED_BY, **labels},
        "ownerReferences": [owner_reference(kind, owner)],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return metadata

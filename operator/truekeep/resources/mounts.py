"""Credentials, certificates and data as files: a volume for each Secret, ConfigMap and claim that a place names.

A volume is not optional: where the object or its key is missing, the pod waits, and the kubelet says in an event what
it lacks. A pod that started without would fail later and less clearly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from truekeep.api.common import DvcOutput, Place, VolumeLocation
from truekeep.contract.hashing import HASH_KEY
from truekeep.contract.requests import DEFAULT_CERTIFICATES_DIR, DEFAULT_SECRETS_DIR, DEFAULT_VOLUMES_DIR

CREDENTIAL_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
READABLE_BY_GROUP = 0o440  # the pod's group, which is its user's too

Volumes = list[dict[str, Any]]


def location_volumes(
    locations: Iterable[Place], hash_key: str | None = None, more: Mapping[str, Sequence[str]] | None = None
) -> tuple[Volumes, Volumes]:
    """Volumes and mounts for what the places name (Secrets, ConfigMaps and claims), the Secret with the key of the
    hashes, and `more` Secrets with these of their keys; each object once, by name, so that the order never changes.

    Volumes are numbered: a Secret's name may be longer than a volume's, and hold dots."""
    secrets: dict[str, tuple[str, ...]] = {name: tuple(keys) for name, keys in (more or {}).items()}
    bundles: dict[str, set[str]] = {}
    claims: set[str] = set()
    for place in locations:
        if isinstance(place, VolumeLocation):
            claims.add(place.claim_name)
            continue
        location = place.remote if isinstance(place, DvcOutput) else place
        if location.credentials_secret_ref:
            name = location.credentials_secret_ref.name
            secrets[name] = tuple(dict.fromkeys((*secrets.get(name, ()), *CREDENTIAL_KEYS)))
        if location.ca_bundle_ref:
            bundles.setdefault(location.ca_bundle_ref.name, set()).add(location.ca_bundle_ref.key)
    if hash_key is not None:
        secrets[hash_key] = (*secrets.get(hash_key, ()), HASH_KEY)
    volumes: Volumes = []
    mounts: Volumes = []
    for number, name in enumerate(sorted(secrets)):
        items = _items(secrets[name])
        volumes.append(
            {
                "name": f"secret-{number}",
                "secret": {"secretName": name, "items": items, "defaultMode": READABLE_BY_GROUP, "optional": False},
            }
        )
        mounts.append({"name": f"secret-{number}", "mountPath": f"{DEFAULT_SECRETS_DIR}/{name}", "readOnly": True})
    for number, name in enumerate(sorted(bundles)):
        items = _items(sorted(bundles[name]))
        config_map = {"name": name, "items": items, "defaultMode": READABLE_BY_GROUP, "optional": False}
        volumes.append({"name": f"certificates-{number}", "configMap": config_map})
        path = f"{DEFAULT_CERTIFICATES_DIR}/{name}"
        mounts.append({"name": f"certificates-{number}", "mountPath": path, "readOnly": True})
    for number, name in enumerate(sorted(claims)):
        # Read-only as a volume, not as a mount alone: or the kubelet would give all of its files to the pod's group.
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": name, "readOnly": True}})
        mounts.append({"name": f"claim-{number}", "mountPath": f"{DEFAULT_VOLUMES_DIR}/{name}", "readOnly": True})
    return volumes, mounts


def _items(keys: Iterable[str]) -> list[dict[str, str]]:
    return [{"key": key, "path": key} for key in keys]

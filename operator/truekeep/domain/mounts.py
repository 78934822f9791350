"""What the pods of a Model mount, for messages that say what may be missing."""

from __future__ import annotations

from truekeep.api.common import DvcOutput, S3Location, VolumeLocation
from truekeep.api.model import ModelSpec


def mounts(spec: ModelSpec) -> tuple[str, ...]:
    """The Secrets, ConfigMaps and claims that pods of this Model mount, for messages."""
    sources = [source.place for source in (*spec.data.sources, *(one.source for one in spec.evaluation.benchmarks))]
    claims = {f"PersistentVolumeClaim {place.claim_name}" for place in sources if isinstance(place, VolumeLocation)}
    places = [spec.store.s3, *(place for place in sources if isinstance(place, S3Location))]
    places += [place.remote for place in sources if isinstance(place, DvcOutput)]
    places += [spec.training.import_.s3] if spec.training.import_ else []
    places += [spec.serving.capture.s3] if spec.serving.capture else []
    secrets = {f"Secret {p.credentials_secret_ref.name}" for p in places if p.credentials_secret_ref}
    if spec.serving.capture and spec.serving.capture.hash_key_secret_ref:
        secrets.add(f"Secret {spec.serving.capture.hash_key_secret_ref.name}")
    bundles = {f"ConfigMap {p.ca_bundle_ref.name}" for p in places if p.ca_bundle_ref}
    return tuple(sorted(secrets | bundles | claims))

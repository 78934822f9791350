"""What makes two specs the same to training, and the same to serving."""

from __future__ import annotations

from typing import Any

from truekeep.api.capture import Capture
from truekeep.api.model import ModelSpec
from truekeep.api.rollout import Rollout
from truekeep.contract.canonical import digest_of
from truekeep.contract.requests import complete


def training_fingerprint(spec: ModelSpec) -> str:
    """sha256 of what decides about a model: data, recipe or import, evaluation. How and where the pod runs does not."""
    recipe, given = spec.training.recipe, spec.training.import_
    return digest_of(
        {
            "data": spec.data.dump(),
            **({"recipe": recipe.dump()} if recipe else {}),
            **({"import": given.dump()} if given else {}),
            "evaluation": spec.evaluation.dump(),
        }
    )


def serving_key(spec: ModelSpec) -> str:
    """sha256 of what decides about a serving pod besides its revision: a change of it is rolled out like a revision.

    The number of replicas and the rollout's own settings are not part of it."""
    capture: dict[str, Any] | None = None
    if spec.serving.capture is not None:
        location = complete(spec.serving.capture.s3, spec.store.s3)
        capture = spec.serving.capture.model_copy(update={"s3": location}).dump()
        # Fields that came later don't count where they are unset: an upgrade must restart no pod. How long captures are
        # kept is not the pods' affair.
        unset = {"hash": [], "spoolMebibytes": Capture.model_fields["spool_mebibytes"].default}
        capture = {name: value for name, value in capture.items() if value != unset.get(name, ...)}
        capture.pop("retentionDays", None)
    return digest_of(
        {
            "store": spec.store.s3.dump(),
            "resources": spec.serving.resources.dump(),
            "capture": capture,
            "connectionMaxAgeSeconds": spec.serving.connection_max_age_seconds,
            "timeColumn": spec.data.time_column,
            "key": spec.data.key,
            "pods": spec.pods.dump(),
            # Not where there is none, so that the keys of before there was such a field stay what they were.
            **({"image": spec.serving.image.dump()} if spec.serving.image else {}),
        }
    )


def serving_fingerprint(artifact_digest: str, key: str, image: str, rollout: Rollout) -> str:
    """sha256 of one way of serving one artifact, and of what it was held to: what failed under it is not tried again,
    a mended spec is."""
    return digest_of({"artifact": artifact_digest, "serving": key, "image": image, "rollout": rollout.dump()})

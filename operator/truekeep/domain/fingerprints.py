"""What makes two specs the same to training, and the same to serving."""

from __future__ import annotations

from typing import Any

from truekeep.api.common import Schema
from truekeep.api.model import ModelSpec
from truekeep.api.rollout import Rollout
from truekeep.api.training import Recipe
from truekeep.contract.canonical import digest_of
from truekeep.contract.requests import complete


def training_fingerprint(spec: ModelSpec) -> str:
    """sha256 of what decides about a model: data, recipe, import or image, evaluation. Not where the pod runs."""
    recipe, given, image = spec.training.recipe, spec.training.import_, spec.training.image
    return digest_of(
        {
            "data": _declared(spec.data),
            **({"recipe": _recipe(recipe)} if recipe else {}),
            **({"import": _declared(given)} if given else {}),
            **({"image": _declared(image)} if image else {}),
            "evaluation": _declared(spec.evaluation),
        }
    )


def _recipe(recipe: Recipe) -> dict[str, Any]:
    declared = _declared(recipe)
    if recipe.tuning is not None:
        declared["tuning"].pop("parallelism", None)  # how many trials run at once changes none of them
    return declared


def _declared(section: Schema) -> dict[str, Any]:
    """A section without what is at its default: a field that a later version brings must not train every model anew."""
    return section.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def serving_key(spec: ModelSpec) -> str:
    """sha256 of what decides about a serving pod besides its revision: a change of it is rolled out like a revision.

    The number of replicas and the rollout's own settings are not part of it."""
    capture: dict[str, Any] | None = None
    if spec.serving.capture is not None:
        location = complete(spec.serving.capture.s3, spec.store.s3)
        capture = _declared(spec.serving.capture.model_copy(update={"s3": location}))
        capture.pop("retentionDays", None)  # how long captures are kept is not the pods' affair
    return digest_of(
        {
            "store": _declared(spec.store.s3),
            "resources": _declared(spec.serving.resources),
            "capture": capture,
            "connectionMaxAgeSeconds": spec.serving.connection_max_age_seconds,
            "timeColumn": spec.data.time_column,
            "key": spec.data.key,
            "pods": _declared(spec.pods),
            **({"image": _declared(spec.serving.image)} if spec.serving.image else {}),
        }
    )


def renewed_key(key: str, image: str) -> str:
    """The same for a revision that is rolled out anew because the server's image is another one."""
    return digest_of({"serving": key, "image": image})


def serves_as_asked(key: str, image: str, spec: ModelSpec) -> bool:
    """Whether pods of that key, made with that server image, are as the spec says, whatever image is newest."""
    asked = serving_key(spec)
    return key in (asked, renewed_key(asked, image))


def serving_fingerprint(artifact_digest: str, key: str, image: str, rollout: Rollout) -> str:
    """sha256 of one way of serving one artifact, and of what it was held to: what failed under it is not tried again,
    a mended spec is."""
    return digest_of({"artifact": artifact_digest, "serving": key, "image": image, "rollout": _declared(rollout)})

"""What a run's data is compared with: the last run, the live revision's categories, and what that was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from truekeep.api.common import S3Location
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.contract.requests import TrainRequest
from truekeep.storage import ArtifactInvalid, artifacts
from truekeep.storage.artifacts import Store
from truekeep.trainer.rules import Known


def known(request: TrainRequest, store: Store, opened: Callable[[S3Location], Store]) -> Known:
    """All of it; nothing is read before a rule asks for it."""
    return Known(last=request.last_run, categories=lambda: categories(request, store))


def categories(request: TrainRequest, store: Store) -> Mapping[str, Sequence[str]] | str:
    """By feature, those that the live revision was trained on. A text says why they are not known."""
    champion = request.champion
    if champion is None:
        return "there is no live revision yet"
    try:
        files = artifacts.read(store, champion.artifact_digest, {layout.SIGNATURE})
        signature = Signature.model_validate_json(files[layout.SIGNATURE])
    except (ArtifactInvalid, ValidationError) as error:
        return f"the live revision {champion.revision} can't be read: {error!s:.200}"
    return {one.name: one.categories for one in signature.features if one.categories is not None}

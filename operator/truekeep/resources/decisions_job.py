"""The Job that takes decisions on a Model's revisions to the store. It has no token: the operator tells it what was
decided, and it has the store's credentials, which the operator has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, decisions_name
from truekeep.contract.decisions import Decision, told
from truekeep.contract.requests import KeepRequest
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import Settings
from truekeep.resources.errand_job import Errand, errand_job
from truekeep.resources.metadata import child_metadata

COMPONENT = "decisions"
ERRAND = Errand("keep", deadline=600, kept=900, retries=3)


def decisions_job(model: ModelView, decisions: Sequence[Decision], settings: Settings) -> dict[str, Any]:
    """The Job, named after what it hands over."""
    labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: COMPONENT}
    request = KeepRequest(
        namespace=model.meta.namespace, model=model.meta.name, store=model.spec.store.s3, decisions=tuple(decisions)
    )
    metadata = child_metadata(decisions_name(model.meta.name, told(decisions)), "Model", model.meta, labels)
    store = model.spec.store.s3
    return errand_job(metadata, ERRAND, request, settings, pods=model.spec.pods, locations=[store])

"""The Job in which a candidate answers, through its own Service, what the live revision answered before."""

from __future__ import annotations

from typing import Any

from truekeep.api.common import ResourceAmounts
from truekeep.api.model import Candidate
from truekeep.api.names import (
    LABEL_COMPONENT,
    LABEL_DEPLOYMENT,
    LABEL_MODEL,
    LABEL_REVISION,
    rehearsal_name,
)
from truekeep.contract.requests import RehearseRequest, complete
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import Settings
from truekeep.resources.errand_job import Errand, errand_job
from truekeep.resources.metadata import child_metadata

COMPONENT = "rehearsal"
ERRAND = Errand(
    "rehearse", deadline=420, kept=600, requests=ResourceAmounts(cpu="50m", memory="128Mi"), tmp_size="256Mi"
)


def rehearsal_job(model: ModelView, candidate: Candidate, settings: Settings) -> dict[str, Any] | None:
    """The rehearsal of a candidate; None where nothing serves or nothing is captured."""
    capture, active = model.spec.serving.capture, model.status.active
    if capture is None or active is None:
        return None
    location = complete(capture.s3, model.spec.store.s3)
    labels = {
        LABEL_MODEL: model.meta.name,
        LABEL_DEPLOYMENT: candidate.deployment,
        LABEL_REVISION: str(candidate.revision),
        LABEL_COMPONENT: COMPONENT,
    }
    request = RehearseRequest(
        namespace=model.meta.namespace,
        model=model.meta.name,
        candidate=candidate.deployment,
        url=f"http://{candidate.deployment}.{model.meta.namespace}.svc.{settings.cluster_domain}",
        live_revision=active.revision,
        capture=location,
        rows=model.spec.serving.rollout.rehearsal_rows,
        wait_seconds=min(240, model.spec.serving.rollout.progress_deadline_seconds),
    )
    metadata = child_metadata(rehearsal_name(candidate.deployment), "Model", model.meta, labels)
    return errand_job(metadata, ERRAND, request, settings, pods=model.spec.pods, locations=[location])

"""The Job in which a candidate answers, through its own Service, what the live revision answered before."""

from __future__ import annotations

from typing import Any

from truekeep.api.common import ResourceAmounts, Resources
from truekeep.api.model import Candidate
from truekeep.api.names import (
    LABEL_COMPONENT,
    LABEL_DEPLOYMENT,
    LABEL_MODEL,
    LABEL_REVISION,
    MANAGED_BY,
    rehearsal_name,
)
from truekeep.contract.requests import RehearseRequest, complete
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import Settings
from truekeep.resources.amounts import MONITOR, container_resources
from truekeep.resources.failure_rules import failure_rules
from truekeep.resources.metadata import child_metadata
from truekeep.resources.pods import pod_template

COMPONENT = "rehearsal"
DEADLINE_SECONDS = 420
KEPT_SECONDS = 600  # its result is in the Model's status by then
TMP_SIZE = "256Mi"


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
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(rehearsal_name(candidate.deployment), "Model", model.meta, labels),
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podFailurePolicy": {"rules": failure_rules(COMPONENT)},
            "template": pod_template(
                component=COMPONENT,
                image=settings.monitor_image,
                request=request,
                resources=container_resources(Resources(requests=ResourceAmounts(cpu="50m", memory="128Mi")), MONITOR),
                pods=model.spec.pods,
                locations=[location],
                labels={**MANAGED_BY, **labels},
                tmp_size=TMP_SIZE,
                spec={"restartPolicy": "Never"},
                container={"command": ["python3", "-m", "truekeep.monitor.rehearse"]},
            ),
        },
    }

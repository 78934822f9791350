"""The Job that takes decisions on a Model's revisions to the store. It has no token: the operator tells it what was
decided, and it has the store's credentials, which the operator has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truekeep.api.common import ResourceAmounts, Resources
from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, MANAGED_BY, decisions_name
from truekeep.contract.decisions import Decision, told
from truekeep.contract.requests import KeepRequest
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import Settings
from truekeep.resources.amounts import MONITOR, container_resources
from truekeep.resources.failure_rules import failure_rules
from truekeep.resources.metadata import child_metadata
from truekeep.resources.pods import pod_template

COMPONENT = "decisions"
RETRIES = 3
DEADLINE_SECONDS = 600
KEPT_SECONDS = 900  # its result is in the Model's status by then
TMP_SIZE = "16Mi"


def decisions_job(model: ModelView, decisions: Sequence[Decision], settings: Settings) -> dict[str, Any]:
    """The Job, named after what it hands over."""
    labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: COMPONENT}
    request = KeepRequest(
        namespace=model.meta.namespace, model=model.meta.name, store=model.spec.store.s3, decisions=tuple(decisions)
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(decisions_name(model.meta.name, told(decisions)), "Model", model.meta, labels),
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podFailurePolicy": {"rules": failure_rules(COMPONENT)},
            "template": pod_template(
                component=COMPONENT,
                image=settings.monitor_image,
                request=request,
                resources=container_resources(Resources(requests=ResourceAmounts(cpu="20m", memory="64Mi")), MONITOR),
                pods=model.spec.pods,
                locations=[model.spec.store.s3],
                labels={**MANAGED_BY, **labels},
                tmp_size=TMP_SIZE,
                spec={"restartPolicy": "Never"},
                container={"command": ["python3", "-m", "truekeep.monitor.keep"]},
            ),
        },
    }

"""The Job that tells a policy's webhook of one turn of a condition. It has no token, and of Secrets the one named."""

from __future__ import annotations

from typing import Any

from truekeep.api.common import Pods, ResourceAmounts, Resources
from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, LABEL_POLICY, MANAGED_BY
from truekeep.contract.requests import NotifyRequest
from truekeep.domain.notices import Due, event
from truekeep.domain.observed import ModelView, PolicyView
from truekeep.domain.plan import Settings
from truekeep.resources.amounts import MONITOR, container_resources
from truekeep.resources.failure_rules import failure_rules
from truekeep.resources.metadata import child_metadata
from truekeep.resources.pods import pod_template

COMPONENT = "notice"
RETRIES = 6  # 10 s after the first, each time twice as long: some ten minutes
DEADLINE_SECONDS = 1800
KEPT_SECONDS = 600  # how it ended is in the policy's status by then
TMP_SIZE = "16Mi"


def notice_job(model: ModelView | None, policy: PolicyView, one: Due, settings: Settings) -> dict[str, Any] | None:
    """The Job; None where the policy has no webhook (any more)."""
    webhook = policy.spec.webhook
    if webhook is None:
        return None
    labels = {LABEL_MODEL: policy.spec.model_ref.name, LABEL_POLICY: policy.meta.name, LABEL_COMPONENT: COMPONENT}
    token = webhook.token_secret_ref
    request = NotifyRequest(
        url=webhook.url,
        token_secret=token.name if token else None,
        token_key=token.key if token else None,
        event=event(policy, one),
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(one.job, "DriftPolicy", policy.meta, labels),
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
                pods=model.spec.pods if model else Pods(),
                locations=[],
                secrets={token.name: (token.key,)} if token else {},
                labels={**MANAGED_BY, **labels},
                tmp_size=TMP_SIZE,
                spec={"restartPolicy": "Never"},
                container={"command": ["python3", "-m", "truekeep.monitor.notify"]},
            ),
        },
    }

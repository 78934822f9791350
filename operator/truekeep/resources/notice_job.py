"""The Job that tells a policy's webhook of one turn of a condition. It has no token, and of Secrets the one named."""

from __future__ import annotations

from typing import Any

from truekeep.api.common import Pods
from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, LABEL_POLICY
from truekeep.contract.requests import NotifyRequest
from truekeep.domain.notices import Due, event
from truekeep.domain.observed import ModelView, PolicyView
from truekeep.domain.plan import Settings
from truekeep.resources.errand_job import Errand, errand_job
from truekeep.resources.metadata import child_metadata

COMPONENT = "notice"
# Tries: 10 s after the first, each time twice as long: some ten minutes.
ERRAND = Errand("notify", deadline=1800, kept=600, retries=6)


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
    metadata = child_metadata(one.job, "DriftPolicy", policy.meta, labels)
    pods = model.spec.pods if model else Pods()
    secrets = {token.name: (token.key,)} if token else {}
    return errand_job(metadata, ERRAND, request, settings, pods=pods, secrets=secrets)

"""The CronJob that deletes a Model's captures when they are older than they may be."""

from __future__ import annotations

import hashlib
from typing import Any

from truekeep.api.common import ResourceAmounts, Resources
from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, MANAGED_BY, retention_name
from truekeep.contract.requests import SweepRequest, complete
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import Settings
from truekeep.resources.amounts import MONITOR, container_resources
from truekeep.resources.cron_job import Timing, cron_job
from truekeep.resources.metadata import child_metadata
from truekeep.resources.pods import pod_template

COMPONENT = "retention"
RETRIES = 3
DEADLINE_SECONDS = 3600
LATE_SECONDS = 6 * 3600  # after that, the next day's does it
TMP_SIZE = "64Mi"


def retention_cronjob(model: ModelView, settings: Settings) -> dict[str, Any] | None:
    """The CronJob; None where captures are kept for ever, or none are made."""
    capture = model.spec.serving.capture
    if capture is None or capture.retention_days is None:
        return None
    location = complete(capture.s3, model.spec.store.s3)
    request = SweepRequest(
        namespace=model.meta.namespace,
        model=model.meta.name,
        capture=location,
        retention_days=capture.retention_days,
    )
    labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: COMPONENT}
    template = pod_template(
        component=COMPONENT,
        image=settings.monitor_image,
        pull_secrets=settings.image_pull_secrets,
        request=request,
        resources=container_resources(Resources(requests=ResourceAmounts(cpu="20m", memory="96Mi")), MONITOR),
        pods=model.spec.pods,
        locations=[location],
        labels={**MANAGED_BY, **labels},
        tmp_size=TMP_SIZE,
        spec={"restartPolicy": "Never"},
        container={"command": ["python3", "-m", "truekeep.monitor.sweep"]},
    )
    timing = Timing(
        cron=schedule(model.meta.uid), late=LATE_SECONDS, deadline=DEADLINE_SECONDS, retries=RETRIES, kept=1
    )
    metadata = child_metadata(retention_name(model.meta.name), "Model", model.meta, labels)
    return cron_job(metadata, labels, COMPONENT, timing, template)


def schedule(uid: str) -> str:
    """Once a day, for each Model at another minute, so that a store with many Models is not swept all at once."""
    minute = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) % (24 * 60)
    return f"{minute % 60} {minute // 60} * * *"

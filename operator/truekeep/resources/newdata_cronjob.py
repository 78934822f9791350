"""The CronJob that counts the rows that came since the last run. Its pods hold no Kubernetes token."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from truekeep.api.common import ResourceAmounts, Resources
from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, MANAGED_BY, newdata_name
from truekeep.contract.requests import CountRequest, complete_data
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import Settings
from truekeep.resources.amounts import MONITOR, container_resources
from truekeep.resources.cron_job import Timing, cron_job
from truekeep.resources.metadata import child_metadata
from truekeep.resources.pods import pod_template

COMPONENT = "newdata"
RETRIES = 1
DEADLINE_SECONDS = 1800
LATE_SECONDS = 120
TMP_SIZE = "4Gi"  # a large file is read from there


def newdata_cronjob(model: ModelView, since: datetime, settings: Settings) -> dict[str, Any] | None:
    """The CronJob; None where new data is to start nothing."""
    retraining = model.spec.retraining
    if retraining is None or retraining.new_data is None:
        return None
    data = complete_data(model.spec.data, model.spec.store.s3)
    request = CountRequest(
        namespace=model.meta.namespace, model=model.meta.name, model_uid=model.meta.uid, data=data, since=since
    )
    labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: COMPONENT}
    template = pod_template(
        component=COMPONENT,
        image=settings.monitor_image,
        pull_secrets=settings.image_pull_secrets,
        request=request,
        resources=container_resources(Resources(requests=ResourceAmounts(cpu="20m", memory="128Mi")), MONITOR),
        pods=model.spec.pods,
        locations=[source.place for source in (data.source, data.label.source) if source],
        labels={**MANAGED_BY, **labels},
        tmp_size=TMP_SIZE,
        spec={"restartPolicy": "Never"},
        container={"command": ["python3", "-m", "truekeep.monitor.newdata"]},
    )
    timing = Timing(
        cron=retraining.new_data.cron,
        late=LATE_SECONDS,
        deadline=DEADLINE_SECONDS,
        retries=RETRIES,
        suspended=retraining.suspend == "Now",
    )
    metadata = child_metadata(newdata_name(model.meta.name), "Model", model.meta, labels)
    return cron_job(metadata, labels, COMPONENT, timing, template)

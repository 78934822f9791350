"""The Job that reads the result of a run of a lost cluster from the store, in place of training. It is the run's only
stage, so that it waits, ends and is tried again like any other."""

from __future__ import annotations

from typing import Any

from truekeep.api.common import Resources
from truekeep.api.names import MANAGED_BY
from truekeep.api.trainingrun import Restore
from truekeep.contract.requests import RestoreRequest
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import Attempt, Settings
from truekeep.resources.amounts import MONITOR, container_resources
from truekeep.resources.errand_job import SMALL
from truekeep.resources.pods import pod_template
from truekeep.resources.stage_manifest import COMPONENT, StageManifest


def restore_job(
    model: ModelView, run: RunView, restore: Restore, settings: Settings, attempt: Attempt
) -> dict[str, Any]:
    """One try of it. It bears the run's name."""
    store = model.spec.store.s3
    request = RestoreRequest(
        namespace=run.meta.namespace,
        model=model.meta.name,
        run=run.meta.name,
        run_uid=run.meta.uid,
        training_fingerprint=training_fingerprint(model.spec),
        store=store,
        restore=restore,
    )
    stage = StageManifest("Train", model, run, attempt, settings.monitor_image)
    template = pod_template(
        component=COMPONENT,
        image=settings.monitor_image,
        pull_secrets=settings.image_pull_secrets,
        request=request,
        resources=container_resources(Resources(requests=SMALL), MONITOR),
        pods=model.spec.pods,
        locations=[store],
        labels={**MANAGED_BY, **stage.labels},
        tmp_size="16Mi",
        spec={"restartPolicy": "Never"},
        container={"command": ["python3", "-m", "truekeep.monitor.restore"]},
    )
    return stage.job({}, template)

"""The Job of the stage Train: it fits, or takes an artifact in, judges it, and hands the result over."""

from __future__ import annotations

from typing import Any

from truekeep.api.names import MANAGED_BY
from truekeep.contract.requests import Champion, LastRun
from truekeep.contract.results import EXIT_INPUT
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import FIRST_ATTEMPT, Attempt, Settings
from truekeep.resources.amounts import TRAINER, container_resources
from truekeep.resources.pods import pod_template
from truekeep.resources.stage_manifest import COMPONENT, StageManifest
from truekeep.resources.train_request import locations, train_request

RETRIES = 2  # of a pod that crashed, or found the store gone; a run that judged never repeats
EXIT_KILLED = 137  # out of memory; where the node is at fault, the pod says DisruptionTarget instead
TMP_SIZE = "4Gi"


def training_job(
    model: ModelView,
    run: RunView,
    settings: Settings,
    champion: Champion | None,
    attempt: Attempt = FIRST_ATTEMPT,
    last: LastRun | None = None,
) -> dict[str, Any]:
    """The training Job of a run, for the Model as it is now. It bears the run's name."""
    request = train_request(model, run, settings, champion, last)
    stage = StageManifest("Train", model, run, attempt, settings.trainer_image)
    template = pod_template(
        component=COMPONENT,
        image=settings.trainer_image,
        request=request,
        resources=container_resources(model.spec.training.resources, TRAINER),
        pods=model.spec.pods,
        locations=locations(request),
        labels={**MANAGED_BY, **stage.labels},
        tmp_size=TMP_SIZE,
        spec={"restartPolicy": "Never"},
    )
    return stage.job({"backoffLimit": RETRIES, "podFailurePolicy": {"rules": failure_rules(COMPONENT)}}, template)


def failure_rules(container: str) -> list[dict[str, Any]]:
    """How a Job takes the end of a pod. In this order: a pod that its node evicted was killed, too."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": container, "operator": "In", "values": [EXIT_INPUT, EXIT_KILLED]},
        },
    ]

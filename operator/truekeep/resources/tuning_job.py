"""The Job of the stage Tune: an Indexed Job, a pod for each trial; what they find lies in the store."""

from __future__ import annotations

from typing import Any

from truekeep.api.names import MANAGED_BY
from truekeep.api.tuning import Tuning
from truekeep.contract.requests import Champion, LastRun
from truekeep.contract.results import EXIT_INPUT
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import FIRST_ATTEMPT, Attempt, Settings
from truekeep.domain.pods import EXIT_OUT_OF_MEMORY
from truekeep.resources.amounts import TRAINER, container_resources, with_memory
from truekeep.resources.pods import pod_template
from truekeep.resources.stage_manifest import COMPONENT, StageManifest
from truekeep.resources.train_request import locations, train_request
from truekeep.resources.training_job import TMP_SIZE

COMMAND = ["python3", "-m", "truekeep.trainer.tuning.main"]
TRIES = 2  # more of a trial whose pod was lost, crashed, or found the store gone


def tuning_job(
    model: ModelView,
    run: RunView,
    settings: Settings,
    tuning: Tuning,
    attempt: Attempt = FIRST_ATTEMPT,
    champion: Champion | None = None,
    last: LastRun | None = None,
) -> dict[str, Any]:
    """The Job of a run's trials, for the Model as it is now.

    It goes on while trials fail, until so many did that too few are left to choose from."""
    request = train_request(model, run, settings, champion, last)
    # Benchmark sets are no part of tuning: its pods need no credentials for them.
    request = request.model_copy(update={"evaluation": request.evaluation.model_copy(update={"benchmarks": []})})
    stage = StageManifest("Tune", model, run, attempt, settings.trainer_image)
    template = pod_template(
        component=COMPONENT,
        image=settings.trainer_image,
        request=request,
        resources=with_memory(container_resources(model.spec.training.resources, TRAINER), attempt.memory),
        pods=model.spec.pods,
        locations=locations(request),
        labels={**MANAGED_BY, **stage.labels},
        tmp_size=TMP_SIZE,
        spec={"restartPolicy": "Never"},
        container={"command": COMMAND},
    )
    indexed = {
        "completionMode": "Indexed",
        "completions": tuning.count,
        "parallelism": min(tuning.parallelism, tuning.count),
        "backoffLimitPerIndex": TRIES,
        "maxFailedIndexes": tuning.count - tuning.needed,
        "podFailurePolicy": {"rules": _failure_rules()},
    }
    return stage.job(indexed, template)


def _failure_rules() -> list[dict[str, Any]]:
    """How the Job takes the end of a trial's pod, in this order. A trial that needs more memory than there is would
    need it again."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": COMPONENT, "operator": "In", "values": [EXIT_INPUT]},
        },
        {
            "action": "FailIndex",
            "onExitCodes": {"containerName": COMPONENT, "operator": "In", "values": [EXIT_OUT_OF_MEMORY]},
        },
    ]

"""The Job of the stage Tune: an Indexed Job, a pod for each trial; what they find lies in the store."""

from __future__ import annotations

from typing import Any

from truekeep.api.tuning import Tuning
from truekeep.contract.requests import Champion, LastRun
from truekeep.contract.results import EXIT_INPUT
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import FIRST_ATTEMPT, Attempt, Settings
from truekeep.domain.pods import EXIT_OUT_OF_MEMORY
from truekeep.resources.stage_manifest import COMPONENT, StageManifest
from truekeep.resources.train_request import train_request, without_benchmarks

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
    request = without_benchmarks(train_request(model, run, settings, champion, last))
    stage = StageManifest("Tune", model, run, attempt, settings.trainer_image)
    template = stage.template(request, settings, container={"command": COMMAND})
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

"""Which builder makes the Job of which stage."""

from __future__ import annotations

from typing import Any

from truekeep.api.trainingrun import Stage
from truekeep.contract.requests import Champion, LastRun
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import Attempt, Settings
from truekeep.resources.training_job import training_job


def stage_job(
    stage: Stage,
    model: ModelView,
    run: RunView,
    settings: Settings,
    champion: Champion | None,
    attempt: Attempt,
    last: LastRun | None = None,
) -> dict[str, Any]:
    """The Job of one try of a stage, for the Model as it is now. ValueError for a stage that no spec asks for."""
    match stage:
        case "Train":
            return training_job(model, run, settings, champion, attempt, last)
        case _:
            raise ValueError(f"there is no Job for stage {stage}")

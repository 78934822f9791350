"""Which builder makes the Job of which stage."""

from __future__ import annotations

from typing import Any

from truekeep.api.trainingrun import Stage
from truekeep.contract.requests import Champion, LastRun
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import Attempt, Settings
from truekeep.resources.fit_job import fit_job
from truekeep.resources.restore_job import restore_job
from truekeep.resources.training_job import training_job
from truekeep.resources.tuning_job import tuning_job


def stage_job(
    stage: Stage,
    model: ModelView,
    run: RunView,
    settings: Settings,
    champion: Champion | None,
    attempt: Attempt,
    last: LastRun | None = None,
    fit_image_id: str | None = None,
) -> dict[str, Any]:
    """The Job of one try of a stage, for the Model as it is now; a run that is restored has one stage only.

    `fit_image_id`: the team's image that fitted before, where one did. ValueError for a stage that no spec asks for."""
    if run.spec.restore is not None:
        return restore_job(model, run, run.spec.restore, settings, attempt)
    match stage:
        case "Fit":
            return fit_job(model, run, settings, champion, attempt, last)
        case "Tune" if (recipe := model.spec.training.recipe) is not None and recipe.tuning is not None:
            return tuning_job(model, run, settings, recipe.tuning, attempt, champion, last)
        case "Train":
            return training_job(model, run, settings, champion, attempt, last, fit_image_id)
        case _:
            raise ValueError(f"there is no Job for stage {stage}")

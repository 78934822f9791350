"""The Job of the stage Train: it fits, or takes an artifact in, judges it, and hands the result over."""

from __future__ import annotations

from typing import Any

from truekeep.contract.requests import Champion, LastRun
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import FIRST_ATTEMPT, Attempt, Settings
from truekeep.resources.judged_image import with_judged_image
from truekeep.resources.stage_manifest import StageManifest
from truekeep.resources.train_request import answers_for_itself, train_request


def training_job(
    model: ModelView,
    run: RunView,
    settings: Settings,
    champion: Champion | None,
    attempt: Attempt = FIRST_ATTEMPT,
    last: LastRun | None = None,
    fit_image_id: str | None = None,
) -> dict[str, Any]:
    """The training Job of a run, for the Model as it is now. It bears the run's name."""
    request = train_request(model, run, settings, champion, last).model_copy(update={"fit_image_id": fit_image_id})
    stage = StageManifest("Train", model, run, attempt, settings.trainer_image)
    template = stage.template(request, settings)
    server = model.spec.serving.image
    if answers_for_itself(model.spec) and server is not None:
        template = with_judged_image(
            template, model.meta.name, server, model.spec.serving.resources, model.spec.store.s3
        )
    return stage.job({}, template)

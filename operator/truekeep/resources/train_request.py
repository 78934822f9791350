"""What every stage of a run is asked, where it reads, and what its data is compared with: the Model as it is now."""

from __future__ import annotations

from truekeep.api.common import Place
from truekeep.api.model import ModelSpec
from truekeep.api.names import ANNOTATION_AUTHOR, ANNOTATION_COMMIT
from truekeep.contract import layout
from truekeep.contract.requests import (
    Captured,
    Champion,
    LastRun,
    TrainRequest,
    complete,
    complete_data,
    complete_evaluation,
    complete_training,
)
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import Settings
from truekeep.resources.serving_image import backend_of

MOST_CHARACTERS = 256


def train_request(
    model: ModelView, run: RunView, settings: Settings, champion: Champion | None, last: LastRun | None = None
) -> TrainRequest:
    """The request of a run. `champion`: the live revision; `last`: the newest earlier run whose data was in order."""
    spec = model.spec
    store = spec.store.s3
    return TrainRequest(
        namespace=run.meta.namespace,
        model=model.meta.name,
        model_uid=model.meta.uid,
        model_generation=model.meta.generation,
        run=run.meta.name,
        run_uid=run.meta.uid,
        trigger=run.spec.trigger,
        training_fingerprint=training_fingerprint(spec),
        image=settings.trainer_image,
        operator_version=settings.operator_version,
        store=store,
        data=complete_data(spec.data, store),
        training=complete_training(spec.training, store),
        evaluation=complete_evaluation(spec.evaluation, store),
        author=_annotation(model, ANNOTATION_AUTHOR),
        commit=_annotation(model, ANNOTATION_COMMIT),
        documentation=spec.documentation,
        champion=champion,
        last_run=last,
        captured=captured(model, champion),
        backend=backend_of(spec.serving.image) if answers_for_itself(spec) else None,
    )


def without_benchmarks(request: TrainRequest) -> TrainRequest:
    """The request of a stage that judges nothing: its pods need no credentials for the sets a model is judged on."""
    return request.model_copy(update={"evaluation": request.evaluation.model_copy(update={"benchmarks": []})})


def _annotation(model: ModelView, name: str) -> str | None:
    """What a person or a pipeline wrote there, as much as a record takes."""
    return model.meta.annotations.get(name, "")[:MOST_CHARACTERS] or None


def answers_for_itself(spec: ModelSpec) -> bool:
    """Whether only spec.serving.image knows what spec.training.image makes."""
    return spec.training.image is not None and spec.training.image.format == "Opaque"


def captured(model: ModelView, champion: Champion | None) -> Captured | None:
    """The requests of the live revision, where they are kept."""
    capture = model.spec.serving.capture
    if capture is None or champion is None or not capture.fraction_percent:
        return None
    return Captured(
        revision=champion.revision,
        location=complete(capture.s3, model.spec.store.s3),
        prefix=layout.captures(model.meta.namespace, model.meta.name, champion.revision),
        left_out=tuple(sorted({*capture.drop, *capture.hash})),
    )


def locations(request: TrainRequest) -> list[Place]:
    """Where a run reads and writes, each with credentials of its own: what its pods mount."""
    found: list[Place] = [request.store, *(source.place for source in request.data.sources)]
    found += [one.source.place for one in request.evaluation.benchmarks]
    if request.training.import_:
        found.append(request.training.import_.s3)
    if request.captured:
        found.append(request.captured.location)
    return found

"""What every stage of a run is asked, where it reads, and what its data is compared with: the Model as it is now."""

from __future__ import annotations

from truekeep.api.common import S3Location
from truekeep.api.model import ModelSpec
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
        champion=champion,
        last_run=last,
        captured=captured(spec, champion),
    )


def captured(spec: ModelSpec, champion: Champion | None) -> Captured | None:
    """The requests of the live revision, where they are kept."""
    capture = spec.serving.capture
    if capture is None or champion is None or not capture.fraction_percent:
        return None
    return Captured(
        revision=champion.revision,
        location=complete(capture.s3, spec.store.s3),
        left_out=tuple(sorted({*capture.drop, *capture.hash})),
    )


def locations(request: TrainRequest) -> list[S3Location]:
    """Where a run reads and writes, each with credentials of its own: what its pods mount."""
    data = request.data
    found = [request.store, data.source.s3, *(join.source.s3 for join in data.joins)]
    if data.label.source:
        found.append(data.label.source.s3)
    found += [one.source.s3 for one in request.evaluation.benchmarks]
    if request.training.import_:
        found.append(request.training.import_.s3)
    if request.captured:
        found.append(request.captured.location)
    return found

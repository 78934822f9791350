"""What a pod of a run handed over, and how the run ends with it: the revision gets its number here."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from truekeep.api.trainingrun import TrainingRunStatus
from truekeep.contract.results import FormerRun, TrainResult
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.observed import JobView, ModelView, RunObserved, RunView
from truekeep.domain.plan import RunPlan
from truekeep.domain.restoring import highest
from truekeep.domain.stages import LAST
from truekeep.domain.stand import DECLINED, Stand, State, says

TEXT_LIMIT = 512


def result_of(job: JobView, run_uid: str) -> TrainResult | None:
    """What a pod of the Job handed over; the one of the newest pod that did. Other words are a log's, not a result."""
    for pod in sorted(job.pods, key=lambda pod: (pod.created, pod.name), reverse=True):
        if pod.theirs or pod.exit_code is None or not pod.exit_message.lstrip().startswith("{"):
            continue
        try:
            result = TrainResult.model_validate_json(pod.exit_message)
        except ValidationError:
            continue
        if result.run_uid == run_uid and (job.stage == LAST or result.reason != "Succeeded"):
            return result
    return None


def finish(
    observed: RunObserved, model: ModelView, status: TrainingRunStatus, result: TrainResult, now: datetime
) -> RunPlan:
    """The end of a run that was judged."""
    update: dict[str, object] = {
        "completion_time": whole_seconds(now),
        "data": result.data,
        "tuning": result.tuning,
        "metrics": list(result.metrics),
        "gates": list(result.gates),
        "champion": result.champion,
        "cut_off": result.cut_off,
        "fit_seconds": result.fit_seconds,
        "record": result.record,
        "training_fingerprint": result.training_fingerprint,
        "image_id": _image_id(observed) or status.image_id,
    }
    former = result.former
    if former is not None:
        update |= _as_it_was(former, status)
    if result.reason != "Succeeded":
        state: State = "Declined" if result.reason in DECLINED else "Failed"
        stand = Stand(state, result.reason, result.message)
        return says(observed.run, status.model_copy(update=update), stand, now, 1.0)
    revision = former.revision if former else None
    if revision is None:
        numbers = [other.status.revision or 0 for other in observed.siblings]
        restored = highest([observed.run, *observed.siblings])
        revision = max([model.status.latest_revision, restored, *numbers]) + 1
    elif (other := _holder(observed, revision)) is not None:
        words = f"revision {revision} is run {other.meta.name} here, and the store has another one under this number"
        stand = Stand("Failed", "RevisionTaken", f"{words}; delete the one that is not to stay, and restore again")
        return says(observed.run, status, stand, now, 1.0)
    update |= {"revision": revision, "artifact": result.artifact}
    stand = Stand("Succeeded", "Succeeded", f"revision {revision}: {result.message}")
    return says(observed.run, status.model_copy(update=update), stand, now, 1.0)


def _as_it_was(former: FormerRun, status: TrainingRunStatus) -> dict[str, object]:
    """What the store knows of a run that was restored, besides its result."""
    update: dict[str, object] = {
        "restored": former.facts,
        "start_time": former.started or former.finished or status.start_time,
        "model_generation": former.model_generation,
        "author": former.author,
        "image": former.image,
        "image_id": former.image_id,
    }
    return update | ({"completion_time": whole_seconds(former.finished)} if former.finished else {})


def _holder(observed: RunObserved, revision: int) -> RunView | None:
    """Another run that is the revision of this number."""
    return next((other for other in observed.siblings if other.status.revision == revision), None)


def _image_id(observed: RunObserved) -> str | None:
    """What the newest pod of the last stage ran."""
    job = observed.jobs.get(LAST)
    pods = sorted(job.pods, key=lambda pod: (pod.created, pod.name), reverse=True) if job else []
    return next((pod.image_id[:TEXT_LIMIT] for pod in pods if pod.image_id), None)

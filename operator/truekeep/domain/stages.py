"""The stages of a run: each is a Job, one after the other, and what one leaves for the next lies in the store.

The last one bears the run's name, and it alone hands over the result that makes a revision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from truekeep.api.model import ModelSpec
from truekeep.api.trainingrun import Stage
from truekeep.domain.observed import JobView

Order = Callable[[ModelSpec], tuple[Stage, ...]]
# The order in which they follow each other, wherever a spec asks for them.
ALL: tuple[Stage, ...] = ("Tune", "Fit", "Train")
LAST: Stage = "Train"
SUFFIX: Mapping[Stage, str] = {"Tune": "-tune", "Fit": "-fit", "Train": ""}
NAME_LIMIT = 63  # of a Job's name, which becomes a label of its pods
# The pods of an Indexed Job are named after it, with a dash and the index: all of that has to fit.
INDEX_ROOM: Mapping[Stage, int] = {"Tune": 6, "Fit": 0, "Train": 0}
HASH_LENGTH = 8


def stages(spec: ModelSpec) -> tuple[Stage, ...]:
    """The stages that a spec asks for, in their order. The last one is always Train."""
    if spec.training.image is not None:
        return ("Fit", LAST)
    if spec.training.recipe is not None and spec.training.recipe.tuning is not None:
        return ("Tune", LAST)
    return (LAST,)


def job_name(run: str, stage: Stage, attempt: int = 1) -> str:
    """Name of the Job of one try of a stage: RUN-tune, RUN-tune-try2. A name that gets too long keeps its end and a
    hash of its beginning."""
    end = SUFFIX[stage] + (f"-try{attempt}" if attempt > 1 else "")
    limit = NAME_LIMIT - INDEX_ROOM[stage]
    if len(run) + len(end) <= limit:
        return run + end
    mark = hashlib.sha256(run.encode()).hexdigest()[:HASH_LENGTH]
    return f"{run[: limit - len(end) - HASH_LENGTH - 1].rstrip('-')}-{mark}{end}"


def furthest(jobs: Mapping[Stage, JobView]) -> JobView | None:
    """The Job of the stage that a run came to."""
    return next((jobs[stage] for stage in reversed(ALL) if stage in jobs), None)

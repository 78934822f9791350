"""What the trials of a tuning leave in the store, for each other and for the stage that trains.

Each object is written once, by whoever is first, so that a pod that is lost, or two of one index, change nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from truekeep.api.common import Digest, Schema
from truekeep.contract.pins import PinnedObject


class TuningInputs(Schema):
    """What all trials of a run, and its training, go by: written by the first pod that read the data."""

    training_fingerprint: Digest
    started: datetime  # of the first pod: the clock of the budget, and of the data's freshness
    image: str
    objects: tuple[PinnedObject, ...] = ()
    digest: Digest | None = None  # as in TrainingRun.status.data
    fault: str = ""  # why no trial can begin: the training stage reads the same and says it whole


class TrialParameter(Schema):
    """One hyperparameter of a trial, as `recipe.parameters` takes it."""

    name: str
    value: str


class TrialResult(Schema):
    """How one trial ended. `scores` and `mean` as decimal text, greater is better.

    Scored: it counts. Refused: the estimator does not take these parameters together. NotDefined: the metric has no
    value on a fold. OutOfTime: the budget was over first."""

    index: int
    parameters: tuple[TrialParameter, ...]
    status: Literal["Scored", "Refused", "NotDefined", "OutOfTime"]
    training_fingerprint: Digest
    data_digest: Digest | None = None
    scores: tuple[str, ...] = ()  # a fold each, the oldest first
    mean: str | None = None
    seconds: str = "0"
    message: str = ""

"""`Model`: what a team wants of one model, from its data to how it is served."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api import features
from truekeep.api.common import (
    ATOMIC,
    Condition,
    Digest,
    Message,
    Pods,
    RunName,
    Schema,
    Text,
    conditions_field,
)
from truekeep.api.data import Data, Store
from truekeep.api.documentation import Documentation
from truekeep.api.evaluation import Approval, Evaluation
from truekeep.api.modelapproval import GivenApproval
from truekeep.api.retraining import NewDataCount, Retraining, SchedulePlan
from truekeep.api.rollout import MOST_CHECKS, Check, LastRollout
from truekeep.api.serving import Serving
from truekeep.api.training import Training


class ModelSpec(Schema):
    """What a team wants of one model."""

    CEL = (
        *features.CEL,
        (
            "!has(self.evaluation) || !has(self.evaluation.slices) || "
            "self.evaluation.slices.all(s, self.data.features.exists(f, f.name == s.column))",
            "the column of a slice must be one of data.features",
        ),
        (
            "!has(self.evaluation) || !has(self.evaluation.fairness) || "
            "self.evaluation.fairness.all(s, self.data.features.exists(f, f.name == s.column))",
            "the column of a fairness gate must be one of data.features",
        ),
        (
            "!has(self.evaluation) || !has(self.evaluation.robustness) || self.evaluation.robustness.all(r, "
            "!has(r.columns) || r.columns.all(c, self.data.features.exists(f, f.name == c && (!has(f.nulls) || "
            "f.nulls == 'Allow'))))",
            "columns of a robustness gate must be data.features that allow nulls; requests may not lack the others",
        ),
        (
            "!has(self.serving) || !has(self.serving.capture) || !has(self.serving.capture.drop) || "
            "self.serving.capture.drop.all(d, self.data.features.exists(f, f.name == d))",
            "capture.drop may name only data.features",
        ),
        (
            "!has(self.serving) || !has(self.serving.capture) || !has(self.serving.capture.hash) || "
            "self.serving.capture.hash.all(h, h == self.data.key || self.data.features.exists(f, f.name == h))",
            "capture.hash may name only data.features and data.key",
        ),
        (
            "!has(self.data.rules) || !self.data.rules.exists(r, has(r.skew)) || "
            "(has(self.serving) && has(self.serving.capture))",
            "a rule with skew compares with captured requests; add serving.capture, or remove the rule",
        ),
        (
            "!has(self.training.__import__) || !has(self.evaluation) || !has(self.evaluation.decision)",
            "an imported model brings its own cut-off; remove evaluation.decision, and choose it with truekeep import "
            "--cut-off",
        ),
        (
            "!has(self.training.__import__) || !has(self.evaluation) || !has(self.evaluation.refit) || "
            "self.evaluation.refit == 'Never'",
            "an imported model is never fitted; remove evaluation.refit",
        ),
        (
            "!has(self.training.__import__) || !has(self.retraining) || "
            "(!has(self.retraining.schedule) && !has(self.retraining.newData))",
            "an imported model can't be trained again; remove retraining.schedule and retraining.newData, or train it "
            "here with training.recipe",
        ),
        (
            "!has(self.training.image) || !has(self.evaluation) || !has(self.evaluation.refit) || "
            "self.evaluation.refit == 'Never'",
            "training.image is run once, on the rows before the holdout; remove evaluation.refit",
        ),
        (
            "!has(self.training.image) || self.training.image.format != 'Opaque' || (has(self.serving) && "
            "has(self.serving.image))",
            "training.image.format Opaque needs serving.image, which answers for what is made, also when it is judged; "
            "add it, or make ONNX or Skops",
        ),
    )

    store: Store = Field(description="Where artifacts and records are kept.")
    data: Data = Field(description="What the model is trained on.")
    training: Training = Field(description="How a revision is trained.")
    evaluation: Evaluation = Field(default=Evaluation(), description="What a new model must show before it serves.")
    approval: Approval = Field(default=Approval(), description="Who decides that a model may serve.")
    serving: Serving = Field(default=Serving(), description="How the model answers.")
    retraining: Retraining | None = Field(
        default=None, description="When to train again without being asked. Default: only when a DriftPolicy asks."
    )
    pods: Pods = Field(default=Pods(), description="Placement and image pulls of every pod of this model.")
    documentation: Documentation | None = Field(
        default=None, description="What people wrote about it elsewhere, for the record of each run. Default: none."
    )


class ServedRevision(Schema):
    """A revision as it is served: one Deployment."""

    revision: int = Field(ge=1, description="Number of the revision.")
    run: RunName = Field(description="The TrainingRun that made it.")
    artifact_digest: Digest = Field(description="sha256 of the artifact's manifest.")
    deployment: RunName = Field(description="The Deployment (and the Service of the same name) that serves it.")
    since: datetime | None = Field(default=None, description="When it took over, or stopped being live.")
    approval: GivenApproval | None = Field(default=None, description="Who approved it, where somebody had to.")
    server_image: Text | None = Field(default=None, description="The image of Truekeep's own server in its pods.")


class Answered(Schema):
    """A revision that answered from a moment on, until the next one did."""

    revision: int = Field(ge=1, description="Number of the revision.")
    run: RunName = Field(description="The TrainingRun that made it.")
    artifact_digest: Digest = Field(description="sha256 of the artifact's manifest.")
    deployment: RunName = Field(description="The Deployment that served it.")
    since: datetime = Field(description="From when on it answered.")
    approver: Text | None = Field(default=None, description="Who approved it, where somebody had to.")
    server_image: Text | None = Field(default=None, description="The image of Truekeep's own server in its pods.")


class Awaiting(Schema):
    """A revision that passed its gates and waits for a person's decision."""

    revision: int = Field(ge=1, description="Number of the revision.")
    run: RunName = Field(description="The TrainingRun that made it.")
    artifact_digest: Digest = Field(description="sha256 of the artifact's manifest: what is to be decided on.")


class Rehearsal(Schema):
    """What a candidate did with requests that the live revision had answered."""

    rows: int = Field(ge=0, description="Rows that it was sent.")
    requests: int = Field(ge=0, description="Requests that it was sent.")
    failed: int = Field(ge=0, description="Requests that it failed.")
    p99_milliseconds: Annotated[str, StringConstraints(max_length=32)] = Field(
        default="0", description="Time in which 99 % of the requests were answered, in milliseconds, as decimal text."
    )
    prediction_shift: Annotated[str, StringConstraints(max_length=32)] = Field(
        default="0",
        description="Kolmogorov-Smirnov distance between its predictions and the live revision's, 0 to 1, as text.",
    )
    p99_at_least_milliseconds: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="What p99Milliseconds is at least, but for chance: what is judged."
    )
    prediction_shift_at_least: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="What predictionShift is at least, but for chance: what is judged."
    )
    message: Annotated[str, StringConstraints(max_length=512)] = Field(
        default="", description="The first failure, or why there was no rehearsal."
    )


class Candidate(Schema):
    """The revision that is on its way to take over."""

    revision: int = Field(ge=1, description="Number of the revision.")
    run: RunName = Field(description="The TrainingRun that made it.")
    artifact_digest: Digest = Field(description="sha256 of the artifact's manifest.")
    deployment: RunName = Field(description="The Deployment that serves it.")
    started_at: datetime = Field(description="When the rollout began.")
    approval: GivenApproval | None = Field(default=None, description="Who approved it, where somebody had to.")
    step: int = Field(default=-1, ge=-1, description="Index of the canary step, -1 before live traffic.")
    step_since: datetime | None = Field(default=None, description="When the step began.")
    weight_percent: int = Field(default=0, ge=0, le=100, description="Share of the traffic that the step wants.")
    reached_percent: int = Field(default=0, ge=0, le=100, description="Share that the ready pods make of it.")
    rehearsal: Rehearsal | None = Field(default=None, description="How its rehearsal went, once it did.")
    analysis: list[Check] = Field(
        default=[],
        max_length=MOST_CHECKS,
        description="What its live traffic says, written anew every few seconds and when a verdict changes.",
        json_schema_extra=ATOMIC,
    )
    analysed_at: datetime | None = Field(default=None, description="When analysis was written.")


class Rejection(Schema):
    """A way of serving that failed and is not tried again."""

    fingerprint: Digest = Field(description="sha256 of artifact digest, serving spec and server image.")
    revision: int = Field(ge=1, description="Number of the revision.")
    deployment: RunName | None = Field(default=None, description="The Deployment that was to serve it.")
    reason: Annotated[str, StringConstraints(max_length=128)] = Field(description="Why it was rejected, in a word.")
    time: datetime = Field(description="When it was rejected.")


class KeptDecisions(Schema):
    """What of the decisions on this Model's revisions is in its store, where it outlives the Model."""

    told: Digest | None = Field(
        default=None, description="sha256 over the decisions that were handed over last; others are new."
    )
    pages: int = Field(default=0, ge=0, description="Pages that the store has, NAMESPACE/MODEL/decisions/NUMBER.json.")
    head: Digest | None = Field(
        default=None, description="sha256 of the newest page, which names the one before, and so on."
    )
    time: datetime | None = Field(default=None, description="When that was known.")
    problem: Annotated[str, StringConstraints(max_length=512)] = Field(
        default="", description="Why the last ones could not be handed over; it is tried again every five minutes."
    )


class Failure(Schema):
    """What went wrong last, and where."""

    location: Literal["Data", "Training", "Gates", "Rollout", "Serving"] = Field(description="Where it happened.")
    reason: Annotated[str, StringConstraints(max_length=128)] = Field(description="One word for programs.")
    message: Message = Field(description="What happened, and what to do.")
    revision: int | None = Field(default=None, description="Revision that it is about, where there is one.")
    run: RunName | None = Field(default=None, description="TrainingRun that it is about, where there is one.")
    time: datetime = Field(description="When it happened.")
    exit_code: int | None = Field(default=None, description="Exit code of the container that failed, if one did.")


class ManualRollback(Schema):
    """A rollback that a person asked for by annotation."""

    value: Annotated[str, StringConstraints(max_length=128)] = Field(
        description="Value of the annotation truekeep.dev/rollback."
    )
    revision: int | None = Field(default=None, description="The revision that it means, where it means one.")
    generation: int = Field(
        ge=0, description="The metadata.generation at which it was asked for; it ends when the spec changes."
    )


class ModelStatus(Schema):
    """What is."""

    observed_generation: int = Field(default=0, ge=0, description="The metadata.generation that this speaks of.")
    conditions: list[Condition] = conditions_field()
    latest_revision: int = Field(default=0, ge=0, description="Highest revision number ever given; it only grows.")
    active: ServedRevision | None = Field(default=None, description="The revision that answers.")
    previous: ServedRevision | None = Field(
        default=None, description="The revision that answered before, warm for the rollback window."
    )
    former: ServedRevision | None = Field(
        default=None,
        description="The revision that answered before, also when it is not warm any more: where a regression leads.",
    )
    candidate: Candidate | None = Field(default=None, description="The revision that is on its way to take over.")
    history: list[Answered] = Field(
        default=[],
        max_length=50,
        description="Which revision answered from when on, the newest first; those of a canary's steps are not in it.",
        json_schema_extra=ATOMIC,
    )
    awaiting: Awaiting | None = Field(
        default=None, description="The revision that waits for a ModelApproval, if one does."
    )
    run: RunName | None = Field(default=None, description="The TrainingRun that is under way, if one is.")
    metric: Text | None = Field(
        default=None, description="The active revision's main metric on its holdout. Example: roc_auc 0.71."
    )
    report: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="The report of the run that made the active revision: a page in the store."
    )
    rejected: list[Rejection] = Field(
        default=[],
        max_length=20,
        description="Ways of serving that failed; they are not tried again.",
        json_schema_extra=ATOMIC,
    )
    last_failure: Failure | None = Field(default=None, description="What went wrong last.")
    decisions: KeptDecisions | None = Field(
        default=None, description="What of the decisions on its revisions is in the store."
    )
    last_rollout: LastRollout | None = Field(
        default=None, description="How the rollout of the newest revision that was tried ended."
    )
    schedule: SchedulePlan | None = Field(
        default=None, description="Where spec.retraining.schedule stands, where there is one."
    )
    new_data: NewDataCount | None = Field(
        default=None, description="What came since the last run, where spec.retraining.newData asks for it."
    )
    handled_retrain: Text | None = Field(
        default=None, description="Value of the annotation truekeep.dev/retrain that was handled last."
    )
    rollback: ManualRollback | None = Field(
        default=None, description="The rollback that the annotation truekeep.dev/rollback asked for."
    )
    replicas: int = Field(default=0, ge=0, description="Pods of the active revision that are ready.")
    selector: Text | None = Field(default=None, description="Label selector of the serving pods.")
    url: Text | None = Field(default=None, description="Where the model answers inside the cluster.")


class Model(Schema):
    """A model in production: Truekeep trains, gates, serves, watches and retrains it."""

    CEL = (
        (
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40",
            "metadata.name must start with a letter, have only lower-case letters, digits and dashes, and be at most "
            "40 characters long, because Services and CronJobs are named after it",
        ),
    )

    spec: ModelSpec = Field(description="What a team wants of the model.")
    status: ModelStatus = Field(default=ModelStatus(), description="What is. Written by the operator alone.")

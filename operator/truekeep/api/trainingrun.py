"""`TrainingRun`: one immutable attempt; when it succeeds, one revision of the model, and the registry's row."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import (
    ATOMIC,
    Condition,
    Digest,
    Message,
    ModelReference,
    ObjectName,
    RunName,
    Schema,
    Text,
    conditions_field,
    keyed,
)

Stage = Literal["Tune", "Fit", "Train"]  # of a run: each is a Job
Decimal12 = Annotated[str, StringConstraints(max_length=32)]


class PolicyTrigger(Schema):
    """The finding that asked for this run."""

    name: ObjectName = Field(description="The DriftPolicy.")
    uid: Annotated[str, StringConstraints(max_length=64)] = Field(description="The DriftPolicy's UID.")
    revision: int = Field(ge=1, le=1000000, description="The revision that was watched.")
    window_start: datetime = Field(description="Start of the window that breached (event time).")
    window_end: datetime = Field(description="End of the window that breached (event time).")
    kind: Literal["Performance", "DataDrift", "PredictionDrift"] | None = Field(
        default=None, description="The kind of finding that was answered."
    )
    finding: Message = Field(description="The strongest finding, in words: column, statistic, value, threshold.")


class Trigger(Schema):
    """Why this run was made."""

    CEL = (
        (
            "!has(self.type) || self.type != 'DriftPolicy' || has(self.policy)",
            "a trigger of type DriftPolicy names its policy",
        ),
    )

    type: Literal["Spec", "DriftPolicy", "Schedule", "NewData", "Manual", "External"] = Field(
        default="External",
        description="Spec: the Model is new or its data, training or evaluation changed. DriftPolicy: a breach. "
        "Schedule: spec.retraining.schedule. NewData: enough new rows came. "
        "Manual: the annotation truekeep.dev/retrain. External: somebody created the run. Default: External.",
    )
    message: Message = Field(default="", description="Why, in words.")
    value: Text | None = Field(default=None, description="Value of the annotation, for Manual.")
    policy: PolicyTrigger | None = Field(default=None, description="The finding, for DriftPolicy.")


class Restore(Schema):
    """A run that ended before, of which only what is in the store is left."""

    run_uid: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9-]+$")] = Field(
        description="UID that the run had: its result lies below NAMESPACE/MODEL/runs/UID in the store."
    )
    model_uid: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9-]+$")] = Field(
        description="UID that its Model had; one of those, where it was restored before."
    )
    revision: int | None = Field(
        default=None,
        ge=1,
        le=1000000,
        description="Number that it had as a revision, or is to have where the store says none. Default: none.",
    )
    latest_revision: int = Field(
        default=0,
        ge=0,
        le=1000000,
        description="Highest number that the Model had given; new revisions get higher ones. Default: 0.",
    )


class TrainingRunSpec(Schema):
    """One attempt. It can't be changed: create another."""

    CEL = (("self == oldSelf", "a TrainingRun can't be changed; create another one"),)

    model_ref: ModelReference = Field(description="The Model to train.")
    trigger: Trigger = Field(default=Trigger(), description="Why this run was made. Default: External.")
    restore: Restore | None = Field(
        default=None,
        description="Nothing is trained: the result of a run of a cluster that is lost is read from the Model's store. "
        "Written by truekeep restore. Default: train.",
    )


class DataViolation(Schema):
    """One thing that is wrong with the data, however often."""

    check: Annotated[str, StringConstraints(max_length=63)] = Field(
        description="What was checked: schema, type, null, range, categories, label, leakage, skew, or a rule's name."
    )
    column: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="The column. Left out where it is about all rows."
    )
    severity: Literal["Warn", "Fail"] = Field(description="Fail: nothing was fitted. Warn: it is reported alone.")
    count: int = Field(ge=0, description="How many values, rows or files.")
    file: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="The object that holds the first of them."
    )
    row: int | None = Field(default=None, ge=1, description="Row of the first in it, from 1, headers not counted.")
    problem: Text = Field(description="What is wrong, in words.")


class DataRead(Schema):
    """What the run read."""

    objects: int = Field(ge=0, description="Objects read.")
    rows: int = Field(ge=0, description="Labelled rows used; of a run whose data was refused, those that there were.")
    positives: int | None = Field(default=None, ge=0, description="Those of them whose label is 1.")
    unlabelled: int = Field(default=0, ge=0, description="Rows left out because they have no label.")
    unripe: int = Field(default=0, ge=0, description="Rows left out because their label is not final yet.")
    rows_digest: Digest | None = Field(
        default=None,
        description="sha256 of what says which rows are used: source, time column, key, window and label. Runs that "
        "have the same can be compared.",
    )
    sampling: Literal["AllRows", "ByKeyHash"] = Field(
        default="AllRows",
        description="Which of the window's rows were used. ByKeyHash: those that spec.data.sample chose.",
    )
    sampled_from: int | None = Field(
        default=None,
        ge=0,
        description="With a sample: the window's rows that it was drawn from, those of one key counted each.",
    )
    window_start: datetime | None = Field(default=None, description="Oldest event used.")
    window_end: datetime | None = Field(default=None, description="Newest event used.")
    digest: Digest | None = Field(default=None, description="sha256 over every object's key, size and sha256.")
    replayable: Literal["True", "False"] = Field(
        default="False",
        description="True where the store keeps versions of the objects, so that they can be read again.",
    )
    warnings: list[Message] = Field(
        default=[], max_length=10, description="What rules of severity Warn found.", json_schema_extra=ATOMIC
    )
    failed_checks: int = Field(default=0, ge=0, description="Checks of severity Fail that the data did not pass.")
    warned_checks: int = Field(default=0, ge=0, description="Checks of severity Warn that it did not pass.")
    violations: list[DataViolation] = Field(
        default=[],
        max_length=16,
        description="What they found, Fail first; all of it is in the record.",
        json_schema_extra=ATOMIC,
    )
    not_judged: list[Text] = Field(
        default=[],
        max_length=16,
        description="Checks that could not be judged, and why, such as too few rows. They hold nothing up.",
        json_schema_extra=ATOMIC,
    )


class MetricValue(Schema):
    """A metric on the holdout."""

    name: Annotated[str, StringConstraints(max_length=63)] = Field(description="scikit-learn's name.")
    value: Decimal12 = Field(description="Value, as decimal text.")


class GateResult(Schema):
    """What a gate said."""

    name: Annotated[str, StringConstraints(max_length=160)] = Field(
        description="Name of the gate; for a slice, with the group's value."
    )
    metric: Annotated[str, StringConstraints(max_length=63)] = Field(description="The gate's metric.")
    value: Decimal12 = Field(description="Value, as decimal text.")
    threshold: Decimal12 = Field(description="The value that it must meet.")
    bound: Literal["Minimum", "Maximum"] = Field(
        default="Minimum", description="Minimum: threshold is the smallest value that passes. Maximum: the greatest."
    )
    result: Literal["Passed", "Failed", "NotJudged"] = Field(description="NotJudged: too few rows.")
    rows: int = Field(ge=0, description="Rows that it was judged on.")


class ChampionResult(Schema):
    """The comparison with the live revision, on the same rows, new to both."""

    revision: int = Field(ge=1, description="The revision that served.")
    metric: Annotated[str, StringConstraints(max_length=63)] = Field(description="scikit-learn's name.")
    challenger: Decimal12 = Field(description="The new model's value.")
    champion: Decimal12 = Field(description="The live model's value.")
    low: Decimal12 = Field(description="Lower end of the 95 % interval of the difference (paired bootstrap).")
    high: Decimal12 = Field(description="Upper end of it.")
    rows: int = Field(ge=0, description="Rows that both were scored on.")
    result: Literal["Passed", "Failed", "NotJudged"] = Field(description="NotJudged: too few rows are new to both.")
    rule: Text = Field(description="The rule in words.")


class TunedValue(Schema):
    """A hyperparameter that tuning chose."""

    name: Annotated[str, StringConstraints(max_length=63)] = Field(description="The hyperparameter.")
    value: Annotated[str, StringConstraints(max_length=255)] = Field(description="What was chosen, as text.")


class TuningSummary(Schema):
    """What tuning came to; every trial is in the record."""

    trials: int = Field(ge=1, description="Trials that were asked for.")
    scored: int = Field(ge=0, description="Those that have a score on every fold; the others are in the record.")
    metric: Annotated[str, StringConstraints(max_length=63)] = Field(description="What decided; scikit-learn's name.")
    best: int | None = Field(default=None, ge=0, description="Index of the best trial, whose settings were trained.")
    score: Decimal12 | None = Field(default=None, description="Its mean over the folds, as decimal text.")
    parameters: list[TunedValue] = Field(
        default=[], max_length=10, description="Its hyperparameters.", json_schema_extra=keyed("name")
    )


class Artifact(Schema):
    """What the run made."""

    digest: Digest = Field(description="sha256 of the artifact's manifest; the artifact is found by it.")
    uri: Annotated[str, StringConstraints(max_length=1024)] = Field(description="Where it lies.")
    size_bytes: int = Field(ge=0, description="Size of all its files.")
    format: Text = Field(default="skops", description="Format of the model file.")


class Record(Schema):
    """The run's record, for an auditor."""

    id: Digest = Field(description="sha256 of the record's canonical JSON (RFC 8785).")
    uri: Annotated[str, StringConstraints(max_length=1024)] = Field(description="Where it lies.")
    report: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="The same for people: a page that lies beside it."
    )


class Try(Schema):
    """A try of a stage that failed."""

    stage: Stage = Field(description="Tune, Fit or Train.")
    number: int = Field(ge=1, le=1000000, description="Number of the try within its stage, from 1.")
    reason: Annotated[str, StringConstraints(max_length=63)] = Field(description="Why it failed, in a word.")
    message: Text = Field(default="", description="Why it failed, in words.")
    time: datetime = Field(description="When it had failed.")
    memory: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="The memory limit that its pod had."
    )


class RestoredPromotion(Schema):
    """A time from which on the revision answered."""

    deployment: RunName = Field(description="The Deployment that served it.")
    since: datetime = Field(description="From when on it answered.")
    approver: Text | None = Field(default=None, description="Who approved it, where somebody had to.")


class RestoredFailure(Schema):
    """A way of serving the revision that failed."""

    fingerprint: Digest = Field(description="sha256 of artifact digest, serving spec and server image.")
    deployment: RunName | None = Field(default=None, description="The Deployment that was to serve it.")
    reason: Annotated[str, StringConstraints(max_length=128)] = Field(description="Why it failed, in a word.")
    time: datetime = Field(description="When it failed.")


class RestoredWord(Schema):
    """What a person decided on the revision."""

    decision: Literal["Approve", "Reject"] = Field(description="What was decided.")
    name: Annotated[str, StringConstraints(max_length=253)] = Field(description="The ModelApproval that said so.")
    approver: Text = Field(description="Who decided.")
    reason: Text = Field(default="", description="Why, in words.")
    time: datetime = Field(description="When.")


MOST_RESTORED = 3


class Restored(Schema):
    """What the store knows of a run that was restored, besides its result."""

    run_uid: Annotated[str, StringConstraints(max_length=64)] = Field(
        description="UID that the run had when it was made."
    )
    promotions: list[RestoredPromotion] = Field(
        default=[],
        max_length=MOST_RESTORED,
        description="From when on it answered, the newest first.",
        json_schema_extra=ATOMIC,
    )
    failures: list[RestoredFailure] = Field(
        default=[],
        max_length=MOST_RESTORED,
        description="Ways of serving it that failed, the newest first.",
        json_schema_extra=ATOMIC,
    )
    taken_back: datetime | None = Field(
        default=None, description="When an older revision took over from it, though no rollout of it had failed."
    )
    word: RestoredWord | None = Field(default=None, description="What a person decided on it, a rejection first.")


class TrainingRunStatus(Schema):
    """What is."""

    observed_generation: int = Field(default=0, ge=0, description="The metadata.generation that this speaks of.")
    conditions: list[Condition] = conditions_field()
    revision: int | None = Field(default=None, ge=1, description="Number of the revision, once the run succeeded.")
    model_generation: int | None = Field(default=None, description="Generation of the Model that was trained.")
    training_fingerprint: Digest | None = Field(
        default=None, description="sha256 of the Model's data, training and evaluation that were trained."
    )
    author: Text | None = Field(
        default=None,
        description="Who made the change that was trained, as the Model's annotation truekeep.dev/author said.",
    )
    image: Text | None = Field(default=None, description="The image that trained.")
    image_id: Text | None = Field(
        default=None, description="The same by digest, as the node named it that ran the pod which judged."
    )
    job: RunName | None = Field(default=None, description="The Job that runs now, or ran last.")
    start_time: datetime | None = Field(default=None, description="When the first Job was created.")
    attempts: list[Try] = Field(
        default=[],
        max_length=24,
        description="The tries that failed, the oldest first. Of many that the store or the nodes failed, the newest.",
        json_schema_extra=ATOMIC,
    )
    completion_time: datetime | None = Field(default=None, description="When the result was known.")
    data: DataRead | None = Field(default=None, description="What the run read.")
    tuning: TuningSummary | None = Field(default=None, description="What recipe.tuning came to, where it is declared.")
    metrics: list[MetricValue] = Field(
        default=[], max_length=20, description="Metrics on the holdout.", json_schema_extra=keyed("name")
    )
    gates: list[GateResult] = Field(
        default=[],
        max_length=64,
        description="What the gates said, the worst first.",
        json_schema_extra=ATOMIC,
    )
    champion: ChampionResult | None = Field(default=None, description="The comparison with the live revision.")
    cut_off: Decimal12 | None = Field(default=None, description="The decision's cut-off on the probability.")
    fit_seconds: Decimal12 | None = Field(default=None, description="Seconds that fitting itself took.")
    artifact: Artifact | None = Field(default=None, description="What the run made.")
    record: Record | None = Field(default=None, description="The run's record.")
    restored: Restored | None = Field(
        default=None, description="Of a run that was restored: what else the store knows of it."
    )


class TrainingRun(Schema):
    """One attempt to train a Model. When it succeeds, it is a revision."""

    CEL = (
        (
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",
            "metadata.name must start with a letter, have only lower-case letters, digits and dashes, and be at most "
            "63 characters long, because its Job is named after it",
        ),
    )

    spec: TrainingRunSpec = Field(description="The attempt.")
    status: TrainingRunStatus = Field(
        default=TrainingRunStatus(), description="What is. Written by the operator alone."
    )


__all__ = ["RunName", "TrainingRun", "TrainingRunSpec", "TrainingRunStatus"]

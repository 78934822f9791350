"""`Model`: what a team wants of one model, from its data to how it is served."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import (
    ATOMIC,
    SET,
    Column,
    Condition,
    Digest,
    Fraction,
    ItemName,
    Message,
    Number,
    ObjectName,
    Pods,
    Resources,
    RunName,
    S3Location,
    Schema,
    Source,
    Text,
    conditions_field,
    keyed,
)
from truekeep.api.estimators import ESTIMATORS

Metric = Literal[
    "roc_auc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "precision",
    "recall",
    "neg_log_loss",
    "neg_brier_score",
]
METRIC_HELP = (
    "A metric by scikit-learn's name; greater is better for all. One of roc_auc, average_precision, accuracy, "
    "balanced_accuracy, f1, precision, recall, neg_log_loss, neg_brier_score. Example: roc_auc."
)


class Store(Schema):
    """Where artifacts, records and results are kept."""

    s3: S3Location = Field(description="The object store for artifacts and records. Example: uri s3://models/.")


class Label(Schema):
    """What the model learns to predict, and when it becomes known."""

    column: Column = Field(description="Column of the label: 0/1, true/false. Example: late.")
    source: Source | None = Field(
        default=None,
        description="Where labels lie, joined by spec.data.key. Default: a column of spec.data.source itself.",
    )
    matures_after_seconds: Annotated[int, Field(ge=0, le=31536000)] = Field(
        default=0,
        description="Seconds from a row's event until its label is final, counted to the newest event in the data. "
        "Rows that are younger, or have no label, are counted and left out. Default: 0. Example: 86400.",
    )


class Join(Schema):
    """A further source, joined as it was known at the time of each row (as-of, never from the future)."""

    name: ItemName = Field(description="Name of the join, for messages and records. Example: weather.")
    source: Source = Field(description="Where the rows to join lie.")
    time_column: Column = Field(
        description="Column with the time at which a row of this source was known. Example: observed_at."
    )
    by: list[Column] = Field(
        default=[],
        max_length=8,
        description="Columns that must be equal on both sides. Default: none, by time alone. Example: [origin].",
        json_schema_extra=SET,
    )
    max_age_seconds: Annotated[int, Field(ge=1, le=31536000)] | None = Field(
        default=None,
        description="A row older than this many seconds does not join; its columns are null. Default: no limit.",
    )


class Feature(Schema):
    """One input of the model."""

    CEL = (
        (
            "self.type == 'Number' || (!has(self.minimum) && !has(self.maximum))",
            "minimum and maximum are for type Number; remove them, or set type: Number",
        ),
        (
            "self.type == 'Category' || !has(self.maxCategories)",
            "maxCategories is for type Category; remove it, or set type: Category",
        ),
        (
            "!has(self.minimum) || !has(self.maximum) || double(self.minimum) <= double(self.maximum)",
            "minimum must not be greater than maximum",
        ),
        (
            "!self.name.startsWith('truekeep.')",
            "names that begin with truekeep. are kept for what is captured beside the features; choose another name",
        ),
    )

    name: Column = Field(description="Column in the data and name of the input tensor. Example: distance.")
    type: Literal["Number", "Category"] = Field(
        description="Number (integers, decimals, booleans) or Category (text, or integers that are codes)."
    )
    minimum: Number | None = Field(
        default=None, description="Smallest value that is valid, for a Number, as decimal text. Example: 0."
    )
    maximum: Number | None = Field(
        default=None, description="Greatest value that is valid, for a Number, as decimal text. Example: 24."
    )
    max_categories: Annotated[int, Field(ge=1, le=2000)] | None = Field(
        default=None,
        description="Most distinct values that are valid, for a Category. Default: 250. Example: 50.",
    )
    nulls: Literal["Allow", "Refuse"] = Field(
        default="Allow",
        description="Whether rows may lack a value, in data and in requests: Allow or Refuse. Default: Allow.",
    )


class Rule(Schema):
    """A check of the training data that runs before anything is fitted. Exactly one of its limits is set."""

    CEL = (
        (
            "[has(self.minRows), has(self.maxNullFraction), has(self.maxAgeSeconds), has(self.maxDuplicateFraction)]"
            ".filter(x, x).size() == 1",
            "a rule has exactly one of minRows, maxNullFraction, maxAgeSeconds, maxDuplicateFraction; "
            "split it into several rules",
        ),
    )

    name: ItemName = Field(description="Name of the rule, for messages. Example: enough.")
    severity: Literal["Warn", "Fail"] = Field(
        default="Fail",
        description="Fail: the run stops and the live model stays. Warn: it is reported. Default: Fail.",
    )
    column: Column | None = Field(
        default=None,
        description="Column that the rule is for. Default: every feature, where that makes sense.",
    )
    min_rows: Annotated[int, Field(ge=1, le=1000000000)] | None = Field(
        default=None, description="Fewest labelled rows that the window must have. Example: 10000."
    )
    max_null_fraction: Fraction | None = Field(
        default=None, description="Largest fraction of nulls in a column, 0 to 1. Example: 0.05."
    )
    max_age_seconds: Annotated[int, Field(ge=1, le=315360000)] | None = Field(
        default=None, description="Most seconds from the newest event in the data until now. Example: 172800."
    )
    max_duplicate_fraction: Fraction | None = Field(
        default=None, description="Largest fraction of rows whose key occurs more than once. Example: 0."
    )


class Window(Schema):
    """How far back training looks, from the newest event in the data."""

    days: Annotated[int, Field(ge=1, le=3660)] = Field(description="Days of data to train on. Example: 60.")


class Data(Schema):
    """What the model is trained on."""

    CEL = (
        (
            "!self.features.exists(f, f.name == self.label.column)",
            "the label's column must not be a feature: the model would learn the answer; remove it from features",
        ),
        (
            "!self.features.exists(f, f.name == self.timeColumn || f.name == self.key)",
            "timeColumn and key identify an event and must not be features; use a derived column",
        ),
        (
            "self.timeColumn != self.key && self.label.column != self.timeColumn && self.label.column != self.key",
            "timeColumn, key and label.column must be three different columns",
        ),
        (
            "!has(self.rules) || self.rules.all(r, !has(r.column) || r.column == self.timeColumn || "
            "r.column == self.key || r.column == self.label.column || self.features.exists(f, f.name == r.column))",
            "a rule's column must be a feature, the timeColumn, the key or the label's column",
        ),
    )

    source: Source = Field(description="Where the rows lie, one per event.")
    time_column: Column = Field(description="Column with the event's time (UTC). Example: scheduled_at.")
    key: Column = Field(description="Column that identifies a row and joins its label. Example: flight_id.")
    window: Window | None = Field(default=None, description="How far back to look. Default: all data.")
    label: Label = Field(description="What is to be predicted.")
    joins: list[Join] = Field(
        default=[],
        max_length=8,
        description="Further sources, joined as of each row's time. Default: none.",
        json_schema_extra=keyed("name"),
    )
    features: list[Feature] = Field(
        min_length=1,
        max_length=250,
        description="The inputs of the model, in order; they are its serving contract too.",
        json_schema_extra=keyed("name"),
    )
    rules: list[Rule] = Field(
        default=[],
        max_length=50,
        description="Checks of the data before training. Default: the features' types and ranges only.",
        json_schema_extra=keyed("name"),
    )


class Parameter(Schema):
    """One hyperparameter."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9_]*$", max_length=63)] = Field(
        description="Name as in the estimator's constructor. Example: max_iter."
    )
    value: Annotated[str, StringConstraints(max_length=255)] = Field(
        description="Value as JSON text; what is not JSON is taken as a string. Example: 120."
    )


class Recipe(Schema):
    """A scikit-learn pipeline that the trainer builds: declared features, then one estimator."""

    estimator: Annotated[str, Field(json_schema_extra={"enum": list(ESTIMATORS)})] = Field(
        description="Import path of the estimator, from the allow-list. Example: "
        "sklearn.ensemble.HistGradientBoostingClassifier."
    )
    parameters: list[Parameter] = Field(
        default=[],
        max_length=40,
        description="Hyperparameters. Default: the estimator's own.",
        json_schema_extra=keyed("name"),
    )
    seed: Annotated[int, Field(ge=0, le=2147483647)] = Field(
        default=0, description="Seed of everything random in training. Default: 0. Example: 7."
    )


class Training(Schema):
    """How a revision is trained."""

    recipe: Recipe = Field(description="The built-in pipeline to fit.")
    timeout_seconds: Annotated[int, Field(ge=30, le=604800)] = Field(
        default=3600,
        description="Seconds that a run may take, waiting for a node and an image included. Default: 3600.",
    )
    resources: Resources = Field(
        default=Resources(),
        description="CPU and memory of the training pod. Default: requests 500m and 1Gi, limits 2 CPUs and 4Gi.",
    )


class Holdout(Schema):
    """Rows that training never sees, on which the gates are judged."""

    CEL = (
        (
            "!has(self.latestFraction) || (double(self.latestFraction) >= 0.01 && double(self.latestFraction) <= 0.9)",
            "latestFraction must be between 0.01 and 0.9",
        ),
    )

    latest_fraction: Fraction = Field(
        default="0.2",
        description="The newest fraction of the window's rows, above 0 and below 1. Default: 0.2.",
    )


class Gate(Schema):
    """A bound that a metric must meet before a revision may serve."""

    name: ItemName = Field(description="Name of the gate, for status and record. Example: auc.")
    metric: Metric = Field(description=METRIC_HELP)
    minimum: Number = Field(description="Smallest value that passes, as decimal text. Example: 0.65.")


class Slice(Schema):
    """A gate for each group of rows that share a value of a column."""

    name: ItemName = Field(description="Name of the gate, for status and record. Example: by-origin.")
    column: Column = Field(description="Feature whose values make the groups. Example: origin.")
    metric: Metric = Field(description=METRIC_HELP)
    minimum: Number = Field(description="Smallest value that passes in each group, as decimal text. Example: 0.60.")
    min_rows: Annotated[int, Field(ge=10, le=100000000)] = Field(
        default=500, description="Groups with fewer rows are reported but not judged. Default: 500."
    )


class Decision(Schema):
    """How the cut-off on the probability is chosen; it is part of the artifact and versioned with it."""

    rule: Literal["Fixed", "RecallAtFalsePositiveRate"] = Field(
        description="Fixed: the cut-off is value. RecallAtFalsePositiveRate: the lowest cut-off on the holdout "
        "whose false-positive rate is at most value."
    )
    value: Fraction = Field(description="The cut-off, or the false-positive rate, 0 to 1. Example: 0.1.")


class ChampionRule(Schema):
    """How a new model is compared with the one that serves, on the same rows, new to both."""

    metric: Metric = Field(description=METRIC_HELP)
    rule: Literal["NotWorse", "Better"] = Field(
        default="NotWorse",
        description="NotWorse: the 95 % interval of the difference must not lie below -tolerance. Better: it must lie "
        "above 0. Default: NotWorse.",
    )
    tolerance: Fraction = Field(
        default="0.01", description="Loss of the metric that NotWorse accepts, 0 to 1. Default: 0.01."
    )


class Evaluation(Schema):
    """What a new model must show before it may serve."""

    holdout: Holdout = Field(default=Holdout(), description="Rows held out for the gates.")
    gates: list[Gate] = Field(
        default=[],
        max_length=20,
        description="Bounds on metrics of the holdout. Default: none.",
        json_schema_extra=keyed("name"),
    )
    slices: list[Slice] = Field(
        default=[],
        max_length=10,
        description="Bounds on metrics by group. Default: none.",
        json_schema_extra=keyed("name"),
    )
    decision: Decision | None = Field(default=None, description="How the cut-off is chosen. Default: Fixed at 0.5.")
    champion: ChampionRule | None = Field(
        default=None, description="How to compare with the live revision. Default: no comparison."
    )
    refit: Literal["OnAllRows", "Never"] = Field(
        default="Never",
        description="OnAllRows: what passed is fitted again on all rows, holdout included, and that serves. "
        "Never: what was judged serves. Default: Never.",
    )


class Approval(Schema):
    """Who decides that a model which passed its gates may serve."""

    mode: Literal["Automatic"] = Field(
        default="Automatic", description="Automatic: the gates decide. Default: Automatic."
    )


class Step(Schema):
    """One step of a canary."""

    weight_percent: Annotated[int, Field(ge=1, le=99)] = Field(
        description="Share of the traffic for the candidate, in percent. Example: 33."
    )
    duration_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        description="Seconds to watch at this weight. Example: 30."
    )


class Rollout(Schema):
    """How a new revision takes over."""

    CEL = (
        (
            "!has(self.steps) || self.steps.size() < 2 || self.steps.map(s, s.weightPercent).isSorted()",
            "the weights of steps must not fall from step to step; put them in growing order",
        ),
    )

    strategy: Literal["Canary", "BlueGreen"] = Field(
        default="Canary",
        description="Canary: by steps of growing weight. BlueGreen: at once, when the new pods are ready. "
        "Default: Canary.",
    )
    steps: list[Step] = Field(
        default=[Step(weight_percent=33, duration_seconds=30)],
        max_length=10,
        description="Steps of the canary, weights growing. Default: one step of 33 % for 30 s.",
        json_schema_extra=ATOMIC,
    )
    max_error_fraction: Fraction = Field(
        default="0.01",
        description="Largest fraction of failed replies that the candidate may have more than the live revision. "
        "Default: 0.01.",
    )
    min_requests: Annotated[int, Field(ge=1, le=1000000)] = Field(
        default=20,
        description="Requests to the candidate in a step below which the step is inconclusive. Default: 20.",
    )
    rehearsal_rows: Annotated[int, Field(ge=0, le=100000)] = Field(
        default=1000,
        description="Rows that the live revision answered last, which the candidate answers before it gets live "
        "traffic; its failures, latency and the shift of its predictions are judged as at a step. It needs "
        "spec.serving.capture without drop. 0: none. Default: 1000.",
    )
    max_p99_milliseconds: Annotated[int, Field(ge=1, le=600000)] | None = Field(
        default=None,
        description="Longest answer, in milliseconds, that 99 % of the candidate's requests may take. Default: latency "
        "is reported and not judged. Example: 50.",
    )
    max_prediction_shift: Fraction | None = Field(
        default=None,
        description="Largest Kolmogorov-Smirnov distance, 0 to 1, between the candidate's predictions and the live "
        "revision's on the same rows. Default: the shift is reported and not judged. Example: 0.3.",
    )
    on_inconclusive: Literal["Promote", "Rollback"] = Field(
        default="Rollback",
        description="What follows when a step saw traffic, but less than minRequests, for three times its duration. "
        "Without any traffic at all, a candidate that passed its self-test is promoted. Default: Rollback.",
    )
    progress_deadline_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=300,
        description="Seconds in which the candidate's pods must be ready, else it is rolled back. Default: 300.",
    )


class Capture(Schema):
    """Where predictions are kept for monitoring, as Parquet."""

    s3: S3Location = Field(description="Prefix for captured predictions. Example: uri s3://lake/captures/.")
    fraction_percent: Annotated[int, Field(ge=0, le=100)] = Field(
        default=100,
        description="Share of the requests to capture, in percent, chosen by request id. Default: 100.",
    )
    drop: list[Column] = Field(
        default=[],
        max_length=250,
        description="Features that must not be stored. Default: none. Example: [postcode].",
        json_schema_extra=SET,
    )
    flush_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30, description="Seconds after which captured rows are written at the latest. Default: 30."
    )


class Serving(Schema):
    """How the model answers."""

    replicas: Annotated[int, Field(ge=0, le=100)] = Field(
        default=2, description="Pods of the live revision. Default: 2."
    )
    resources: Resources = Field(
        default=Resources(),
        description="CPU and memory of a serving pod. Default: requests 100m and 256Mi, limits 1 CPU and 1Gi.",
    )
    rollout: Rollout = Field(default=Rollout(), description="How a new revision takes over.")
    rollback_window_seconds: Annotated[int, Field(ge=0, le=604800)] = Field(
        default=600,
        description="Seconds that the revision before stays warm after a promotion, for an instant way back. "
        "Default: 600.",
    )
    kept_revisions: Annotated[int, Field(ge=2, le=20)] = Field(
        default=3, description="Serving Deployments to keep, those scaled to 0 included. Default: 3."
    )
    connection_max_age_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30,
        description="Seconds after which the server closes a connection, between two requests, so that clients "
        "follow a switch. Default: 30.",
    )
    pinned_revision: Annotated[int, Field(ge=1, le=1000000)] | None = Field(
        default=None,
        description="Serve this revision and no other until the field is removed: the rollback for those whose truth "
        "is Git. Default: unset, the newest accepted revision serves. Example: 3.",
    )
    capture: Capture | None = Field(
        default=None, description="Where to keep predictions for monitoring. Default: they are not kept."
    )


class ModelSpec(Schema):
    """What a team wants of one model."""

    CEL = (
        (
            "!has(self.evaluation) || !has(self.evaluation.slices) || "
            "self.evaluation.slices.all(s, self.data.features.exists(f, f.name == s.column))",
            "the column of a slice must be one of data.features",
        ),
        (
            "!has(self.serving) || !has(self.serving.capture) || !has(self.serving.capture.drop) || "
            "self.serving.capture.drop.all(d, self.data.features.exists(f, f.name == d))",
            "capture.drop may name only data.features",
        ),
    )

    store: Store = Field(description="Where artifacts and records are kept.")
    data: Data = Field(description="What the model is trained on.")
    training: Training = Field(description="How a revision is trained.")
    evaluation: Evaluation = Field(default=Evaluation(), description="What a new model must show before it serves.")
    approval: Approval = Field(default=Approval(), description="Who decides that a model may serve.")
    serving: Serving = Field(default=Serving(), description="How the model answers.")
    pods: Pods = Field(default=Pods(), description="Placement and image pulls of every pod of this model.")


class ServedRevision(Schema):
    """A revision as it is served: one Deployment."""

    revision: int = Field(ge=1, description="Number of the revision.")
    run: RunName = Field(description="The TrainingRun that made it.")
    artifact_digest: Digest = Field(description="sha256 of the artifact's manifest.")
    deployment: RunName = Field(description="The Deployment (and the Service of the same name) that serves it.")
    since: datetime | None = Field(default=None, description="When it took over, or stopped being live.")


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
    step: int = Field(default=-1, ge=-1, description="Index of the canary step, -1 before live traffic.")
    step_since: datetime | None = Field(default=None, description="When the step began.")
    weight_percent: int = Field(default=0, ge=0, le=100, description="Share of the traffic that the step wants.")
    reached_percent: int = Field(default=0, ge=0, le=100, description="Share that the ready pods make of it.")
    rehearsal: Rehearsal | None = Field(default=None, description="How its rehearsal went, once it did.")


class Rejection(Schema):
    """A way of serving that failed and is not tried again."""

    fingerprint: Digest = Field(description="sha256 of artifact digest, serving spec and server image.")
    revision: int = Field(ge=1, description="Number of the revision.")
    reason: Annotated[str, StringConstraints(max_length=128)] = Field(description="Why it was rejected, in a word.")
    time: datetime = Field(description="When it was rejected.")


class Failure(Schema):
    """What went wrong last, and where."""

    location: Literal["Data", "Training", "Gates", "Rollout", "Serving"] = Field(description="Where it happened.")
    reason: Annotated[str, StringConstraints(max_length=128)] = Field(description="One word for programs.")
    message: Message = Field(description="What happened, and what to do.")
    revision: int | None = Field(default=None, description="Revision that it is about, where there is one.")
    run: RunName | None = Field(default=None, description="TrainingRun that it is about, where there is one.")
    time: datetime = Field(description="When it happened.")
    exit_code: int | None = Field(default=None, description="Exit code of the container that failed, if one did.")


class ModelStatus(Schema):
    """What is."""

    observed_generation: int = Field(default=0, ge=0, description="The metadata.generation that this speaks of.")
    conditions: list[Condition] = conditions_field()
    latest_revision: int = Field(default=0, ge=0, description="Highest revision number ever given; it only grows.")
    active: ServedRevision | None = Field(default=None, description="The revision that answers.")
    previous: ServedRevision | None = Field(
        default=None, description="The revision that answered before, warm for the rollback window."
    )
    candidate: Candidate | None = Field(default=None, description="The revision that is on its way to take over.")
    run: RunName | None = Field(default=None, description="The TrainingRun that is under way, if one is.")
    metric: Text | None = Field(
        default=None, description="The active revision's main metric on its holdout. Example: roc_auc 0.71."
    )
    rejected: list[Rejection] = Field(
        default=[],
        max_length=20,
        description="Ways of serving that failed; they are not tried again.",
        json_schema_extra=ATOMIC,
    )
    last_failure: Failure | None = Field(default=None, description="What went wrong last.")
    handled_retrain: Text | None = Field(
        default=None, description="Value of the annotation truekeep.dev/retrain that was handled last."
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


__all__ = ["Model", "ModelSpec", "ModelStatus", "ObjectName"]

"""`DriftPolicy`: what to watch on a model in production, what counts as a breach, and what follows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import (
    ATOMIC,
    Column,
    Condition,
    Fraction,
    ItemName,
    ModelReference,
    Number,
    Resources,
    RunName,
    Schema,
    Text,
    conditions_field,
    keyed,
)
from truekeep.api.evaluation import METRIC_HELP, Metric
from truekeep.api.trainingrun import Decimal12
from truekeep.api.webhook import Notice, Webhook

Statistic = Literal["KolmogorovSmirnov", "TotalVariation", "PopulationStability", "JensenShannon", "Wasserstein"]
FindingKind = Literal["Performance", "DataDrift", "PredictionDrift", "DataQuality"]
Join = Literal["Key", "RequestId", "EntityTime"]
Action = Literal["Retrain", "Alert", "Rollback"]
CRON = r"^([0-9*/,\-]+)\s+([0-9*/,\-]+)\s+([0-9*/,\-]+)\s+([0-9A-Za-z*/,\-]+)\s+([0-9A-Za-z*/,\-]+)$"


class MonitorWindow(Schema):
    """How captured predictions are cut into windows of event time, one after the other."""

    hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        description="Length of a window, in hours of event time; windows start at multiples of it since Monday, "
        "1970-01-05, 00:00 UTC. Example: 168, a week from Monday to Monday."
    )
    min_rows: Annotated[int, Field(ge=50, le=100000000)] = Field(
        default=1000,
        description="With fewer rows a window is InsufficientData, never 'no drift'. Default: 1000.",
    )
    allowed_lateness_seconds: Annotated[int, Field(ge=0, le=2592000)] = Field(
        default=0,
        description="A window closes when the newest event is this many seconds past its end. Default: 0.",
    )
    idle_seconds: Annotated[int, Field(ge=10, le=2592000)] = Field(
        default=3600,
        description="A window closes, too, when nothing was captured for this many seconds by the wall clock. "
        "Default: 3600.",
    )


class ColumnDrift(Schema):
    """How one column is judged, where the usual way does not fit it."""

    name: Column = Field(description="Feature. Example: amount.")
    statistic: Statistic = Field(
        description="KolmogorovSmirnov (0 to 1, numbers), TotalVariation (0 to 1), PopulationStability (nats; 0.1 is "
        "little, 0.25 much), JensenShannon (0 to 1), Wasserstein (numbers, in standard deviations of training). Of "
        "TotalVariation, PopulationStability and JensenShannon what sampling alone makes of them is taken off. Whether "
        "chance explains it is tested as always."
    )
    minimum_effect: Number = Field(description="Smallest value of it that counts, as decimal text. Example: 0.25.")


class Together(Schema):
    """When rows count as drifted, all features at once."""

    minimum_effect: Number = Field(
        default="0.2",
        description="Smallest change of the mean reconstruction error (principal components that hold 65 % of "
        "training's variance) that counts, in standard deviations of a row's error, as decimal text. Default: 0.2.",
    )


class DataDrift(Schema):
    """When the inputs or the predictions count as drifted."""

    false_alarms_per_thousand_windows: Annotated[int, Field(ge=1, le=200)] = Field(
        default=10,
        description="Windows in a thousand that may alarm although nothing moved, over all columns. Default: 10.",
    )
    minimum_effect: Fraction = Field(
        default="0.03",
        description="Smallest change that matters: Kolmogorov-Smirnov distance of numbers, total variation of "
        "categories, 0 to 1. What chance makes is held off apart from it. Default: 0.03.",
    )
    reference: Literal["Training", "SameHoursOfWeek"] = Field(
        default="Training",
        description="What a window's rows are compared with. Training: the rows that the revision was trained on. "
        "SameHoursOfWeek: the captures of the same hours in the weeks before, so that day and night, working day and "
        "weekend, and a season that comes slowly are no drift; nor is anything else that comes slowly, so watch "
        "performance too. Default: Training.",
    )
    reference_weeks: Annotated[int, Field(ge=1, le=12)] = Field(
        default=4,
        description="Weeks before a window that make its reference, for SameHoursOfWeek. Where they have fewer rows "
        "than window.minRows, the window is compared with training. Default: 4.",
    )
    columns: list[ColumnDrift] = Field(
        default=[],
        max_length=250,
        description="Columns that are judged by another statistic, or from another effect on. Default: none; numbers "
        "go by KolmogorovSmirnov, categories by TotalVariation, from minimumEffect on.",
        json_schema_extra=keyed("name"),
    )
    together: Together | None = Field(
        default=None,
        description="Watch all features of a row at once, too: rows that never were, though each column looks as it "
        "did. Default: columns are watched one by one.",
    )
    ignore: list[Annotated[str, StringConstraints(max_length=63)]] = Field(
        default=[],
        max_length=250,
        description="Features that are reported but never make a breach. Default: none. Example: [month].",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Blackout(Schema):
    """A time in which nothing that is found counts: maintenance, a migration, a holiday."""

    CEL = (("self.start < self.end", "a blackout must start before it ends; exchange the two"),)

    name: ItemName = Field(description="Name of the blackout, for reports. Example: christmas.")
    start: datetime = Field(description="First moment, in event time. Example: 2026-12-24T00:00:00Z.")
    end: datetime = Field(description="First moment after it. Example: 2026-12-27T00:00:00Z.")
    repeats: Literal["Never", "Weekly", "Yearly"] = Field(
        default="Never",
        description="Whether it comes again: Never, Weekly (each 168 hours) or Yearly (same dates). Default: Never.",
    )


class LabelEntity(Schema):
    """Whose label it is, and how far its time may be from that of the event."""

    column: Column = Field(
        description="What names the entity in captures: a feature, which spec.serving.capture may hash, or "
        "spec.data.key. Example: account."
    )
    label_column: Column | None = Field(
        default=None,
        description="What names it in the label's source. Default: as column. Example: account_number.",
    )
    time_column: Column = Field(
        description="Time of what the label is about, in the label's source. Example: settled_at."
    )
    tolerance_seconds: Annotated[int, Field(ge=0, le=604800)] = Field(
        description="How far the label's time may be from that of the event, before or after it, in seconds. "
        "Example: 300."
    )


class PerformancePolicy(Schema):
    """When the live revision counts as worse than its gates have shown it."""

    CEL = (
        (
            "(has(self.join) && self.join == 'EntityTime') == has(self.entity)",
            "performance.entity is for join EntityTime, and EntityTime needs it: it says whose label it is and how "
            "far its time may be from the event's; add it with join EntityTime, or remove it",
        ),
        (
            "!has(self.maxDrop) || double(self.maxDrop) > 0.0",
            "performance.maxDrop must be above 0: what it was is not reached exactly; for example 0.03",
        ),
    )

    metric: Metric = Field(description=METRIC_HELP)
    max_drop: Fraction = Field(
        default="0.03",
        description="Loss of the metric, from what the revision showed on its holdout, that counts as decay, above 0. "
        "What chance makes of both samples is held off apart from it. Default: 0.03.",
    )
    min_labels: Annotated[int, Field(ge=50, le=100000000)] = Field(
        default=500,
        description="With fewer labelled rows a window is InsufficientData, never 'it holds'. Default: 500.",
    )
    min_label_fraction: Fraction = Field(
        default="0.5",
        description="Fraction of a window's rows that must have a label, because the labels that come first may be of "
        "one kind. Default: 0.5.",
    )
    join: Join = Field(
        default="Key",
        description="How monitoring finds the label of what was captured; training joins by key always. Key: "
        "spec.data.key in the label's source equals the input of that name which requests carry. RequestId: it equals "
        "the id of the request (ID/1, ID/2, … for its further rows). EntityTime: the label is of the same entity, and "
        "label and event are the nearest in time to each other, see entity. Default: Key.",
    )
    entity: LabelEntity | None = Field(
        default=None,
        description="For join EntityTime, required then: the label and the captured row of one entity belong together "
        "where they are within the tolerance and nearest to each other, one label to one event. Equally near: a label "
        "goes to the earlier event, an event takes the later label. Captured rows of equal entity and time are one "
        "event, of such labels the last counts.",
    )
    estimates: Literal["Report", "Act"] = Field(
        default="Report",
        description="What an estimate of decay does, before labels come: Report, it is told; Act, it counts as a "
        "finding of kind Performance, which never rolls back. Default: Report.",
    )


class Response(Schema):
    """What follows a kind of finding."""

    CEL = (
        (
            "self.finding != 'DataQuality' || self.action == 'Alert'",
            "broken data never retrains: the action on finding DataQuality must be Alert",
        ),
        (
            "self.action != 'Rollback' || self.finding == 'Performance'",
            "action Rollback is for finding Performance: of the others nobody knows whether the revision before is "
            "better; use Retrain or Alert",
        ),
    )

    finding: FindingKind = Field(description="Performance, DataDrift, PredictionDrift or DataQuality.")
    action: Action = Field(
        description="Retrain: start a TrainingRun, within cooldown and budget. Alert: condition, Event and metric. "
        "Rollback: go back to the revision before, for finding Performance."
    )


class DriftPolicySpec(Schema):
    """What to watch and what to do."""

    CEL = (
        ("self.modelRef == oldSelf.modelRef", "modelRef can't be changed; create another DriftPolicy"),
        (
            "!has(self.responses) || !self.responses.exists(r, r.finding == 'Performance') || has(self.performance)",
            "a response on finding Performance needs spec.performance: it says which metric is measured; add it, or "
            "remove the response",
        ),
        (
            "!has(self.minNewLabels) || self.minNewLabels == 0 || has(self.performance)",
            "minNewLabels needs spec.performance: labels are only looked at for it; add it, or remove minNewLabels",
        ),
        (
            "!has(self.data) || !has(self.data.reference) || self.data.reference != 'SameHoursOfWeek' || "
            "168 % self.window.hours == 0 || self.window.hours % 168 == 0",
            "data.reference SameHoursOfWeek needs windows that fall on the same hours each week: window.hours must "
            "divide 168, or be a multiple of it; for example 24",
        ),
    )

    model_ref: ModelReference = Field(description="The Model to watch.")
    schedule: Annotated[str, StringConstraints(pattern=CRON, max_length=100)] = Field(
        description="When to look, as cron with five fields, UTC. Example: */5 * * * *."
    )
    window: MonitorWindow = Field(description="How time is cut into windows.")
    data: DataDrift = Field(default=DataDrift(), description="When inputs or predictions count as drifted.")
    performance: PerformancePolicy | None = Field(
        default=None, description="When the model counts as worse than its gates showed. Default: labels are not read."
    )
    blackouts: list[Blackout] = Field(
        default=[],
        max_length=50,
        description="Times in which nothing that is found counts: windows that touch one neither breach nor end a row "
        "of breaches. Default: none.",
        json_schema_extra=keyed("name"),
    )
    consecutive_windows: Annotated[int, Field(ge=1, le=20)] = Field(
        default=2, description="Windows in a row that must breach before anything follows. Default: 2."
    )
    responses: list[Response] = Field(
        default=[Response(finding="DataDrift", action="Alert"), Response(finding="DataQuality", action="Alert")],
        max_length=8,
        description="What follows each kind of finding. Default: alert on DataDrift and DataQuality.",
        json_schema_extra=keyed("finding"),
    )
    cooldown_seconds: Annotated[int, Field(ge=0, le=31536000)] = Field(
        default=3600,
        description="Seconds of the wall clock between two runs started by this policy. Default: 3600.",
    )
    max_runs_per_week: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=3, description="Runs that this policy may start in seven days of the wall clock. Default: 3."
    )
    min_new_labels: Annotated[int, Field(ge=0, le=100000000)] = Field(
        default=0,
        description="Labelled rows that the live revision's windows must have, of the latest 30, before a run is "
        "started: with fewer, training would see what it saw before. Needs spec.performance. Default: 0.",
    )
    suspend: Literal["Never", "Now"] = Field(
        default="Never", description="Now: neither looks nor starts runs. Never: works. Default: Never."
    )
    shards: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="Pods that count a window together, as an Indexed Job: each its share of the captured files; the "
        "counts add up to those of one pod. Default: 1.",
    )
    webhook: Webhook | None = Field(
        default=None,
        description="Who is told, as CloudEvents, when DriftDetected, PerformanceDecayed, DataValid, ServingHealthy or "
        "Stalled turns for the worse, and when it turns back. Default: nobody; conditions, Events and metrics tell.",
    )
    resources: Resources = Field(
        default=Resources(),
        description="CPU and memory of the monitor pod. Default: requests 100m and 256Mi, limits 1 CPU and 1Gi.",
    )


class Finding(Schema):
    """One thing that was found in a window."""

    kind: FindingKind = Field(description="Performance, DataDrift, PredictionDrift or DataQuality.")
    column: Annotated[str, StringConstraints(max_length=63)] = Field(description="The feature, or (prediction).")
    statistic: Annotated[str, StringConstraints(max_length=40)] = Field(description="The statistic that decided.")
    value: Decimal12 = Field(description="Its value.")
    threshold: Decimal12 = Field(description="The effect from which it counts.")
    p_value: Decimal12 | None = Field(default=None, description="Significance, corrected over the columns.")
    message: Annotated[str, StringConstraints(max_length=512)] = Field(description="What changed, in words.")


class WindowVerdict(Schema):
    """What was found in one window."""

    start: datetime = Field(description="Start of the window (event time).")
    end: datetime = Field(description="End of the window (event time).")
    revision: int = Field(ge=1, description="The revision whose predictions were judged.")
    rows: int = Field(ge=0, description="Rows in the window.")
    verdict: Literal["NoDrift", "Drift", "DataQuality", "InsufficientData", "Blackout"] = Field(
        description="DataQuality: the data is broken, so drift was not judged. Blackout: what was found does not count."
    )
    kinds: list[FindingKind] = Field(
        default=[],
        max_length=3,
        description="Kinds of finding that count as a breach.",
        json_schema_extra=ATOMIC,
    )
    columns: int = Field(default=0, ge=0, description="Columns that drifted.")
    report: Annotated[str, StringConstraints(max_length=1024)] = Field(
        default="", description="Where all findings lie."
    )


class PerformanceVerdict(Schema):
    """How good the revision was in one window: as labels show it, and as it was estimated before they came."""

    start: datetime = Field(description="Start of the window (event time).")
    end: datetime = Field(description="End of the window (event time).")
    revision: int = Field(ge=1, description="The revision whose predictions were judged.")
    metric: Metric = Field(description="What was measured, by scikit-learn's name.")
    baseline: Decimal12 = Field(description="What the revision showed on its holdout, when the gates judged it.")
    verdict: Literal["Holds", "Decayed", "InsufficientData"] = Field(
        description="By labels. InsufficientData: too few labels, or none are ripe yet."
    )
    value: Decimal12 | None = Field(default=None, description="The metric on the labelled rows.")
    low: Decimal12 | None = Field(default=None, description="Lower end of its 95 % interval.")
    high: Decimal12 | None = Field(default=None, description="Upper end of its 95 % interval.")
    labelled: int = Field(default=0, ge=0, description="Rows of the window with a label.")
    coverage: Decimal12 = Field(default="0", description="Labelled rows per row of the window, 0 to 1.")
    known_after_seconds: int | None = Field(
        default=None, description="Seconds of event time from the window's end until its labels were judged."
    )
    estimated: Literal["Holds", "Decayed", "NotEstimated"] = Field(
        default="NotEstimated", description="By the estimate, which knows the inputs only and no label."
    )
    estimate: Decimal12 | None = Field(
        default=None, description="The metric as calibrated probabilities suggest it (CBPE): an estimate."
    )
    estimate_low: Decimal12 | None = Field(default=None, description="Lower end of the estimate's 95 % interval.")
    estimate_high: Decimal12 | None = Field(default=None, description="Upper end of the estimate's 95 % interval.")


class DriftPolicyStatus(Schema):
    """What is."""

    observed_generation: int = Field(default=0, ge=0, description="The metadata.generation that this speaks of.")
    conditions: list[Condition] = conditions_field()
    watched_revision: int | None = Field(default=None, description="The revision whose predictions are watched.")
    windows: list[WindowVerdict] = Field(
        default=[],
        max_length=30,
        description="The latest windows, the newest first.",
        json_schema_extra=ATOMIC,
    )
    findings: list[Finding] = Field(
        default=[],
        max_length=20,
        description="The strongest findings of the newest window, the strongest first.",
        json_schema_extra=ATOMIC,
    )
    consecutive: int = Field(default=0, ge=0, description="Windows in a row, up to the newest, that drifted.")
    performance: list[PerformanceVerdict] = Field(
        default=[],
        max_length=30,
        description="How good the model was in the latest windows, the newest first.",
        json_schema_extra=ATOMIC,
    )
    decayed: int = Field(
        default=0, ge=0, description="Windows in a row, up to the newest that labels judged, in which it was worse."
    )
    rejected: int = Field(
        default=0,
        ge=0,
        description="Runs of this policy in a row, up to the last, whose model did not beat the one that serves.",
    )
    next_run_time: datetime | None = Field(
        default=None, description="Before this time no further run is started: cooldown, budget, or rejected runs."
    )
    notices: list[Notice] = Field(
        default=[],
        max_length=5,
        description="What the webhook was told last, by condition.",
        json_schema_extra=ATOMIC,
    )
    last_run: RunName | None = Field(default=None, description="The last TrainingRun that this policy started.")
    last_check_time: datetime | None = Field(default=None, description="When the monitor last reported.")
    newest_event_time: datetime | None = Field(default=None, description="The newest event that was captured.")
    summary: Text | None = Field(default=None, description="The newest window in a few words.")


class DriftPolicy(Schema):
    """What to watch on a Model in production, and what to do about it."""

    CEL = (
        (
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40",
            "metadata.name must start with a letter, have only lower-case letters, digits and dashes, and be at most "
            "40 characters long, because its CronJob is named after it",
        ),
    )

    spec: DriftPolicySpec = Field(description="What to watch and what to do.")
    status: DriftPolicyStatus = Field(
        default=DriftPolicyStatus(), description="What is. Written by the operator alone."
    )

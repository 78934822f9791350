"""What a new model must show before it may serve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from truekeep.api.common import SET, Column, Fraction, ItemName, Number, Schema, Source, keyed

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

GateMetric = Literal[Metric, "recall_at_false_positive_rate", "precision_at_k", "expected_cost", "calibration_error"]
ChampionMetric = Literal[Metric, "neg_expected_cost"]
GATE_METRIC_HELP = (
    f"{METRIC_HELP} Besides: recall_at_false_positive_rate (the largest share of positives that is found while at most "
    "`at` of the negatives are), precision_at_k (share of positives among the k highest probabilities), expected_cost "
    "(mean cost a row of the decisions at the cut-off, by evaluation.costs; lower is better), calibration_error "
    "(mean distance of probability and share of positives in ten groups of equal size; lower is better)."
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


class Costs(Schema):
    """What decisions cost, in any unit, the same for all four; what earns is negative."""

    false_positive: Number = Field(description="A negative that is taken for a positive. Example: 2.5.")
    false_negative: Number = Field(description="A positive that is missed. Example: 140.")
    true_positive: Number = Field(default="0", description="A positive that is found. Default: 0. Example: 2.5.")
    true_negative: Number = Field(default="0", description="A negative that is left alone. Default: 0.")


class Gate(Schema):
    """A bound that a metric must meet before a revision may serve."""

    CEL = (
        (
            "has(self.minimum) != has(self.maximum)",
            "a gate has exactly one of minimum and maximum; split it into two gates for both",
        ),
        (
            "!(self.metric in ['expected_cost', 'calibration_error']) || has(self.maximum)",
            "expected_cost and calibration_error are better when lower; give a maximum, not a minimum",
        ),
        (
            "(self.metric == 'recall_at_false_positive_rate') == has(self.at)",
            "at is the false-positive rate of metric recall_at_false_positive_rate; add it there, remove it elsewhere",
        ),
        (
            "(self.metric == 'precision_at_k') == has(self.k)",
            "k is the number of rows of metric precision_at_k; add it there, remove it elsewhere",
        ),
    )

    name: ItemName = Field(description="Name of the gate, for status and record. Example: auc.")
    metric: GateMetric = Field(description=GATE_METRIC_HELP)
    at: Fraction | None = Field(
        default=None, description="Largest false-positive rate, for recall_at_false_positive_rate. Example: 0.01."
    )
    k: Annotated[int, Field(ge=1, le=1000000000)] | None = Field(
        default=None, description="Rows of highest probability that are looked at, for precision_at_k. Example: 200."
    )
    minimum: Number | None = Field(
        default=None,
        description="Smallest value that passes, as decimal text. Default: maximum is given. Example: 0.65.",
    )
    maximum: Number | None = Field(
        default=None,
        description="Greatest value that passes, as decimal text; of a metric that is better when greater, a guard "
        "against what is too good to be true. Default: minimum is given. Example: 0.99.",
    )


class Slice(Schema):
    """A gate for each group of rows that share a value of a column."""

    name: ItemName = Field(description="Name of the gate, for status and record. Example: by-origin.")
    column: Column = Field(description="Feature whose values make the groups. Example: origin.")
    metric: Metric = Field(description=METRIC_HELP)
    minimum: Number = Field(description="Smallest value that passes in each group, as decimal text. Example: 0.60.")
    min_rows: Annotated[int, Field(ge=10, le=100000000)] = Field(
        default=500, description="Groups with fewer rows are reported but not judged. Default: 500."
    )


class Fairness(Schema):
    """A bound on how differently groups of rows that share a value of a column are decided on, at the cut-off."""

    name: ItemName = Field(description="Name of the gate, for status and record. Example: by-sex.")
    column: Column = Field(description="Feature whose values make the groups. Example: sex.")
    metric: Literal["demographic_parity_difference", "equalized_odds_difference"] = Field(
        description="By fairlearn's names. demographic_parity_difference: of the share that is taken for positive, the "
        "largest minus the smallest group's. equalized_odds_difference: likewise of the share of positives that is "
        "found, or of negatives that is taken, whichever differs more."
    )
    maximum: Fraction = Field(description="Greatest difference that passes, 0 to 1. Example: 0.1.")
    min_rows: Annotated[int, Field(ge=10, le=100000000)] = Field(
        default=200, description="Groups with fewer rows are left out. Default: 200."
    )


class Robustness(Schema):
    """A bound on what a model loses when a column is missing: each by itself is made null on the holdout."""

    name: ItemName = Field(description="Name of the gate, for status and record. Example: no-weather.")
    metric: Metric = Field(description=METRIC_HELP)
    max_drop: Fraction = Field(description="Largest loss of the metric that passes, 0 to 1. Example: 0.1.")
    columns: list[Column] = Field(
        default=[],
        max_length=50,
        description="Features to try it with, which must allow nulls. Default: every feature that does. Example: "
        "[temperature].",
        json_schema_extra=SET,
    )


class Benchmark(Schema):
    """A further set of rows with the truth beside them, that a model must get right whatever the newest data holds:
    rare kinds of fraud, last year's storm. It is no part of training; keep its rows out of data.source."""

    name: ItemName = Field(description="Name of the set; its gates are told as name/gate. Example: storms.")
    source: Source = Field(
        description="Where its rows lie, with data.timeColumn, data.key, data.label.column and all features as columns."
    )
    gates: list[Gate] = Field(
        min_length=1,
        max_length=10,
        description="Bounds on metrics of this set, at the model's cut-off.",
        json_schema_extra=keyed("name"),
    )


class Decision(Schema):
    """How the cut-off on the probability is chosen; it is part of the artifact and versioned with it."""

    CEL = (
        (
            "(self.rule == 'LeastCost') != has(self.value)",
            "value is for the rules Fixed and RecallAtFalsePositiveRate, which need it; LeastCost goes by "
            "evaluation.costs",
        ),
    )

    rule: Literal["Fixed", "RecallAtFalsePositiveRate", "LeastCost"] = Field(
        description="Fixed: the cut-off is value. RecallAtFalsePositiveRate: the lowest cut-off on the holdout "
        "whose false-positive rate is at most value. LeastCost: the cut-off on the holdout at which decisions cost "
        "least, by evaluation.costs."
    )
    value: Fraction | None = Field(
        default=None, description="The cut-off, or the false-positive rate, 0 to 1. Default: LeastCost. Example: 0.1."
    )


class ChampionRule(Schema):
    """How a new model is compared with the one that serves, on the same rows, new to both."""

    metric: ChampionMetric = Field(
        description=f"{METRIC_HELP} Besides: neg_expected_cost, minus the mean cost a row of the decisions of each at "
        "its own cut-off, by evaluation.costs."
    )
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

    CEL = (
        (
            "has(self.costs) || ((!has(self.gates) || self.gates.all(g, g.metric != 'expected_cost')) && "
            "(!has(self.benchmarks) || self.benchmarks.all(b, b.gates.all(g, g.metric != 'expected_cost'))) && "
            "(!has(self.champion) || self.champion.metric != 'neg_expected_cost') && "
            "(!has(self.decision) || self.decision.rule != 'LeastCost'))",
            "metrics expected_cost and neg_expected_cost, and decision rule LeastCost, go by evaluation.costs; add "
            "falsePositive and falseNegative there",
        ),
    )

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
    fairness: list[Fairness] = Field(
        default=[],
        max_length=10,
        description="Bounds on how differently groups are decided on. Default: none.",
        json_schema_extra=keyed("name"),
    )
    robustness: list[Robustness] = Field(
        default=[],
        max_length=5,
        description="Bounds on the loss when a column is missing. Default: none.",
        json_schema_extra=keyed("name"),
    )
    benchmarks: list[Benchmark] = Field(
        default=[],
        max_length=5,
        description="Further sets of rows that a model must get right. Default: none.",
        json_schema_extra=keyed("name"),
    )
    costs: Costs | None = Field(default=None, description="What right and wrong decisions cost. Default: not known.")
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

    mode: Literal["Automatic", "Manual"] = Field(
        default="Automatic",
        description="Automatic: the gates decide. Manual: what passed them waits for a ModelApproval of its artifact's "
        "digest. Default: Automatic.",
    )
    author: Literal["MustNotApprove", "MayApprove"] = Field(
        default="MustNotApprove",
        description="Whether the author of the change may approve it, for Manual, where the author is known "
        "(annotation truekeep.dev/author of the Model). Default: MustNotApprove.",
    )

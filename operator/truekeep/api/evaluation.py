"""What a new model must show before it may serve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from truekeep.api.common import Column, Fraction, ItemName, Number, Schema, keyed

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

"""Rules that rows must meet before anything is fitted: one limit a rule, each with a severity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import SET, Column, Fraction, ItemName, Number, Schema

Ratio = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?$", min_length=1, max_length=16)]
CategoryText = Annotated[str, StringConstraints(min_length=1, max_length=128)]

LIMITS = (
    "minRows", "maxNullFraction", "maxAgeSeconds", "maxDuplicateFraction",
    "range", "categories", "lastRun", "leakage", "skew",
)  # fmt: skip


class Range(Schema):
    """Smallest and greatest value of a Number."""

    CEL = (
        (
            "has(self.minimum) || has(self.maximum)",
            "range has neither minimum nor maximum; give one of them",
        ),
        (
            "!has(self.minimum) || !has(self.maximum) || double(self.minimum) <= double(self.maximum)",
            "range.minimum must not be greater than range.maximum",
        ),
    )

    minimum: Number | None = Field(default=None, description="Smallest value, as decimal text. Example: 0.")
    maximum: Number | None = Field(default=None, description="Greatest value, as decimal text. Example: 6000.")
    max_fraction: Fraction = Field(
        default="0", description="Largest fraction of the values that may lie outside, 0 to 1. Default: 0."
    )


class Categories(Schema):
    """The values that a Category may have."""

    CEL = (
        (
            "has(self.allowed) != has(self.asIn)",
            "categories has either allowed (a list) or asIn (Champion); give one of them",
        ),
    )

    allowed: list[CategoryText] | None = Field(
        default=None,
        min_length=1,
        max_length=250,
        description="The values that are valid. Example: [web, app].",
        json_schema_extra=SET,
    )
    as_in: Literal["Champion"] | None = Field(
        default=None, description="Champion: the values that the live revision was trained on. Example: Champion."
    )
    max_fraction: Fraction = Field(
        default="0", description="Largest fraction of the values that may be others, 0 to 1. Default: 0."
    )


class Between(Schema):
    """Bounds of a ratio."""

    CEL = (
        ("has(self.minimum) || has(self.maximum)", "give minimum, maximum, or both"),
        (
            "!has(self.minimum) || !has(self.maximum) || double(self.minimum) <= double(self.maximum)",
            "minimum must not be greater than maximum",
        ),
    )

    minimum: Ratio | None = Field(default=None, description="Smallest ratio, as decimal text. Example: 0.5.")
    maximum: Ratio | None = Field(default=None, description="Greatest ratio, as decimal text. Example: 2.")


class LastRun(Schema):
    """Bounds on what changed since the newest earlier run whose data was in order."""

    CEL = (("has(self.rows) || has(self.positiveRate)", "lastRun has neither rows nor positiveRate; give one of them"),)

    rows: Between | None = Field(
        default=None, description="Labelled rows, divided by those of the last run. Example: minimum 0.5."
    )
    positive_rate: Between | None = Field(
        default=None,
        description="Share of the labels that are 1, divided by that of the last run. Example: minimum 0.5, maximum 2.",
    )


class Leakage(Schema):
    """How much one feature alone may tell of the label."""

    max_auc: Fraction = Field(
        default="0.99",
        description="Greatest ROC AUC that one feature alone may reach; 1 takes the feature at its word. "
        "Default: 0.99.",
    )


class Skew(Schema):
    """How far what the live revision was asked may lie from the rows that train."""

    minimum_effect: Fraction = Field(
        default="0.1",
        description="Smallest difference that counts: Kolmogorov-Smirnov distance or total variation of a column, or "
        "the difference of the shares without a value. Default: 0.1.",
    )
    min_rows: Annotated[int, Field(ge=50, le=20000)] = Field(
        default=500, description="Fewest rows on either side; with fewer nothing is judged. Default: 500."
    )


class Rule(Schema):
    """A check of the training data that runs before anything is fitted. Exactly one of its limits is set."""

    CEL = (
        (
            f"[{', '.join(f'has(self.{limit})' for limit in LIMITS)}].filter(x, x).size() == 1",
            f"a rule has exactly one of {', '.join(LIMITS)}; split it into several rules",
        ),
        (
            "!(has(self.range) || has(self.categories)) || has(self.column)",
            "a rule with range or categories names the column that it is for",
        ),
        (
            "!(has(self.minRows) || has(self.maxAgeSeconds) || has(self.lastRun) || has(self.skew)) || "
            "!has(self.column)",
            "minRows, maxAgeSeconds, lastRun and skew are about all rows; remove column",
        ),
    )

    name: ItemName = Field(description="Name of the rule, for messages. Example: enough.")
    severity: Literal["Warn", "Fail"] = Field(
        default="Fail",
        description="Fail: the run stops and the live model stays. Warn: it is reported. Default: Fail.",
    )
    column: Column | None = Field(
        default=None,
        description="Column that the rule is for. Default: every feature for maxNullFraction and leakage, the key for "
        "maxDuplicateFraction, which may name any column of spec.data.source.",
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
        default=None, description="Largest fraction of rows whose key, or column, occurs more than once. Example: 0."
    )
    range: Range | None = Field(
        default=None,
        description="Smallest and greatest value of a Number, with a fraction that is tolerated. "
        "Example: minimum 0, maximum 6000, maxFraction 0.001.",
    )
    categories: Categories | None = Field(
        default=None, description="The values that a Category may have. Example: allowed [web, app]."
    )
    last_run: LastRun | None = Field(
        default=None,
        description="Bounds on what changed since the newest earlier run whose data was in order. "
        "Example: rows {minimum 0.5}.",
    )
    leakage: Leakage | None = Field(
        default=None,
        description="How much one feature alone may tell of the label. Every feature that no rule speaks of is held "
        "to 0.99, as a warning. Example: maxAuc 0.98.",
    )
    skew: Skew | None = Field(
        default=None,
        description="How far the captured requests of the live revision may lie from the newest rows that train. "
        "Where no rule speaks of it, and requests are captured, it is a warning. Example: minimumEffect 0.1.",
    )

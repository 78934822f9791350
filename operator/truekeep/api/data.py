"""What a model is trained on: sources, features, labels and the rules that rows must meet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from truekeep.api.common import SET, Column, ItemName, Number, S3Location, Schema, Source, keyed
from truekeep.api.rules import Rule
from truekeep.api.sample import Sample


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
    type: Literal["Number", "Category", "Time"] = Field(
        description="Number (integers, decimals, booleans), Category (text, or integers that are codes) or Time "
        "(timestamps, or ISO 8601 text; a transformer dateParts makes numbers of it)."
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
            "!self.features.exists(f, (f.name == self.timeColumn && f.type != 'Time') || f.name == self.key)",
            "timeColumn and key identify an event and must not be features, but for a timeColumn of type Time; use a "
            "derived column",
        ),
        (
            "self.timeColumn != self.key && self.label.column != self.timeColumn && self.label.column != self.key",
            "timeColumn, key and label.column must be three different columns",
        ),
        (
            "!has(self.rules) || self.rules.all(r, !has(r.column) || has(r.maxDuplicateFraction) || "
            "(!has(r.range) && !has(r.categories) && !has(r.leakage) && (r.column == self.timeColumn || "
            "r.column == self.key || r.column == self.label.column)) || self.features.exists(f, f.name == r.column && "
            "(!has(r.range) || f.type == 'Number') && (!has(r.categories) || f.type == 'Category')))",
            "the column of a rule with range must be a Number feature, with categories a Category, with leakage a "
            "feature, with maxNullFraction a feature, the timeColumn, the key or the label's column",
        ),
    )

    source: Source = Field(description="Where the rows lie, one per event.")
    time_column: Column = Field(description="Column with the event's time (UTC). Example: scheduled_at.")
    key: Column = Field(description="Column that identifies a row and joins its label. Example: flight_id.")
    window: Window | None = Field(default=None, description="How far back to look. Default: all data.")
    sample: Sample | None = Field(
        default=None,
        description="Which part of the window's rows is used, where all would not fit into memory. Holdout and gates "
        "see the same part. Default: all rows.",
    )
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
        description="Checks of the data before training, besides the features' types and ranges. Default: leakage "
        "and skew alone, as warnings.",
        json_schema_extra=keyed("name"),
    )

    @property
    def sources(self) -> list[Source]:
        """All that is read: the rows, the labels where they lie elsewhere, the joins."""
        return [self.source, *([self.label.source] if self.label.source else []), *(one.source for one in self.joins)]

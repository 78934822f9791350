"""What is made of the features before the estimator sees them: steps from a closed list, fitted on training rows alone
and served with the model, as a part of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints

from truekeep.api.common import ATOMIC, SET, Fraction, ItemName, Number, Schema

# A feature, or what an earlier step made: <column>.<suffix>, or the name of a ratio.
ColumnName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]*$", min_length=1, max_length=127)]
CategoryText = Annotated[str, StringConstraints(min_length=1, max_length=255)]
DatePart = Literal["Year", "Month", "DayOfMonth", "DayOfYear", "DayOfWeek", "Hour", "Minute"]
Kind = Literal["impute", "scale", "log", "clip", "ratio", "dateParts", "oneHot", "ordinal", "targetEncode"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Replaced whole by server-side apply, which otherwise leaves null of an object whose last field is taken away.
WHOLE: dict[str, Any] = {"x-kubernetes-map-type": "atomic"}
STEPS, COLUMNS = 30, 25  # most steps of a recipe, and columns of a step


class Impute(Schema):
    """A null becomes a value."""

    CEL = (
        (
            "(self.strategy == 'Constant') == has(self.value)",
            "value goes with strategy: Constant, and with no other; add it, or remove it",
        ),
    )

    strategy: Literal["Median", "Mean", "MostFrequent", "Constant"] = Field(
        description="What a null becomes. Median and Mean are for numbers; all but Constant are learned. Example: "
        "Median."
    )
    value: CategoryText | None = Field(
        default=None, description="The value of strategy Constant: decimal text, or a category. Example: 0."
    )
    indicator: Literal["Add", "None"] = Field(
        default="None",
        description="Add: a further column <column>.null is 1 where the value was missing, else 0. Default: None.",
    )


class Scale(Schema):
    """Numbers on a common scale; a null stays one."""

    method: Literal["Standard", "Robust", "MinMax"] = Field(
        description="Standard: less the mean, by the standard deviation. Robust: less the median, by the quartiles' "
        "distance. MinMax: onto 0 to 1. Example: Standard."
    )


class Log(Schema):
    """The natural logarithm of x + offset, to single precision; a null where that is not above 0."""

    offset: Number = Field(default="1", description="What is added first, as decimal text. Default: 1. Example: 0.")


class Clip(Schema):
    """Numbers within limits that are given, or learned as quantiles; a null stays one."""

    CEL = (
        (
            "has(self.low) || has(self.high) || has(self.lowQuantile) || has(self.highQuantile)",
            "clip has no limit; give low or lowQuantile, high or highQuantile",
        ),
        (
            "!(has(self.low) && has(self.lowQuantile)) && !(has(self.high) && has(self.highQuantile))",
            "each side has one limit: low or lowQuantile, high or highQuantile; remove one of them",
        ),
        (
            "!has(self.low) || !has(self.high) || double(self.low) <= double(self.high)",
            "low must not be greater than high",
        ),
        (
            "!has(self.lowQuantile) || !has(self.highQuantile) || double(self.lowQuantile) <= "
            "double(self.highQuantile)",
            "lowQuantile must not be greater than highQuantile",
        ),
    )

    low: Number | None = Field(default=None, description="Smallest value, as decimal text. Example: 0.")
    high: Number | None = Field(default=None, description="Greatest value, as decimal text. Example: 5000.")
    low_quantile: Fraction | None = Field(
        default=None, description="Smallest value, as a quantile of the training rows. Example: 0.01."
    )
    high_quantile: Fraction | None = Field(
        default=None, description="Greatest value, as a quantile of the training rows. Example: 0.99."
    )


class Ratio(Schema):
    """One number by another, as a new column that has the step's name; a null where the denominator is 0, or the
    quotient is beyond single precision."""

    numerator: ColumnName = Field(description="Column of numbers. Example: amount.")
    denominator: ColumnName = Field(description="Column of numbers. Example: balance.")


class DateParts(Schema):
    """Numbers of a time, as columns <column>.<part>: departs.hour, departs.day-of-week."""

    parts: list[DatePart] = Field(
        min_length=1,
        max_length=7,
        description="Year, Month (1 to 12), DayOfMonth, DayOfYear, DayOfWeek (0 Monday to 6), Hour, Minute. Example: "
        "[Hour, DayOfWeek].",
        json_schema_extra=SET,
    )
    encoding: Literal["Number", "Cyclic"] = Field(
        default="Number",
        description="Cyclic: each part but Year as two columns, .<part>-sin and .<part>-cos, so that 23 o'clock is "
        "beside 0. Default: Number.",
    )
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$", max_length=63)] = Field(
        default="UTC",
        description="IANA name of the zone whose clock is read; its changes are kept in the artifact. Default: UTC. "
        "Example: Europe/Berlin.",
    )


class OneHot(Schema):
    """A column a category, 1 where the row has it; an unknown one is none of them, a null is one of its own."""

    min_frequency: Annotated[int, Field(ge=1, le=1000000000)] | None = Field(
        default=None,
        description="Categories with fewer training rows share one column, which unknown ones get, too. Example: 20.",
    )
    max_categories: Annotated[int, Field(ge=2, le=2000)] | None = Field(
        default=None, description="Most columns of a feature; the rarest categories share the last. Example: 50."
    )


class Ordinal(Schema):
    """The position of a category in an order; a null where it is not in there."""

    order: list[CategoryText] = Field(
        min_length=2,
        max_length=250,
        description="Categories from the least on, which is 0. Example: [small, medium, large].",
        json_schema_extra=ATOMIC,
    )


class TargetEncode(Schema):
    """The smoothed mean of the label in a row's category. Rows that are fitted on get that of other rows
    (cross-fitting), so that none carries its own label; a category that training has never seen is the mean of all."""

    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        default=5, description="Parts of the training rows, each encoded by the others. Default: 5."
    )
    smoothing: Number | None = Field(
        default=None,
        description="How many rows of the mean of all are added to each category. Default: by the variances, "
        "empirical Bayes. Example: 20.",
    )


class Transformer(Schema):
    """One step: one kind, on some columns. Steps run in their order."""

    CEL = (
        (
            "[has(self.impute), has(self.scale), has(self.log), has(self.clip), has(self.ratio), has(self.dateParts), "
            "has(self.oneHot), has(self.ordinal), has(self.targetEncode)].filter(x, x).size() == 1",
            "a transformer has exactly one of impute, scale, log, clip, ratio, dateParts, oneHot, ordinal, "
            "targetEncode; split it into several, or add one",
        ),
        (
            "has(self.columns) != has(self.ratio)",
            "columns are named for every kind but ratio, which names numerator and denominator; add columns, or remove "
            "them",
        ),
    )

    name: ItemName = Field(description="Name of the step, for messages and what it makes. Example: log-amount.")
    columns: list[ColumnName] | None = Field(
        default=None,
        min_length=1,
        max_length=COLUMNS,
        description="Features, or columns that earlier steps made; what the step makes of one has its name. Example: "
        "[amount].",
        json_schema_extra=SET,
    )
    originals: Literal["Keep", "Drop"] | None = Field(
        default=None,
        description="Keep: the columns stay beside what is made of them, which is named <column>.<step> then. "
        "Default: Drop, and Keep for a ratio.",
    )
    impute: Impute | None = Field(default=None, description="Fill nulls.", json_schema_extra=WHOLE)
    scale: Scale | None = Field(default=None, description="Bring numbers onto a common scale.", json_schema_extra=WHOLE)
    log: Log | None = Field(default=None, description="Take the logarithm of numbers.", json_schema_extra=WHOLE)
    clip: Clip | None = Field(default=None, description="Keep numbers within limits.", json_schema_extra=WHOLE)
    ratio: Ratio | None = Field(default=None, description="Divide one number by another.", json_schema_extra=WHOLE)
    date_parts: DateParts | None = Field(default=None, description="Take numbers from times.", json_schema_extra=WHOLE)
    one_hot: OneHot | None = Field(default=None, description="Make a column of each category.", json_schema_extra=WHOLE)
    ordinal: Ordinal | None = Field(
        default=None, description="Make numbers of categories that have an order.", json_schema_extra=WHOLE
    )
    target_encode: TargetEncode | None = Field(
        default=None,
        description="Make the mean of the label of each category, cross-fitted.",
        json_schema_extra=WHOLE,
    )

    @property
    def kind(self) -> Kind:
        """Which one it is. ValueError where it is none, or several."""
        (found,) = (kind for kind in KINDS if kind in self.model_dump(by_alias=True, exclude_none=True))
        return found

    @property
    def takes(self) -> tuple[str, ...]:
        """The columns, in their order."""
        return (self.ratio.numerator, self.ratio.denominator) if self.ratio else tuple(self.columns or ())

    @property
    def keeps(self) -> bool:
        """Whether the columns stay beside what is made of them."""
        return (self.originals or ("Keep" if self.ratio else "Drop")) == "Keep"


# Of a Model's spec: what the steps take of spec.data.features. That an earlier step makes a column, and of which type,
# is for `truekeep check` and the run itself (`features.plan`); names with a dot are such columns.
_STEPS = "!has(self.training.recipe) || !has(self.training.recipe.transformers) || self.training.recipe.transformers"
_KNOWN = "{0}.contains('.') || self.data.features.exists(f, f.name == {0}) || " + (
    "self.training.recipe.transformers.exists(o, o.name == {0})"
)
_OF_TYPE = "!self.data.features.exists(f, f.name == c && f.type != '{0}')"
CEL: tuple[tuple[str, str], ...] = (
    (
        f"{_STEPS}.all(t, (!has(t.columns) || t.columns.all(c, {_KNOWN.format('c')})) && (!has(t.ratio) || "
        f"(({_KNOWN.format('t.ratio.numerator')}) && ({_KNOWN.format('t.ratio.denominator')}))))",
        "a transformer takes data.features and columns that earlier steps made; correct the column's name, or add the "
        "feature",
    ),
    (
        f"{_STEPS}.all(t, !(has(t.oneHot) || has(t.ordinal) || has(t.targetEncode)) || !has(t.columns) || "
        f"t.columns.all(c, {_OF_TYPE.format('Category')}))",
        "oneHot, ordinal and targetEncode take features of type Category; declare it so, or take another kind",
    ),
    (
        f"{_STEPS}.all(t, !(has(t.scale) || has(t.log) || has(t.clip)) || !has(t.columns) || t.columns.all(c, "
        "!self.data.features.exists(f, f.name == c && f.type != 'Number') || "
        "self.training.recipe.transformers.exists(o, (has(o.ordinal) || has(o.targetEncode)) && c in o.columns)))",
        "scale, log and clip take numbers; make numbers of a Category by ordinal or targetEncode first, and of a Time "
        "by dateParts",
    ),
    (
        f"{_STEPS}.all(t, !has(t.dateParts) || !has(t.columns) || t.columns.all(c, {_OF_TYPE.format('Time')}))",
        "dateParts takes features of type Time; declare it so, or take another kind",
    ),
    (
        "has(self.training.__import__) || self.data.features.all(f, f.type != 'Time' || (has(self.training.recipe) && "
        "has(self.training.recipe.transformers) && self.training.recipe.transformers.exists(t, has(t.dateParts) && "
        "has(t.columns) && t.columns.exists(c, c == f.name))))",
        "a feature of type Time needs a transformer dateParts in training.recipe that makes numbers of it; add one, or "
        "remove the feature",
    ),
)

"""How hyperparameters are searched: which are tried, how many trials, on what they are judged, and how long."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import SET, Number, Schema, keyed
from truekeep.api.evaluation import METRIC_HELP, Metric

MOST_TRIALS = 100
MOST_PARAMETERS = 10
MOST_VALUES = 50

ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9_]*$", max_length=63)]
ParameterValue = Annotated[str, StringConstraints(max_length=255)]

# Combinations of a grid, for CEL, which has no product over a list.
_COMBINATIONS = " * ".join(
    f"(size(self.parameters) > {n} && has(self.parameters[{n}].values) ? size(self.parameters[{n}].values) : 1)"
    for n in range(MOST_PARAMETERS)
)


class Range(Schema):
    """Numbers to draw from."""

    CEL = (
        ("double(self.low) < double(self.high)", "low must be less than high"),
        (
            "!has(self.scale) || self.scale != 'Log' || double(self.low) > 0.0",
            "on the scale Log low must be above 0; raise it, or use Linear",
        ),
        (
            "!has(self.type) || self.type != 'Integer' || (!self.low.contains('.') && !self.high.contains('.'))",
            "low and high of an Integer must be whole numbers",
        ),
    )

    low: Number = Field(description="Smallest number, as decimal text. Example: 0.01.")
    high: Number = Field(description="Largest number, as decimal text. Example: 0.3.")
    scale: Literal["Linear", "Log"] = Field(
        default="Linear",
        description="Linear: all numbers are equally likely. Log: all orders of magnitude are. Default when read: "
        "Linear.",
    )
    type: Literal["Decimal", "Integer"] = Field(
        default="Decimal",
        description="Decimal: drawn with 6 significant digits. Integer: whole numbers, both ends included. Default "
        "when read: Decimal.",
    )


class TunedParameter(Schema):
    """A hyperparameter and what is tried for it."""

    CEL = (
        (
            "has(self.values) != has(self.range)",
            "a tuned parameter has exactly one of values and range; remove one of them, or add one",
        ),
    )

    name: ParameterName = Field(description="Name as in the estimator's constructor. Example: max_depth.")
    values: list[ParameterValue] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_VALUES,
        description="Values to try, each as JSON text; what is not JSON is taken as a string. Default: range is given. "
        'Example: [3, 5, null] written as ["3", "5", "null"].',
        json_schema_extra=SET,
    )
    range: Range | None = Field(
        default=None, description="Numbers to draw from, for search Random. Default: values is given."
    )


class Tuning(Schema):
    """A search for the hyperparameters: every trial is fitted and scored on folds in the order of time, before the
    holdout begins; the best one's parameters train the model, which is judged like any other."""

    CEL = (
        (
            "self.search != 'Grid' || self.parameters.all(p, has(p.values))",
            "search Grid tries every combination of values; give each parameter values instead of a range, or use "
            "Random",
        ),
        (
            f"self.search != 'Grid' || {_COMBINATIONS} <= {MOST_TRIALS}",
            f"the values of a grid make at most {MOST_TRIALS} combinations (the numbers of values, multiplied); remove "
            "some, or use search Random with trials",
        ),
        (
            "(self.search == 'Random') == has(self.trials)",
            "search Random needs trials; a Grid has as many as it has combinations, so remove trials there",
        ),
        (
            f"!has(self.minTrials) || self.minTrials <= (self.search == 'Grid' ? {_COMBINATIONS} : "
            f"(has(self.trials) ? self.trials : {MOST_TRIALS}))",
            "minTrials can't be more than there are trials",
        ),
    )

    search: Literal["Grid", "Random"] = Field(
        description="Grid: every combination of the values. Random: so many combinations, drawn with recipe.seed."
    )
    parameters: list[TunedParameter] = Field(
        min_length=1,
        max_length=MOST_PARAMETERS,
        description="What is tried.",
        json_schema_extra=keyed("name"),
    )
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = Field(
        default=None,
        description="Combinations to draw, for Random; where there are only values, at most as many as there are "
        "combinations. Default: Grid, which tries all. Example: 20.",
    )
    metric: Metric = Field(
        default="roc_auc", description=f"What decides which is best. {METRIC_HELP} Default: roc_auc."
    )
    folds: Annotated[int, Field(ge=2, le=10)] = Field(
        default=3,
        description="Folds, in the order of time: each trial is fitted on the rows before a fold and scored on the "
        "fold. The holdout is in none of them. Default: 3.",
    )
    parallelism: Annotated[int, Field(ge=1, le=50)] = Field(
        default=2, description="Trials that run at once, each in a pod with training.resources. Default: 2."
    )
    timeout_seconds: Annotated[int, Field(ge=10, le=604800)] | None = Field(
        default=None,
        description="Seconds for all trials together, from the start of the first. When they are over, trials that are "
        "not done are left out. Default: half of training.timeoutSeconds.",
    )
    min_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = Field(
        default=1,
        description="Trials that must have a score for the best of them to count; with fewer the run fails. "
        "Default: 1.",
    )

    @property
    def count(self) -> int:
        """How many trials there are."""
        sizes = [len(one.values) if one.values else None for one in self.parameters]
        combinations = math.prod(size for size in sizes if size)
        if self.search == "Grid":
            return combinations
        trials = self.trials or MOST_TRIALS
        return trials if None in sizes else min(trials, combinations)

    @property
    def needed(self) -> int:
        """How many of them must have a score."""
        return min(self.min_trials, self.count)

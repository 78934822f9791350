"""How a revision is trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from truekeep.api.common import Resources, Schema, keyed
from truekeep.api.estimators import ESTIMATORS


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

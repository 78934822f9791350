"""How a revision is trained, or where it comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from truekeep.api.common import Digest, Resources, S3Location, Schema, keyed
from truekeep.api.estimators import ESTIMATORS
from truekeep.api.features import STEPS, Transformer
from truekeep.api.image import TrainingImage
from truekeep.api.retries import Retries
from truekeep.api.tuning import ParameterName, ParameterValue, Tuning

LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class Parameter(Schema):
    """One hyperparameter."""

    name: ParameterName = Field(description="Name as in the estimator's constructor. Example: max_iter.")
    value: ParameterValue = Field(
        description="Value as JSON text; what is not JSON is taken as a string. Example: 120."
    )


class Recipe(Schema):
    """A scikit-learn pipeline that the trainer builds: declared features, transformers, then one estimator."""

    CEL = (
        (
            "!has(self.tuning) || !has(self.parameters) || "
            "self.tuning.parameters.all(t, self.parameters.all(p, p.name != t.name))",
            "a hyperparameter is either set in parameters or tuned; remove it from recipe.parameters or from "
            "recipe.tuning.parameters",
        ),
    )

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
    transformers: list[Transformer] = Field(
        default=[],
        max_length=STEPS,
        description="Steps on the features before the estimator, in their order; fitted on training rows alone, and "
        "served as a part of the model. Default: none, only what the estimator needs.",
        json_schema_extra=keyed("name"),
    )
    seed: Annotated[int, Field(ge=0, le=2147483647)] = Field(
        default=0, description="Seed of everything random in training. Default: 0. Example: 7."
    )
    tuning: Tuning | None = Field(
        default=None,
        description="Search for the best hyperparameters, in a Job of its own before the training. Default: parameters "
        "are taken as they are.",
    )


class Import(Schema):
    """A model that was trained elsewhere and packaged by `truekeep import`, or an artifact of another Truekeep."""

    s3: S3Location = Field(
        description="Prefix that truekeep import --push wrote to, or the store of another Truekeep. Example: "
        "s3://imports/."
    )
    digest: Digest = Field(
        description="sha256 of the artifact's manifest, as truekeep import says it; nothing else is taken from there."
    )


class Training(Schema):
    """How a revision is trained, or where it comes from."""

    CEL = (
        (  # CEL keeps the word import for itself: Kubernetes puts underscores around it
            "[has(self.recipe), has(self.__import__), has(self.image)].filter(x, x).size() == 1",
            "training has exactly one of recipe, import and image; remove the others, or add one",
        ),
        (
            "!has(self.recipe) || !has(self.recipe.tuning) || !has(self.recipe.tuning.timeoutSeconds) || "
            "self.recipe.tuning.timeoutSeconds < self.timeoutSeconds",
            "recipe.tuning.timeoutSeconds must be less than training.timeoutSeconds, which the training itself needs "
            "a part of",
        ),
    )

    recipe: Recipe | None = Field(
        default=None, description="The built-in pipeline to fit. Default: import or image is given."
    )
    import_: Import | None = Field(
        default=None,
        alias="import",
        description="A model that was trained elsewhere: it is checked, judged on the data and served, never fitted. "
        "Default: recipe or image is given.",
    )
    image: TrainingImage | None = Field(
        default=None,
        description="The team's own image to fit with, on rows that Truekeep read and checked; a Job of Truekeep then "
        "judges what it made, on rows that it never saw. Default: recipe or import is given.",
    )
    queue_name: Annotated[str, StringConstraints(pattern=LABEL, max_length=63)] | None = Field(
        default=None,
        description="LocalQueue of Kueue in this namespace, which decides when the Jobs of a run begin: they are made "
        "suspended, and the wait for the first does not count in timeoutSeconds. Default: they begin at once.",
    )
    timeout_seconds: Annotated[int, Field(ge=30, le=604800)] = Field(
        default=3600,
        description="Seconds that a run may take, waiting for a node and an image included. Default: 3600.",
    )
    retries: Retries = Field(
        default=Retries(),
        description="How often a stage of a run is tried again, and with what. Default: two times after a crash.",
    )
    resources: Resources = Field(
        default=Resources(),
        description="CPU and memory of the training pod; with training.image, of that image's container, too. "
        "Default: requests 500m and 1Gi, limits 2 CPUs and 4Gi.",
    )

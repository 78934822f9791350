"""What each feature added to one answer, by the best way that the model allows, and which way that was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from truekeep.contract.artifact import Signature
from truekeep.contract.layout import ONNX_FILE
from truekeep.explain import shapley
from truekeep.explain.shapley import Floats, Model

BUDGET = 400_000  # rows that the model may be asked

Method = Literal["TreeSHAP", "Linear", "Exact", "Sampled"]
WORDS: Mapping[Method, str] = {
    "TreeSHAP": "SHAP values of the trees, exact (interventional TreeSHAP)",
    "Linear": "coefficient times (value minus the background's mean), exact",
    "Exact": "Shapley values over all coalitions of features, exact",
    "Sampled": "Shapley values by random orders of the features, with standard errors",
}


@dataclass(frozen=True)
class Attribution:
    """`values` add up to `answer` minus `base`, all in log-odds or all as probabilities, as `scale` says.

    `base`: the mean of the background; `errors`: standard errors, of Sampled alone."""

    method: Method
    scale: Literal["log-odds", "probability"]
    rows: int  # of the background
    base: float
    answer: float
    values: Mapping[str, float]
    errors: Mapping[str, float] | None = None

    def ranked(self) -> list[tuple[str, float]]:
        """The feature that mattered most first."""
        return sorted(self.values.items(), key=lambda each: (-abs(each[1]), each[0]))


def attribute(
    files: Mapping[str, bytes],
    signature: Signature,
    predict: Model,
    row: Floats,
    background: Floats,
    *,
    budget: int = BUDGET,
) -> Attribution:
    """`predict`: probability of class 1 of a matrix; `row`: (features,), `background`: (rows, features), as
    `features.encode` makes them. ValueError where there is no background."""
    if not len(background):
        raise ValueError("there are no background rows")
    names = [feature.name for feature in signature.features]
    probability = predict(row[None])[0]

    def made(method: Method, scale: Any, answer: float, found: shapley.Values) -> Attribution:
        errors = None if found.errors is None else dict(zip(names, found.errors.tolist(), strict=True))
        values = dict(zip(names, found.values.tolist(), strict=True))
        return Attribution(method, scale, len(background), found.base, answer, values, errors)

    if ONNX_FILE in files and signature.imported is None:
        from truekeep.explain import trees  # reads ONNX: who only shows an attribution need not have it

        try:
            model = trees.opened(files[ONNX_FILE])
            return made(
                "TreeSHAP",
                model.scale,
                float(model.parts(row[None])[2][0]),
                trees.values(model, row, background),
            )
        except trees.NotTreesError:
            pass
    sums = shapley.additive(lambda matrix: shapley.log_odds(predict(matrix)), row, background)
    if sums is not None:
        return made("Linear", "log-odds", float(shapley.log_odds(np.array([probability]))[0]), sums)
    if (len(background) << len(row)) <= budget:
        return made("Exact", "probability", float(probability), shapley.exact(predict, row, background))
    found = shapley.sampled(predict, row, background, budget=budget)
    return made("Sampled", "probability", float(probability), found)

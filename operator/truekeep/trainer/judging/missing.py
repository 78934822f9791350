"""What a model says when a column is missing: the judged rows once more, with one feature null."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from truekeep.contract.artifact import SignatureFeature
from truekeep.scores.metrics import Floats
from truekeep.trainer.faults import ParametersInvalid


@dataclass(frozen=True)
class Without:
    """Scores the judged rows, or some of them spread evenly, as if a column were missing."""

    columns: tuple[str, ...]  # the features that may be null, in order
    rows: npt.NDArray[np.int64]  # positions among the judged rows
    score: Callable[[int], Floats]  # the probabilities of these rows, shape (rows,), with this feature null
    positions: Mapping[str, int]  # of the features in the model's matrix

    def scores(self, name: str) -> Floats:
        """Shape (rows,). ParametersInvalid where the column may not be null."""
        if name not in self.columns:
            raise ParametersInvalid(f"evaluation.robustness: {name} is no feature that allows nulls; remove it")
        return self.score(self.positions[name])


def without(
    features: Sequence[SignatureFeature], matrix: Floats, predict: Callable[[Floats], Floats], most: int = 20_000
) -> Without:
    """`matrix`: the judged rows, shape (rows, features); not more than `most` of them are scored again."""
    rows = np.unique(np.linspace(0, len(matrix) - 1, min(len(matrix), most)).astype(np.int64))
    part = np.array(matrix[rows], order="F")

    def score(position: int) -> Floats:
        kept = part[:, position].copy()
        part[:, position] = np.nan
        try:
            return predict(part)
        finally:
            part[:, position] = kept

    optional = tuple(feature.name for feature in features if feature.nulls == "Allow")
    return Without(optional, rows, score, {feature.name: place for place, feature in enumerate(features)})

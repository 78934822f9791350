"""The files of an artifact: the model, its signature with answers that a server can test itself with, its profile."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.api.data import Feature
from truekeep.contract import layout
from truekeep.contract.artifact import Example, Signature, SignatureFeature
from truekeep.contract.canonical import canonical_json
from truekeep.features import times
from truekeep.features.encode import Encoder, category_text
from truekeep.features.trust import UntrustedModelError, load_pipeline
from truekeep.profiling.build import profile
from truekeep.sources.columns import codes
from truekeep.trainer.faults import ParametersInvalid
from truekeep.trainer.onnx.model import MOST_ROWS, compile_model, sentence
from truekeep.trainer.recipe import canonical_skops
from truekeep.trainer.recipe.boosters import Translated
from truekeep.trainer.recipe.pipeline import probabilities

ROWS_SHOWN = 14  # examples that are rows of the data
VARIED = 3  # further ones with a null, and with a category that training has never seen
UNSEEN = "never seen in training"

Inputs = dict[str, float | str | None]


def signature_features(features: Sequence[Feature], columns: Mapping[str, Any]) -> list[SignatureFeature]:
    """The inputs as they are served: categories are those of these rows, sorted. `columns` by name, shape (rows,)."""
    return [
        SignatureFeature(
            name=feature.name,
            type=feature.type,
            categories=_categories(columns[feature.name]) if feature.type == "Category" else None,
            minimum=None if feature.minimum is None else float(feature.minimum),
            maximum=None if feature.maximum is None else float(feature.maximum),
            nulls=feature.nulls,
        )
        for feature in features
    ]


def files(
    pipeline: Any,
    draft: Signature,
    columns: Mapping[str, Any],
    unseen: npt.NDArray[np.float64],
    holdout: npt.NDArray[np.float64],
    threads: int = 1,
) -> dict[str, bytes]:
    """The artifact's files. `draft`: the signature without examples; `columns`: the rows that the pipeline was fitted
    on, by name, shape (rows,); `unseen`: probabilities of rows that the model was judged on, for the profile;
    `holdout`: rows, shape (rows, features), on which the model and its translation to ONNX must agree; of many some,
    evenly spread. `threads` change how long it takes, not what comes out.

    The answers of the examples come from the file that is published, loaded as a server loads it. ParametersInvalid
    where a server would not load it, because it is too large."""
    features = draft.features
    skops, loaded = _published(pipeline, draft.estimator)
    inputs = examples(features, columns)
    matrix = Encoder(features).encode({name: [row[name] for row in inputs] for name in inputs[0]}, len(inputs))
    answers = probabilities(loaded, matrix)
    if not np.array_equal(answers, probabilities(pipeline, matrix)):
        raise RuntimeError(
            f"the {draft.estimator} that was saved does not predict what it predicted before; this is a bug"
        )
    answered = [Example(inputs=row, probability=float(answer)) for row, answer in zip(inputs, answers, strict=True)]
    onnx, compiled = compile_model(loaded, draft.cut_off, np.concatenate([matrix, spread(holdout, MOST_ROWS)]))
    if not (skops or onnx):
        raise ParametersInvalid(
            f"only ONNX is published of a model of {draft.estimator}, and it can't be: {sentence(compiled)}; use other "
            "parameters, or an estimator of scikit-learn"
        )
    signature = draft.model_copy(update={"examples": answered, "compiled": compiled})
    return {
        **({layout.MODEL_FILE: skops} if skops else {}),
        **({layout.ONNX_FILE: onnx} if onnx else {}),
        layout.SIGNATURE: canonical_json(signature.model_dump(mode="json", by_alias=True)),
        layout.PROFILE: canonical_json(profile(columns, features, unseen, threads=threads)),
    }


def spread(matrix: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    """At most so many of its rows, evenly spread."""
    if len(matrix) <= most:
        return matrix
    return matrix[np.linspace(0, len(matrix) - 1, most).astype(np.int64)]


def _published(pipeline: Any, estimator: str) -> tuple[bytes, Any]:
    """The skops file, and what is in it; of what is published as ONNX alone no bytes."""
    if isinstance(pipeline, Translated):
        return b"", pipeline
    model = canonical_skops.dumps(pipeline)
    try:
        return model, load_pipeline(model, estimator)
    except UntrustedModelError as error:  # no server would load it
        raise ParametersInvalid(f"the fitted model can't be served: {error}") from error


def examples(features: Sequence[SignatureFeature], columns: Mapping[str, Any]) -> list[Inputs]:
    """Rows as a request gives them: some of the data, evenly spread, then some with a null or an unseen category."""
    rows = len(columns[features[0].name])
    spread = np.unique(np.linspace(0, rows - 1, min(rows, ROWS_SHOWN)).astype(np.int64))
    found = [_row(features, columns, int(row)) for row in spread]
    return found + list(_varied(found, features))


def _varied(rows: Sequence[Inputs], features: Sequence[SignatureFeature]) -> Iterator[Inputs]:
    base = itertools.cycle(rows)
    optional = [feature.name for feature in features if feature.nulls == "Allow"]
    categories = [one.name for one in features if one.type == "Category" and one.unknown == "Allow"]
    for name in optional[:VARIED]:
        yield {**next(base), name: None}
    for name in categories[:VARIED]:
        yield {**next(base), name: UNSEEN}
    if optional:
        yield {**next(base), **dict.fromkeys(optional)}


def _row(features: Sequence[SignatureFeature], columns: Mapping[str, Any], row: int) -> Inputs:
    """One row of the data in JSON's types."""
    inputs: Inputs = {}
    for feature in features:
        value = columns[feature.name][row]
        if feature.type == "Category":
            inputs[feature.name] = category_text(value.as_py())
        elif feature.type == "Time":
            inputs[feature.name] = None if value == times.NO_TIME else times.to_text(value)
        else:
            inputs[feature.name] = None if np.isnan(value) else float(value)
    return inputs


def _categories(column: Any) -> list[str]:
    _, distinct = codes(column)
    return sorted(distinct.to_pylist())

"""What a team's image made, as an artifact that Truekeep's own server serves: ONNX or skops, loaded through the doors
that `truekeep import` has, and no others. Pickle is never loaded.

The model takes the features as /in/train.parquet has them; an ONNX file whose input for a category is numeric gets its
position in `categories` of features.json, -1 for an unknown value, NaN for null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from truekeep.api.image import TrainingImage
from truekeep.contract import layout
from truekeep.contract.artifact import Example, Imported, Signature, SignatureFeature
from truekeep.contract.canonical import canonical_json
from truekeep.features import encode, imported, models
from truekeep.features.encode import Encoder
from truekeep.features.imported import Predict
from truekeep.features.models import ArtifactFaultError
from truekeep.features.trust import UntrustedModelError
from truekeep.profiling.build import profile
from truekeep.scores.metrics import Floats
from truekeep.sources.columns import select
from truekeep.trainer.faults import DeliveryInvalid, ImportInvalid
from truekeep.trainer.handed import delivery as handed
from truekeep.trainer.imported import source as import_source
from truekeep.trainer.imported.features import Inputs, Wishes, inputs_of, probed
from truekeep.trainer.imported.package import ONNX_TOLERANCE, TOLERANCE, estimator_of, positive_of
from truekeep.trainer.imported.recode import as_onnx
from truekeep.trainer.imported.source import Source
from truekeep.trainer.recipe import bundle, canonical_skops
from truekeep.trainer.text import moment

SAMPLE_ROWS = 2000  # of those that it was trained on, to find out what it takes


@dataclass(frozen=True)
class Made:
    """A model that can be asked. `draft`: its signature without cut-off and examples."""

    draft: Signature
    predict: Predict  # shape (rows, features), as `features.encode` makes it -> (rows,)
    files: dict[str, bytes]  # that answer
    model: Any = None  # of scikit-learn, for a translation to ONNX


def opened(
    image: TrainingImage,
    files: Mapping[str, bytes],
    features: Sequence[SignatureFeature],
    columns: Mapping[str, Any],
    until: int,
) -> Made:
    """The model in the delivered files. `columns`: the rows that it was trained on, by name; `until`: the newest of
    them, in microseconds since 1970. DeliveryInvalid, with a remedy, where it can't be taken."""
    name = layout.ONNX_FILE if image.format == "ONNX" else layout.MODEL_FILE
    source = _source(name, files[name])
    sample = _sample(features, columns)
    try:
        _check_width(source, features)
        given = inputs_of(source, sample, Wishes(codes=True))
        positive, _ = positive_of(source, None)
    except ImportInvalid as error:
        raise DeliveryInvalid(f"{name} of spec.training.image: {error}") from error
    _check_features(name, given, features)
    draft = Signature(
        estimator=estimator_of(source),
        features=list(features),
        cut_off=0.5,
        examples=[],
        tolerance=ONNX_TOLERANCE if source.graph else TOLERANCE,
        imported=Imported(
            format="onnx" if source.graph else "skops",
            source=name,
            source_sha256=source.sha256,
            inputs=given.inputs,
            codes=given.codes,
            missing_text=_missing_text(source),
            output=source.graph.output if source.graph else "",
            positive=positive,
            trained_until=moment(until),
        ),
    )
    made = _loaded(name, source, draft)
    matrix = encode.matrix({one: sample[one] for one in sample.column_names}, draft.features)
    checked(made.predict, matrix)
    found, _ = probed(draft.features, matrix, made.predict)
    return Made(draft.model_copy(update={"features": found}), made.predict, made.files, made.model)


def finished(
    made: Made, cut_off: float, columns: Mapping[str, Any], scores: Floats, holdout: Floats
) -> dict[str, bytes]:
    """The artifact's files. `columns`: the rows that it was trained on, by name; `scores`: of rows that it was judged
    on, which are `holdout`, shape (rows, features). DeliveryInvalid where no server would serve it."""
    draft = made.draft.model_copy(update={"cut_off": cut_off})
    inputs = bundle.examples(draft.features, columns)
    rows = Encoder(draft.features).encode({name: [row[name] for row in inputs] for name in inputs[0]}, len(inputs))
    answers = checked(made.predict, rows)
    examples = [Example(inputs=row, probability=float(one)) for row, one in zip(inputs, answers, strict=True)]
    signature = draft.model_copy(update={"examples": examples})
    files = dict(made.files)
    if made.model is not None:
        onnx, told = as_onnx(made.model, signature, made.predict, np.concatenate([rows, holdout]))
        files |= {layout.ONNX_FILE: onnx} if onnx else {}
        signature = signature.model_copy(update={"compiled": told})
    files[layout.SIGNATURE] = canonical_json(signature.model_dump(mode="json", by_alias=True))
    files[layout.PROFILE] = canonical_json(profile(columns, signature.features, scores))
    if signature.imported and signature.imported.format != "opaque":
        _prove(files)
    return files


def checked(predict: Predict, matrix: Floats, at_once: int = 10_000) -> Floats:
    """The answers, shape (rows,). DeliveryInvalid where the model gives none, or what is no probability."""
    try:
        parts = [predict(matrix[start : start + at_once]) for start in range(0, len(matrix), at_once)]
    except DeliveryInvalid:
        raise
    except Exception as error:  # whatever a model says of rows that do not fit it
        raise DeliveryInvalid(
            "what spec.training.image made does not answer rows of spec.data "
            f"({type(error).__name__}: {error!s:.300}); let it take the features of features.json, in their order"
        ) from error
    return probabilities(np.concatenate(parts) if parts else np.empty(0), len(matrix))


def probabilities(scores: Floats, rows: int) -> Floats:
    """The same. DeliveryInvalid where they are not one probability a row."""
    if scores.shape != (rows,):
        raise DeliveryInvalid(
            f"what spec.training.image made answers {rows:,} rows with an array of shape {scores.shape}; it must "
            "answer one probability a row"
        )
    wrong = ~(np.isfinite(scores) & (scores >= 0) & (scores <= 1))
    if wrong.any():
        raise DeliveryInvalid(
            f"what spec.training.image made answers {scores[int(np.argmax(wrong))]}, which is no probability; export "
            "the probabilities, not the decision function"
        )
    return scores


def _source(name: str, content: bytes) -> Source:
    if name == layout.MODEL_FILE and content[:2] != b"PK":
        raise DeliveryInvalid(
            f"{name} of spec.training.image is no skops file; pickle and joblib files are never loaded: write it with "
            f"skops.io.dump(model, '/out/{name}')"
        )
    with TemporaryDirectory(prefix="handed-") as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return import_source.read(path, trust_pickle=False)
        except ImportInvalid as error:
            said = str(error).removeprefix(f"{path}: ")
            raise DeliveryInvalid(f"{name} of spec.training.image: {said}") from error


def _sample(features: Sequence[SignatureFeature], columns: Mapping[str, Any]) -> pa.Table:
    """Some of the rows, spread evenly, as they were handed over."""
    rows = len(columns[features[0].name])
    some = np.unique(np.linspace(0, rows - 1, min(rows, SAMPLE_ROWS)).astype(np.int64))
    return pa.table({one.name: handed.column(one, select(columns[one.name], some)) for one in features})


def _check_width(source: Source, features: Sequence[SignatureFeature]) -> None:
    """A model that takes one matrix says best itself how wide that is."""
    if source.graph is not None:
        width = source.graph.inputs[0].width if len(source.graph.inputs) == 1 else None
        named = source.graph.inputs[0].name in {one.name for one in features}
    else:
        width = import_source.width(source.model)
        named = import_source.names(source.original) is not None
    if width is not None and not named and width != len(features):
        raise ImportInvalid(
            f"it takes a matrix of {width} columns, and there are {len(features)} features; train it on all columns of "
            f"features.json in their order: {_listed([one.name for one in features])}"
        )


def _check_features(name: str, given: Inputs, features: Sequence[SignatureFeature]) -> None:
    """The Model's features are the serving contract: the model must take just these."""
    taken = {one.name for one in given.features}
    if idle := [one.name for one in features if one.name not in taken]:
        raise DeliveryInvalid(
            f"{name} of spec.training.image does not take {_listed(idle)}; train it on all features, or remove these "
            "from spec.data.features"
        )


def _missing_text(source: Source) -> Any:
    """As what a scikit-learn model knows a missing text."""
    if source.model is None:
        return "NaN"
    known = import_source.known_categories(source.model, import_source.width(source.model))
    return "None" if any(value is None for values in known for value in values) else "NaN"


def _loaded(name: str, source: Source, draft: Signature) -> Made:
    """The model as a server will load it."""
    made = draft.imported
    assert made is not None
    try:
        if source.graph is not None:
            content = source.graph.content
            return Made(draft, imported.onnx(content, made, draft.features), {layout.ONNX_FILE: content})
        content = canonical_skops.dumps(source.model)
        predict = imported.scikit_learn(imported.load_skops(content), made, draft.features)
        return Made(draft, predict, {layout.MODEL_FILE: content}, source.model)
    except UntrustedModelError as error:
        raise DeliveryInvalid(f"{name} of spec.training.image: {error}") from error


def _prove(files: Mapping[str, bytes]) -> None:
    """Each file that may answer must answer the examples: which one does is the server's choice."""
    try:
        signature = models.read_signature(files[layout.SIGNATURE])
        for name in (layout.ONNX_FILE, layout.MODEL_FILE):
            if name in files:
                predict, _ = models.predictor({name: files[name]}, signature)
                models.self_test(signature, Encoder(signature.features), predict)
    except ArtifactFaultError as error:
        raise DeliveryInvalid(f"what spec.training.image made can't be served: {error}") from error


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

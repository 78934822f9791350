"""From a digest to a model that has proved itself: fetch, check, load, test on the recorded examples, measure.

Whatever differs from what training wrote ends here: `ModelInvalidError`, which a second try cannot help.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from truekeep.contract.artifact import Signature
from truekeep.contract.layout import MODEL_FILE, ONNX_FILE, SIGNATURE
from truekeep.contract.requests import ServeRequest
from truekeep.features import compiled
from truekeep.features.encode import Encoder, FeatureError
from truekeep.features.trust import UntrustedModelError, load_pipeline
from truekeep.server.logs import fields, log
from truekeep.server.scoring import Cost, Matrix, Predict, measure
from truekeep.storage import ArtifactInvalid, StoreError, artifacts
from truekeep.storage.s3 import Bucket


class ModelInvalidError(Exception):
    """The artifact must not be served. The text is one sentence with reason and remedy."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that answered its examples as training did."""

    signature: Signature
    encoder: Encoder
    predict: Predict
    cost: Cost
    self_test_difference: float  # largest difference from an example's recorded probability
    format: str  # onnx or skops: what answers


def fetch(
    request: ServeRequest,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    *,
    onnx: bool = True,
) -> dict[str, bytes]:
    """The artifact's signature and model file, checked against the digest: `model.onnx` where there is one and
    `onnx`, else the skops file. An unreachable store is tried again for `seconds`, with growing pauses; StoreError
    then. ModelInvalidError where what lies there is not this artifact."""
    end = clock() + seconds
    pause = 0.2
    while True:
        try:
            bucket = Bucket.open(request.store, timeout_seconds=5)
            digest = request.artifact_digest
            names = {file.path for file in artifacts.read_manifest(bucket, digest).files}
            return artifacts.read(bucket, digest, {ONNX_FILE if onnx and ONNX_FILE in names else MODEL_FILE, SIGNATURE})
        except ArtifactInvalid as error:
            raise ModelInvalidError(str(error)) from error
        except StoreError as error:
            left = end - clock()
            if left <= 0:
                raise
            log.warning(
                "the store does not answer, trying again",
                extra=fields(reason=str(error), seconds_left=round(left, 1)),
            )
            sleep(min(pause * random.uniform(0.8, 1.2), max(left, 0.05)))
            pause = min(pause * 2, 5.0)


def obtain(request: ServeRequest, seconds: float) -> LoadedModel:
    """Fetch and load. Where onnxruntime does not answer the examples as training did, scikit-learn may."""
    files = fetch(request, seconds)
    try:
        return load(files)
    except ModelInvalidError as error:
        if ONNX_FILE not in files:
            raise
        log.warning("the ONNX file is not served, the skops file may be", extra=fields(reason=str(error)))
    return load(fetch(request, seconds, onnx=False))


def load(files: dict[str, bytes]) -> LoadedModel:
    """The model in an artifact's files, as ONNX where they hold it. ModelInvalidError where signature, types or the
    self-test are off."""
    signature = read_signature(files[SIGNATURE])
    predict, kind = _onnx(files, signature) if ONNX_FILE in files else _scikit_learn(files, signature)
    encoder = Encoder(signature.features)
    difference, examples = self_test(signature, encoder, predict)
    return LoadedModel(signature, encoder, predict, measure(predict, examples), difference, kind)


def _onnx(files: dict[str, bytes], signature: Signature) -> tuple[Predict, str]:
    try:
        predict, width = compiled.load(files[ONNX_FILE])
    except UntrustedModelError as error:
        raise ModelInvalidError(f"the artifact is refused: {error}; train it again") from error
    _check_width(width, signature)
    return predict, "onnx"


def _check_width(width: int, signature: Signature) -> None:
    if width != len(signature.features):
        raise ModelInvalidError(
            f"the artifact is refused: the model takes {width} columns, but its signature lists "
            f"{len(signature.features)}; train it again"
        )


def _scikit_learn(files: dict[str, bytes], signature: Signature) -> tuple[Predict, str]:
    try:
        pipeline = load_pipeline(files[MODEL_FILE], signature.estimator)
    except UntrustedModelError as error:
        raise ModelInvalidError(f"the artifact is refused: {error}; train it again") from error
    # Pipeline's own n_features_in_ fails where its first step is "passthrough".
    width = next(step.n_features_in_ for _, step in pipeline.steps if hasattr(step, "n_features_in_"))
    _check_width(width, signature)
    return _predict(pipeline), "skops"


def read_signature(content: bytes) -> Signature:
    """The signature, valid in itself."""
    try:
        signature = Signature.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelInvalidError(
            f"the artifact is refused: its signature: {where}: {first['msg']}; train it again"
        ) from error
    names = [feature.name for feature in signature.features]
    wrong = None
    if not names or len(set(names)) != len(names):
        wrong = "it has no features, or one of them twice"
    elif not (math.isfinite(signature.cut_off) and 0 <= signature.cut_off <= 1):
        wrong = f"the cut-off {signature.cut_off} is not between 0 and 1"
    elif not signature.examples:
        wrong = "it has no examples, so that the model can't be tested"
    elif not (math.isfinite(signature.tolerance) and signature.tolerance >= 0):
        wrong = f"the tolerance {signature.tolerance} is not a number of at least 0"
    if wrong:
        raise ModelInvalidError(f"the artifact is refused: its signature: {wrong}; train it again")
    return signature


def self_test(signature: Signature, encoder: Encoder, predict: Predict) -> tuple[float, Matrix]:
    """The largest difference from the examples' probabilities, and the examples as a matrix. ModelInvalidError, with
    the example, where a difference exceeds the signature's tolerance."""
    examples = signature.examples
    columns = {
        feature.name: [example.inputs.get(feature.name) for example in examples] for feature in signature.features
    }
    try:
        matrix = encoder.encode(columns, len(examples))
    except FeatureError as error:
        raise ModelInvalidError(
            f"the self-test failed: an example does not fit the signature: {error}; train it again"
        ) from error
    try:
        got = predict(matrix)
    except Exception as error:  # whatever scikit-learn says of a model that does not fit together
        raise ModelInvalidError(
            f"the self-test failed: the model does not answer ({type(error).__name__}: {error!s:.300}); train it again"
        ) from error
    expected = np.array([example.probability for example in examples])
    difference = np.abs(got - expected)
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    if not difference[worst] <= signature.tolerance:
        raise ModelInvalidError(
            f"the self-test failed: example {worst} ({_short(examples[worst].inputs)}): expected probability "
            f"{expected[worst]:.12g}, got {got[worst]:.12g}, tolerance {signature.tolerance:g}; "
            "this image does not compute what training computed: use one with the same scikit-learn, or train again"
        )
    return float(difference[worst]), matrix


def _short(inputs: dict[str, Any]) -> str:
    text = ", ".join(f"{name}={value!r}" for name, value in inputs.items())
    return text if len(text) <= 300 else text[:300] + " …"


def _predict(pipeline: Any) -> Predict:
    from sklearn import config_context

    def predict(matrix: Matrix) -> Matrix:
        # The encoder made this matrix: no second search for infinities, no check of parameters at each call.
        with config_context(assume_finite=True, skip_parameter_validation=True):
            probabilities = pipeline.predict_proba(matrix)
        return np.ascontiguousarray(probabilities[:, 1], dtype=np.float64)

    return predict

"""From an artifact's files to what answers: load the model, and see that it answers its examples as recorded.

The server does this before it is ready, the trainer before it judges a model that it did not train itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from truekeep.api.estimators import ONNX_ONLY
from truekeep.contract.artifact import Signature
from truekeep.contract.layout import MODEL_FILE, ONNX_FILE
from truekeep.features import compiled, imported
from truekeep.features.encode import Encoder, FeatureError
from truekeep.features.trust import UntrustedModelError, load_pipeline

Matrix: TypeAlias = npt.NDArray[np.float64]
Predict: TypeAlias = Callable[[Matrix], Matrix]  # (rows, features) -> probability of class 1, (rows,)


class ArtifactFaultError(ValueError):
    """An artifact that must not be used. The text is a sentence with the reason, without a remedy."""


class DifferentAnswerError(ArtifactFaultError):
    """The model answers an example otherwise than was recorded."""


def model_files(signature: Signature) -> set[str]:
    """The files that can answer; of a model that was imported from ONNX, or is published as ONNX alone, there is no
    other than that; of files that a team's own server alone knows, there is none."""
    if signature.imported and signature.imported.format == "opaque":
        return set()
    alone = signature.imported.format != "skops" if signature.imported else signature.estimator in ONNX_ONLY
    return {ONNX_FILE} if alone else {MODEL_FILE, ONNX_FILE}


def predictor(files: Mapping[str, bytes], signature: Signature) -> tuple[Predict, str]:
    """What answers, and its format, onnx or skops: the ONNX file where there is one. ArtifactFaultError where the file
    holds what must not be loaded, is damaged or does not fit the signature."""
    try:
        if not model_files(signature):
            raise UntrustedModelError("only spec.serving.image answers for it")
        if ONNX_FILE in files:
            if signature.imported and signature.imported.format == "onnx":
                return imported.onnx(files[ONNX_FILE], signature.imported, signature.features), "onnx"
            predict, width = compiled.load(files[ONNX_FILE])
            _check_width(width, signature)
            return predict, "onnx"
        if MODEL_FILE not in files:
            raise UntrustedModelError(f"it has neither {ONNX_FILE} nor {MODEL_FILE}")
        if signature.imported:
            model = imported.load_skops(files[MODEL_FILE])
            return imported.scikit_learn(model, signature.imported, signature.features), "skops"
        pipeline = load_pipeline(files[MODEL_FILE], signature.estimator)
    except UntrustedModelError as error:
        raise ArtifactFaultError(str(error)) from error
    # Pipeline's own n_features_in_ fails where its first step is "passthrough".
    _check_width(next(step.n_features_in_ for _, step in pipeline.steps if hasattr(step, "n_features_in_")), signature)
    return _predict(pipeline), "skops"


def read_signature(content: bytes) -> Signature:
    """The signature, valid in itself. ArtifactFaultError where it is not."""
    try:
        signature = Signature.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactFaultError(f"its signature: {where}: {first['msg']}") from error
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
        raise ArtifactFaultError(f"its signature: {wrong}")
    return signature


def examples_of(signature: Signature, encoder: Encoder) -> tuple[dict[str, list[Any]], Matrix]:
    """The examples as columns, as a client would send them, and as the model's matrix. ArtifactFaultError."""
    examples = signature.examples
    columns = {
        feature.name: [example.inputs.get(feature.name) for example in examples] for feature in signature.features
    }
    try:
        return columns, encoder.encode(columns, len(examples))
    except FeatureError as error:
        raise ArtifactFaultError(f"an example does not fit the signature: {error}") from error


def self_test(signature: Signature, encoder: Encoder, predict: Predict) -> tuple[float, Matrix]:
    """The largest difference from the examples' probabilities, and the examples as a matrix. ArtifactFaultError where
    the model does not answer; DifferentAnswerError, with the example, where it answers otherwise."""
    _, matrix = examples_of(signature, encoder)
    try:
        got = predict(matrix)
    except Exception as error:  # whatever scikit-learn says of a model that does not fit together
        raise ArtifactFaultError(f"the model does not answer ({type(error).__name__}: {error!s:.300})") from error
    return compare(signature, got, signature.tolerance), matrix


def compare(signature: Signature, got: Matrix, tolerance: float) -> float:
    """The largest difference of the answers to the examples, shape (examples,), from what was recorded.
    DifferentAnswerError, with the example, where it exceeds the tolerance."""
    examples = signature.examples
    expected = np.array([example.probability for example in examples])
    difference = np.abs(got - expected)
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    if not difference[worst] <= tolerance:
        raise DifferentAnswerError(
            f"example {worst} ({_short(examples[worst].inputs)}): expected probability {expected[worst]:.12g}, got "
            f"{got[worst]:.12g}, tolerance {tolerance:g}"
        )
    return float(difference[worst])


def _check_width(width: int, signature: Signature) -> None:
    if width != len(signature.features):
        raise ArtifactFaultError(f"the model takes {width} columns, but its signature lists {len(signature.features)}")


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

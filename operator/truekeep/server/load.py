"""From a digest to a model that has proved itself: fetch, check, load, test on the recorded examples, measure.

Whatever differs from what training wrote ends here: `ModelInvalidError`, which a second try cannot help.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from truekeep.contract.artifact import Manifest, Signature
from truekeep.contract.layout import MODEL_FILE, ONNX_FILE, SIGNATURE
from truekeep.contract.requests import ServeRequest
from truekeep.features import models
from truekeep.features.encode import Encoder
from truekeep.server.local_copy import keep, local_copy
from truekeep.server.logs import fields, log
from truekeep.server.scoring import Cost, Matrix, Predict, measure
from truekeep.storage import ArtifactInvalid, ObjectMissing, StoreError, artifacts
from truekeep.storage.folder import Folder
from truekeep.storage.s3 import Bucket

T = TypeVar("T")


class ModelInvalidError(Exception):
    """The artifact must not be served. The text is one sentence with reason and remedy."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that answered its examples as training did."""

    signature: Signature
    encoder: Encoder
    cost: Cost
    self_test_difference: float  # largest difference from an example's recorded probability
    format: str  # onnx, skops or image: what answers


@dataclass(frozen=True, kw_only=True)
class LoadedModel(ServedModel):
    """One that answers in this process."""

    predict: Predict


def fetch(
    request: ServeRequest,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    *,
    onnx: bool = True,
) -> dict[str, bytes]:
    """The artifact's signature and model file, checked against the digest: `model.onnx` where there is one and
    `onnx`, else the skops file. From the pod's own copy where that is whole, else from the store, of which a copy is
    kept. An unreachable store is tried again for `seconds`, with growing pauses; StoreError then. ModelInvalidError
    where what lies there is not this artifact."""
    folder = local_copy()
    if folder is not None and (files := _kept(folder, request.artifact_digest, onnx)):
        return files
    manifest, files = patiently(
        lambda bucket: _read(bucket, request.artifact_digest, onnx), request, seconds, sleep, clock
    )
    if folder is not None:
        keep(folder, manifest, files)
    return files


def patiently(
    read: Callable[[Bucket], T],
    request: ServeRequest,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What `read` returns of the request's store, which is tried again for `seconds` while it is unreachable;
    StoreError then. ModelInvalidError where the artifact is invalid."""
    end = clock() + seconds
    pause = 0.2
    while True:
        try:
            return read(Bucket.open(request.store, timeout_seconds=5))
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


def _read(source: artifacts.Readable, digest: str, onnx: bool) -> tuple[Manifest, dict[str, bytes]]:
    manifest = artifacts.read_manifest(source, digest)
    names = {file.path for file in manifest.files}
    model = ONNX_FILE if onnx and ONNX_FILE in names else MODEL_FILE
    return manifest, artifacts.read(source, digest, {model, SIGNATURE})


def _kept(folder: Folder, digest: str, onnx: bool) -> dict[str, bytes] | None:
    """The files from the pod's own copy; None where it is not there, or not whole."""
    try:
        _, files = _read(folder, digest, onnx)
    except (ArtifactInvalid, StoreError) as error:
        if not isinstance(error.__cause__, ObjectMissing):
            log.warning("the pod's own copy is not used", extra=fields(reason=str(error)))
        return None
    log.info("the model comes from the pod's own copy", extra=fields(digest=digest))
    return files


def obtain(request: ServeRequest, seconds: float) -> LoadedModel:
    """Fetch and load. Where onnxruntime does not answer the examples as training did, scikit-learn may."""
    files = fetch(request, seconds)
    try:
        return load(files)
    except ModelInvalidError as error:
        if ONNX_FILE not in files or models.model_files(read_signature(files[SIGNATURE])) == {ONNX_FILE}:
            raise
        log.warning("the ONNX file is not served, the skops file may be", extra=fields(reason=str(error)))
    return load(fetch(request, seconds, onnx=False))


def load(files: dict[str, bytes]) -> LoadedModel:
    """The model in an artifact's files, as ONNX where they hold it. ModelInvalidError where signature, types or the
    self-test are off."""
    signature = read_signature(files[SIGNATURE])
    with _refused():
        predict, kind = models.predictor(files, signature)
    encoder = Encoder(signature.features)
    difference, examples = self_test(signature, encoder, predict)
    return LoadedModel(
        signature=signature,
        encoder=encoder,
        predict=predict,
        cost=measure(predict, examples),
        self_test_difference=difference,
        format=kind,
    )


def read_signature(content: bytes) -> Signature:
    """The signature, valid in itself."""
    with _refused():
        return models.read_signature(content)


def examples_of(signature: Signature, encoder: Encoder) -> tuple[dict[str, list[Any]], Matrix]:
    """The examples as columns, as a client would send them, and as the model's matrix. ModelInvalidError."""
    with _failed("train it again"):
        return models.examples_of(signature, encoder)


def self_test(signature: Signature, encoder: Encoder, predict: Predict) -> tuple[float, Matrix]:
    """The largest difference from the examples' probabilities, and the examples as a matrix. ModelInvalidError, with
    the example, where a difference exceeds the signature's tolerance."""
    with _failed(
        "this image does not compute what training computed: use one with the same scikit-learn, or train again"
    ):
        return models.self_test(signature, encoder, predict)


def compare(signature: Signature, got: Matrix, tolerance: float, remedy: str) -> float:
    """The largest difference of the answers to the examples, shape (examples,), from what training recorded.
    ModelInvalidError, with the example and the remedy, where it exceeds the tolerance."""
    with _failed(remedy):
        return models.compare(signature, got, tolerance)


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except models.ArtifactFaultError as error:
        raise ModelInvalidError(f"the artifact is refused: {error}; train it again") from error


@contextmanager
def _failed(remedy: str) -> Iterator[None]:
    try:
        yield
    except models.ArtifactFaultError as error:
        known = isinstance(error, models.DifferentAnswerError)
        raise ModelInvalidError(f"the self-test failed: {error}; {remedy if known else 'train it again'}") from error

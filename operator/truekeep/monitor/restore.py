"""Reads the result of a run whose cluster is lost from the Model's store, and hands it over as the run's pod did.

`python -m truekeep.monitor.restore`; request in TRUEKEEP_REQUEST, result as termination message. Nothing is trained and
nothing written. The number of a revision, when it answered and how it failed are what the store's decisions say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from truekeep.contract import layout
from truekeep.contract.canonical import sha256
from truekeep.contract.heritage import Heritage, heritage
from truekeep.contract.requests import RestoreRequest
from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED, EXIT_OUTSIDE, FormerRun, TrainResult
from truekeep.monitor.errand import Done, run
from truekeep.storage import ObjectMissing, StoreError
from truekeep.storage import decisions as stored
from truekeep.storage.artifacts import Store
from truekeep.storage.s3 import Bucket

TEXT_KEPT = 512


class RestoreError(Exception):
    """What the store has is not what is to be restored, in words; a second try can't help."""


def restore(store: Store, request: RestoreRequest) -> TrainResult:
    """How the run ended then. RestoreError; StoreError where the store does not answer."""
    result = _result(store, request)
    known = heritage(stored.read(store, request.namespace, request.model).decisions, request.restore.model_uid)
    former = FormerRun(
        facts=known.facts(request.restore.run_uid),
        revision=_revision(request, result, known),
        **_told(_record(store, result)),
    )
    made = known.of_run(request.restore.run_uid)
    if made is not None:
        image = made.image or former.image
        former = former.model_copy(
            update={"finished": made.time, "author": made.author, "image": image, "image_id": made.image_id}
        )
    if result.artifact is not None:
        _whole(store, result.artifact.digest)
    return result.model_copy(update={"run_uid": request.run_uid, "former": former})


def _result(store: Store, request: RestoreRequest) -> TrainResult:
    key = layout.run_result(request.namespace, request.model, request.restore.run_uid)
    try:
        result = TrainResult.model_validate_json(store.get(key))
    except ObjectMissing:
        raise RestoreError(f"there is no {store.uri(key)}: is spec.store of the Model where it was?") from None
    except ValidationError as error:
        raise RestoreError(f"{store.uri(key)} is no result: {error.errors(include_url=False)[0]['msg']}") from None
    if result.run_uid != request.restore.run_uid:
        raise RestoreError(f"{store.uri(key)} is the result of run {result.run_uid}: it was moved or altered")
    return result


def _revision(request: RestoreRequest, result: TrainResult, known: Heritage) -> int | None:
    """The number that the store says; where nobody wrote one down, the one that is asked for, if it is a new one."""
    asked, made = request.restore.revision, known.of_run(request.restore.run_uid)
    if result.reason != "Succeeded" or result.artifact is None:
        return None
    if made is None:
        if asked is not None and asked <= known.latest:
            raise RestoreError(
                f"the store knows of {known.latest} as the highest number, and of no number of run {result.run_uid}: "
                f"{asked} can't be its; leave out spec.restore.revision"
            )
        return asked
    if asked not in (None, made.revision):
        raise RestoreError(f"run {result.run_uid} was revision {made.revision} by the store, not {asked}")
    if made.artifact_digest != result.artifact.digest:
        raise RestoreError(
            f"revision {made.revision} was registered as {made.artifact_digest}, but the result of its run says "
            f"{result.artifact.digest}: one of the two was altered"
        )
    return made.revision


def _record(store: Store, result: TrainResult) -> Mapping[str, Any]:
    """The run's record, nothing where it is lost."""
    if result.record is None:
        return {}
    key = layout.record(result.record.id)
    try:
        content = store.get(key)
    except ObjectMissing:
        return {}
    if sha256(content) != result.record.id:
        raise RestoreError(f"{store.uri(key)}: THE RECORD WAS ALTERED, do not trust it")
    record: Mapping[str, Any] = json.loads(content)
    return record


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    run, times = record.get("run") or {}, record.get("times") or {}
    image = (record.get("environment") or {}).get("image")
    return {
        "started": _moment(times.get("started")),
        "finished": _moment(times.get("finished")),
        "model_generation": run.get("modelGeneration"),
        "author": (run.get("author") or "")[:TEXT_KEPT] or None,
        "image": image[:TEXT_KEPT] if image else None,
    }


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).replace(microsecond=0) if text else None


def _whole(store: Store, digest: str) -> None:
    """The artifact's manifest is there, and it is the one that its name says. Servers check the files."""
    key = layout.artifact_file(digest, layout.MANIFEST)
    try:
        content = store.get(key)
    except ObjectMissing:
        raise RestoreError(f"there is no {store.uri(key)}: the artifact was deleted") from None
    if sha256(content) != digest:
        raise RestoreError(f"{store.uri(key)} has {sha256(content)}: THE ARTIFACT WAS ALTERED, do not trust it")


def main() -> int:
    """One run. The exit code is one of `contract.results`."""
    return run(RestoreRequest, "restoring", _work)


def _work(request: RestoreRequest) -> Done:
    try:
        result, code = restore(Bucket.open(request.store), request), EXIT_JUDGED
    except RestoreError as error:
        result, code = failed(request, "RestoreInvalid", str(error)), EXIT_INPUT
    except StoreError as error:
        result, code = failed(request, "StoreUnreachable", str(error)), EXIT_OUTSIDE
    words = f"run {request.restore.run_uid}: {result.reason}: {result.message}"
    return Done(words, result.to_message(), code)


def failed(request: RestoreRequest, reason: Any, message: str) -> TrainResult:
    """What is handed over where nothing could be restored."""
    return TrainResult(
        run_uid=request.run_uid,
        reason=reason,
        message=message[:2048],
        training_fingerprint=request.training_fingerprint,
    )


if __name__ == "__main__":
    sys.exit(main())

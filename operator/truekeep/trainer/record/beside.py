"""What is written beside a record: the report, the provenance, the events. Nothing of it is decided by, and no run may
fail for it: what can't be made is said in the log."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
from pydantic import ValidationError

from truekeep.api.evaluation import Evaluation
from truekeep.contract import layout
from truekeep.contract.artifact import UNKNOWN_TEXT, Performance, Signature, SignatureFeature
from truekeep.contract.background import ROWS as BACKGROUND_ROWS
from truekeep.contract.background import Background
from truekeep.contract.canonical import canonical_json
from truekeep.profiling.schema import Profile
from truekeep.storage import ArtifactInvalid, StoreError, artifacts
from truekeep.storage.artifacts import Store
from truekeep.trainer.fit import Say, Verdict
from truekeep.trainer.record import evidence, provenance, report
from truekeep.trainer.text import EPOCH

Record = Mapping[str, Any]


def write(
    store: Store, record: Record, digest: str, verdict: Verdict | None, evaluation: Evaluation, say: Say
) -> frozenset[str]:
    """What was written. Never raises. `record` is as it was written, under `digest`."""
    uri = store.uri(layout.record(digest))

    def statement() -> bytes | None:
        if verdict is None or not verdict.files:
            return None
        return canonical_json(provenance.statement(record, digest, uri, artifacts.manifest_of(verdict.files)))

    def events() -> bytes:
        return b"".join(canonical_json(one) + b"\n" for one in provenance.events(record, digest, uri))

    made: dict[str, Callable[[], bytes | None]] = {
        layout.REPORT: lambda: report.page(_told(store, record, digest, verdict, evaluation)).encode(),
        layout.PROVENANCE: statement,
        layout.EVENTS: events,
        layout.BACKGROUND: lambda: _background(verdict) if verdict else None,
    }
    written = set()
    for suffix, make in made.items():
        key = layout.beside_record(digest, suffix)
        try:
            content = make()
            if content is not None:
                store.put(key, content)
                say(f"wrote {store.uri(key)}")
                written.add(suffix)
        except Exception as error:  # a page is no reason to lose a model
            say(f"could not make {store.uri(key)}: {type(error).__name__}: {error!s:.300}; the run goes on without it")
    return frozenset(written)


def _told(store: Store, record: Record, digest: str, verdict: Verdict | None, evaluation: Evaluation) -> report.Told:
    champion = _champion(store, record)
    if verdict is None or verdict.judged is None:
        return report.Told(record, digest, champion=champion)
    found = evidence.gather(verdict.judged, evaluation, verdict.performance, verdict.fit_seconds)
    files = verdict.files
    return report.Told(
        record,
        digest,
        found,
        Signature.model_validate_json(files[layout.SIGNATURE]) if layout.SIGNATURE in files else None,
        Profile.model_validate_json(files[layout.PROFILE]) if layout.PROFILE in files else None,
        champion,
    )


def _background(verdict: Verdict) -> bytes | None:
    """Some of the rows that judged the model, as requests give them; None where it is not published."""
    if verdict.judged is None or not verdict.files:
        return None
    features, matrix = verdict.judged.features, verdict.judged.matrix
    chosen = np.unique(np.linspace(0, len(matrix) - 1, min(len(matrix), BACKGROUND_ROWS)).astype(np.int64))
    rows = [{one.name: _given(one, value) for one, value in zip(features, matrix[row], strict=True)} for row in chosen]
    return canonical_json(Background(rows=rows).model_dump(mode="json", by_alias=True))


def _given(feature: SignatureFeature, value: float) -> float | str | None:
    """A cell of the model's matrix, as a request gives it."""
    if np.isnan(value):
        return None
    if feature.type == "Time":
        return (EPOCH + timedelta(microseconds=round(float(value)))).isoformat()
    if feature.type != "Category":
        return float(value)
    categories = feature.categories or []
    return categories[int(value)] if 0 <= value < len(categories) else UNKNOWN_TEXT


def _champion(store: Store, record: Record) -> report.Champion | None:
    """The live revision's signature and results."""
    previous = record["previous"]
    if previous is None:
        return None
    try:
        names = {file.path for file in artifacts.read_manifest(store, previous["artifactDigest"]).files}
        wanted = names & {layout.SIGNATURE, layout.PERFORMANCE}
        files = artifacts.read(store, previous["artifactDigest"], wanted)
        return report.Champion(
            Signature.model_validate_json(files[layout.SIGNATURE]) if layout.SIGNATURE in files else None,
            Performance.model_validate_json(files[layout.PERFORMANCE]) if layout.PERFORMANCE in files else None,
        )
    except (ArtifactInvalid, StoreError, ValidationError, json.JSONDecodeError) as error:
        return report.Champion(fault=str(error))

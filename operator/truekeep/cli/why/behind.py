"""What stands behind a captured row: the artifact that answered, the record of the run that made it, and who decided
that it may. Whatever does not hold together is a fault, and said; whatever is not known is said, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from truekeep.cli.ledger import Ledger
from truekeep.cli.why.find import Row
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.contract.background import Background
from truekeep.contract.canonical import sha256
from truekeep.contract.decisions import Decision
from truekeep.contract.results import TrainResult
from truekeep.features import models
from truekeep.storage import ArtifactInvalid, ObjectMissing, artifacts
from truekeep.storage.artifacts import Store

THREADS = 8
_RESULT = "/result.json"


@dataclass
class Behind:
    """All of it, as far as it is known. `faults`: what was altered or lost; `gaps`: what nobody wrote down."""

    artifact: str | None = None
    run: str | None = None
    record_id: str | None = None
    record_uri: str | None = None
    report_uri: str | None = None
    record: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    signature: Signature | None = None
    background: tuple[dict[str, float | str | None], ...] = ()
    background_is: str = ""
    decisions: tuple[Decision, ...] = ()  # about this artifact
    faults: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


class Archive:
    """The store, read once for all rows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._results: dict[tuple[str, str], list[TrainResult]] = {}
        self._known: dict[tuple[str, str, str | None], Behind] = {}

    def behind(self, row: Row, ledger: Ledger, artifact: str | None = None) -> Behind:
        """What stands behind a row. `artifact`: a digest that somebody gave. StoreError where the store does not
        answer."""
        registered = ledger.revisions().get(row.revision)
        digest = row.artifact or artifact or (registered.artifact_digest if registered else None)
        key = (row.namespace, row.model, f"{digest}/{row.run}/{row.revision}/{row.format}")
        if key not in self._known:
            self._known[key] = self._gather(row, digest, ledger, registered)
        return self._known[key]

    def _gather(self, row: Row, digest: str | None, ledger: Ledger, registered: Decision | None) -> Behind:
        found = Behind(artifact=digest, run=row.run, faults=list(ledger.faults))
        if digest is None:
            found.gaps.append(
                f"which artifact revision {row.revision} is: the capture file does not say (it is older than 0.3), and "
                "neither the store's decisions nor the cluster do; give it with --artifact"
            )
            return found
        if registered is not None and registered.artifact_digest != digest and registered.run == row.run:
            found.faults.append(
                f"revision {row.revision} was registered as {registered.artifact_digest}, but {digest} answered"
            )
        found.decisions = tuple(ledger.about(digest))
        self._record(row, found, registered)
        self._artifact(row, found)
        return found

    def _record(self, row: Row, found: Behind, registered: Decision | None) -> None:
        identifier = None
        if registered is not None and registered.artifact_digest == found.artifact:
            identifier, found.run = registered.record, found.run or registered.run
        candidates = [identifier] if identifier else self._records_of(row, found.artifact)
        for candidate in candidates:
            record = self._read_record(candidate, found)
            name = (record or {}).get("run", {}).get("name")
            if record is not None and (found.run is None or name == found.run or len(candidates) == 1):
                found.record_id, found.record, found.run = candidate, record, name or found.run
                key = layout.record(candidate)
                found.record_uri = self._store.uri(key)
                report = layout.beside_record(candidate, layout.REPORT)
                found.report_uri = self._store.uri(report) if self._exists(report) else None
                return
        if not candidates:
            runs = self._store.uri(f"{row.namespace}/{row.model}/runs/")
            found.gaps.append(f"the record: no run below {runs} made this artifact")

    def _read_record(self, identifier: str, found: Behind) -> Mapping[str, Any] | None:
        key = layout.record(identifier)
        try:
            content = self._store.get(key)
        except ObjectMissing:
            found.faults.append(f"{self._store.uri(key)} is missing: the record was taken away or lost")
            return None
        if (seen := sha256(content)) != identifier:
            found.faults.append(f"{self._store.uri(key)} has {seen}: THE RECORD WAS ALTERED, do not trust it")
            return None
        record: Mapping[str, Any] = json.loads(content)
        return record

    def _records_of(self, row: Row, artifact: str | None) -> list[str]:
        """Records of the runs that made an artifact: several, where the same inputs were trained again."""
        of = (row.namespace, row.model)
        if of not in self._results:
            keys = [
                info.key
                for info in self._store.list(f"{row.namespace}/{row.model}/runs/")
                if info.key.endswith(_RESULT) and info.key.count("/") == 4
            ]
            with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as pool:
                self._results[of] = [one for one in pool.map(self._result, keys) if one is not None]
        made = [one for one in self._results[of] if one.artifact and one.artifact.digest == artifact and one.record]
        return [one.record.id for one in made if one.record]

    def _result(self, key: str) -> TrainResult | None:
        try:
            return TrainResult.model_validate_json(self._store.get(key))
        except (ObjectMissing, ValidationError):
            return None

    def _exists(self, key: str) -> bool:
        return next(iter(self._store.list(key)), None) is not None

    def _artifact(self, row: Row, found: Behind) -> None:
        """The files that answer, as they are named and checked by their digests."""
        assert found.artifact is not None
        try:
            there = {file.path for file in artifacts.read_manifest(self._store, found.artifact).files}
            content = artifacts.read(self._store, found.artifact, {layout.SIGNATURE})
            found.signature = models.read_signature(content[layout.SIGNATURE])
            wanted = models.model_files(found.signature) & there
            if row.format == "skops":  # onnxruntime did not answer its examples there
                wanted -= {layout.ONNX_FILE}
            elif layout.ONNX_FILE in wanted:
                wanted = {layout.ONNX_FILE}
            found.files = artifacts.read(self._store, found.artifact, wanted)
        except (ArtifactInvalid, models.ArtifactFaultError) as error:
            found.faults.append(f"THE ARTIFACT CAN'T BE TRUSTED: {error}")
            return
        self._background(found)

    def _background(self, found: Behind) -> None:
        if found.record_id is not None:
            try:
                content = self._store.get(layout.beside_record(found.record_id, layout.BACKGROUND))
                found.background = tuple(Background.model_validate_json(content).rows)
                found.background_is = f"{len(found.background)} rows that judged the model"
            except ObjectMissing:
                pass
            except ValidationError as error:
                said = error.errors(include_url=False)[0]["msg"]
                found.faults.append(f"the background rows beside the record are no such: {said}")
        if not found.background and found.signature is not None:
            found.background = tuple(dict(one.inputs) for one in found.signature.examples)
            found.background_is = f"the {len(found.background)} examples of the artifact, the only rows that it has"

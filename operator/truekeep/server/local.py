"""An artifact in a folder of this machine, served by the same process as in a pod; no store, no capture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from truekeep.api.common import S3Location
from truekeep.contract.artifact import Signature
from truekeep.contract.canonical import sha256
from truekeep.contract.layout import MANIFEST, MODEL_FILE, ONNX_FILE, SIGNATURE
from truekeep.contract.requests import ServeRequest
from truekeep.server.limits import Limits
from truekeep.server.load import LoadedModel, ModelInvalidError, ServedModel, load
from truekeep.server.process import Process, in_thread
from truekeep.server.scoring import Scorer
from truekeep.storage import ArtifactInvalid, StoreError, artifacts
from truekeep.storage.folder import Folder
from truekeep.storage.s3 import Fetched

NOWHERE = S3Location(uri="s3://this-machine/")  # no request is ever sent there
# Columns that a request may carry beside the features; no feature may be called so.
TIME_COLUMN, KEY = "truekeep.time", "truekeep.key"


class _Flat(Folder):
    """An artifact's files as they lie in one folder."""

    def fetch(
        self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None, limit: int | None = None
    ) -> Fetched:
        return super().fetch(key.rpartition("/")[2], span=span, limit=limit)


def read(folder: Path) -> tuple[str, dict[str, bytes]]:
    """The artifact's digest and what a server needs of it, checked. ModelInvalidError where it is none, or altered."""
    try:
        flat = _Flat(folder)
        digest = sha256(flat.fetch(MANIFEST, limit=artifacts.MANIFEST_LIMIT).data)
        names = {file.path for file in artifacts.read_manifest(flat, digest).files}
        return digest, artifacts.read(flat, digest, (names & {MODEL_FILE, ONNX_FILE}) | {SIGNATURE})
    except (ArtifactInvalid, StoreError) as error:
        raise ModelInvalidError(f"{folder}: is no artifact: {error}") from error


def load_any(files: dict[str, bytes]) -> LoadedModel:
    """As ONNX where that answers the examples, else by scikit-learn. ModelInvalidError."""
    try:
        return load(files)
    except ModelInvalidError:
        if not {MODEL_FILE, ONNX_FILE} <= files.keys():
            raise
        return load({name: content for name, content in files.items() if name != ONNX_FILE})


def request(name: str, digest: str) -> ServeRequest:
    """What a pod would be asked."""
    return ServeRequest(
        namespace="local",
        model=name,
        revision=1,
        run="local",
        artifact_digest=digest,
        store=NOWHERE,
        time_column=TIME_COLUMN,
        key=KEY,
    )


class LocalProcess(Process):
    """A server of a folder's artifact. `ready` is told the port and the signature once it answers."""

    def __init__(self, name: str, folder: Path, limits: Limits, ready: Callable[[int, Signature], None]) -> None:
        digest, self._files = read(folder)
        super().__init__(request(name, digest), limits, time.time())
        self._ready = ready

    async def _obtain(self) -> tuple[ServedModel, Scorer]:
        model = await in_thread(lambda: load_any(self._files))
        return model, Scorer(model.predict, model.cost, self._limits.inline_seconds)

    def _say_ready(self, model: ServedModel) -> None:
        super()._say_ready(model)
        self._ready(self.port, model.signature)

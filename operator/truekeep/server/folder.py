"""An artifact as a folder: what an init container puts there for a team's own server, and what is read back.

`python -m truekeep.server fetch` is that init container: exit code 0, 3 (the artifact is invalid) or 4 (no store).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from truekeep.contract.artifact import Manifest
from truekeep.contract.canonical import sha256
from truekeep.contract.layout import MANIFEST
from truekeep.contract.requests import MODEL_DIR, MODEL_DIR_ENV, ServeRequest
from truekeep.contract.results import EXIT_INPUT, EXIT_OUTSIDE
from truekeep.server.limits import Limits
from truekeep.server.load import ModelInvalidError, patiently
from truekeep.server.logs import fields, last_words, log
from truekeep.storage import StoreError, artifacts
from truekeep.storage.s3 import Bucket

READABLE = 0o444


def place() -> Path:
    """The folder, as the pod says."""
    return Path(os.environ.get(MODEL_DIR_ENV, MODEL_DIR))


def fetch(request: ServeRequest, limits: Limits) -> int:
    """Write the artifact's files, each checked, into the folder; the exit code."""
    try:
        size = patiently(lambda bucket: _write(bucket, request.artifact_digest, place()), request, limits.load_seconds)
    except ModelInvalidError as error:
        return _failed(EXIT_INPUT, "the artifact is invalid", str(error))
    except StoreError as error:
        return _failed(EXIT_OUTSIDE, "the store did not answer in time", str(error))
    except OSError as error:
        return _failed(1, "the artifact could not be written", f"{place()}: {error}")
    log.info("fetched", extra=fields(digest=request.artifact_digest, folder=str(place()), bytes=size))
    return 0


def _failed(code: int, what: str, reason: str) -> int:
    log.error(what, extra=fields(reason=reason, exit_code=code))
    last_words(reason)
    return code


def _write(bucket: Bucket, digest: str, folder: Path) -> int:
    """All files, one after the other, so that no more than one is held; the bytes written. The manifest is last."""
    manifest = artifacts.read_manifest(bucket, digest)
    for file in manifest.files:
        (content,) = artifacts.read(bucket, digest, {file.path}).values()
        _put(folder / file.path, content)
    _put(folder / MANIFEST, manifest.to_bytes())
    return sum(file.size for file in manifest.files)


def _put(path: Path, content: bytes) -> None:
    """Whole or not at all: an init container may be run again."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.write_bytes(content)
    new.chmod(READABLE)
    new.replace(path)


def read(folder: Path, digest: str, name: str) -> bytes:
    """One file, checked against the manifest, and the manifest against the digest. ModelInvalidError."""
    try:
        listed = (folder / MANIFEST).read_bytes()
        if sha256(listed) != digest:
            raise ModelInvalidError(f"{folder / MANIFEST} is not that of {digest}; delete the pod")
        expected = {file.path: file.sha256 for file in Manifest.model_validate_json(listed).files}
        content = (folder / name).read_bytes()
    except (OSError, ValidationError) as error:
        raise ModelInvalidError(f"the artifact in {folder} can't be read: {error}") from error
    if sha256(content) != expected.get(name):
        raise ModelInvalidError(f"{folder / name} has not the sha256 that its manifest says; delete the pod")
    return content

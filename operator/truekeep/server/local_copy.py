"""The pod's own copy of what it serves: a container that is restarted comes back without the store.

It lies in a volume that lives as long as the pod. Every start checks it against the digest as what comes from the store
is checked; what does not fit is fetched again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from truekeep.contract.artifact import Manifest
from truekeep.contract.layout import MANIFEST, artifact_file
from truekeep.contract.requests import CACHE_DIR_ENV, DEFAULT_CACHE_DIR
from truekeep.server.logs import fields, log
from truekeep.storage import StoreError
from truekeep.storage.folder import Folder

MAX_BYTES = 512 << 20  # half of the volume's size: a larger artifact is fetched at every start


def local_copy(environment: Mapping[str, str] = os.environ) -> Folder | None:
    """Where copies are kept; None where there is no such folder, as on a laptop."""
    path = Path(environment.get(CACHE_DIR_ENV, DEFAULT_CACHE_DIR))
    return Folder(path) if path.is_dir() and os.access(path, os.W_OK) else None


def keep(folder: Folder, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Keep these files of an artifact. A disk that is full, say, is no reason not to serve."""
    size = sum(len(content) for content in files.values())
    if size > MAX_BYTES:
        log.warning("no copy of the artifact is kept", extra=fields(bytes=size, limit=MAX_BYTES))
        return
    try:
        for name, content in files.items():
            folder.put(artifact_file(manifest.digest(), name), content)
        folder.put(artifact_file(manifest.digest(), MANIFEST), manifest.to_bytes())
    except StoreError as error:
        log.warning("no copy of the artifact is kept", extra=fields(reason=str(error)))

"""Artifacts by digest: written blobs first and manifest last, checked byte by byte when read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from pydantic import ValidationError

from truekeep.api.trainingrun import Artifact
from truekeep.contract import layout
from truekeep.contract.artifact import ArtifactFile, Manifest
from truekeep.contract.canonical import sha256
from truekeep.storage.errors import ArtifactInvalid, ObjectMissing, ObjectTooLarge
from truekeep.storage.s3 import Fetched, ObjectInfo

MANIFEST_LIMIT = 1 << 20  # bytes
FILES_LIMIT = 100


class Readable(Protocol):
    """Where an artifact lies: a bucket, or a folder."""

    @property
    def endpoint(self) -> str:
        """Whose it is, for messages."""

    def uri(self, key: str = "") -> str:
        """The key's full address."""

    def fetch(self, key: str, *, limit: int | None = None) -> Fetched:
        """The bytes. ObjectMissing where there are none, ObjectTooLarge where there are more than `limit`."""


class Store(Readable, Protocol):
    """Where artifacts and records are written, too: a bucket, or a folder."""

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """What lies below a prefix, in the order of the keys."""

    def get(self, key: str) -> bytes:
        """The bytes. ObjectMissing where there are none."""

    def fetch(
        self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None, limit: int | None = None
    ) -> Fetched:
        """The bytes, of one version where the store keeps some; only `span` (offset, length) of them."""

    def put(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        """Write them; False, where there are some already and they must stay."""


def write(bucket: Store, files: Mapping[str, bytes]) -> Artifact:
    """Write the artifact that these files make, the manifest last, so that a half upload is no artifact.
    The same files make the same artifact; one that is there already and whole is not written again."""
    manifest = manifest_of(files)
    digest = manifest.digest()
    key = layout.artifact_file(digest, layout.MANIFEST)
    if not _is_whole(bucket, digest):
        for path, content in files.items():
            bucket.put(layout.artifact_file(digest, path), content)
        bucket.put(key, manifest.to_bytes())
    return Artifact(
        digest=digest,
        uri=bucket.uri(layout.artifact_file(digest, "")),
        size_bytes=sum(file.size for file in manifest.files),
        format="+".join(name.partition(".")[2] for name in (layout.MODEL_FILE, layout.ONNX_FILE) if name in files),
    )


def _is_whole(bucket: Store, digest: str) -> bool:
    try:
        read(bucket, digest)
    except ArtifactInvalid:
        return False
    return True


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    """The manifest of these files. ValueError for a name that a manifest may not hold."""
    if layout.MANIFEST in files:
        raise ValueError(f"an artifact's file must not be called {layout.MANIFEST}")
    entries = [ArtifactFile(path=path, sha256=sha256(content), size=len(content)) for path, content in files.items()]
    return Manifest(files=entries)


def read(bucket: Readable, digest: str, only: set[str] | None = None) -> dict[str, bytes]:
    """The files of an artifact by name, all or `only` some, each checked against the manifest, and the manifest
    against the digest. ArtifactInvalid where anything differs or is missing; nothing is returned then."""
    manifest = read_manifest(bucket, digest)
    names = {file.path for file in manifest.files}
    if only is not None and not only <= names:
        missing = ", ".join(sorted(only - names))
        raise ArtifactInvalid(f"artifact {digest} has no {missing}; it has {', '.join(sorted(names))}")
    return {file.path: _read_file(bucket, digest, file) for file in manifest.files if only is None or file.path in only}


def read_manifest(bucket: Readable, digest: str) -> Manifest:
    """The manifest of an artifact, checked. ArtifactInvalid where it is missing, altered, or names odd files."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ArtifactInvalid(f"{digest[:80]!r} is no digest; give sha256: and 64 hexadecimal digits")
    key = layout.artifact_file(digest, layout.MANIFEST)
    where = f"{bucket.uri(key)} at {bucket.endpoint}"
    try:
        content = bucket.fetch(key, limit=MANIFEST_LIMIT).data
    except ObjectMissing as error:
        raise ArtifactInvalid(
            f"{where} is missing: the artifact's upload was never finished, or this is another store; train again"
        ) from error
    if (found := sha256(content)) != digest:
        raise ArtifactInvalid(f"{where} has {found}, not its artifact's digest; it was altered, do not trust it")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        raise ArtifactInvalid(f"{where} is not valid at {at}: {first['msg']}") from error
    names = [file.path for file in manifest.files]
    if len(names) > FILES_LIMIT or len(set(names)) != len(names) or layout.MANIFEST in names:
        raise ArtifactInvalid(f"{where} names a file twice, itself, or more than {FILES_LIMIT} files")
    return manifest


def _read_file(bucket: Readable, digest: str, file: ArtifactFile) -> bytes:
    key = layout.artifact_file(digest, file.path)
    where = bucket.uri(key)
    try:
        content = bucket.fetch(key, limit=file.size).data
    except ObjectMissing as error:
        raise ArtifactInvalid(f"{where} is missing; restore it from a copy, or train again") from error
    except ObjectTooLarge as error:
        raise ArtifactInvalid(
            f"{where} is larger than the {file.size} bytes of its manifest; it was altered, do not trust it"
        ) from error
    if len(content) != file.size or sha256(content) != file.sha256:
        raise ArtifactInvalid(
            f"{where} has not the {file.size} bytes of {file.sha256} that its manifest says; "
            "it was altered, do not trust it"
        )
    return content

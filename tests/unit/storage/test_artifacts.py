"""An artifact is whole and what its digest says, or it is refused."""

from __future__ import annotations

import pytest
from tests.unit.conftest import Versitygw

from truekeep.contract import layout
from truekeep.contract.artifact import ArtifactFile, Manifest
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.storage import ArtifactInvalid, StoreDenied, StoreUnreachable, artifacts
from truekeep.storage.s3 import Bucket

FILES = {"model.skops": b"model" * 100, "signature.json": b"{}", "profile.json": b""}


def test_what_was_written_is_read_by_digest(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket("models/")
    artifact = artifacts.write(bucket, FILES)
    assert artifacts.read(bucket, artifact.digest) == FILES
    assert artifacts.read(bucket, artifact.digest, {"signature.json"}) == {"signature.json": b"{}"}
    assert artifact.size_bytes == 502
    assert artifact.uri == bucket.uri(layout.artifact_file(artifact.digest, ""))
    assert artifact.digest == artifacts.manifest_of(dict(reversed(FILES.items()))).digest()


def test_the_manifest_is_written_last(versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = versitygw.bucket()
    written: list[str] = []
    put = Bucket.put

    def watch(self: Bucket, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        written.append(key.rsplit("/", 1)[-1])
        return put(self, key, data, only_if_absent)

    monkeypatch.setattr(Bucket, "put", watch)
    artifacts.write(bucket, FILES)
    assert sorted(written[:-1]) == sorted(FILES)
    assert written[-1] == "manifest.json"
    artifacts.write(bucket, FILES)
    assert len(written) == 4, "what is there is not written again"


def test_a_half_upload_is_no_artifact_and_is_mended_by_the_next(
    versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = versitygw.bucket()
    put = Bucket.put

    def breaks(self: Bucket, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        if key.endswith("manifest.json"):
            raise StoreUnreachable("gone")
        return put(self, key, data, only_if_absent)

    digest = artifacts.manifest_of(FILES).digest()
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put", breaks)
        with pytest.raises(StoreUnreachable):
            artifacts.write(bucket, FILES)
    assert bucket.exists(layout.artifact_file(digest, "model.skops"))
    with pytest.raises(ArtifactInvalid, match=r"manifest\.json at .* is missing: the artifact's upload was never"):
        artifacts.read(bucket, digest)
    assert artifacts.write(bucket, FILES).digest == digest
    assert artifacts.read(bucket, digest) == FILES


@pytest.mark.parametrize("content", [b"modeL" * 100, b"short", b"longer" * 500])
def test_an_altered_file_is_refused(versitygw: Versitygw, content: bytes) -> None:
    bucket = versitygw.bucket()
    digest = artifacts.write(bucket, FILES).digest
    bucket.put(layout.artifact_file(digest, "model.skops"), content)
    with pytest.raises(ArtifactInvalid, match=r"model\.skops.*do not trust it"):
        artifacts.read(bucket, digest)
    assert artifacts.read(bucket, digest, {"signature.json"}) == {"signature.json": b"{}"}


def test_an_altered_artifact_is_mended_by_who_makes_it_again(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket()
    digest = artifacts.write(bucket, FILES).digest
    bucket.put(layout.artifact_file(digest, "model.skops"), b"altered")
    assert artifacts.write(bucket, FILES).digest == digest
    assert artifacts.read(bucket, digest) == FILES


def test_a_lost_file_is_named(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket()
    digest = artifacts.write(bucket, FILES).digest
    versitygw.client().delete_object(Bucket=bucket.name, Key=layout.artifact_file(digest, "model.skops"))
    with pytest.raises(ArtifactInvalid, match=r"model\.skops is missing"):
        artifacts.read(bucket, digest)


def test_an_altered_manifest_is_refused(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket()
    digest = artifacts.write(bucket, FILES).digest
    bucket.put(layout.artifact_file(digest, "manifest.json"), artifacts.manifest_of({"a": b"b"}).to_bytes())
    with pytest.raises(ArtifactInvalid, match="was altered"):
        artifacts.read(bucket, digest)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "a/b", "..", ".hidden", "MODEL", "", "x" * 64, "a\n"])
def test_a_manifest_that_leaves_its_folder_is_refused(versitygw: Versitygw, path: str) -> None:
    """Also where its digest is right: the name of an artifact says nothing of who made it."""
    file = {"path": path, "sha256": sha256(b""), "size": 0}
    _refused(versitygw, canonical_json({"schema": "truekeep.dev/artifact/v1", "files": [file]}), "not valid at files")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([ArtifactFile(path="a", sha256=sha256(b""), size=0)] * 2, "names a file twice"),
        ([ArtifactFile(path="manifest.json", sha256=sha256(b""), size=0)], "itself"),
        ([ArtifactFile(path=f"f{number}", sha256=sha256(b""), size=0) for number in range(101)], "more than 100"),
    ],
)
def test_an_odd_manifest_is_refused(versitygw: Versitygw, files: list[ArtifactFile], words: str) -> None:
    _refused(versitygw, Manifest(files=files).to_bytes(), words)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": "else", "files": []}'])
def test_a_manifest_that_is_none_is_refused(versitygw: Versitygw, content: bytes) -> None:
    _refused(versitygw, content, "not valid")


def _refused(versitygw: Versitygw, manifest: bytes, words: str) -> None:
    bucket = versitygw.bucket()
    digest = sha256(manifest)
    bucket.put(layout.artifact_file(digest, "manifest.json"), manifest)
    with pytest.raises(ArtifactInvalid, match=words):
        artifacts.read(bucket, digest)


@pytest.mark.parametrize("digest", ["", "sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"])
def test_what_is_no_digest_is_never_asked_for(versitygw: Versitygw, digest: str) -> None:
    with pytest.raises(ArtifactInvalid, match="is no digest"):
        artifacts.read(versitygw.bucket(), digest)


def test_files_that_a_manifest_has_not_are_named(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket()
    digest = artifacts.write(bucket, FILES).digest
    with pytest.raises(ArtifactInvalid, match=r"has no model\.onnx; it has model\.skops, profile\.json"):
        artifacts.read(bucket, digest, {"model.onnx"})


def test_a_file_must_not_be_called_manifest() -> None:
    with pytest.raises(ValueError, match=r"manifest\.json"):
        artifacts.manifest_of({"manifest.json": b""})


def test_a_fault_of_the_store_is_no_fault_of_the_artifact(versitygw: Versitygw) -> None:
    from truekeep.api.common import LocalObjectReference

    location = versitygw.location().model_copy(update={"credentials_secret_ref": LocalObjectReference(name="wrong")})
    with pytest.raises(StoreDenied):
        artifacts.read(Bucket.open(location), "sha256:" + "a" * 64)

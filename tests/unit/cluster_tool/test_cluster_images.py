"""Archives that are written and read without an image builder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.containers import archived_names, full_name
from tests.cluster.errors import ClusterError
from tests.cluster.images import BinaryImage, write_archive


@pytest.fixture
def image(tmp_path: Path) -> BinaryImage:
    binary = tmp_path / "tool"
    binary.write_bytes(b"\x7fELF" + b"x" * 1000)
    return BinaryImage("localhost/test/tool:1", binary, "65532:65532", ("run",))


def tar_of(archive: Path, **files: Any) -> Path:
    with tarfile.open(archive, "w") as tar:
        for name, document in files.items():
            content = json.dumps(document).encode()
            entry = tarfile.TarInfo(f"{name}.json")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive


def test_an_archive_holds_every_blob_under_its_digest(image: BinaryImage, tmp_path: Path) -> None:
    archive = tmp_path / "tool.tar"
    write_archive(image, archive, "x86_64")
    with tarfile.open(archive) as tar:
        blobs = {m.name: tar.extractfile(m).read() for m in tar if m.name.startswith("blobs/")}  # type: ignore[union-attr]
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert all(name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}" for name, content in blobs.items())

    def blob(descriptor: dict[str, Any]) -> bytes:
        content = blobs[descriptor["digest"].replace("sha256:", "blobs/sha256/")]
        assert len(content) == descriptor["size"]
        return content

    manifest = json.loads(blob(index["manifests"][0]))
    config = json.loads(blob(manifest["config"]))
    (layer,) = manifest["layers"]
    assert config["architecture"] == "amd64"
    assert config["config"]["Entrypoint"] == ["/tool", "run"]
    assert config["config"]["User"] == "65532:65532"
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    with tarfile.open(fileobj=io.BytesIO(blob(layer))) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.mode) == ("tool", 0o755)


def test_the_same_binary_gives_the_same_archive(image: BinaryImage, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_archive(image, tmp_path / name, "x86_64")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_are_read_from_both_kinds_of_archive(image: BinaryImage, tmp_path: Path) -> None:
    write_archive(image, tmp_path / "oci.tar", "x86_64")
    assert archived_names(tmp_path / "oci.tar") == ["localhost/test/tool:1"]
    docker = tar_of(tmp_path / "docker.tar", manifest=[{"RepoTags": ["localhost/a:1", "localhost/b:2"]}])
    assert archived_names(docker) == ["localhost/a:1", "localhost/b:2"]
    name = {"org.opencontainers.image.ref.name": "localhost/truekeep/operator:dev"}
    buildah = tar_of(tmp_path / "buildah.tar", index={"manifests": [{"annotations": name}]})
    assert archived_names(buildah) == ["localhost/truekeep/operator:dev"]


def test_an_archive_without_a_name_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for number, index in enumerate([{"manifests": [{}]}, {"manifests": []}, {}]):
        archive = tar_of(tmp_path / f"{number}.tar", index=index)
        with pytest.raises(ClusterError, match="names no image: write it as oci-archive:FILE:NAME:TAG"):
            archived_names(archive)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(ClusterError, match="is no archive of an image"):
        archived_names(tmp_path / "text")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("app:1", "docker.io/library/app:1"),
        ("truekeep/operator:1", "docker.io/truekeep/operator:1"),
        ("localhost/operator:1", "localhost/operator:1"),
        ("registry.example:5000/a/b:1", "registry.example:5000/a/b:1"),
        ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
    ],
)
def test_names_are_made_full_as_the_kubelet_asks_for_them(name: str, full: str) -> None:
    assert full_name(name) == full

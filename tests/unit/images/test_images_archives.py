"""Looking into image archives, and which of them are old."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from images import archives

Layer = dict[str, bytes | None]  # None: a folder


def tar_of(entries: Layer) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_archive(path: Path, layers: list[Layer], name: str = "truekeep/x:dev-1", link: bool = False) -> Path:
    config = {
        "config": {"User": "65532:65532"},
        "history": [
            {"created_by": "ENV", "empty_layer": True},
            *({"created_by": f"COPY {i}"} for i in range(len(layers))),
        ],
    }
    manifest = [{"Config": "c.json", "RepoTags": [name], "Layers": [f"{i}/layer.tar" for i in range(len(layers))]}]
    with tarfile.open(path, "w") as tar:
        for member, content in {
            "c.json": json.dumps(config).encode(),
            "manifest.json": json.dumps(manifest).encode(),
            **{f"blob{i}": tar_of(layer) for i, layer in enumerate(layers)},
        }.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for i in range(len(layers)):
            info = tarfile.TarInfo(f"{i}/layer.tar")
            info.type, info.linkname = tarfile.SYMTYPE, f"../blob{i}"
            tar.addfile(info)
    return path


def test_later_layers_replace_delete_and_hide_what_is_below(tmp_path: Path) -> None:
    archive = write_archive(
        tmp_path / "a.tar",
        [
            {"./usr/": None, "usr/kept": b"1234", "usr/old": b"12345678", "var/cache/a": b"1", "var/cache/b/c": b"12"},
            {"usr/old": b"12", "var/.wh.cache": b""},
            {"usr/.wh.kept": b"", "opt/a": b"1", "opt/b": b"1"},
            {"opt/.wh..wh..opq": b"", "opt/c": b"123"},
        ],
    )
    contents = archives.read(archive)
    assert contents.files == {"usr/old": 2, "opt/c": 3}
    assert contents.unpacked_bytes == 5
    assert contents.layers == (("COPY 0", 15), ("COPY 1", 2), ("COPY 2", 2), ("COPY 3", 3))
    assert contents.config == {"User": "65532:65532"}
    assert contents.repo_tags == ("truekeep/x:dev-1",)


def test_packages_are_the_names_right_below_a_folder(tmp_path: Path) -> None:
    archive = write_archive(
        tmp_path / "a.tar", [{"lib/numpy/a": b"", "lib/numpy/b/c": b"", "lib/six.py": b"", "x": b""}]
    )
    assert archives.read(archive).packages("lib") == {"numpy", "six.py"}


@pytest.mark.parametrize("content", [b"", b"no archive", tar_of({"other": b""})])
def test_what_is_no_archive_of_an_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises((tarfile.TarError, KeyError)):
        archives.read(path)


def test_a_summary_stands_only_beside_its_archive(tmp_path: Path) -> None:
    archive = tmp_path / "server-dev-1.tar"
    summary = archives.Summary("truekeep/server:dev-1", 12, (("COPY", 12),))
    assert archives.Summary.read(archive) is None
    summary.write(archive)
    assert archives.Summary.read(archive) is None
    archive.write_bytes(b"")
    assert archives.Summary.read(archive) == summary
    archives.summary_file(archive).write_text("{torn")
    assert archives.Summary.read(archive) is None


def test_stale_are_those_that_were_used_longest_ago(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.tar" for i in range(4)]
    for age, path in zip((30, 10, 40, 20), paths, strict=True):
        path.write_bytes(b"")
        os.utime(path, (1000 - age, 1000 - age))
    assert list(archives.stale(paths, 2)) == [paths[0], paths[2]]
    assert list(archives.stale(paths, 4)) == []

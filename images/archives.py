"""Image archives in the format of `docker save`: what `docker load`, `kind load` and containerd all read.

A finished image is one tar in the cache, with a small JSON beside it that says what is inside; the tar is there only
when it is whole.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True)
class Summary:
    """What is known of a finished image without opening it."""

    name: str  # repository:tag
    unpacked_bytes: int
    layers: tuple[tuple[str, int], ...]  # (instruction that made it, bytes of its files), the base's first

    @classmethod
    def read(cls, archive: Path) -> Summary | None:
        """None where the image is not there, or not whole."""
        try:
            fields = json.loads(summary_file(archive).read_text())
        except (FileNotFoundError, ValueError):
            return None
        layers = tuple((str(made_by), int(size)) for made_by, size in fields["layers"])
        return cls(fields["name"], fields["unpacked_bytes"], layers) if archive.exists() else None

    def write(self, archive: Path) -> None:
        summary_file(archive).write_text(json.dumps(asdict(self)) + "\n")


def summary_file(archive: Path) -> Path:
    return archive.with_suffix(".json")


@dataclass(frozen=True)
class Contents:
    """An image archive, opened: the files of its topmost view, its configuration, its layers."""

    files: dict[str, int]  # path without a leading slash -> bytes; a hard link or symbolic link counts 0
    config: dict[str, object]  # the `config` part: Env, User, Entrypoint …
    layers: tuple[tuple[str, int], ...]
    repo_tags: tuple[str, ...]

    @property
    def unpacked_bytes(self) -> int:
        return sum(self.files.values())

    def packages(self, folder: str) -> set[str]:
        """The names right below a folder of packages."""
        inside = (PurePosixPath(path).parts for path in self.files if path.startswith(f"{folder}/"))
        depth = len(PurePosixPath(folder).parts)
        return {parts[depth] for parts in inside}


def read(archive: Path) -> Contents:
    """Look into an archive. Raises OSError, tarfile.TarError, KeyError or ValueError where it is none."""
    with tarfile.open(archive) as outer:
        manifest = json.load(_member(outer, "manifest.json"))[0]
        document = json.load(_member(outer, manifest["Config"]))
        files: dict[str, int] = {}
        sizes: list[int] = []
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_member(outer, layer)) as inner:
                sizes.append(apply_layer(files, inner))
    made_by = [entry.get("created_by", "") for entry in document["history"] if not entry.get("empty_layer")]
    made_by = (made_by + [""] * len(sizes))[: len(sizes)]
    return Contents(
        files, document["config"], tuple(zip(made_by, sizes, strict=True)), tuple(manifest["RepoTags"] or ())
    )


def layers(archive: Path) -> Iterator[tarfile.TarFile]:
    """The layers, the base's first, each open until the next is asked for."""
    with tarfile.open(archive) as outer:
        for layer in json.load(_member(outer, "manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=_member(outer, layer)) as inner:
                yield inner


def apply_layer(files: dict[str, int], layer: Iterable[tarfile.TarInfo]) -> int:
    """Put a layer on top of the files below it; the bytes of its own files."""
    size = 0
    for member in layer:
        path = PurePosixPath(member.name.removeprefix("./").lstrip("/"))
        if path.name == _OPAQUE:
            _empty(files, str(path.parent))
        elif path.name.startswith(_WHITEOUT):
            gone = str(path.parent / path.name.removeprefix(_WHITEOUT))
            if files.pop(gone, None) is None:
                _empty(files, gone)
        elif not member.isdir():
            files[str(path)] = member.size if member.isfile() else 0
            size += files[str(path)]
    return size


def _empty(files: dict[str, int], folder: str) -> None:
    for inside in [name for name in files if name.startswith(f"{folder}/")]:
        del files[inside]


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    member = archive.getmember(name)
    if member.issym():  # older engines repeat a layer as a link
        member = archive.getmember(os.path.normpath(os.path.join(os.path.dirname(name), member.linkname)))
    found = archive.extractfile(member)
    if found is None:
        raise ValueError(f"{name} is no file")
    return found


def stale(archives: Iterable[Path], keep: int) -> Iterator[Path]:
    """Of one image's archives, those beyond the `keep` most recently used."""
    yield from sorted(archives, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]

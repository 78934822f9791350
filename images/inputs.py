"""What an image is made of, and the tag that follows from it.

The inputs are copied into a context of their own first. The tag is made of that copy and the build reads nothing else,
so an editor that saves a file meanwhile can't bring anything into an image that its tag does not know of.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images import locked
from images.dockerfiles import Dockerfile, parse
from images.errors import ImagesError
from images.places import Image

# Their bytes do not count, only what follows from them for this image's extra.
_LOCK_FILES = ("pyproject.toml", "requirements.lock")
_IGNORED = ("__pycache__", ".mypy_cache", ".ruff_cache")
# One time for all files: the same content makes the same layer, whenever it was checked out. 2024-01-01, UTC.
_TIME = 1_704_067_200
_FORMAT = "2"  # raise it when the tool itself starts to build differently from the same inputs


@dataclass(frozen=True)
class Inputs:
    """One image's context, filled."""

    image: Image
    context: Path
    dockerfile: Dockerfile
    requirements: dict[str, str]  # by extra: the text of the requirements file that the build will make
    tag: str

    @property
    def name(self) -> str:
        """As a pod names it."""
        return f"{self.image.repository}:{self.tag}"


def source_files(repository: Path, dockerfile: Dockerfile, binaries: Mapping[str, Path]) -> dict[str, Path]:
    """The files that the Dockerfile copies: path in the context -> where it is. Sorted.

    Raises ImagesError for a source that is not there.
    """
    files: dict[str, Path] = {}
    for source in dockerfile.sources:
        if source in binaries:
            files[source] = binaries[source]
            continue
        matches = sorted(repository.glob(source))
        found = {str(file.relative_to(repository)): file for match in matches for file in _files(match)}
        if not found:
            raise ImagesError(
                f"COPY {source}: there is no such file or it is an empty folder; write it, or mend the Dockerfile"
            )
        files |= found
    return dict(sorted(files.items()))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        for folder, names, files in os.walk(path):
            names[:] = [name for name in names if name not in _IGNORED]
            yield from (Path(folder, file) for file in files if not file.endswith((".pyc", ".swp", "~")))


def collect(
    image: Image, context: Path, *, repository: Path, base: str, binaries: Mapping[str, Path] | None = None
) -> Inputs:
    """Copy the inputs into `context` (made anew) and name the result.

    `base` identifies the base image; `binaries` are sources that come from elsewhere, by their path in the context.
    """
    shutil.rmtree(context, ignore_errors=True)
    text = (repository / image.dockerfile).read_text()
    dockerfile = parse(text)
    files = {image.dockerfile: repository / image.dockerfile} | source_files(repository, dockerfile, binaries or {})
    for name, origin in files.items():
        target = context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, target)
        target.chmod(0o755 if os.access(origin, os.X_OK) else 0o644)
    for path in [*context.rglob("*"), context]:
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (_TIME, _TIME))
    requirements = _requirements(context, dockerfile)
    return Inputs(image, context, dockerfile, requirements, _tag(context, files, requirements, base))


def _requirements(context: Path, dockerfile: Dockerfile) -> dict[str, str]:
    if not dockerfile.requirements:
        return {}
    pyproject, lock = ((context / name).read_text() for name in _LOCK_FILES)
    try:
        return {
            extra: locked.render(locked.requirements(pyproject, lock, extra, without))
            for extra, without in dockerfile.requirements
        }
    except locked.LockError as error:
        raise ImagesError(str(error)) from None


def _tag(context: Path, files: Mapping[str, Path], requirements: Mapping[str, str], base: str) -> str:
    """`dev-` and twelve hex digits over the Dockerfile, the base, the locked packages and the source."""
    digest = hashlib.sha256()

    def add(kind: str, name: str, content: bytes) -> None:
        for part in (kind.encode(), name.encode(), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)

    add("format", "", _FORMAT.encode())
    add("base", "", base.encode())
    for extra, text in sorted(requirements.items()):
        add("requirements", extra, text.encode())
    for name in sorted(files):
        if name not in _LOCK_FILES:
            path = context / name
            add("executable" if os.access(path, os.X_OK) else "file", name, path.read_bytes())
    return f"dev-{digest.hexdigest()[:12]}"

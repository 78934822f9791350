"""What the commands do: build what is missing or changed, load what the cluster lacks, say names and sizes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from images import archives, engines
from images.archives import Summary
from images.errors import ImagesError
from images.inputs import Inputs, collect
from images.places import ENVIRONMENT_FILE, IMAGES, KEPT_TAGS, REPOSITORY, Cache, Image
from images.progress import step


def chosen(names: Sequence[str]) -> list[Image]:
    """The images of these names; all for none. Raises ImagesError for a name that is no image."""
    known = {image.name: image for image in IMAGES}
    if unknown := [name for name in names if name not in known]:
        raise ImagesError(f"there is no image {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(IMAGES)


@dataclass(frozen=True)
class Built:
    """A finished image."""

    image: Image
    archive: Path
    summary: Summary

    @property
    def name(self) -> str:
        """As a pod names it."""
        return self.summary.name


def say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@dataclass
class Tool:
    """One run of the tool."""

    cache: Cache
    engine: engines.Engine
    console: Console
    repository: Path = REPOSITORY

    def build(self, images: Sequence[Image], *, renew_base: bool = False) -> list[Inputs]:
        """Build those that have no archive under their present tag; the state of all of them."""
        with self.cache.lock(lambda: say(self.console, "another run is building images; waiting for it")):
            if renew_base or any(self.engine.identity(image) is None for image in images):
                with step(self.console, "base image") as shown:
                    self.engine.prepare(shown.line, renew_base=renew_base)
            inputs = [self._inputs(image) for image in images]
            missing = [each for each in inputs if Summary.read(self._archive(each)) is None]
            if missing:
                self._build(missing)
            for each in inputs:
                os.utime(self._archive(each))  # what is used last is kept longest
            if missing:
                self._prune()
            write_environment(inputs, self.repository)
        if not missing:
            say(self.console, f"{len(inputs)} images are as their sources: nothing to build")
        return inputs

    def _build(self, missing: Sequence[Inputs]) -> None:
        with step(self.console, f"packages and base ({self.engine.name})") as shown:
            self.engine.prepare(shown.line)
            self.engine.fetch(missing, shown.line)
        for number, each in enumerate(missing, 1):
            archive = self._archive(each)
            archive.parent.mkdir(parents=True, exist_ok=True)
            partial = archive.with_suffix(".part")
            with step(self.console, f"[{number}/{len(missing)}] {each.name}") as shown:
                self.engine.build(each, shown.line)
                self.engine.save(each.name, partial, shown.line)
                contents = archives.read(partial)
                Summary(each.name, contents.unpacked_bytes, contents.layers).write(archive)
                partial.replace(archive)
                shown.outcome = f"built, {contents.unpacked_bytes / 1e6:.0f} MB unpacked,"

    def _inputs(self, image: Image) -> Inputs:
        base = self.engine.identity(image)
        assert base is not None, "prepare() makes the base"
        binaries = {name: _binary(name) for name in image.binaries}
        return collect(
            image, self.cache.contexts / image.name, repository=self.repository, base=base, binaries=binaries
        )

    def _archive(self, inputs: Inputs) -> Path:
        return self.cache.archive(inputs.image, inputs.tag)

    def _prune(self) -> None:
        for image in IMAGES:
            for old in archives.stale(self.cache.archives.glob(f"{image.name}-dev-*.tar"), KEPT_TAGS):
                archives.summary_file(old).unlink(missing_ok=True)
                old.unlink()
        kept = [Summary.read(archive) for archive in self.cache.archives.glob("*.tar")]
        self.engine.prune(summary.name for summary in kept if summary is not None)


def load(built: Sequence[Built], console: Console) -> list[str]:
    """Import into the running cluster those that it lacks; their names."""
    from tests import cluster

    there = cluster.image_names()
    lacking = [each for each in built if not any(name.endswith(f"/{each.name}") for name in there)]
    for number, each in enumerate(lacking, 1):
        with step(console, f"[{number}/{len(lacking)}] {each.name}", "loaded"):
            cluster.load_archives([each.archive])
    if not lacking:
        say(console, f"the cluster has all {len(built)} images")
    return [each.name for each in lacking]


def environment(built: Iterable[Built]) -> str:
    """`TRUEKEEP_TRAINER_IMAGE=truekeep/trainer:dev-…`, a line an image."""
    return "".join(f"{each.image.variable}={each.name}\n" for each in built)


def write_environment(inputs: Iterable[Inputs], repository: Path) -> None:
    """Put the names of these images into build/images.env; lines of other images stay."""
    file = repository / ENVIRONMENT_FILE
    names = _read_environment(file) | {each.image.variable: each.name for each in inputs}
    lines = [f"{image.variable}={names[image.variable]}\n" for image in IMAGES if image.variable in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text("".join(lines))
    new.replace(file)


def last_built(images: Sequence[Image], cache: Cache, repository: Path = REPOSITORY) -> list[Built]:
    """What the last build in this checkout made of these: what to load and to deploy, whatever was edited since.

    Raises ImagesError for an image that is not there.
    """
    names = _read_environment(repository / ENVIRONMENT_FILE)
    built: list[Built] = []
    for image in images:
        name = names.get(image.variable, "")
        archive = cache.archive(image, name.rpartition(":")[2])
        summary = Summary.read(archive) if name else None
        if summary is None:
            raise ImagesError(f"the {image.name} image is not built; run `python -m images build`")
        built.append(Built(image, archive, summary))
    return built


def _read_environment(file: Path) -> dict[str, str]:
    lines = file.read_text().splitlines() if file.exists() else []
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _binary(name: str) -> Path:
    from tests import cluster

    return cluster.fetch_binary(name)

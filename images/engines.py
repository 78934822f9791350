"""Who builds: Docker where its engine answers, else buildah in a store of its own. The Dockerfiles are the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Protocol

from images import base as local_base
from images import wheels
from images.commands import answer, install_missing, run
from images.dockerfiles import parse
from images.errors import ImagesError
from images.inputs import Inputs
from images.places import IMAGES, REPOSITORY, Cache, Image

OnLine = Callable[[str], None]
KEPT_STAGES = ("storage", "libraries", "runtime")


class Engine(Protocol):
    """What the tool asks of an engine. Every step writes to a log and reports its lines."""

    name: str

    def prepare(self, on_line: OnLine, *, renew_base: bool = False) -> None:
        """Have the programs and the base."""

    def identity(self, image: Image) -> str | None:
        """What the image's base is, for its tag; None while the base has yet to be made."""

    def fetch(self, inputs: Collection[Inputs], on_line: OnLine) -> None:
        """Have what the builds of these install."""

    def build(self, inputs: Inputs, on_line: OnLine) -> None:
        """Build the image under its name."""

    def save(self, name: str, archive: Path, on_line: OnLine) -> None:
        """Write a built image as an archive."""

    def push(self, name: str, archive: Path, target: str, on_line: OnLine, *, plain: bool) -> str:
        """Send a built image to a registry, by HTTP where `plain`; its digest there."""

    def prune(self, kept: Iterable[str]) -> None:
        """Delete our images whose names are not among these."""


def find(cache: Cache) -> Engine:
    """Docker's engine if it answers, else buildah."""
    if answer(["docker", "version", "--format", "{{.Server.Version}}"]):
        return Docker(cache)
    return Buildah(cache)


def default_base(image: Image) -> str:
    """What the Dockerfile builds on when it is told nothing."""
    return parse((REPOSITORY / image.dockerfile).read_text()).arguments["BASE"]


class Docker:
    """Docker with its own store; RUN steps reach the index as the user's Docker does."""

    name = "docker"

    def __init__(self, cache: Cache) -> None:
        self._log = cache.logs / "docker.log"

    def prepare(self, on_line: OnLine, *, renew_base: bool = False) -> None:
        if renew_base:
            raise ImagesError("with Docker the base is renewed by name: set TRUEKEEP_BASE to NAME@sha256:DIGEST")

    def identity(self, image: Image) -> str | None:
        return self._base(image)

    def fetch(self, inputs: Collection[Inputs], on_line: OnLine) -> None:
        pass

    def build(self, inputs: Inputs, on_line: OnLine) -> None:
        run(self.build_command(inputs), log=self._log, env={"DOCKER_BUILDKIT": "1"}, on_line=on_line)

    def build_command(self, inputs: Inputs) -> list[str | Path]:
        base, _, digest = self._base(inputs.image).partition("@")
        arguments = {"BASE": base, "BASE_DIGEST": digest}
        return [
            *("docker", "build", "--tag", inputs.name, "--file", inputs.context / inputs.image.dockerfile),
            *build_arguments(inputs, arguments),
            inputs.context,
        ]

    def save(self, name: str, archive: Path, on_line: OnLine) -> None:
        run(["docker", "save", "--output", archive, name], log=self._log, on_line=on_line)

    def push(self, name: str, archive: Path, target: str, on_line: OnLine, *, plain: bool) -> str:
        # Docker itself decides for which registries it speaks plain HTTP: those on loopback, and those that it is told.
        run(["docker", "load", "--input", archive], log=self._log, on_line=on_line)
        run(["docker", "tag", name, target], log=self._log, on_line=on_line)
        run(["docker", "push", target], log=self._log, on_line=on_line)
        listed = answer(["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", target]) or "[]"
        here = target.rpartition(":")[0]
        return next((each.partition("@")[2] for each in json.loads(listed) if each.partition("@")[0] == here), "")

    def prune(self, kept: Iterable[str]) -> None:
        keep = set(kept)
        for image in IMAGES:
            listed = answer(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", image.repository]) or ""
            for name in listed.split():
                if name.startswith(f"{image.repository}:dev-") and name not in keep:
                    answer(["docker", "image", "rm", name])

    @staticmethod
    def _base(image: Image) -> str:
        default = default_base(image)
        return default if default == "scratch" else os.environ.get("TRUEKEEP_BASE") or default


class Buildah:
    """buildah on the local base, wheels from the cache, RUN steps in a chroot: needs root and nothing else."""

    name = "buildah"

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._log = cache.logs / "buildah.log"
        self._base: local_base.Base | None = local_base.find(cache)

    def prepare(self, on_line: OnLine, *, renew_base: bool = False) -> None:
        install_missing({"buildah": "buildah", "mmdebstrap": "mmdebstrap"}, self._log)
        if os.geteuid() != 0:
            raise ImagesError(
                "no Docker engine answers, and without it images are built as root only: start Docker, or be root"
            )
        base = self._base = local_base.ensure(self._cache, self._log, on_line, renew=renew_base)
        if answer([*self._buildah(), "images", "--quiet", base.reference]) is None:
            context = self._cache.contexts / "base"
            context.mkdir(parents=True, exist_ok=True)
            recipe = context / "Dockerfile"
            recipe.write_text("FROM scratch\nADD rootfs.tar /\nENV PATH=/usr/sbin:/usr/bin:/sbin:/bin\n")
            (context / "rootfs.tar").unlink(missing_ok=True)
            os.link(self._cache.base / base.archive, context / "rootfs.tar")
            run([*self._bud(), "--layers=false", "--tag", base.reference, context], log=self._log, on_line=on_line)

    def identity(self, image: Image) -> str | None:
        if default_base(image) == "scratch":
            return "scratch"
        return self._base.sha256 if self._base else None

    def fetch(self, inputs: Collection[Inputs], on_line: OnLine) -> None:
        requirements = [text for each in inputs for text in each.requirements.values()]
        if requirements and self._base:
            wheels.ensure(self._cache, self._base, requirements, self._log, on_line)

    def build(self, inputs: Inputs, on_line: OnLine) -> None:
        stages = self._stages(inputs)
        for stage, name in stages.items():
            if answer([*self._buildah(), "images", "--quiet", name]) is None:
                command = [*self.build_command(inputs, name), "--target", stage, inputs.context]
                run(command, log=self._log, on_line=on_line)
        # The finished runtime stands in for its stage: else buildah reads all its libraries to see that none changed.
        known = [f"--build-context=runtime=container-image://{stages['runtime']}"] if "runtime" in stages else []
        command = [*self.build_command(inputs, f"localhost/{inputs.name}"), *known, inputs.context]
        run(command, log=self._log, on_line=on_line)

    def _stages(self, inputs: Inputs) -> dict[str, str]:
        """The stages to keep, and their names: a name changes when what is in the stage may.

        They have names because unnamed ones are pruned, and with them the work that is in them.
        """
        slim = inputs.context / "images" / "slim.py"
        parts = [
            inputs.dockerfile.text,
            self._base.sha256 if self._base else "",
            slim.read_text() if slim.exists() else "",
            *(text for _, text in sorted(inputs.requirements.items())),
        ]
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
        stages = [stage for stage in inputs.dockerfile.stages if stage in KEPT_STAGES]
        return {stage: f"localhost/{inputs.image.repository}-{stage}:{key}" for stage in stages}

    def build_command(self, inputs: Inputs, name: str) -> list[str | Path]:
        base = self._base.reference if self._base else ""
        arguments = {"PIP": wheels.PIP, "PIP_OPTIONS": wheels.PIP_OPTIONS}
        if default_base(inputs.image) != "scratch":
            arguments["BASE"] = base
        mounts = ["--volume", f"{self._cache.packages}:{wheels.MOUNT}:ro"] if inputs.requirements else []
        return [
            *(*self._bud(), "--layers", "--tag", name, "--file", inputs.context / inputs.image.dockerfile),
            *(*build_arguments(inputs, arguments), *mounts),
        ]

    def save(self, name: str, archive: Path, on_line: OnLine) -> None:
        archive.unlink(missing_ok=True)
        # By its id: an image that is pushed by a name takes that name into the archive as well.
        identifier = (answer([*self._buildah(), "images", "--quiet", "--no-trunc", f"localhost/{name}"]) or "").strip()
        target = f"docker-archive:{archive}:{name}"
        run([*self._buildah(), "push", "--quiet", identifier, target], log=self._log, on_line=on_line)

    def push(self, name: str, archive: Path, target: str, on_line: OnLine, *, plain: bool) -> str:
        local = f"localhost/{name}"
        if not answer([*self._buildah(), "images", "--quiet", local]):
            run([*self._buildah(), "pull", "--quiet", f"docker-archive:{archive}"], log=self._log, on_line=on_line)
        self._cache.logs.mkdir(parents=True, exist_ok=True)
        said = self._cache.logs / "digest"
        said.unlink(missing_ok=True)
        options = ["--quiet", "--digestfile", said, *(["--tls-verify=false"] if plain else [])]
        run([*self._buildah(), "push", *options, local, f"docker://{target}"], log=self._log, on_line=on_line)
        return said.read_text().strip()

    def prune(self, kept: Iterable[str]) -> None:
        answer([*self._buildah(), "rm", "--all"])  # buildah leaves containers of stages behind, and they hold images
        keep = {f"localhost/{name}" for name in kept}
        if self._base:
            keep.add(self._base.reference)
        listed = json.loads(answer([*self._buildah(), "images", "--json"]) or "[]") or []
        newest_first = sorted(listed, key=lambda entry: -entry["created"])
        stages: set[str] = set()
        for name in [name for entry in newest_first for name in entry.get("names") or []]:
            repository = name.rpartition(":")[0]
            if repository.endswith(tuple(f"-{stage}" for stage in KEPT_STAGES)) and repository not in stages:
                stages.add(repository)  # of each stage the newest
            elif name not in keep:
                answer([*self._buildah(), "rmi", name])
        answer([*self._buildah(), "rmi", "--prune"])

    def _buildah(self) -> list[str | Path]:
        # Mount counts, which must not outlive a boot as the store does; one folder per store.
        state = Path("/run/truekeep-images", hashlib.sha256(bytes(self._cache.storage)).hexdigest()[:12])
        return ["buildah", "--root", self._cache.storage, "--runroot", state, "--storage-driver", "overlay"]

    def _bud(self) -> list[str | Path]:
        return [*self._buildah(), "bud", "--isolation", "chroot", "--format", "docker", "--pull-never"]


def build_arguments(inputs: Inputs, values: dict[str, str]) -> list[str]:
    """`--build-arg` for those values that the Dockerfile takes."""
    taken = inputs.dockerfile.arguments
    return [word for name, value in values.items() if name in taken for word in ("--build-arg", f"{name}={value}")]

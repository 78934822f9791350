"""What the engines are told: the same Dockerfiles, each with the arguments that it takes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from images import base, engines
from images.base import Base
from images.dockerfiles import parse
from images.inputs import Inputs
from images.places import IMAGES, REPOSITORY, Cache, Image

SERVER, VERSITYGW = IMAGES[2], IMAGES[-1]
BASE = Base("b.tar", "b" * 64, "3.11", 36)


def inputs(image: Image, tmp_path: Path) -> Inputs:
    dockerfile = parse((REPOSITORY / image.dockerfile).read_text())
    requirements = {extra: "" for extra, _ in dockerfile.requirements}
    return Inputs(image, tmp_path / "context", dockerfile, requirements, "dev-0123456789ab")


def build_args(command: list[str | Path]) -> dict[str, str]:
    words = [str(word) for word in command]
    pairs = [value for flag, value in pairwise(words) if flag == "--build-arg"]
    return dict(pair.split("=", 1) for pair in pairs)


def test_docker_builds_on_the_dockerfiles_own_base_and_goes_to_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUEKEEP_BASE", raising=False)
    docker = engines.Docker(Cache(tmp_path))
    command = docker.build_command(inputs(SERVER, tmp_path))
    assert build_args(command) == {"BASE": "python:3.11-slim", "BASE_DIGEST": ""}
    assert [str(word) for word in command][:4] == ["docker", "build", "--tag", "truekeep/server:dev-0123456789ab"]
    assert docker.identity(SERVER) == "python:3.11-slim"


def test_docker_takes_a_base_with_a_digest_for_all_but_those_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEKEEP_BASE", "python:3.12-slim@sha256:abc")
    docker = engines.Docker(Cache(tmp_path))
    args = build_args(docker.build_command(inputs(SERVER, tmp_path)))
    assert args == {"BASE": "python:3.12-slim", "BASE_DIGEST": "sha256:abc"}
    assert docker.identity(SERVER) == "python:3.12-slim@sha256:abc"
    assert build_args(docker.build_command(inputs(VERSITYGW, tmp_path))) == {"BASE": "scratch"}


def test_buildah_builds_on_the_local_base_with_the_wheels_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "find", lambda cache: BASE)
    buildah = engines.Buildah(Cache(tmp_path))
    command = buildah.build_command(inputs(SERVER, tmp_path), "localhost/x")
    assert build_args(command) == {
        "BASE": BASE.reference,
        "PIP": "python3 /mnt/pip",
        "PIP_OPTIONS": "--no-index --find-links /mnt/wheels",
    }
    words = [str(word) for word in command]
    assert f"{tmp_path}/packages:/mnt:ro" in words
    assert words[words.index("--isolation") + 1] == "chroot"
    assert words[words.index("--root") + 1] == str(tmp_path / "storage")
    assert "--volume" not in [str(word) for word in buildah.build_command(inputs(VERSITYGW, tmp_path), "x")]
    assert build_args(buildah.build_command(inputs(VERSITYGW, tmp_path), "x")) == {}


def test_the_base_decides_on_the_tag_only_of_what_is_built_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "find", lambda cache: None)
    buildah = engines.Buildah(Cache(tmp_path))
    assert buildah.identity(SERVER) is None
    assert buildah.identity(VERSITYGW) == "scratch"


@pytest.mark.parametrize(("answered", "expected"), [("28.2.2\n", "docker"), (None, "buildah")])
def test_docker_is_used_where_its_engine_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: str | None, expected: str
) -> None:
    monkeypatch.setattr(engines, "answer", lambda argv: answered)
    assert engines.find(Cache(tmp_path)).name == expected

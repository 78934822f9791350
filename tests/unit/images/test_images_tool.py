"""Builds happen only where they must, and what is old goes."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest
from images import tool
from images.archives import Summary
from images.errors import ImagesError
from images.inputs import Inputs
from images.places import KEPT_TAGS, Cache, Image
from rich.console import Console

from tests import cluster
from tests.unit.images.test_images_archives import write_archive

ONE, TWO = Image("trainer"), Image("server")


class Engine:
    """Writes archives itself and remembers what it was asked."""

    name = "test"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.kept: set[str] = set()
        self.fails = False

    def prepare(self, on_line: object, *, renew_base: bool = False) -> None:
        self.asked.append("renew" if renew_base else "prepare")

    def identity(self, image: Image) -> str | None:
        return "base"

    def fetch(self, inputs: Collection[Inputs], on_line: object) -> None:
        self.asked.append("fetch")

    def build(self, inputs: Inputs, on_line: object) -> None:
        self.asked.append(f"build {inputs.image.name}")

    def save(self, name: str, archive: Path, on_line: object) -> None:
        write_archive(archive, [{"app/room.py": b"12345"}], name)
        if self.fails:
            raise ImagesError("the disk is full")

    def prune(self, kept: Iterable[str]) -> None:
        self.kept = set(kept)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for image in (ONE, TWO):
        room = root / "operator/truekeep" / image.name / "room.py"
        room.parent.mkdir(parents=True)
        room.write_text("A = 0\n")
        dockerfile = root / image.dockerfile
        dockerfile.parent.mkdir(parents=True)
        dockerfile.write_text(f"FROM scratch\nCOPY operator/truekeep/{image.name} /app/\n")
    return root


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def made(tmp_path: Path, repository: Path, engine: Engine, told: io.StringIO) -> tool.Tool:
    return tool.Tool(Cache(tmp_path / "cache"), engine, Console(file=told), repository)


def edit(repository: Path, image: Image, text: str) -> None:
    (repository / "operator/truekeep" / image.name / "room.py").write_text(text)


def test_only_what_is_missing_or_changed_is_built(made: tool.Tool, engine: Engine, repository: Path) -> None:
    made.build([ONE, TWO])
    assert engine.asked == ["prepare", "fetch", "build trainer", "build server"]
    engine.asked.clear()
    made.build([ONE, TWO])
    assert engine.asked == []
    edit(repository, TWO, "A = 1\n")
    made.build([ONE, TWO])
    assert engine.asked == ["prepare", "fetch", "build server"]


def test_going_back_to_the_source_before_needs_no_build(made: tool.Tool, engine: Engine, repository: Path) -> None:
    first = made.build([TWO])[0].name
    edit(repository, TWO, "A = 1\n")
    made.build([TWO])
    engine.asked.clear()
    edit(repository, TWO, "A = 0\n")
    assert made.build([TWO])[0].name == first
    assert engine.asked == []


def test_the_last_two_tags_of_an_image_stay(made: tool.Tool, engine: Engine, repository: Path) -> None:
    names = []
    for number in range(4):
        edit(repository, TWO, f"A = {number}\n")
        names.append(made.build([ONE, TWO])[1].name)
    assert KEPT_TAGS == 2
    archives = {path.stem.removeprefix("server-") for path in made.cache.archives.glob("server-*.tar")}
    assert archives == {name.partition(":")[2] for name in names[-2:]}
    assert {name for name in engine.kept if "server" in name} == set(names[-2:])
    assert len({name for name in engine.kept if "trainer" in name}) == 1
    assert len(list(made.cache.archives.glob("*.json"))) == 3


def test_a_build_that_fails_leaves_no_archive_and_is_tried_again(made: tool.Tool, engine: Engine) -> None:
    engine.fails = True
    with pytest.raises(ImagesError, match="disk is full"):
        made.build([TWO])
    assert not list(made.cache.archives.glob("*.tar"))
    engine.fails = False
    made.build([TWO])
    assert engine.asked.count("build server") == 2


def test_the_environment_names_the_last_build(made: tool.Tool, repository: Path) -> None:
    server = made.build([TWO])[0].name
    trainer = made.build([ONE])[0].name
    text = (repository / "build/images.env").read_text()
    assert text == f"TRUEKEEP_TRAINER_IMAGE={trainer}\nTRUEKEEP_SERVER_IMAGE={server}\n"
    edit(repository, TWO, "A = 1\n")  # not built yet: what is deployed is what was built
    built = tool.last_built([ONE, TWO], made.cache, made.repository)
    assert [each.name for each in built] == [trainer, server]
    assert tool.environment(built) == text
    assert built[1].summary == Summary(server, 5, (("COPY 0", 5),))


def test_an_image_that_was_not_built_is_told_with_the_remedy(made: tool.Tool) -> None:
    made.build([ONE])
    with pytest.raises(ImagesError, match="server image is not built; run `python -m images build`"):
        tool.last_built([ONE, TWO], made.cache, made.repository)


def test_only_what_the_cluster_lacks_is_loaded(
    made: tool.Tool, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = made.build([ONE, TWO])
    built = tool.last_built([ONE, TWO], made.cache, made.repository)
    there = {f"docker.io/{trainer.name}", "docker.io/truekeep/server:dev-other"}
    loaded: list[Path] = []
    monkeypatch.setattr(cluster, "image_names", lambda: there)
    monkeypatch.setattr(cluster, "load_archives", loaded.extend)
    assert tool.load(built, made.console) == [built[1].name]
    assert loaded == [built[1].archive]
    there.add(f"docker.io/{built[1].name}")
    assert tool.load(built, made.console) == []
    assert "the cluster has all 2 images" in told.getvalue()


def test_a_name_that_is_no_image_is_refused() -> None:
    with pytest.raises(ImagesError, match="no image trianer; there are operator, trainer, server"):
        tool.chosen(["trianer"])
    assert tool.chosen(["server"])[0].name == "server"


def test_steps_tell_what_and_how_long(made: tool.Tool, told: io.StringIO) -> None:
    made.build([TWO])
    assert "[1/1] truekeep/server:dev-" in told.getvalue()
    assert "MB unpacked, in " in told.getvalue()

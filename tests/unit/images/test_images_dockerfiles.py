"""What every Dockerfile of ours keeps to."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from images.dockerfiles import ROOMS, Dockerfile, parse
from images.places import IMAGES, REPOSITORY, Image

PYTHON_IMAGES = [image for image in IMAGES if not image.binaries]
SHARED = {"api", "contract"}
MAY_HAVE = {
    "operator": SHARED | {"domain", "resources", "cluster", "controller"},
    "trainer": SHARED | {"storage", "features", "profiling", "sources", "scores", "pages", "trainer"},
    "server": SHARED | {"storage", "features", "profiling", "server"},
    "monitor": SHARED | {"storage", "features", "profiling", "sources", "scores", "pages", "monitor"},
    "tools": {"*"},
}
MODULES = {
    "operator": "truekeep.operator_main",
    "trainer": "truekeep.trainer",
    "server": "truekeep.server",
    "monitor": "truekeep.monitor",
    "tools": "truekeep.cli",
}


def of(image: Image) -> Dockerfile:
    return parse((REPOSITORY / image.dockerfile).read_text())


def ids(image: Image) -> str:
    return image.name


every_image = pytest.mark.parametrize("image", IMAGES, ids=ids)
every_python_image = pytest.mark.parametrize("image", PYTHON_IMAGES, ids=ids)


def test_every_folder_with_a_dockerfile_is_an_image_of_the_tool() -> None:
    there = {path.parent.name for path in (REPOSITORY / "images").glob("*/Dockerfile")}
    assert there == {image.name for image in IMAGES}


@every_image
def test_it_runs_as_a_number_that_is_not_root(image: Image) -> None:
    assert of(image).user == "65532:65532"


@every_image
def test_its_entry_point_is_in_the_exec_form(image: Image) -> None:
    entrypoint = of(image).entrypoint
    expected = ["/versitygw"] if image.binaries else ["python3", "-m", MODULES[image.name]]
    assert entrypoint == expected


@every_image
def test_its_base_is_an_argument_and_no_name_has_a_registry_host(image: Image) -> None:
    dockerfile = of(image)
    base = dockerfile.arguments["BASE"]
    assert base in {"scratch", "python:3.11-slim"}
    host, slash, _ = base.partition("/")
    assert not slash or not ({".", ":"} & set(host))
    stages = set(dockerfile.stages)
    for instruction in dockerfile.instructions:
        if instruction.keyword == "FROM":
            word = instruction.words[0]
            assert word.startswith("${BASE}") or word in stages
        for flag in instruction.flags if instruction.keyword == "COPY" else ():
            if flag.startswith("--from="):
                assert flag.removeprefix("--from=") in stages
        assert "://" not in instruction.value


@every_python_image
def test_base_and_digest_are_both_arguments(image: Image) -> None:
    dockerfile = of(image)
    assert dockerfile.arguments["BASE_DIGEST"] == ""
    first = next(instruction for instruction in dockerfile.instructions if instruction.keyword == "FROM")
    assert first.value == "${BASE}${BASE_DIGEST:+@}${BASE_DIGEST} AS base"


@every_python_image
def test_installing_happens_in_stages_that_are_left_behind(image: Image) -> None:
    dockerfile = of(image)
    installs = [i for i in dockerfile.instructions if i.keyword == "RUN" and " install " in i.value]
    assert installs
    for instruction in installs:
        assert "--require-hashes" in instruction.words or "--require-hashes" in instruction.flags
        assert instruction not in dockerfile.final


@every_python_image
def test_the_rooms_are_the_last_layer(image: Image) -> None:
    assert of(image).final[-1].value == "--from=rooms /opt/truekeep/app /opt/truekeep/app"


@every_python_image
def test_modules_are_compiled_and_never_written_in_a_pod(image: Image) -> None:
    dockerfile = of(image)
    environment = next(i.value for i in dockerfile.final if i.keyword == "ENV")
    for setting in ("PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "PYTHONSAFEPATH=1", "HOME=/tmp"):
        assert setting in environment
    compiled = [i.value for i in dockerfile.instructions if "compileall" in i.value]
    assert any("/opt/truekeep/app" in value and "unchecked-hash" in value for value in compiled)


def test_lines_that_images_share_are_the_same_to_the_letter() -> None:
    """Only then is the layer that they make built and stored once."""
    with_storage = [of(image) for image in PYTHON_IMAGES if image.name != "operator"]
    stages = [dockerfile.stage("storage") for dockerfile in with_storage]
    assert stages[0]
    assert all(stage == stages[0] for stage in stages)
    runtimes = [of(image).stage("runtime")[:4] for image in PYTHON_IMAGES]
    assert len(runtimes[0]) == 4
    assert all(runtime == runtimes[0] for runtime in runtimes)
    copies = [of(image).stage("runtime")[4] for image in PYTHON_IMAGES if image.name != "operator"]
    assert all(copy == copies[0] for copy in copies)


@every_python_image
def test_it_has_no_room_that_it_may_not_use(image: Image) -> None:
    assert of(image).rooms <= MAY_HAVE[image.name]
    own = "cli" if image.name == "tools" else image.name
    assert of(image).rooms & {own, "controller", "*"}


@every_python_image
def test_it_has_every_room_that_its_rooms_import(image: Image) -> None:
    dockerfile = of(image)
    if dockerfile.rooms == {"*"}:
        return
    there = {path.name for path in (REPOSITORY / ROOMS).iterdir() if (path / "__init__.py").exists()}
    missing = {
        f"{file.relative_to(REPOSITORY)} imports {room}"
        for copied in dockerfile.sources
        if copied.startswith(ROOMS)
        for file in python_files(copied)
        for room in imported_rooms(file)
        if room in there and room not in dockerfile.rooms
    }
    assert not missing


def python_files(pattern: str) -> list[Path]:
    matches = sorted(REPOSITORY.glob(pattern))
    return [file for match in matches for file in ([match] if match.is_file() else sorted(match.rglob("*.py")))]


def imported_rooms(file: Path) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module == "truekeep":
                rooms |= {alias.name for alias in node.names}
            elif (node.module or "").startswith("truekeep."):
                rooms.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("truekeep.")}
    return rooms


def test_the_operators_image_has_what_import_linter_lets_it_import() -> None:
    """Rooms of the data side are forbidden to it twice: by import-linter and by their absence."""
    assert not of(IMAGES[0]).rooms & {
        "storage",
        "features",
        "profiling",
        "sources",
        "scores",
        "pages",
        "trainer",
        "server",
        "monitor",
        "cli",
    }


def test_the_parser_joins_lines_and_reads_flags() -> None:
    dockerfile = parse(
        'ARG BASE=a:1\n# a comment\nFROM ${BASE} AS one\nARG PIP="python3 -m pip"\nARG NONE=\n'
        "COPY --chmod=0755 x y \\\n  # inside\n  z/ /to/\nRUN locked.py --folder /build cli --without storage\n"
        "FROM one\nUSER 1\nCOPY --from=one /a /b\nUSER 2:2\nENTRYPOINT run this\n"
    )
    assert dockerfile.arguments == {"BASE": "a:1", "PIP": "python3 -m pip", "NONE": ""}
    assert dockerfile.sources == ["x", "y", "z/"]
    assert dockerfile.stages == ["one"]
    assert dockerfile.user == "2:2"
    assert dockerfile.entrypoint is None
    assert dockerfile.requirements == [("cli", "storage")]
    assert [i.keyword for i in dockerfile.stage("one")] == ["FROM", "ARG", "ARG", "COPY", "RUN"]
    assert [i.keyword for i in dockerfile.final][:2] == ["FROM", "ARG"]
    assert [i.keyword for i in dockerfile.final][-5:] == ["FROM", "USER", "COPY", "USER", "ENTRYPOINT"]

"""The tag of an image changes when one of its inputs does, and only then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from images.errors import ImagesError
from images.inputs import Inputs, collect
from images.places import Image

IMAGE = Image("server")
DOCKERFILE = """\
ARG BASE=python:3.11-slim
FROM ${BASE} AS lock
COPY pyproject.toml requirements.lock images/locked.py /build/
RUN python3 /build/locked.py --folder /build server > /build/server.txt
FROM ${BASE}
COPY operator/truekeep/*.py /app/
COPY operator/truekeep/api /app/api
COPY operator/truekeep/server /app/server
"""
FILES = {
    "images/server/Dockerfile": DOCKERFILE,
    "images/locked.py": "# prints requirements\n",
    "pyproject.toml": (
        '[project]\nname = "truekeep"\ndependencies = []\n[project.optional-dependencies]\n'
        'server = ["web"]\ntrainer = ["fit"]\n'
    ),
    "requirements.lock": (
        "fit==1.0 \\\n    --hash=sha256:aa\n    # via truekeep (pyproject.toml)\n"
        "web==1.0 \\\n    --hash=sha256:bb\n    # via truekeep (pyproject.toml)\n"
    ),
    "operator/truekeep/__init__.py": "",
    "operator/truekeep/api/__init__.py": "",
    "operator/truekeep/api/model.py": "A = 1\n",
    "operator/truekeep/server/__init__.py": "",
    "operator/truekeep/server/__main__.py": "print('serving')\n",
    "operator/truekeep/trainer/__init__.py": "",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def collected(repository: Path, base: str = "base 1") -> Inputs:
    return collect(IMAGE, repository.parent / "context", repository=repository, base=base)


def edit(repository: Path, name: str, old: str, new: str) -> None:
    path = repository / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_tag_is_dev_and_twelve_hex_digits(repository: Path) -> None:
    inputs = collected(repository)
    assert inputs.name.startswith("truekeep/server:dev-")
    assert len(inputs.tag) == len("dev-") + 12
    assert int(inputs.tag.removeprefix("dev-"), 16) >= 0


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("images/server/Dockerfile", "FROM ${BASE}\n", "FROM ${BASE}\nENV A=1\n"),
        ("images/locked.py", "prints", "writes"),
        ("operator/truekeep/api/model.py", "A = 1", "A = 2"),
        ("operator/truekeep/server/__main__.py", "serving", "waiting"),
        ("requirements.lock", "web==1.0", "web==1.1"),
        ("requirements.lock", "sha256:bb", "sha256:bc"),
        ("pyproject.toml", 'server = ["web"]', 'server = ["web", "fit"]'),
    ],
)
def test_an_input_that_changes_changes_the_tag(repository: Path, name: str, old: str, new: str) -> None:
    before = collected(repository).tag
    edit(repository, name, old, new)
    assert collected(repository).tag != before
    edit(repository, name, new, old)
    assert collected(repository).tag == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("requirements.lock", "fit==1.0", "fit==1.1"),
        ("pyproject.toml", 'trainer = ["fit"]', 'trainer = ["fit"]\nother = ["web"]'),
        ("pyproject.toml", 'name = "truekeep"', 'name = "truekeep"\nversion = "9"'),
    ],
)
def test_what_belongs_to_other_images_does_not(repository: Path, name: str, old: str, new: str) -> None:
    before = collected(repository).tag
    edit(repository, name, old, new)
    assert collected(repository).tag == before


def test_another_base_is_another_tag(repository: Path) -> None:
    assert collected(repository, "base 1").tag != collected(repository, "base 2").tag


def test_files_that_come_go_or_are_renamed_change_it(repository: Path) -> None:
    tags = [collected(repository).tag]
    new = repository / "operator/truekeep/server/new.py"
    new.write_text("")
    tags.append(collected(repository).tag)
    new.rename(new.with_name("newer.py"))
    tags.append(collected(repository).tag)
    (repository / "operator/truekeep/handlers.py").write_text("")  # by the pattern of the top level
    tags.append(collected(repository).tag)
    (repository / "operator/truekeep/server/newer.py").chmod(0o755)
    tags.append(collected(repository).tag)
    assert len(set(tags)) == len(tags)


def test_times_caches_and_rooms_of_others_do_not_change_it(repository: Path) -> None:
    before = collected(repository).tag
    os.utime(repository / "operator/truekeep/api/model.py", (1, 1))
    cache = repository / "operator/truekeep/api/__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"compiled")
    (repository / "operator/truekeep/trainer/__init__.py").write_text("B = 1\n")
    assert collected(repository).tag == before


def test_the_context_has_the_inputs_and_nothing_else(repository: Path) -> None:
    context = repository.parent / "context"
    (context / "left").mkdir(parents=True)
    (context / "left" / "over.py").write_text("")
    inputs = collected(repository)
    names = {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()}
    assert names == set(FILES) - {"operator/truekeep/trainer/__init__.py"}
    assert inputs.requirements == {"server": "web==1.0 \\\n    --hash=sha256:bb\n"}
    modes = {path.stat().st_mode & 0o777 for path in context.rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert len({path.stat().st_mtime for path in context.rglob("*")}) == 1


def test_an_edit_while_it_is_built_does_not_reach_the_build(repository: Path) -> None:
    inputs = collected(repository)
    edit(repository, "operator/truekeep/api/model.py", "A = 1", "A = 2")
    assert (inputs.context / "operator/truekeep/api/model.py").read_text() == "A = 1\n"


def test_a_source_that_is_missing_is_named(repository: Path) -> None:
    edit(repository, "images/server/Dockerfile", "truekeep/api /app", "truekeep/nothing /app")
    with pytest.raises(ImagesError, match="COPY operator/truekeep/nothing"):
        collected(repository)


def test_a_lock_without_the_package_is_told_with_the_remedy(repository: Path) -> None:
    edit(repository, "pyproject.toml", 'server = ["web"]', 'server = ["web", "absent"]')
    with pytest.raises(ImagesError, match="no absent; re-make it with `make lock`"):
        collected(repository)


def test_a_binary_comes_from_where_it_was_built_and_its_content_counts(tmp_path: Path) -> None:
    image = Image("versitygw", binaries=("versitygw",))
    dockerfile = tmp_path / "repository" / image.dockerfile
    dockerfile.parent.mkdir(parents=True)
    dockerfile.write_text("ARG BASE=scratch\nFROM ${BASE}\nCOPY --chmod=0755 versitygw /versitygw\n")
    binary = tmp_path / "built"
    tags = []
    for content in (b"one", b"two"):
        binary.write_bytes(content)
        inputs = collect(
            image,
            tmp_path / "context",
            repository=tmp_path / "repository",
            base="scratch",
            binaries={"versitygw": binary},
        )
        assert (inputs.context / "versitygw").read_bytes() == content
        tags.append(inputs.tag)
    assert tags[0] != tags[1]

"""What is taken out of the installed packages, and that what is left works."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from images import slim

SCRIPT = Path(slim.__file__)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "lib"
    for name in (
        "numpy/__init__.py",
        "numpy/testing.py",
        "numpy/random.py",
        "numpy/linalg.py",
        "numpy/fft.py",
        "numpy/_core/include/numpy/arrayobject.h",
        "numpy/_core/tests/test_core.py",
        "botocore/__init__.py",
        "botocore/session.py",
        "botocore/data/s3/2006-03-01/service-2.json.gz",
        "botocore/data/ec2/2016-11-15/service-2.json.gz",
        "botocore/data/endpoints.json",
        "botocore/cacert.pem",
        "bin/f2py",
        "six.py",
        "typed.pyi",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return root


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_the_rules_take_out_what_they_name_and_keep_the_rest(folder: Path) -> None:
    (folder / "bin" / "f2py").write_text("12345")
    assert slim.slim(folder) == 5
    assert files(folder) == {
        "numpy/__init__.py",
        "numpy/testing.py",
        "numpy/random.py",
        "numpy/linalg.py",
        "numpy/fft.py",
        "botocore/__init__.py",
        "botocore/session.py",
        "botocore/data/s3/2006-03-01/service-2.json.gz",
        "botocore/data/endpoints.json",
        "botocore/cacert.pem",
        "six.py",
    }


def run(*folders: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *folders], capture_output=True, text=True, check=False)


def test_what_is_left_is_compiled_and_its_source_is_never_looked_at_again(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    header = Path(importlib.util.cache_from_source(str(folder / "six.py"))).read_bytes()[4:8]
    assert int.from_bytes(header, "little") == 0b01  # by hash, unchecked


def test_a_rule_that_takes_too_much_fails_the_build(folder: Path) -> None:
    (folder / "numpy" / "linalg.py").unlink()
    done = run(folder)
    assert done.returncode == 1
    assert "numpy does not import any more" in done.stderr


def test_only_the_last_folder_changes_and_those_before_it_are_on_the_path(folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    for name in (
        "scipy/__init__.py",
        *(f"scipy/{each}.py" for each in ("stats", "sparse", "optimize", "linalg", "special")),
    ):
        path = more / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import numpy\n")
    before = files(folder)
    done = run(folder, more)
    assert done.returncode == 0, done.stderr
    assert files(folder) == before


def test_it_says_how_it_is_used(tmp_path: Path) -> None:
    assert run().returncode == 2
    assert "usage: slim.py FOLDER" in run(tmp_path / "absent").stderr

"""Which wheels are downloaded for a base's Python."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from images import wheels
from images.base import Base
from images.places import Cache

BASE = Base("b.tar", "b" * 64, "3.11", 36)
REQUIREMENTS = """\
colorama==0.4 ; sys_platform == 'win32' \\
    --hash=sha256:aa
numpy==2.4 ; python_full_version < '3.12' \\
    --hash=sha256:ba \\
    --hash=sha256:bb
numpy==2.5 ; python_full_version >= '3.12' \\
    --hash=sha256:bc
six-pack==1.17 \\
    --hash=sha256:ca
six-pack==1.17 \\
    --hash=sha256:ca
"""


@pytest.mark.parametrize(("python", "numpy", "hashes"), [("3.11", "2.4", ["ba", "bb"]), ("3.13", "2.5", ["bc"])])
def test_markers_are_judged_for_the_base_and_not_for_the_host(python: str, numpy: str, hashes: list[str]) -> None:
    chosen = wheels.select(REQUIREMENTS, python)
    assert list(chosen) == [f"numpy=={numpy}", "six-pack==1.17"]
    assert chosen["six-pack==1.17"] == "six-pack==1.17 \\\n    --hash=sha256:ca\n"
    assert [line.strip(" \\") for line in chosen[f"numpy=={numpy}"].splitlines()] == [
        f"numpy=={numpy}",
        *(f"--hash=sha256:{digest}" for digest in hashes),
    ]


def test_the_platforms_are_those_that_the_bases_libc_runs() -> None:
    options = wheels.platform_options(BASE)
    platforms = [value for option, value in pairwise(options) if option == "--platform"]
    assert platforms[0].startswith("manylinux_2_36_")
    assert not any("_2_37_" in platform for platform in platforms)
    assert any(platform.startswith("manylinux2014_") for platform in platforms)
    assert options[:2] == ["--python-version", "3.11"]


def test_only_what_is_missing_is_downloaded_and_what_nobody_wants_for_long_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    folder = cache.packages / "wheels"
    asked: list[str] = []
    commands: list[list[str]] = []

    def download(argv: list[str | Path], **_: object) -> None:
        commands.append([str(word) for word in argv])
        asked.append(Path(argv[-1]).read_text())
        for pin in [line.split()[0] for line in asked[-1].splitlines() if "==" in line]:
            name, version = pin.split("==")
            (folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").write_bytes(b"")

    def ensure(requirements: str) -> None:
        wheels.ensure(cache, BASE, [requirements], tmp_path / "log", lambda line: None)

    monkeypatch.setattr(wheels, "run", download)
    folder.mkdir(parents=True)
    old = folder / "numpy-2.3-py3-none-any.whl"
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    other_python = folder / "numpy-2.4-cp312-cp312-manylinux_2_28_x86_64.whl"
    other_python.write_bytes(b"")
    ensure(REQUIREMENTS)
    ensure(REQUIREMENTS)
    assert [text.count("==") for text in asked] == [2]
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(commands[0])
    assert not old.exists()
    assert other_python.exists()
    assert (cache.packages / "pip" / "__main__.py").exists()
    ensure(REQUIREMENTS.replace("2.4", "2.4.1"))
    assert [text.split()[0] for text in asked[1:]] == ["numpy==2.4.1"]

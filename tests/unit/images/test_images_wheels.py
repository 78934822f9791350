"""Which wheels are downloaded for a base's Python."""

from __future__ import annotations

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
    lines = wheels.select(REQUIREMENTS, python).splitlines()
    assert [line for line in lines if "==" in line] == [f"numpy=={numpy} \\", "six-pack==1.17 \\"]
    assert [line.strip(" \\") for line in lines if "--hash" in line] == [
        f"--hash=sha256:{digest}" for digest in [*hashes, "ca"]
    ]


def test_the_platforms_are_those_that_the_bases_libc_runs() -> None:
    options = wheels.platform_options(BASE)
    platforms = [value for option, value in pairwise(options) if option == "--platform"]
    assert platforms[0].startswith("manylinux_2_36_")
    assert not any("_2_37_" in platform for platform in platforms)
    assert any(platform.startswith("manylinux2014_") for platform in platforms)
    assert options[:2] == ["--python-version", "3.11"]


def test_a_download_happens_once_and_wheels_of_others_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    folder = cache.packages / "wheels"
    commands: list[list[str]] = []

    def download(argv: list[object], **_: object) -> None:
        commands.append([str(word) for word in argv])
        for name in ("six_pack-1.17-py3-none-any.whl", "numpy-2.4-cp311-cp311-manylinux_2_28_x86_64.whl"):
            (folder / name).write_bytes(b"")

    monkeypatch.setattr(wheels, "run", download)
    folder.mkdir(parents=True)
    (folder / "numpy-2.3-cp311-cp311-linux_x86_64.whl").write_bytes(b"")
    for _ in range(2):
        wheels.ensure(cache, BASE, [REQUIREMENTS], tmp_path / "log", lambda line: None)
    assert len(commands) == 1
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(commands[0])
    assert sorted(path.name.split("-")[1] for path in folder.iterdir()) == ["1.17", "2.4"]
    assert (cache.packages / "pip" / "__main__.py").exists()
    wheels.ensure(cache, BASE, [REQUIREMENTS.replace("2.4", "2.4.1")], tmp_path / "log", lambda line: None)
    assert len(commands) == 2

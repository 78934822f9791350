"""The wheels that builder stages install from where there is no Docker.

A RUN step of buildah has neither the host's configuration of pip nor always a network; the host has both. So pip
downloads here, once, exactly what the lock pins, for the Python of the base, and the same `pip install` that goes to
the index under Docker is told `--no-index --find-links` this folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging.markers import Marker, default_environment

from images.base import Base
from images.commands import run
from images.errors import ImagesError
from images.places import Cache

MOUNT = "/mnt"  # a folder that every base has, so that the mount leaves none behind
PIP = f"python3 {MOUNT}/pip"
PIP_OPTIONS = f"--no-index --find-links {MOUNT}/wheels"


def ensure(cache: Cache, base: Base, requirements: Iterable[str], log: Path, on_line: Callable[[str], None]) -> None:
    """Have every wheel that these requirements files name for the base's Python, and pip to install them.

    Wheels that none of them names any more are deleted.
    """
    _copy_pip(cache.packages / "pip")
    wheels = cache.packages / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = select("".join(requirements), base.python)
    stamp = cache.packages / "downloaded"
    key = hashlib.sha256(f"{base.python} {base.glibc_minor}\n{wanted}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == key:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(wanted)
        file.flush()
        argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        run([*argv, *platform_options(base), "-d", wheels, "-r", file.name], log=log, on_line=on_line)
    named = {entry.split(" ")[0] for entry in wanted.splitlines() if "==" in entry}
    for wheel in wheels.iterdir():
        name, version, *_ = wheel.name.split("-")
        if f"{name.lower().replace('_', '-').replace('.', '-')}=={version}" not in named:
            wheel.unlink()
    stamp.write_text(key)


def select(requirements: str, python: str) -> str:
    """The requirements whose markers hold for this Python ("3.11") on Linux, each once, without the markers."""
    # pip would judge the markers by the Python that it runs on, not by the one that it downloads for.
    environment = {
        **{key: str(value) for key, value in default_environment().items()},
        "python_version": python,
        "python_full_version": f"{python}.99",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    chosen: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in requirements.splitlines():
        if line.startswith(" "):
            if current is not None:
                current.append(line)
            continue
        pin, _, marker = line.removesuffix("\\").strip().partition(" ; ")
        current = None
        if pin not in chosen and (not marker or Marker(marker).evaluate(environment)):
            current = chosen[pin] = [f"{pin} \\"]
    return "".join(line + "\n" for _, lines in sorted(chosen.items()) for line in lines)


def platform_options(base: Base) -> list[str]:
    """What tells pip which wheels run on the base, whatever Python the host has."""
    machine = os.uname().machine
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(base.glibc_minor, 16, -1)]
    old = ["manylinux2014", "manylinux2010", "manylinux1"] if machine == "x86_64" else ["manylinux2014"]
    platforms = [*tags, *(f"{name}_{machine}" for name in old), f"linux_{machine}"]
    options = ["--python-version", base.python, "--implementation", "cp"]
    return options + [option for platform in platforms for option in ("--platform", platform)]


def _copy_pip(target: Path) -> None:
    """The pip of this interpreter: the base has none."""
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None:
        raise ImagesError("this Python has no pip; make the virtual environment with `make venv` and use its Python")
    origin = Path(spec.origin).parent
    if not (target / "__main__.py").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)

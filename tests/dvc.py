"""DVC itself, for the tests that show what a user of it does: in a virtual environment of its own, kept between runs.

It brings some 200 packages, none of which is ours to lock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REQUIREMENTS = ("dvc==3.67.1", "dvc-s3==3.3.0")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "truekeep" / "dvc"


def installed() -> Path:
    """The program, installed once a machine. CalledProcessError where PyPI does not give it."""
    program = CACHE / "bin" / "dvc"
    done = CACHE / "installed"
    if not done.is_file() or done.read_text() != "\n".join(REQUIREMENTS):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(CACHE)], check=True)
        subprocess.run([str(CACHE / "bin" / "python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        done.write_text("\n".join(REQUIREMENTS))
    return program


def run(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """`dvc ARGUMENTS` in a folder; its output. CalledProcessError where it fails."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "DVC_NO_ANALYTICS": "1", **(environment or {})}
    return subprocess.run(
        [str(installed()), *arguments], cwd=folder, env=variables, check=True, capture_output=True, text=True
    ).stdout

"""An environment of its own for each peer, because their requirements exclude each other; made when it is missing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Each is a script and what it is told; alibi-detect is BSL 1.1: run here, never a dependency.
PEERS: dict[str, tuple[str, ...]] = {
    "nannyml-ks": ("nannyml", "--ks"),
    "nannyml": ("nannyml",),
    "whylogs": ("whylogs",),
    "alibi-detect": ("alibi",),
    "evidently": ("evidently",),
}


def command(peer: str) -> list[str]:
    """What runs a peer; files are to be appended. Makes its environment, which takes minutes, where it is missing."""
    name, *told = PEERS[peer]
    return [str(_python(name)), str(HERE / f"run_{name}.py"), *told]


def _python(name: str) -> Path:
    pins = HERE / f"{name}.txt"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "truekeep" / "peers"
    there = cache / f"{name}-{digest}"
    if not (there / "made").exists():
        print(f"making the environment of {name}: {there}", file=sys.stderr, flush=True)
        shutil.rmtree(there, ignore_errors=True)
        uv = str(Path(sys.executable).parent / "uv")
        python = there / "bin" / "python"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(there)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(pins)], check=True)
        (there / "made").touch()
    return there / "bin" / "python"

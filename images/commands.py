"""Running other programs, their output in a log file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from images.errors import ImagesError

Argv = Sequence[str | Path]
MISSING = 127


def answer(argv: Argv) -> str | None:
    """What a quick question to a program wrote to stdout; None where it failed or is not there."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def run(
    argv: Argv,
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run to its end; stdout and stderr go to `log` (appended) and line by line to `on_line`.

    Raises ImagesError with the end of what the program said when it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in argv]
    last: list[str] = []
    with log.open("a", errors="replace") as file:
        file.write(f"$ {' '.join(words)}\n")
        file.flush()
        try:
            process = subprocess.Popen(
                words,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except FileNotFoundError:
            raise ImagesError(f"the program {words[0]} is missing") from None
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                if line.strip():
                    last = [*last[-7:], line.strip()]
                    on_line(line.strip())
        code = process.returncode
    if code != 0:
        told = "\n  ".join(last) or "it said nothing"
        raise ImagesError(f"{Path(words[0]).name} failed ({code}); the end of {log}:\n  {told}")


def install_missing(programs: Mapping[str, str], log: Path) -> None:
    """Install what is not on the PATH. `programs`: the program, and the Debian package that brings it."""
    missing = {program: package for program, package in programs.items() if shutil.which(program) is None}
    if not missing:
        return
    packages = sorted(set(missing.values()))
    if shutil.which("apt-get") is None:
        raise ImagesError(f"no Docker engine answers, and {', '.join(missing)} is missing: install either")
    if os.geteuid() != 0:
        raise ImagesError(
            f"no Docker engine answers, and {', '.join(missing)} is missing: "
            f"as root, `apt-get install {' '.join(packages)}`"
        )
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run([*apt, "update"], log=log, env=quiet)
    run([*apt, "install", "--no-install-recommends", *packages], log=log, env=quiet)

"""Running other programs, and waiting for what they bring about."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError

Argv = Sequence[str | Path]


def run(
    argv: Argv,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """What the program wrote to stdout; a ClusterError with the end of what it complained of when it failed."""
    try:
        done = attempt(argv, env=env, cwd=cwd, stdin=stdin, timeout=timeout)
    except FileNotFoundError:
        raise ClusterError(f"the program {argv[0]} is missing") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{short(argv)}` did not finish within {timeout:.0f} s") from None
    if done.returncode != 0:
        raise ClusterError(f"`{short(argv)}` failed ({done.returncode}): {tail(done.stderr or done.stdout)}")
    return done.stdout


def attempt(
    argv: Argv,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same without judging the exit code."""
    return subprocess.run(
        [str(argument) for argument in argv],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def succeeds(argv: Argv, *, timeout: float | None = None) -> bool:
    try:
        return attempt(argv, timeout=timeout).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def wait_until(what: str, holds: Callable[[], bool], *, seconds: float, every: float = 0.25) -> None:
    """Ask until it holds. `holds` may raise a ClusterError itself when waiting has become pointless."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(every)


def short(argv: Argv) -> str:
    words = [Path(argv[0]).name, *map(str, argv[1:])]
    return " ".join(words[:6]) + (" …" if len(words) > 6 else "")


def tail(text: str, lines: int = 3) -> str:
    """The last lines as one: an error is told in one line."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-lines:]) or "it said nothing"

"""A process that has imported the operator and forks one at a word, so that a restart costs milliseconds, not seconds.

`Zygote` is the test's side; `python -m tests.faults.zygote` the other: it reads a line of JSON an operator and answers
with its pid. An operator is an ordinary process from then on: SIGKILL ends it at once, whatever it was about to do."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.clock import FastClock

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 5.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Recipe:
    """An operator to be started."""

    environment: dict[str, str]
    log: str
    clock: FastClock
    metrics_port: int  # of the serving pods, all of which the tests play
    planted: str | None = None  # the name of a bug


class Zygote:
    """Starts operators."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Zygote:
        path = os.pathsep.join((str(ROOT / "operator"), str(ROOT)))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.zygote",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()

    async def start(self, recipe: Recipe) -> int:
        """The pid of a new operator."""
        assert self._process is not None, "use it in an `async with` statement"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps(asdict(recipe)).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that starts operators has ended; what it said is above")
        return int(line)


def _serve() -> None:
    import truekeep.operator_main  # the import that a fork saves  # noqa: F401
    from tests.faults import planted  # noqa: F401

    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for an operator: the kernel clears it away
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(told: dict[str, Any]) -> None:
    """In the child: an operator, for good."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        recipe = Recipe(**{**told, "clock": FastClock(**told["clock"])})
        log = os.open(recipe.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDWR)
        for number, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(number, target)
        os.setsid()
        _die_with_parent()
        code = _operator(recipe)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _die_with_parent() -> None:
    """So that no operator is left where the tests were killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class _Own:
    """The operator's clock is the injected one: the API server's goes at another pace."""

    def __init__(self, own: Callable[[], datetime]) -> None:
        self.now = own

    def heard(self, date: str | None) -> None:
        """What the API server says counts for nothing."""


def _operator(recipe: Recipe) -> int:
    from kubernetes.aio.config import kube_config

    from tests.faults import planted
    from truekeep import handlers, operator_main

    os.environ.clear()
    os.environ.update(recipe.environment)
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = recipe.environment["KUBECONFIG"]  # read at import, long ago
    clock = recipe.clock
    module: Any = operator_main
    module.now = clock.wall
    module.time = clock
    module.Clock = _Own
    module.Elector = partial(module.Elector, clock=clock.monotonic)
    module.PodMetrics = partial(module.PodMetrics, recipe.metrics_port)
    handlers.RESTART_SECONDS /= clock.rate
    if recipe.planted:
        planted.BUGS[recipe.planted].plant()
    config = operator_main.configuration(os.environ)
    operator_main.log_to_stderr(config.log_level)

    async def main() -> None:
        await operator_main.run(config, asyncio.Event())

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())
    return 0


if __name__ == "__main__":
    _serve()

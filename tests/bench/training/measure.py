"""A process from its start to its end: seconds, peak of memory, and what it said."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """`wall` and `cpu` seconds of the whole process, imports included; `fit` of them in fits; `peak` in MiB."""

    wall: float
    cpu: float
    fit: float
    peak: float


class Ratio(NamedTuple):
    """Ours over the plain script's, of the medians; `low` and `high` of the pairs."""

    median: float
    low: float
    high: float


def ended(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, float, float, float]:
    """What it printed; wall and CPU seconds; peak in MiB. SystemExit where it fails."""
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, code, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said[-3000:]}")
    return said, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def middle(costs: Iterable[Cost]) -> Cost:
    """Of each figure the median."""
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def ratio(ours: Sequence[float], plain: Sequence[float]) -> Ratio:
    """Of the medians, and of the pairs: a pair ran one after the other, on a machine that was as busy."""
    pairs = sorted(a / b for a, b in zip(ours, plain, strict=True))
    return Ratio(statistics.median(ours) / statistics.median(plain), pairs[0], pairs[-1])

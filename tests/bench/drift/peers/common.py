"""What the peers' scripts share; needs pandas and pyarrow alone, because it runs in their environments."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd


def frame(path: str) -> pd.DataFrame:
    """A Parquet file: numbers as float64, text as plain Python strings, which all peers take."""
    table = pd.read_parquet(path)
    for name in table:
        if table[name].dtype != "float64":
            table[name] = table[name].astype(object)
    return table


def answer(work: Callable[[str, str], list[str]], arguments: list[str]) -> None:
    """Print seconds, peak and drifted columns as JSON; of several windows, the columns of each."""
    then, *windows = arguments
    wall, cpu = time.perf_counter(), time.process_time()
    found = []
    for place, now in enumerate(windows):
        found.append(work(then, now))
        print(place, len(found[-1]), file=sys.stderr, flush=True)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024
    measured = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak}
    print(json.dumps({**measured, "drifted": found[0], "windows": found}))

"""Three million flights of 2001: one pass of the monitor against reading alone.

`python -m tests.bench.drift.millions [--repeat 5]`. The reference is the stored profile of January; the pass counts all
rows of all columns on its cells and judges them. Each contender runs in a process of its own, in turns; the best time
counts, and the largest peak.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.bench.drift import packages
from tests.bench.drift.speed import in_process, measured
from truekeep.contract.artifact import SignatureFeature
from truekeep.monitor.judge import Settings, judge
from truekeep.profiling.build import profile_table, window_of_table
from truekeep.profiling.schema import Profile
from truekeep.profiling.tables import ParquetTable

THREADS = 2
NAMES = ("delay", "distance", "origin", "destination")
NUMBERS = ("delay", "distance")
FEATURES = [SignatureFeature(name=name, type="Number" if name in NUMBERS else "Category") for name in NAMES]


def stored() -> Path:
    """The profile of January, made where it is not there yet."""
    path = packages.folder() / "flights-3m-january.profile.json"
    if not path.is_file():
        january = packages.folder() / "flights-3m-january.parquet"
        table = pq.read_table(packages.flights_2001(), filters=[("date", "<", datetime(2001, 2, 1))])
        pq.write_table(table, january)
        made = profile_table(ParquetTable(january), FEATURES, threads=THREADS)
        path.write_text(made.model_dump_json(by_alias=True, exclude_none=True))
    return path


def read() -> None:
    """The limit: the same columns are decoded by the same reader, and nothing is done with them."""
    table = ParquetTable(packages.flights_2001())

    def one(name: str) -> None:
        for _ in table.batches(name):
            pass

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, NAMES))


def look() -> list[str]:
    """The pass; the columns that drifted."""
    reference = Profile.model_validate_json(stored().read_bytes())
    names = {name: name for name in NAMES}
    counted = window_of_table(ParquetTable(packages.flights_2001()), reference, names=names, threads=THREADS)
    report = judge(reference, counted, Settings())
    return sorted(column.name for column in report.columns if column.drifted)


CONTENDERS: dict[str, Callable[[], list[str] | None]] = {"reading alone": read, "one pass of the monitor": look}


def study(repeat: int = 5) -> dict[str, Any]:
    """By contender: seconds (wall, cpu), the peak in MiB, and what drifted."""
    stored()
    best: dict[str, Any] = {}
    for _ in range(repeat):
        for name in CONTENDERS:
            found = in_process([sys.executable, "-m", "tests.bench.drift.millions", "--one", name], 300)
            if isinstance(found, str):
                raise SystemExit(f"{name}: {found}")
            known = best.setdefault(name, found)
            known["wall"], known["cpu"] = min(known["wall"], found["wall"]), min(known["cpu"], found["cpu"])
            known["peak"] = max(known["peak"], found["peak"])
    rows = pq.read_metadata(packages.flights_2001()).num_rows
    return {"rows": rows, "columns": len(NAMES), "contenders": best}


def main() -> None:
    """The figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    print(json.dumps(measured(CONTENDERS[chosen.one]) if chosen.one else study(chosen.repeat), indent=None))


if __name__ == "__main__":
    main()

"""How often drift is found where there is none, and missed where there is some: `python -m tests.bench.drift.errors`.

Two samples of one world are compared, window after window, with the default configuration and no rule of consecutive
windows; a window alarms where any finding counts (Break or Breach). Then, at 5,000 rows, one column at a time is
shifted. `--windows 2000` is the whole of it and takes an hour on two cores; any smaller number gives wider bounds.
`--rows` runs a part. `--peers` has others answer on the same windows of 5,000 rows, with their defaults: see `peers/`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from tests.bench.drift import speed, worlds
from truekeep.monitor.judge import Settings, judge
from truekeep.monitor.report import WindowReport
from truekeep.profiling.build import Arrays, profile_table, window_of_table
from truekeep.profiling.schema import Profile

REFERENCE_ROWS = 50_000
WINDOWS_A_REFERENCE = 20  # the reference is a sample too, and its luck must not decide the table
SIZES = (500, 5_000, 100_000)
POWER_ROWS = 5_000
DEFAULT = Settings()
NAMES = {feature.name: feature.name for feature in worlds.FEATURES}


def reference(rng: np.random.Generator, rows: int = REFERENCE_ROWS) -> Profile:
    """A profile of the world as it was."""
    return profile_table(Arrays(worlds.draw(rng, rows), rows), worlds.FEATURES, threads=1)


def window(there: Profile, columns: dict[str, Any], rows: int) -> Profile:
    """A window's profile."""
    return window_of_table(Arrays(columns, rows), there, names={name: name for name in columns}, threads=1)


def alarmed(report: WindowReport) -> set[str]:
    """Columns whose findings count."""
    return {finding.column for finding in report.findings if finding.severity != "Notice"}


def upper(events: int, of: int) -> float:
    """Upper bound of a rate, one-sided, 95 % (Clopper and Pearson 1934)."""
    return 1.0 if events == of else float(stats.beta.ppf(0.95, events + 1, of - events))


def lower(events: int, of: int) -> float:
    """Lower bound, likewise."""
    return 0.0 if events == 0 else float(stats.beta.ppf(0.05, events, of - events + 1))


def quiet(rows: int, windows: int, seed: int = 1, settings: Settings = DEFAULT) -> dict[str, Any]:
    """Alarmed windows of so many rows where nothing moved."""
    rng = np.random.default_rng([seed, rows])
    there = reference(rng)
    alarms: list[set[str]] = []
    insufficient = 0
    for number in range(windows):
        if number and number % WINDOWS_A_REFERENCE == 0:
            there = reference(rng)
        report = judge(there, window(there, worlds.draw(rng, rows), rows), settings)
        insufficient += report.verdict == "InsufficientData"
        if found := alarmed(report):
            alarms.append(found)
    which = sorted(name for found in alarms for name in found)
    return {"windows": windows, "alarms": len(alarms), "insufficient": insufficient, "columns": which}


def power(windows: int, seed: int = 2, settings: Settings = DEFAULT) -> list[tuple[worlds.Shift, int, int]]:
    """For each shift, how many windows of 5,000 rows say that its column moved."""
    rng = np.random.default_rng(seed)
    found = [0] * len(worlds.SHIFTS)
    there = reference(rng)
    for number in range(windows):
        if number and number % WINDOWS_A_REFERENCE == 0:
            there = reference(rng)
        before = window(there, worlds.draw(rng, POWER_ROWS), POWER_ROWS)
        for place, shift in enumerate(worlds.SHIFTS):
            changed = window(
                Profile(rows=POWER_ROWS, columns=tuple(c for c in there.columns if c.name == shift.column)),
                {shift.column: shift.change(rng, POWER_ROWS)},
                POWER_ROWS,
            ).columns[0]
            columns = tuple(changed if column.name == shift.column else column for column in before.columns)
            report = judge(there, before.model_copy(update={"columns": columns}), settings)
            found[place] += shift.column in alarmed(report)
    return [(shift, hits, windows) for shift, hits in zip(worlds.SHIFTS, found, strict=True)]


def tiny(windows: int, seed: int = 3, rows: int = 1_000_000) -> int:
    """Windows of a million rows, against a million, that alarm for a shift of 0.01 sd."""
    alarms = 0
    for number in range(windows):
        rng = np.random.default_rng([seed, number])
        feature = [f for f in worlds.FEATURES if f.name == "normal"]
        there = profile_table(Arrays({"normal": rng.normal(size=rows)}, rows), feature, threads=1)
        alarms += bool(alarmed(judge(there, window(there, {"normal": rng.normal(0.01, 1, rows)}, rows), DEFAULT)))
    return alarms


def side_by_side(peers: list[str], windows: int, folder: Path, timeout: float) -> None:
    """Ours and the peers on the same files: windows in which any column is called drifted though none moved."""
    rng = np.random.default_rng(4)
    files = [folder / "reference.parquet", *(folder / f"window-{number:03}.parquet" for number in range(windows))]
    alarms = 0
    there = Profile()
    for place, file in enumerate(files):
        rows = POWER_ROWS if place else REFERENCE_ROWS
        columns = worlds.draw(rng, rows)
        plain = {n: c.dictionary_decode() if isinstance(c, pa.DictionaryArray) else c for n, c in columns.items()}
        pq.write_table(pa.table(plain), file)
        if place:
            alarms += bool(alarmed(judge(there, window(there, columns, rows), DEFAULT)))
        else:
            there = profile_table(Arrays(columns, rows), worlds.FEATURES, threads=1)
    print(f"\n{windows} of the same windows of {POWER_ROWS:,} rows, nothing moved: windows with a drifted column")
    print(f"{'truekeep':<12} {alarms}")
    for peer in peers:
        name, _, python = peer.partition("=")
        script = Path(__file__).parent / "peers" / f"run_{name}.py"
        found = speed.in_process(python, str(script), *map(str, files), timeout=timeout)
        if isinstance(found, str):
            print(f"{name:<12} {found}")
            continue
        most = Counter(column for columns in found["windows"] for column in columns).most_common(6)
        often = " ".join(f"{column} {count}" for column, count in most)
        print(f"{name:<12} {sum(map(bool, found['windows']))}   most often: {often}", flush=True)


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=300, help="no-drift windows of each size")
    parser.add_argument("--power-windows", type=int, default=0, help="windows of each shift; default: as --windows")
    parser.add_argument("--rows", type=int, nargs="*", default=list(SIZES), help="sizes of the no-drift windows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-power", action="store_true")
    parser.add_argument("--peers", nargs="*", default=[], help="NAME=python of its virtual environment; see peers/")
    parser.add_argument("--peer-windows", type=int, default=100)
    parser.add_argument("--peer-timeout", type=float, default=1800)
    chosen = parser.parse_args()
    if chosen.peers:
        with tempfile.TemporaryDirectory() as folder:
            side_by_side(chosen.peers, chosen.peer_windows, Path(folder), chosen.peer_timeout)
        return
    print(f"default configuration: {DEFAULT}\nreference: {REFERENCE_ROWS:,} rows, 30 columns\n")
    print(f"{'rows':>9} {'windows':>8} {'alarmed':>8} {'upper 95 %':>11} {'too few':>8} {'seconds':>8}  goal: <= 1 %")
    for rows in chosen.rows:
        began = time.perf_counter()
        row = quiet(rows, chosen.windows, chosen.seed)
        bound = upper(row["alarms"], row["windows"])
        print(
            f"{rows:>9,} {row['windows']:>8,} {row['alarms']:>8} {bound:>11.2%} {row['insufficient']:>8} "
            f"{time.perf_counter() - began:>8.0f}  {' '.join(row['columns'])}",
            flush=True,
        )
    if chosen.no_power:
        return
    windows = chosen.power_windows or chosen.windows
    print(f"\n{'column':<14} {'shift at 5,000 rows':<32} {'found':>11} {'rate':>7} {'lower 95 %':>11} {'goal':>6}")
    for shift, hits, of in power(windows):
        verdict = "" if hits / of >= shift.power else "  MISSED"
        print(
            f"{shift.column:<14} {shift.what:<32} {hits:>5}/{of:<5} {hits / of:>7.1%} {lower(hits, of):>11.1%} "
            f"{shift.power:>6.0%}{verdict}"
        )
    few = max(3, windows // 20)
    print(f"\n1,000,000 rows, mean + 0.01 sd: {tiny(few)} of {few} windows alarmed; goal: none")


if __name__ == "__main__":
    main()

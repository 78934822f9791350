"""How often drift is found where there is none, and missed where there is some: `python -m tests.bench.drift.errors`.

Two samples of one world are compared, window after window, with the default configuration and no rule of consecutive
windows; a window alarms where any finding counts (Break or Breach). Then, at 5,000 rows, one column at a time is
shifted. `--windows 2000` is the whole of it and takes some twenty minutes on two idle cores.
`--rows` runs a part. `--peers` has others answer on the same windows of 5,000 rows, with their defaults.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from tests.bench.drift import speed, worlds
from tests.bench.drift.peers.environments import PEERS, command
from truekeep.monitor.judge import Settings, judge
from truekeep.monitor.report import WindowReport
from truekeep.profiling.build import Arrays, profile_table, window_of_table
from truekeep.profiling.schema import Profile

REFERENCE_ROWS = 50_000
WINDOWS_A_REFERENCE = 20  # the reference is a sample too, and its luck must not decide the table
SIZES = (500, 5_000, 100_000)
POWER_ROWS = 5_000
QUIET_PART, POWER_PART = 100, 10  # windows that are drawn one after the other
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


def quiet(rows: int, windows: int, seed: int = 1, part: int = 0, settings: Settings = DEFAULT) -> dict[str, Any]:
    """Alarmed windows of so many rows where nothing moved; `part`: which ones of all such."""
    rng = np.random.default_rng([seed, rows, part])
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


def power(
    windows: int, seed: int = 2, part: int = 0, settings: Settings = DEFAULT
) -> list[tuple[worlds.Shift, int, int]]:
    """For each shift, how many windows of 5,000 rows say that its column moved."""
    rng = np.random.default_rng([seed, part])
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


def parts(windows: int, of: int) -> list[int]:
    """So many windows, in parts of at most `of`, each with random numbers of its own."""
    return [min(of, windows - start) for start in range(0, windows, of)]


def all_quiet(pool: Executor, rows: int, windows: int, seed: int) -> dict[str, Any]:
    """`quiet`, part by part in other processes; the same whatever their number."""
    waiting = [pool.submit(quiet, rows, n, seed, part) for part, n in enumerate(parts(windows, QUIET_PART))]
    found: dict[str, Any] = {"windows": 0, "alarms": 0, "insufficient": 0, "columns": []}
    for one in as_completed(waiting):
        found = {name: found[name] + value for name, value in one.result().items()}
        print(f"{rows:,} rows: {found['alarms']} of {found['windows']} windows alarmed", file=sys.stderr, flush=True)
    return {**found, "columns": sorted(found["columns"])}


def all_power(pool: Executor, windows: int) -> list[tuple[worlds.Shift, int, int]]:
    """`power`, likewise."""
    hits = np.zeros(len(worlds.SHIFTS), dtype=np.int64)
    waiting = [pool.submit(power_hits, n, part) for part, n in enumerate(parts(windows, POWER_PART))]
    for done, one in enumerate(as_completed(waiting), 1):
        hits += np.array(one.result())
        print(f"shifts: {done} of {len(waiting)} parts", file=sys.stderr, flush=True)
    return [(shift, n, windows) for shift, n in zip(worlds.SHIFTS, hits.tolist(), strict=True)]


def power_hits(windows: int, part: int) -> list[int]:
    """`power` without the shifts, which are no data that another process could send back."""
    return [hits for _, hits, _ in power(windows, part=part)]


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
    print(f"{windows} of the same windows of {POWER_ROWS:,} rows, nothing moved\n")
    print(
        "| | windows with a drifted column | most often |\n" + "|---" * 3 + f"|\n| truekeep | {alarms} | |", flush=True
    )
    for peer in peers:
        found = speed.in_process([*command(peer), *map(str, files)], timeout)
        if isinstance(found, str):
            print(f"| {peer} | {found} | |", flush=True)
            continue
        most = Counter(column for columns in found["windows"] for column in columns).most_common(6)
        often = ", ".join(f"{column} {count}" for column, count in most)
        print(f"| {peer} | {sum(map(bool, found['windows']))} | {often} |", flush=True)


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=300, help="no-drift windows of each size")
    parser.add_argument("--power-windows", type=int, default=0, help="windows of each shift; default: as --windows")
    parser.add_argument("--rows", type=int, nargs="*", default=list(SIZES), help="sizes of the no-drift windows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--no-power", action="store_true")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="these, without names all of them, and nothing else")
    parser.add_argument("--peer-windows", type=int, default=100)
    parser.add_argument("--peer-timeout", type=float, default=1800)
    chosen = parser.parse_args()
    if chosen.peers is not None:
        with tempfile.TemporaryDirectory() as folder:
            side_by_side(chosen.peers or list(PEERS), chosen.peer_windows, Path(folder), chosen.peer_timeout)
        return
    with ProcessPoolExecutor(chosen.processes) as pool:
        tables(pool, chosen)


def tables(pool: Executor, chosen: argparse.Namespace) -> None:
    """Print what was asked for."""
    print(f"default configuration: {DEFAULT}\nreference: {REFERENCE_ROWS:,} rows, 30 columns\n")
    if chosen.rows:
        print(
            "| rows | windows | alarmed | rate, upper 95 % bound | goal | too few rows | columns |\n" + "|---" * 7 + "|"
        )
    for rows in chosen.rows:
        row = all_quiet(pool, rows, chosen.windows, chosen.seed)
        bound = upper(row["alarms"], row["windows"])
        print(
            f"| {rows:,} | {row['windows']:,} | {row['alarms']} | {bound:.2%} | ≤ 1 % | {row['insufficient']} "
            f"| {' '.join(row['columns'])} |",
            flush=True,
        )
    if chosen.no_power:
        return
    windows = chosen.power_windows or chosen.windows
    print(f"\n| column | shift at {POWER_ROWS:,} rows | found | rate | lower 95 % bound | goal |\n" + "|---" * 6 + "|")
    for shift, hits, of in all_power(pool, windows):
        verdict = "" if hits / of >= shift.power else " MISSED"
        print(
            f"| {shift.column} | {shift.what} | {hits} of {of} | {hits / of:.1%}{verdict} | {lower(hits, of):.1%} "
            f"| {shift.power:.0%} |",
            flush=True,
        )
    few = max(3, windows // 20)
    print(f"\n1,000,000 rows, mean + 0.01 sd: {tiny(few)} of {few} windows alarmed; goal: none")


if __name__ == "__main__":
    main()

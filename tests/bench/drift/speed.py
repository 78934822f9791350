"""How long the whole takes, against reading alone: `python -m tests.bench.drift.speed`.

Two Parquet files of a million rows and thirty columns are compared, each contender in a process of its own, in turns,
so that a busy machine is busy for all, and ratios are of the same turn: the median of them counts. Wall and CPU seconds
are of the work without the start of Python and imports; the peak is of the whole process. `--rows 10000000` shows that
the peak stays where it was. `--peers` has others compare the same files in the same run; `README.md` keeps the tables.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.bench.drift import worlds
from tests.bench.drift.peers.environments import PEERS, command
from truekeep.monitor.judge import Settings, judge
from truekeep.profiling.build import profile_table, window_of_table
from truekeep.profiling.schema import Profile
from truekeep.profiling.tables import BATCH_ROWS, BUFFER_BYTES, ParquetTable

CHUNK = 500_000
THREADS = 2
BINS = 512
MOVED = ("normal", "log_one", "uniform", "gaps", "cents")
NAMES = {feature.name: feature.name for feature in worlds.FEATURES}


def make(path: Path, rows: int, seed: int, moved: tuple[str, ...] = ()) -> None:
    """Write a file of the world, some columns moved by a fifth of a standard deviation or so."""
    if path.exists():
        return
    rng = np.random.default_rng(seed)
    temporary = path.with_suffix(".part")
    writer: Any = None
    for start in range(0, rows, CHUNK):
        columns = worlds.draw(rng, min(CHUNK, rows - start))
        columns |= {name: columns[name] * 1.15 + 0.1 for name in moved}
        plain = {name: values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values
                 for name, values in columns.items()}  # fmt: skip
        table = pa.table(plain)
        writer = writer or pq.ParquetWriter(temporary, table.schema)
        writer.write_table(table)
    writer.close()
    temporary.rename(path)


def _columns(path: Path, work: Callable[[str, Any], object]) -> None:
    """Call a function with every batch of every column, columns in two threads: what any reader must do."""
    metadata = pq.read_metadata(path)

    def one(name: str) -> None:
        encoded = [name] if name in worlds.CATEGORIES else []
        with pq.ParquetFile(
            path, metadata=metadata, read_dictionary=encoded, buffer_size=BUFFER_BYTES, pre_buffer=False
        ) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[name], use_threads=False):
                work(name, batch.column(0))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, NAMES))


def _count(name: str, values: Any) -> None:
    if name in worlds.CATEGORIES:
        np.bincount(values.indices.to_numpy(zero_copy_only=False))
        return
    x = values.to_numpy(zero_copy_only=False)
    np.bincount(np.clip((np.nan_to_num(x) + 4) * (BINS / 8), 0, BINS - 1).astype(np.int64), minlength=BINS)


def read(then: Path, now: Path) -> None:
    """The least that reading takes here: both files are decoded column by column, and nothing is done with them."""
    for path in (then, now):
        _columns(path, lambda _, __: None)


def histogram(then: Path, now: Path) -> None:
    """The least that counting takes besides: each value once, as it comes out of the decoder, in cells of equal width
    (numbers; the cheapest way there is, and useless where tails are heavy) or by its code (categories)."""
    for path in (then, now):
        _columns(path, _count)


def read_now(then: Path, now: Path) -> None:
    """Likewise where the reference is a stored profile: the current file alone is decoded."""
    del then
    _columns(now, lambda _, __: None)


def histogram_now(then: Path, now: Path) -> None:
    """Likewise decoded and counted."""
    del then
    _columns(now, _count)


def table(then: Path, now: Path) -> None:
    """Reading as it is usually written: pyarrow decodes each file into a table, with its own threads."""
    for path in (then, now):
        pq.read_table(path)


def table_histogram(then: Path, now: Path) -> None:
    """Likewise, and each column is counted once by the libraries' own functions."""
    for path in (then, now):
        _histograms(path)


def table_histogram_now(then: Path, now: Path) -> None:
    """Likewise of the current file alone."""
    del then
    _histograms(now)


def _histograms(path: Path) -> None:
    read = pq.read_table(path)
    for name in NAMES:
        if name in worlds.CATEGORIES:
            pc.value_counts(read.column(name))
        else:
            np.histogram(read.column(name).to_numpy(), bins=BINS, range=(-4, 4))


def truekeep(then: Path, now: Path) -> list[str]:
    """What `truekeep profile` and `truekeep drift` do."""
    reference = profile_table(ParquetTable(then), worlds.FEATURES, threads=THREADS)
    return _judged(reference, now)


def truekeep_now(then: Path, now: Path) -> list[str]:
    """What `truekeep drift` does: the reference is a stored profile, which is read too."""
    return _judged(Profile.model_validate_json(_stored(then).read_bytes()), now)


def _stored(then: Path) -> Path:
    return then.with_suffix(".profile.json")


def _judged(reference: Profile, now: Path) -> list[str]:
    counted = window_of_table(ParquetTable(now), reference, names=NAMES, threads=THREADS)
    report = judge(reference, counted, Settings())
    return sorted(column.name for column in report.columns if column.drifted)


CONTENDERS: dict[str, Callable[[Path, Path], list[str] | None]] = {
    "table": table,
    "table_histogram": table_histogram,
    "read": read,
    "histogram": histogram,
    "truekeep": truekeep,
    "table_histogram_now": table_histogram_now,
    "read_now": read_now,
    "histogram_now": histogram_now,
    "truekeep_now": truekeep_now,
}
# What each is measured against.
LIMITS = {
    "truekeep": ("table", "table_histogram", "read", "histogram"),
    "truekeep_now": ("table_histogram_now", "read_now", "histogram_now"),
}


def measured(work: Callable[[], list[str] | None]) -> dict[str, Any]:
    """Seconds of the wall clock and of the CPU, the peak of this process in MiB, and the columns that moved."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": peak(),
        "drifted": found,
    }


def peak() -> float:
    """Of this process, in MiB. getrusage's would count the parent's, from before the exec."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def in_process(command: Sequence[str], timeout: float) -> dict[str, Any] | str:
    """A contender in a process of its own: what it printed last, as JSON, or why there is nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {timeout:.0f} s"
    except OSError as error:
        return str(error)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return (done.stderr.strip().splitlines() or ["no answer"])[-1][:160]
    return dict(json.loads(lines[-1]))


def turn(name: str, rows: int, folder: Path, timeout: float = 600) -> dict[str, Any]:
    """One of ours, once, on the files in the folder. RuntimeError where it fails."""
    ours = [sys.executable, "-m", "tests.bench.drift.speed", "--one", name, "--rows", str(rows)]
    found = in_process([*ours, "--folder", str(folder)], timeout)
    if isinstance(found, str):
        raise RuntimeError(f"{name}: {found}")
    return found


def best(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The least seconds of several turns, and the greatest peak."""
    least = {measure: min(one[measure] for one in turns) for measure in ("wall", "cpu")}
    return {**turns[0], **least, "peak": max(one["peak"] for one in turns)}


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/truekeep-bench"), help="where the files are kept")
    parser.add_argument("--repeat", type=int, default=5, help="turns")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="which others, without names all of them")
    parser.add_argument("--peer-timeout", type=float, default=900)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    then, now = (chosen.folder / f"{which}-{chosen.rows}.parquet" for which in ("then", "now"))
    if chosen.one:
        print(json.dumps(measured(lambda: CONTENDERS[chosen.one](then, now))))
        return
    prepare(chosen.folder, chosen.rows)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen.only}
    for _ in range(chosen.repeat):
        for name, known in turns.items():
            known.append(turn(name, chosen.rows, chosen.folder))
    print(f"{chosen.rows:,} x {chosen.rows:,} rows, 30 columns, {chosen.repeat} turns; {len(MOVED)} columns moved\n")
    print("| | wall s | CPU s | peak MiB | called drifted |\n" + "|---" * 5 + "|")
    rows = {name: best(known) for name, known in turns.items()}
    for name, row in rows.items():
        print(line(name, row))
    peers = list(PEERS) if chosen.peers == [] else chosen.peers or []
    for peer in peers:
        answer = in_process([*command(peer), str(then), str(now)], chosen.peer_timeout)
        print(f"| {peer} | {answer} | | | |" if isinstance(answer, str) else line(peer, answer), flush=True)
        if not isinstance(answer, str):
            rows[peer] = answer
    print("\n| ratio | wall | CPU |\n" + "|---" * 3 + "|")
    for name, limits in LIMITS.items():
        for other in limits:
            if name in rows and other in rows:
                wall, cpu = (ratio(turns[name], turns[other], measure) for measure in ("wall", "cpu"))
                print(f"| {name} / {other} | {wall:.2f} | {cpu:.2f} |")
    for peer in peers:
        if peer in rows and "truekeep" in rows:
            wall, cpu = (rows[peer][measure] / rows["truekeep"][measure] for measure in ("wall", "cpu"))
            print(f"| {peer} / truekeep | {wall:.0f} | {cpu:.0f} |")


def prepare(folder: Path, rows: int) -> None:
    """Make the two files and the first one's profile, as `truekeep profile` stores it."""
    then, now = (folder / f"{which}-{rows}.parquet" for which in ("then", "now"))
    make(then, rows, 1)
    make(now, rows, 2, MOVED)
    stored = profile_table(ParquetTable(then), worlds.FEATURES, threads=THREADS)
    _stored(then).write_text(stored.model_dump_json(by_alias=True, exclude_none=True))


def ratio(turns: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], measure: str) -> float:
    """The median of the ratios, turn by turn."""
    return statistics.median(float(a[measure]) / float(b[measure]) for a, b in zip(turns, others, strict=True))


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    drifted = "" if row["drifted"] is None else f"{len(row['drifted'])}: {' '.join(row['drifted'])}"
    return f"| {name} | {row['wall']:.2f} | {row['cpu']:.2f} | {row['peak']:.0f} | {drifted} |"


if __name__ == "__main__":
    main()

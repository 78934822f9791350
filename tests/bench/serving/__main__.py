"""One run: an empty echo of the same bytes, ours (with and without capture), hand-written FastAPI, MLServer.

`python -m tests.bench.serving` takes about eight minutes and writes its table to build/bench/serving.txt. All servers
run on the first core and are asked one at a time; `wrk` and the object store are on the second. Every cell is the
median of rounds that are interleaved, so that a machine that gets slower is so for all. README.md says more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.bench.serving import measure, report
from tests.bench.serving.contenders import CAPTURING, CONTENDERS, ECHO, OURS, Bench, Running, body_for, post, request_of
from tests.unit.conftest import running_store

MOST_LOAD = 0.5  # load average of a machine that counts as quiet


def main() -> None:
    """Measure, print and write."""
    given = _arguments()
    names = [name for name in CONTENDERS if not given.only or name in given.only]
    rows_of = [int(number) for number in given.rows.split(",")]
    connections = [int(number) for number in given.connections.split(",")]
    first, second = given.cores.split(",")
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    before = os.getloadavg()[0]
    started = time.monotonic()
    rounds: dict[report.Cell, list[measure.Measured]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.sched_setaffinity(0, {int(second)})  # of the store, too; a server is pinned when it is started
        store = stack.enter_context(running_store(folder / "store"))
        os.environ.update(store.environment(), AWS_EC2_METADATA_DISABLED="true")
        bench = Bench(folder, store, (first, second), given.peers.absolute(), given.estimator)
        bodies = {(rows, name): _written(folder, rows, name) for rows in rows_of for name in names}
        servers: dict[tuple[int, str], Running] = {}
        ours = stack.enter_context(bench.start(OURS))
        for name in names:
            if name == ECHO:
                for rows in rows_of:
                    answer = post(ours.port, request_of(rows))
                    servers[rows, name] = stack.enter_context(bench.start(ECHO, answer))
                continue
            one = ours if name == OURS else stack.enter_context(bench.start(name))
            servers.update({(rows, name): one for rows in rows_of})
        for (rows, name), one in servers.items():
            measure.once(one, second, bodies[rows, name], 4, 1)  # warm
            if name == CAPTURING:
                one.settle()  # its first file costs more than all others
        for turn in range(given.rounds):
            for rows in rows_of:
                for number in connections:
                    for name in names:
                        one = servers[rows, name]
                        found = measure.once(one, second, bodies[rows, name], number, given.seconds)
                        rounds.setdefault((rows, name, number), []).append(found)
                        if name == CAPTURING:
                            one.settle()
            print(f"round {turn + 1} of {given.rounds}: {time.monotonic() - started:.0f} s", flush=True)
    cells = {cell: measure.median(found) for cell, found in rounds.items()}
    lines = [*report.table(cells), "", *map(str, report.goals(cells)), ""]
    noise = "" if before <= MOST_LOAD else ": THE MACHINE WAS NOT QUIET, the rates say little"
    lines.append(f"{given.estimator}, medians of {given.rounds} rounds of {given.seconds} s a cell")
    lines.append(f"load average before: {before:.1f}{noise}")
    text = "\n".join(lines)
    print(text)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text + "\n")


def _written(folder: Path, rows: int, name: str) -> Path:
    path = folder / f"body-{rows}-{CONTENDERS.index(name)}"
    path.write_bytes(body_for(name, request_of(rows)))
    return path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving", description=__doc__)
    parser.add_argument("--only", action="append", choices=CONTENDERS, help="these alone; may be given several times")
    parser.add_argument("--rows", default="1,100")
    parser.add_argument("--connections", default="1,16,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of a cell in a round")
    parser.add_argument("--cores", default="0,1", help="the servers', the load's")
    parser.add_argument("--peers", type=Path, default=Path("build/bench/peers"), help="made where it is missing")
    parser.add_argument("--estimator", default="sklearn.linear_model.LogisticRegression")
    parser.add_argument("--out", type=Path, default=Path("build/bench/serving.txt"))
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""One measurement: wrk from the load's core, and the server's own CPU time."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.serving.contenders import CAPTURING, HERE, INFER, Running


@dataclass(frozen=True)
class Measured:
    """One cell of the table. Latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    failed: int
    cpu: float  # microseconds of the server's CPU a request: hardly disturbed by others at work
    dropped: int = 0  # rows that were not captured


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def dropped(server: Running) -> int:
    """Rows that it could not capture so far."""
    return int(server.metrics()["truekeep_server_capture_dropped_rows_total"]) if server.name == CAPTURING else 0


def once(server: Running, core: str, body: Path, connections: int, seconds: int) -> Measured:
    """wrk for so many seconds."""
    lost, before = dropped(server), cpu_seconds(server.pid)
    done = subprocess.run(
        ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "wrk.lua"),
         f"http://127.0.0.1:{server.port}{INFER}"],
        env={**os.environ, "BODY": str(body)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    used = cpu_seconds(server.pid) - before
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found = json.loads(line.removeprefix("RESULT "))
    return Measured(
        rate=found["requests"] / found["seconds"],
        p50=found["p50"],
        p99=found["p99"],
        failed=found["bad"] + found["lost"],
        cpu=1e6 * used / max(found["requests"], 1),
        dropped=dropped(server) - lost,
    )


def median(rounds: Sequence[Measured]) -> Measured:
    """Of each figure; failures and drops are added up."""
    return Measured(
        rate=statistics.median(one.rate for one in rounds),
        p50=statistics.median(one.p50 for one in rounds),
        p99=statistics.median(one.p99 for one in rounds),
        failed=sum(one.failed for one in rounds),
        cpu=statistics.median(one.cpu for one in rounds),
        dropped=sum(one.dropped for one in rounds),
    )

"""An open loop: requests leave when they are due, whether or not earlier ones were answered.

vegeta sends them; but what it reports is counted from when a request left, and one that left late because the sender
was held up hides the wait of whoever stood behind it (coordinated omission). Here each latency is counted from when the
request was due.
"""

from __future__ import annotations

import base64
import csv
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.cluster import fetch_binary

CONNECTIONS = 64
MOST_WORKERS = 2000  # requests under way at once
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Loop:
    """What an open loop found. Latencies in milliseconds, of each request: from when it was due, from when it left."""

    rate: float  # requests a second that left
    latency: npt.NDArray[np.float64]
    apparent: npt.NDArray[np.float64]
    failures: dict[str, int]

    def quantile(self, fraction: float) -> float:
        """Milliseconds."""
        return float(np.quantile(self.latency, fraction))

    def line(self) -> str:
        """In words."""
        shown = "  ".join(f"p{percent:g} {self.quantile(percent / 100):.2f}" for percent in (50, 90, 99, 99.9))
        seen = float(np.quantile(self.apparent, 0.99))
        return (
            f"{len(self.latency):,} requests at {self.rate:,.0f} rps, {sum(self.failures.values())} failed: {shown}  "
            f"max {self.latency.max():.1f} ms (p99 from when each left: {seen:.2f})"
        )


def attack(url: str, bodies: Sequence[bytes], rate: int, seconds: int, folder: Path) -> Loop:
    """Ask `url` with these bodies in turn."""
    vegeta = str(fetch_binary("vegeta"))
    targets, results = folder / "targets", folder / "results"
    header = {"content-type": ["application/json"]}
    with targets.open("w") as sink:
        for body in bodies:
            told = {"method": "POST", "url": url, "body": base64.b64encode(body).decode(), "header": header}
            sink.write(json.dumps(told) + "\n")
    subprocess.run(
        [vegeta, "attack", "-format=json", f"-targets={targets}", f"-rate={rate}/1s", f"-duration={seconds}s",
         f"-connections={CONNECTIONS}", f"-workers={CONNECTIONS}", f"-max-workers={MOST_WORKERS}", "-timeout=5s",
         "-max-body=0", f"-output={results}"],
        check=True,
    )  # fmt: skip
    lines = subprocess.run([vegeta, "encode", "-to=csv", str(results)], check=True, capture_output=True, text=True)
    return judged(list(csv.reader(lines.stdout.splitlines())), rate)


def judged(lines: Sequence[Sequence[str]], rate: int) -> Loop:
    """From vegeta's CSV: time (ns), status, latency (ns), bytes out, bytes in, error, body, name, number of the hit."""
    left = np.array([int(line[0]) for line in lines], dtype=np.int64)
    taken = np.array([int(line[2]) for line in lines], dtype=np.int64)
    number = np.array([int(line[8]) for line in lines], dtype=np.int64)
    planned = number * _SECOND // rate
    due = planned + (left - planned).min()  # the one that was least late was on time
    failures: dict[str, int] = {}
    for line in lines:
        if line[1] != "200":
            why = f"{line[1]} {line[5]}"[:120]
            failures[why] = failures.get(why, 0) + 1
    return Loop(
        rate=len(lines) * _SECOND / max(int(left.max() - left.min()), 1),
        latency=(left + taken - due) / 1e6,
        apparent=taken / 1e6,
        failures=failures,
    )

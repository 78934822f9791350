"""What a replay counts. Nothing is tried again, so a failed request stays a failed request."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

FAILURES_KEPT = 20
# Latencies are kept as counts on a geometric scale: quantiles are right to 2.5 %, whatever the number of requests.
_RATIO = math.log(1.05)
_SMALLEST = 1e-4


@dataclass
class Share:
    """What one revision answered."""

    requests: int = 0
    first_event: str = ""
    last_event: str = ""
    first_answer: str = ""
    last_answer: str = ""


@dataclass
class Ledger:
    """The account of one replay; it is stored after each day, and a replay that starts again goes on with it."""

    last_day: str | None = None  # the last day that is wholly in the lake
    requests: int = 0
    rows: int = 0
    events: int = 0  # rows appended to the lake
    labels: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)  # the first few, in words
    revisions: dict[str, Share] = field(default_factory=dict)
    latencies: dict[int, int] = field(default_factory=dict)

    def answered(self, version: str, seconds: float, rows: int, event: datetime, now: datetime) -> None:
        """A request of so many rows was answered by this revision."""
        self.requests += 1
        self.rows += rows
        self._time(seconds)
        share = self.revisions.setdefault(version, Share(first_event=event.isoformat(), first_answer=now.isoformat()))
        share.requests += 1
        share.last_event, share.last_answer = event.isoformat(), now.isoformat()

    def refused(self, why: str, seconds: float, event: datetime, now: datetime) -> None:
        """A request got no answer, or one that was no success."""
        self.requests += 1
        self.failed += 1
        self._time(seconds)
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append(f"{now:%H:%M:%S} (event {event:%Y-%m-%dT%H}): {why}")

    def quantile(self, fraction: float) -> float:
        """Seconds within which this fraction of the requests was answered; 0 before the first."""
        slots = sorted(self.latencies)
        if not slots:
            return 0.0
        cumulated = np.cumsum([self.latencies[slot] for slot in slots])
        position = int(np.searchsorted(cumulated, fraction * cumulated[-1]))
        return _SMALLEST * math.exp((slots[min(position, len(slots) - 1)] + 0.5) * _RATIO)

    def line(self, day: str) -> str:
        """One line of progress, for people and programs: words of the form name=value."""
        versions = ",".join(f"{version}:{share.requests}" for version, share in sorted(self.revisions.items()))
        return (
            f"day={day} rows={self.rows} requests={self.requests} failed={self.failed} "
            f"p50_ms={self.quantile(0.5) * 1e3:.1f} p99_ms={self.quantile(0.99) * 1e3:.1f} revisions={versions or '-'}"
        )

    def summary(self) -> dict[str, Any]:
        """The account as JSON, with the quantiles in place of the counts."""
        stored = self.dump()
        del stored["latencies"]
        return stored | {"latency_ms": {f"p{q}": round(self.quantile(q / 100) * 1e3, 1) for q in (50, 90, 99)}}

    def dump(self) -> dict[str, Any]:
        """The account as JSON, to be loaded again."""
        shares = {version: vars(share) for version, share in sorted(self.revisions.items())}
        counts = {str(slot): count for slot, count in sorted(self.latencies.items())}
        return vars(self) | {"revisions": shares, "latencies": counts}

    @classmethod
    def load(cls, stored: dict[str, Any]) -> Ledger:
        """What `dump` gave."""
        shares = {version: Share(**share) for version, share in stored["revisions"].items()}
        counts = {int(slot): count for slot, count in stored["latencies"].items()}
        return cls(**(stored | {"revisions": shares, "latencies": counts}))

    def _time(self, seconds: float) -> None:
        slot = int(math.log(max(seconds, _SMALLEST) / _SMALLEST) / _RATIO)
        self.latencies[slot] = self.latencies.get(slot, 0) + 1

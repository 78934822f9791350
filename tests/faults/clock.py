"""The clock that is injected into the operator: it goes `rate` times as fast as the wall's, its event loop included."""

from __future__ import annotations

import asyncio
import selectors
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MONOTONIC = time.monotonic  # kept: the module's attribute is what some of the operator's modules get replaced


@dataclass(frozen=True)
class FastClock:
    """Shows `origin` (seconds since the epoch) where the wall's shows it, and then hurries.

    All processes of a plan have the same one, so that a restarted operator never sees time go back. `ahead`: seconds
    that it is wrong by."""

    rate: float
    origin: float
    ahead: float = 0.0

    def wall(self) -> datetime:
        """The time of day."""
        return datetime.fromtimestamp(self.origin + (time.time() - self.origin) * self.rate + self.ahead, UTC)

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return MONOTONIC() * self.rate

    def loop(self) -> asyncio.AbstractEventLoop:
        """An event loop whose timers go by this clock."""
        loop = asyncio.SelectorEventLoop(_Hurried(self.rate))
        loop.time = self.monotonic  # type: ignore[method-assign]
        return loop


class _Hurried(selectors.DefaultSelector):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout if timeout is None else timeout / self._rate)

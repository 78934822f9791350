"""Telling a person who waits: which step, how long it has taken and usually takes, how much is left.

On a terminal a step is one line that is repainted every second. Elsewhere (a log of CI) a step is one line when
it is done, and one more every twenty seconds while it is not.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

LOG_INTERVAL = 20.0


@dataclass(frozen=True)
class Step:
    """One thing that is done. `usual` is in seconds, on a machine with 2 cores."""

    title: str
    usual: float
    note: str = ""  # such as "once per machine"


def duration(seconds: float) -> str:
    """130 -> '2:10'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def roughly(seconds: float) -> str:
    """400 -> 'about 7 min'."""
    return f"about {round(seconds / 60)} min" if seconds >= 90 else f"about {max(1, round(seconds))} s"


def running_line(index: int, steps: list[Step], elapsed: float) -> str:
    """While it runs: `[3/8] building Kubernetes (about 7 min, once per machine) … 2:10, about 9 min left in all`."""
    step = steps[index]
    usual = ", ".join(filter(None, [roughly(step.usual), step.note]))
    left = max(0.0, step.usual - elapsed) + sum(later.usual for later in steps[index + 1 :])
    late = elapsed > 1.5 * step.usual + 10
    remark = "longer than usual" if late else f"{roughly(left)} left in all"
    return f"[{index + 1}/{len(steps)}] {step.title} ({usual}) … {duration(elapsed)}, {remark}"


def ended_line(index: int, steps: list[Step], elapsed: float, *, failed: bool) -> str:
    outcome = "failed after" if failed else "done in"
    return f"[{index + 1}/{len(steps)}] {steps[index].title}: {outcome} {duration(elapsed)}"


class Progress:
    """The steps of one run, in the order in which they will come."""

    def __init__(
        self,
        steps: list[Step],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps = steps
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._repaints = self._stream.isatty()
        self._index = -1

    @contextmanager
    def step(self) -> Iterator[Step]:
        """The next step, for as long as the block runs."""
        self._index += 1
        began = self._clock()
        over = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(began, over), daemon=True)
        ticker.start()
        failed = True
        try:
            yield self._steps[self._index]
            failed = False
        finally:
            over.set()
            ticker.join()
            self._write(ended_line(self._index, self._steps, self._clock() - began, failed=failed), final=True)

    def note(self, text: str) -> None:
        """A line beside the steps."""
        self._write(text, final=True)

    def _tick(self, began: float, over: threading.Event) -> None:
        while not over.wait(1.0 if self._repaints else LOG_INTERVAL):
            self._write(running_line(self._index, self._steps, self._clock() - began), final=False)

    def _write(self, line: str, *, final: bool) -> None:
        if self._repaints:
            self._stream.write(f"\r\033[K{line}" + ("\n" if final else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

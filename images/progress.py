"""Telling a person who waits: which image, which step of it, how long it has taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status

_LOG_INTERVAL = 20.0


class Step:
    """One thing that is done. On a terminal a line that is repainted; in a log a line every twenty seconds."""

    def __init__(
        self, console: Console, title: str, outcome: str = "done", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.outcome = outcome  # whoever does it may say more
        self._console = console
        self._title = title
        self._clock = clock
        self._began = self._told = clock()
        self._status = Status(escape(title), console=console) if console.is_terminal else None

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    def line(self, text: str) -> None:
        """A line of the program that works: buildah's and docker's tell the step that they are at."""
        doing = " ".join(text.split())[:80]
        if self._status is not None:
            self._status.update(escape(f"{self._title} … {self.seconds:.0f} s  {doing}"))
        elif self._clock() - self._told >= _LOG_INTERVAL:
            self._told = self._clock()
            self._console.print(
                escape(f"{self._title} … {self.seconds:.0f} s: {doing}"), highlight=False, soft_wrap=True
            )

    def __enter__(self) -> Step:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()


@contextmanager
def step(console: Console, title: str, outcome: str = "done") -> Iterator[Step]:
    """Show the step while the block runs, and one line when it is through."""
    with Step(console, title, outcome) as shown:
        yield shown
    console.print(escape(f"{title}: {shown.outcome} in {shown.seconds:.1f} s"), highlight=False, soft_wrap=True)

"""Telling: words, lines that can be copied, numbers as proof. 80 columns, plain where nobody watches."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

WIDTH = 80
QUIET_SECONDS = 15  # where there is no terminal, a long wait says this often that it goes on


class Narrator:
    """Writes to a stream: a terminal gets colours and a running clock, a file gets lines."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._console = Console(file=stream, width=WIDTH, highlight=False, soft_wrap=False)
        self._started = time.monotonic()

    def clock(self) -> str:
        """Minutes and seconds since the story began."""
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02}"

    def chapter(self, number: int, of: int, title: str) -> None:
        """A heading."""
        self._console.print()
        self._console.print(f"[bold cyan]{number}/{of}  {escape(title)}[/]  [dim]{self.clock()}[/]")

    def say(self, text: str) -> None:
        """A paragraph."""
        self._console.print(Padding(escape(" ".join(text.split())), (0, 0, 0, 4)))

    def proof(self, text: str) -> None:
        """A number that shows it."""
        self._console.print(Padding(f"[green]✓[/] {escape(text)}", (0, 0, 0, 4)))

    def command(self, *lines: str) -> None:
        """What the reader can copy. Never wrapped."""
        for number, line in enumerate(lines):
            self._console.print(f"    [yellow]{'$' if not number else ' '} {escape(line)}[/]", soft_wrap=True)

    def output(self, text: str, lines: int = 40) -> None:
        """What a command printed. Never wrapped."""
        for line in text.rstrip().splitlines()[:lines]:
            self._console.print(f"      [dim]{escape(line)}[/]", soft_wrap=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under a header."""
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for title in header:
            shown.add_column(title, overflow="fold")
        for row in rows:
            shown.add_row(*(escape(cell) for cell in row))
        self._console.print(Padding(shown, (0, 0, 0, 6)))

    def bad(self, text: str) -> None:
        """What went wrong."""
        self._console.print(f"[bold red]{escape(text)}[/]", soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[str], None]]:
        """A long step: what it is, how long it takes so far, and what the callable is told about it meanwhile."""
        started = last = time.monotonic()
        spinner = self._console.status(f"    {escape(what)}") if self._console.is_terminal else None

        def progress(detail: str) -> None:
            nonlocal last
            now = time.monotonic()
            text = f"{what}: {now - started:.0f} s{', ' + detail if detail else ''}"
            if spinner is not None:
                spinner.update(f"    {escape(text)}")
            elif now - last >= QUIET_SECONDS:
                last = now
                self._console.print(f"    … {escape(text)}", soft_wrap=True)

        with spinner or contextlib.nullcontext():
            yield progress

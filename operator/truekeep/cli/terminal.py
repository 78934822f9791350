"""What a terminal is shown is text: names, reasons and messages are other people's, and some are written to command it.

Characters that move the cursor, set the title, answer in the user's place or turn the order of reading around are shown
as `\\x1b`, `\\u202e` and so on. Colours are let through: they are our own, and at their worst they are ugly."""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

# C0 but tab and line feed, DEL, C1, and what overrides the direction of writing. ESC may begin a colour.
COMMANDS = re.compile("\x1b(?!\\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CONCEALED = re.compile("\x1b\\[(?:[0-9;]*;)?0?8(?:;[0-9;]*)?m")  # the one that hides what is written


def shown(text: str) -> str:
    """The text, what would command a terminal made visible."""
    return COMMANDS.sub(_visible, CONCEALED.sub(_visible, text))


def _visible(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


class Shown:
    """A stream that writes what is shown, and is the other one in all else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """All of it; so many characters were given."""
        self._stream.write(shown(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard() -> None:
    """From now on standard output and errors are shown so."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Shown):
            setattr(sys, name, Shown(stream))

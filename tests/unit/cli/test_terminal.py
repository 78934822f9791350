"""Nobody's name, reason or message commands the terminal of whoever reads it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from truekeep.cli import terminal

ATTACKS = {
    "clears the screen": "\x1b[2J\x1b[H",
    "goes back and overwrites": "rejected\r\x1b[Kapproved",
    "sets the title": "\x1b]0;root@prod\x07",
    "asks for an answer that is typed": "\x1b[6n",
    "C1": "\x9b2J",
    "erases by backspace": "no\x08\x08yes",
    "reads backwards": "\u202etxt.exe\u2066",
    "is hidden": "\x1b[0;8m not seen \x1b[8m",
    "writes the clipboard": "\x1b]52;c;Y3VybCBldmls\x1b\\",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_commands_is_shown_instead(attack: str) -> None:
    text = terminal.shown(attack)
    assert text != attack
    assert text.isascii()
    assert not any(ord(each) < 32 or ord(each) == 127 for each in text)
    assert terminal.shown(text) == text


@pytest.mark.parametrize(
    "text", ["two\nlines\tand a tab", "Straße, 東京, مرحبا", "\x1b[1;31mred\x1b[0m", "\x1b[38;5;208morange"]
)
def test_text_and_colours_are_as_they_were(text: str) -> None:
    assert terminal.shown(text) == text


def test_every_command_writes_so() -> None:
    """At a terminal, where click drops nothing."""
    name = f"{''.join(ATTACKS.values())}.yaml".replace("\x00", "")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "truekeep.cli", "check", "-f", name]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                said += part
        assert process.wait(60) == 2
    os.close(ours)
    text = said.decode().replace("\r\n", "\n")
    assert ".yaml" in text
    assert text == terminal.shown(text)
    assert terminal.shown(ATTACKS["clears the screen"]) in text

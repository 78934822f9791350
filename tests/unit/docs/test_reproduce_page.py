"""The commands that docs/reproduce.md shows for a laptop, as they stand there."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.docs.test_laptop import ROOT, folder, run

PAGE = (ROOT / "docs/reproduce.md").read_text()
COMMANDS = [line[2:] for line in PAGE.split("```console\n")[1].split("```")[0].splitlines() if line.startswith("$ ")]

__all__ = ["folder"]


def test_a_training_on_files_is_done_again(folder: Path) -> None:
    assert [command.split()[1] for command in COMMANDS] == ["train", "reproduce"]
    for command in COMMANDS:
        done = run(command, folder)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert "bit-equal: sha256:" in done.stdout
    digests = {
        json.loads((folder / name / "record.json").read_text())["artifact"]["digest"] for name in ("artifact", "again")
    }
    assert len(digests) == 1


def test_the_page_says_every_code_and_result() -> None:
    from truekeep.cli import reproduce

    assert {f"| {code} |" for code in (reproduce.EXIT_EQUAL, reproduce.EXIT_DIFFERENT, 2)} <= {
        line[:5] for line in PAGE.splitlines()
    }
    assert all(f"`{word}`" in PAGE for word in ("BitEqual", "Near", "Different"))

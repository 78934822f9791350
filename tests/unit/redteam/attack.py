"""What an attack is, and the list of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Scene:
    """Where an attack is tried: a folder of its own, and the means to take a guard away for as long as it lasts."""

    folder: Path
    patch: pytest.MonkeyPatch


@dataclass(frozen=True)
class Attack:
    """`attempt` says whether it got through; `unguard` takes its guard away before."""

    group: str
    name: str
    attempt: Callable[[Scene], bool]
    unguard: Callable[[Scene], None]

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"

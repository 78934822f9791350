"""Bugs that are planted in the operator's process to see whether the suite finds them. They live here alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """`words`: what is wrong. `plant`: makes it so in this process."""

    words: str
    plant: Callable[[], None]
    plans: tuple[int, ...] = ()  # numbers of plans that ought to find it, told before any sample


BUGS: dict[str, Bug] = {}

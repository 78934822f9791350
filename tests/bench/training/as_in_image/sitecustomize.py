"""What the development environment has and the trainer's image has not: scikit-learn, skops and pyarrow import it where
it is there, which takes a quarter of a second. Both sides of the bench go without."""

from __future__ import annotations

import sys
from typing import Any

MISSING = frozenset({"pandas", "pytest", "matplotlib"})


class Absent:
    """Finds nothing, and says so before others are asked."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """ModuleNotFoundError for what is missing."""
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent)

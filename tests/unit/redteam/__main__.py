"""`python -m tests.unit.redteam`: every attack, and the table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-q", str(Path(__file__).parent), *sys.argv[1:]]))

"""Two processes share the work: all that uses the cluster in one, file by file the rest in whichever is free."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
ON_THE_CLUSTER = (HERE / "e2e", HERE / "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the group of every test, for `pytest -n 2 --dist loadgroup`."""
    for item in items:
        alone = any(folder in item.path.parents for folder in ON_THE_CLUSTER)
        item.add_marker(pytest.mark.xdist_group("cluster" if alone else str(item.path.relative_to(HERE))))

"""Two processes share the work: all that uses the cluster in one, file by file the rest in whichever is free."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# How long an example takes is the machine's affair, and decides nothing.
settings.register_profile("truekeep", deadline=None)
settings.load_profile("truekeep")

ON_THE_CLUSTER = ("tests/e2e/", "tests/cluster/")


class OneForTheCluster(LoadScopeScheduling):
    """What uses the cluster stays together: it installs, kills and replaces the one operator that there is."""

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if nodeid.startswith(ON_THE_CLUSTER) else nodeid.partition("::")[0]


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneForTheCluster:
    """For `pytest -n 2`."""
    return OneForTheCluster(config, log)

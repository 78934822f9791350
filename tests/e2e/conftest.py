"""What is tested here runs on the cluster that `make up` made, and on no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import ClusterError
from tests.story.kube import Kube
from tests.story.stage import own_cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the cluster."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def kube() -> Kube:
    """Our own cluster. Any other context fails every test that asks for it, before anything is touched."""
    try:
        return own_cluster()
    except ClusterError as error:
        pytest.fail(f"these tests need the cluster that `make up` makes: {error}", pytrace=False)

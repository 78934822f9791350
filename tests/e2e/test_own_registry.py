"""Everything from a registry of one's own: pushed there, pinned by digest, and pulled by the node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from io import StringIO
from pathlib import Path

import pytest
from images import engines
from images.manifests import INSTALLED
from images.places import REPOSITORY, Cache
from images.publish import publish
from images.tool import last_built
from rich.console import Console

from tests import registry
from tests.cluster import engine, environment, install
from tests.e2e.shop import open_shop, small_model
from tests.story.kube import Json, Kube

pytestmark = pytest.mark.full
NAMESPACE = "truekeep-e2e-registry"
MODEL = "mirrored"
SYSTEM = "truekeep-system"


@pytest.fixture
def published(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A checkout with what `make publish` writes, the names of the images, and the registry that has them.

    At the end the images that were loaded are installed again."""
    if engine() != "one-node":
        pytest.skip("kind's nodes have a loopback of their own")
    cache = Cache.default()
    for name in ("manifests", "crds"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    with ExitStack() as stack:
        host = stack.enter_context(registry.registry())
        quiet = Console(file=StringIO())
        names = publish(last_built(INSTALLED, cache), engines.find(cache), quiet, f"{host}/ml", repository=tmp_path)
        stack.callback(install.install)
        yield tmp_path, names


def pulled(pod: Json) -> set[str]:
    """The images that its containers run, as the runtime names them."""
    containers = [*pod["status"].get("initContainerStatuses", []), *pod["status"]["containerStatuses"]]
    return {each["imageID"] for each in containers}


def test_the_node_pulls_all_of_it_by_digest(published: tuple[Path, dict[str, str]], kube: Kube) -> None:
    checkout, names = published
    kubectl = install.Kubectl(environment())
    file = str(checkout / "dist" / "truekeep.yaml")
    kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=truekeep-install", "-f", file)
    kubectl("rollout", "status", "deployment/truekeep-operator", "-n", SYSTEM, "--timeout=180s", timeout=190)
    operators = [pod for pod in kube.list(SYSTEM, "pods") if "deletionTimestamp" not in pod["metadata"]]
    assert names["TRUEKEEP_OPERATOR_IMAGE"] in set().union(*map(pulled, operators))
    with open_shop(kube, NAMESPACE, {MODEL: small_model(MODEL)}) as shop:
        pods = [pod for component in ("trainer", "server") for pod in shop.pods(MODEL, component)]
        run = set().union(*map(pulled, pods))
        assert {names["TRUEKEEP_TRAINER_IMAGE"], names["TRUEKEEP_SERVER_IMAGE"]} <= run
        said = [event for event in kube.list(NAMESPACE, "events") if event["reason"] == "Pulled"]
        assert any(names["TRUEKEEP_SERVER_IMAGE"] in event["message"] for event in said)

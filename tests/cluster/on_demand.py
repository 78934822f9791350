"""What only some suites need of a cluster, and what is therefore built and started when one asks for it.

`metrics-server` makes a HorizontalPodAutoscaler work; `gateway-api` is the kinds of the Gateway API, as its standard
channel defines them, without any data plane. They go with the cluster, or earlier, with `remove_addon`."""

from __future__ import annotations

import platform
import string
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.addons import MANIFESTS, NOBODY
from tests.cluster.binaries import Builder, GoModule
from tests.cluster.commands import wait_until
from tests.cluster.errors import ClusterError
from tests.cluster.guard import require_own_context
from tests.cluster.images import BinaryImage, write_archive
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import Layout, state_directory
from tests.cluster.manager import image_names, load_archives
from tests.cluster.progress import Progress, Step

START_SECONDS = 120


def add_addon(name: str) -> None:
    """Build what is missing of an addon, start it, and return when it works; soon where it does already."""
    module, manifests, works = _addon(name)
    kubectl = _kubectl()
    builder = Builder.here()
    missing = builder.missing([module])
    progress = Progress([*[each.step for each in missing], Step(f"starting {name}", 20)])
    builder.build(missing, progress)
    with progress.step():
        kubectl.apply(manifests(builder))
        wait_until(f"the addon {name} works", lambda: works(kubectl), seconds=START_SECONDS, every=0.5)


def remove_addon(name: str) -> None:
    """Take an addon away, and with its kinds all that is of these kinds."""
    module, manifests, _ = _addon(name)
    kubectl = _kubectl()
    builder = Builder.here()
    if not builder.missing([module]):
        kubectl("delete", "--ignore-not-found", "--filename=-", stdin=manifests(builder))


def _kubectl() -> Kubectl:
    layout = Layout(state_directory())
    require_own_context(layout.kubeconfig)
    return Kubectl(layout)


def _metrics_server(builder: Builder) -> str:
    binary = builder.path(binaries.METRICS_SERVER, "metrics-server")
    tag = binary.parent.name.rpartition("-")[2]
    image = BinaryImage(f"localhost/truekeep-cluster/metrics-server:{tag}", binary, NOBODY)
    if image.reference not in image_names():
        with _archive(image) as archive:
            load_archives([archive])
    text = (MANIFESTS / "on-demand" / "metrics-server.yaml").read_text()
    return string.Template(text).substitute(metrics_server_image=image.reference)


@contextmanager
def _archive(image: BinaryImage) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "image.tar"
        write_archive(image, archive, platform.machine())
        yield archive


def _metrics_answer(kubectl: Kubectl) -> bool:
    try:
        listed = kubectl("get", "--raw=/apis/metrics.k8s.io/v1beta1/nodes")
    except ClusterError:
        return False
    return '"usage"' in listed


def gateway_kinds() -> str:
    """The kinds of the Gateway API, as a stream of YAML; built first where they are not."""
    builder = Builder.here()
    missing = builder.missing([binaries.GATEWAY_API])
    builder.build(missing, Progress([each.step for each in missing]))
    return _gateway_api(builder)


def _gateway_api(builder: Builder) -> str:
    files = sorted(builder.path(binaries.GATEWAY_API, "standard").glob("gateway.networking.k8s.io_*.yaml"))
    return "\n---\n".join(file.read_text() for file in files)


def _routes_are_served(kubectl: Kubectl) -> bool:
    try:
        kubectl("get", "--raw=/apis/gateway.networking.k8s.io/v1/httproutes")
    except ClusterError:
        return False
    return True


Manifests = Callable[[Builder], str]
Works = Callable[[Kubectl], bool]
ADDONS: dict[str, tuple[GoModule, Manifests, Works]] = {
    "metrics-server": (binaries.METRICS_SERVER, _metrics_server, _metrics_answer),
    "gateway-api": (binaries.GATEWAY_API, _gateway_api, _routes_are_served),
}


def _addon(name: str) -> tuple[GoModule, Manifests, Works]:
    if name not in ADDONS:
        raise ClusterError(f"there is no addon {name!r}; there are {', '.join(sorted(ADDONS))}")
    return ADDONS[name]

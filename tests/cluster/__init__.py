"""The cluster that the demo and the end-to-end tests run on.

`python -m tests.cluster up` makes it: with kind where a Docker engine answers, else as a real Kubernetes of one node
straight on this machine. Either way it has the same context, storage class and DNS, takes the same images and
manifests, and is reached by a kubeconfig of its own.
"""

from __future__ import annotations

from tests.cluster.binaries import fetch_binary
from tests.cluster.errors import ClusterError
from tests.cluster.guard import require_own_context
from tests.cluster.manager import down, engine, environment, image_names, load_archives, status, up, without
from tests.cluster.on_demand import add_addon, remove_addon

__all__ = [
    "ClusterError",
    "add_addon",
    "down",
    "engine",
    "environment",
    "fetch_binary",
    "image_names",
    "load_archives",
    "remove_addon",
    "require_own_context",
    "status",
    "up",
    "without",
]

"""Refusing any cluster but ours: what tests and the demo create and delete must never reach another one."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.errors import ClusterError
from tests.cluster.layout import CONTEXT, Layout, Record, state_directory

REMEDY = "`make up` makes the cluster, and `python -m tests.cluster env` prints its KUBECONFIG"


def require_own_context(kubeconfig: Path | str) -> None:
    """Raise ClusterError unless the kubeconfig's current context is the cluster that this tool made.

    Its name is not enough (anybody may call a context `truekeep`): server and certificate authority must be those
    that were written down when the cluster was made.
    """
    record = Record.read(Layout(state_directory()))
    if record is None:
        raise ClusterError(f"no cluster was made here: {REMEDY}")
    context, cluster = _current(Path(kubeconfig))
    if context != CONTEXT:
        raise ClusterError(f"{kubeconfig}: its context is {context!r}, not {CONTEXT!r}: {REMEDY}")
    if cluster.get("server") != record.server:
        raise ClusterError(
            f"{kubeconfig}: its server is {cluster.get('server')}, and ours is {record.server}: {REMEDY}"
        )
    pem = base64.b64decode(cluster.get("certificate-authority-data", ""))
    if hashlib.sha256(pem).hexdigest() != record.ca_sha256:
        raise ClusterError(f"{kubeconfig}: its certificate authority is not that of the cluster made here: {REMEDY}")


def _current(kubeconfig: Path) -> tuple[str, dict[str, Any]]:
    """The current context's name and the cluster that it names, of one kubeconfig file."""
    try:
        document = yaml.safe_load(kubeconfig.read_text())
        name = document["current-context"]
        (context,) = (each["context"] for each in document["contexts"] if each["name"] == name)
        (cluster,) = (each["cluster"] for each in document["clusters"] if each["name"] == context["cluster"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        raise ClusterError(f"{kubeconfig} is no kubeconfig with a current context: {REMEDY}") from None
    return str(name), dict(cluster)

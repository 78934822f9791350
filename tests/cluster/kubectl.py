"""Asking the cluster through kubectl, always with its own kubeconfig."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout


class Kubectl:
    def __init__(self, layout: Layout) -> None:
        self._argv = [str(layout.kubectl), "--kubeconfig", str(layout.kubeconfig), "--request-timeout=10s"]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return run([*self._argv, *arguments], stdin=stdin, timeout=60)

    def apply(self, manifests: str) -> None:
        self("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=manifests)

    def ready(self) -> bool:
        """Whether the API server says that it is."""
        try:
            return self("get", "--raw=/readyz") == "ok"
        except ClusterError:
            return False

    def unready(self) -> list[str]:
        """Nodes that are not Ready and addons that have no replica, by name; the API server where it is silent."""
        try:
            listed: dict[str, Any] = json.loads(self("get", "nodes,deployments", "--all-namespaces", "--output=json"))
        except ClusterError:
            return ["the API server"]
        items = listed["items"]
        waiting = [] if any(item["kind"] == "Node" for item in items) else ["the node"]
        for item in items:
            wanted = "Ready" if item["kind"] == "Node" else "Available"
            system = item["kind"] == "Node" or item["metadata"]["namespace"] in SYSTEM_NAMESPACES
            conditions = item.get("status", {}).get("conditions", [])
            if system and not any(c["type"] == wanted and c["status"] == "True" for c in conditions):
                waiting.append(item["metadata"]["name"])
        return waiting


SYSTEM_NAMESPACES = {"kube-system", "local-path-storage"}

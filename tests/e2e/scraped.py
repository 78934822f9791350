"""What a real Prometheus reads of the cluster, and what alerts and panels ask of it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import environment
from tests.prometheus import Running
from tests.story.kube import Json, Kube, name_of
from tests.unit.manifests.test_monitoring import documents, expressions, metric_names


def asked() -> set[str]:
    """The metrics that alerts and panels ask for."""
    return {name for expression in expressions() for name in metric_names(expression)}


def names(prometheus: Running) -> set[str]:
    """The metrics that there are."""
    return {each["metric"]["__name__"] for each in prometheus.query('{__name__=~".+"}')}


def scrapes(kube: Kube, namespace: str, folder: Path) -> list[Json]:
    """What the PodMonitors ask a Prometheus to read, of the operator and of a namespace, through the API server: on
    some clusters this machine has no way to the pods. The folder gets the cluster's certificates."""
    config = yaml.safe_load(Path(environment()["KUBECONFIG"]).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    for name, content in (
        ("ca", cluster["certificate-authority-data"]),
        ("cert", user["client-certificate-data"]),
        ("key", user["client-key-data"]),
    ):
        (folder / name).write_bytes(base64.b64decode(content))
    access = {"tls_config": {f"{name}_file": str(folder / name) for name in ("ca", "cert", "key")}, "scheme": "https"}
    return [_scrape(monitor, kube, namespace, cluster["server"], access) for monitor in documents("podmonitors.yaml")]


def _scrape(monitor: Json, kube: Kube, namespace: str, server: str, access: Mapping[str, Any]) -> Json:
    """One PodMonitor, carried out as the Prometheus Operator would. Debian's Prometheus can't look for pods itself."""
    spec = monitor["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    namespace = namespace if spec.get("namespaceSelector", {}).get("any") else "truekeep-system"
    selector = ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items())
    targets = []
    for pod in kube.list(namespace, "pods", selector):
        if pod["status"].get("phase") != "Running" or "deletionTimestamp" in pod["metadata"]:
            continue
        found = [
            (container["name"], port["containerPort"])
            for container in pod["spec"]["containers"]
            for port in container.get("ports", ())
            if port["name"] == endpoint["port"]
        ]
        copied = {name: pod["metadata"]["labels"][name] for name in spec.get("podTargetLabels", ())}
        for container, port in found:
            path = f"/api/v1/namespaces/{namespace}/pods/{name_of(pod)}:{port}/proxy{endpoint['path']}"
            labels = {
                "__metrics_path__": path,
                "namespace": namespace,
                "pod": name_of(pod),
                "container": container,
                **{re.sub(r"\W", "_", name): value for name, value in copied.items()},
            }
            targets.append({"targets": [server.removeprefix("https://")], "labels": labels})
    assert targets, f"no pod of {monitor['metadata']['name']} has a port {endpoint['port']}"
    honor = endpoint.get("honorLabels", False)
    return {"job_name": monitor["metadata"]["name"], "honor_labels": honor, "static_configs": targets, **access}

"""Services: one that clients know, which never changes its name, and one for each Deployment."""

from __future__ import annotations

from typing import Any

from truekeep.api.names import LABEL_COMPONENT, LABEL_DEPLOYMENT, LABEL_MODEL, serving_selector
from truekeep.contract.requests import SERVER_GRPC_PORT, SERVER_PORT
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import ServiceIntent
from truekeep.resources.metadata import child_metadata

PORT = 80


def stable_service(model: ModelView, intent: ServiceIntent) -> dict[str, Any]:
    """The Service that clients know: the pods of one Deployment, or of all of the Model's while a canary runs."""
    return _service(model, intent.name, {}, intent.deployment)


def deployment_service(model: ModelView, deployment: str) -> dict[str, Any]:
    """The Service of one Deployment, named as it is."""
    return _service(model, deployment, {LABEL_DEPLOYMENT: deployment}, deployment)


def _service(model: ModelView, name: str, labels: dict[str, str], deployment: str | None) -> dict[str, Any]:
    labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: "server", **labels}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(name, "Model", model.meta, labels),
        "spec": {
            "type": "ClusterIP",
            "selector": serving_selector(model.meta.name, deployment),
            "ports": [
                {"name": "http", "port": PORT, "protocol": "TCP", "targetPort": SERVER_PORT},
                {
                    "name": "grpc",
                    "port": SERVER_GRPC_PORT,
                    "protocol": "TCP",
                    "targetPort": SERVER_GRPC_PORT,
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
        },
    }

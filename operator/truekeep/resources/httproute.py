"""The HTTPRoute that splits a Model's traffic at a Gateway, by exact weights, between its Deployments' Services."""

from __future__ import annotations

from typing import Any

from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import RouteIntent
from truekeep.resources.metadata import child_metadata
from truekeep.resources.services import PORT

GROUP = "gateway.networking.k8s.io"


def httproute(model: ModelView, intent: RouteIntent) -> dict[str, Any] | None:
    """The route of an intent, named as the Model is; None where no Gateway is named."""
    gateway = model.spec.serving.gateway
    if gateway is None:
        return None
    name, prefix = model.meta.name, gateway.path_prefix
    filters: list[dict[str, Any]] = []
    if prefix is not None and prefix != "/":
        rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
        filters.append({"type": "URLRewrite", "urlRewrite": rewrite})
    if intent.mirror is not None:
        filters.append({"type": "RequestMirror", "requestMirror": {"backendRef": _service(intent.mirror)}})
    labels = {LABEL_MODEL: name, LABEL_COMPONENT: "server"}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": child_metadata(name, "Model", model.meta, labels),
        "spec": {
            "parentRefs": [parent_reference(model)],
            "hostnames": list(gateway.hostnames),
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": prefix or f"/v2/models/{name}"}}],
                    "filters": filters,
                    "backendRefs": [{**_service(each), "weight": weight} for each, weight in intent.weights],
                }
            ],
        },
    }


def parent_reference(model: ModelView) -> dict[str, str]:
    """The Gateway, as the route names it and as the route's status repeats it; empty where none is named."""
    gateway = model.spec.serving.gateway
    if gateway is None:
        return {}
    reference = {
        "group": GROUP,
        "kind": "Gateway",
        "namespace": gateway.namespace or model.meta.namespace,
        "name": gateway.name,
    }
    return reference | ({"sectionName": gateway.section_name} if gateway.section_name else {})


def _service(deployment: str) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": deployment, "port": PORT}

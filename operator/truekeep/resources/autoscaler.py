"""The HorizontalPodAutoscaler of the live revision's Deployment."""

from __future__ import annotations

from typing import Any

from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, autoscaler_name
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import AutoscalerIntent
from truekeep.resources.metadata import child_metadata


def autoscaler(model: ModelView, intent: AutoscalerIntent) -> dict[str, Any] | None:
    """The autoscaler of an intent; None where the Model asks for none."""
    scaling = model.spec.serving.autoscaling
    if scaling is None:
        return None
    labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: "server"}
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": scaling.cpu_percent}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": child_metadata(autoscaler_name(model.meta.name), "Model", model.meta, labels),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": intent.deployment},
            "minReplicas": intent.least,
            "maxReplicas": scaling.max_replicas,
            "metrics": [{"type": "Resource", "resource": cpu}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": scaling.scale_down_seconds}},
        },
    }

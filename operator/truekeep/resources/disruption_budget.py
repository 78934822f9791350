"""The PodDisruptionBudget of a Model: a drained node takes one serving pod at a time."""

from __future__ import annotations

from typing import Any

from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, serving_selector
from truekeep.domain.observed import ModelView
from truekeep.resources.metadata import child_metadata


def disruption_budget(model: ModelView) -> dict[str, Any] | None:
    """The budget over all serving pods of the Model, named as it is; None for fewer than two replicas, where a
    budget would only keep nodes from being drained."""
    if model.spec.serving.replicas < 2:
        return None
    labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: "server"}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(model.meta.name, "Model", model.meta, labels),
        "spec": {
            "maxUnavailable": 1,
            # A pod that is not ready protects nobody, and must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": serving_selector(model.meta.name)},
        },
    }

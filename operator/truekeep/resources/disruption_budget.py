"""The PodDisruptionBudget of a Model: a drained node takes one serving pod at a time, and never the last one.

It guards the pods of the live revision alone: a candidate that can't start, or a warm revision, must keep no node from
being drained."""

from __future__ import annotations

from typing import Any

from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, serving_selector
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import BudgetIntent
from truekeep.resources.metadata import child_metadata


def disruption_budget(model: ModelView, intent: BudgetIntent) -> dict[str, Any]:
    """The budget of the live revision, named as the Model is."""
    labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: "server"}
    bound = {"maxUnavailable": 1} if intent.pods > 1 else {"minAvailable": 1}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(model.meta.name, "Model", model.meta, labels),
        "spec": {
            **bound,
            # A pod that is not ready protects nobody, and must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": serving_selector(model.meta.name, intent.deployment)},
        },
    }

"""A TrainingRun that the operator makes."""

from __future__ import annotations

from typing import Any

from truekeep.api.common import API_VERSION
from truekeep.api.names import LABEL_MODEL
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import RunIntent
from truekeep.resources.metadata import child_metadata


def training_run(model: ModelView, intent: RunIntent) -> dict[str, Any]:
    """The TrainingRun of an intent, owned by its Model."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": child_metadata(intent.name, "Model", model.meta, {LABEL_MODEL: model.meta.name}),
        "spec": {"modelRef": {"name": model.meta.name}, "trigger": intent.trigger.dump()},
    }

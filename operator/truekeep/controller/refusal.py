"""What the API server refuses to make comes up in the conditions, as everything else that stops an object."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from truekeep.api.common import Condition
from truekeep.api.driftpolicy import DriftPolicyStatus
from truekeep.api.model import ModelStatus
from truekeep.api.trainingrun import TrainingRunStatus
from truekeep.cluster.errors import ClusterError, NameTaken
from truekeep.domain.conditions import Finding, find, settle
from truekeep.domain.observed import Meta
from truekeep.domain.plan import Note
from truekeep.domain.pods import refused

AnyStatus = TypeVar("AnyStatus", ModelStatus, TrainingRunStatus, DriftPolicyStatus)


def explained(
    stored: AnyStatus, planned: AnyStatus, about: Meta, error: ClusterError, now: datetime
) -> tuple[AnyStatus, tuple[Note, ...]]:
    """The stored status with conditions that say what was refused, and an Event where that is news.

    The rest of what was planned rests on what could not be made, so of it only the other conditions are kept."""
    reason, message = _words(error)
    wanted = [_finding(condition, reason, message) for condition in planned.conditions]
    conditions = settle(stored.conditions, wanted, about.generation, now)
    before = find(stored.conditions, "Stalled")
    news = before is None or (before.status, before.reason) != ("True", reason)
    update = {"conditions": conditions, "observed_generation": about.generation}
    return stored.model_copy(update=update), (Note("Warning", reason, message),) if news else ()


def _words(error: ClusterError) -> tuple[str, str]:
    if isinstance(error, NameTaken):
        return "NameTaken", str(error)
    quota = refused(str(error)).reason == "QuotaExceeded"
    remedy = "free some of the namespace's quota" if quota else "mend what the message names"
    return ("QuotaExceeded" if quota else "Refused"), f"the API server refused: {error}; {remedy}; it is tried again"


def _finding(planned: Condition, reason: str, message: str) -> Finding:
    match planned.type:
        case "Ready":
            return Finding("Ready", "False", reason, message)
        case "Reconciling":
            return Finding("Reconciling", "False", reason)
        case "Stalled":
            return Finding("Stalled", "True", reason, message)
        case _:
            return Finding(planned.type, planned.status, planned.reason, planned.message)

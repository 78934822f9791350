"""What the API server refuses to make comes up in the conditions, as everything else that stops an object."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypeVar

from truekeep.api.common import Condition
from truekeep.api.driftpolicy import DriftPolicyStatus
from truekeep.api.model import ModelStatus
from truekeep.api.trainingrun import TrainingRunStatus
from truekeep.cluster.errors import ClusterError, NameTaken
from truekeep.cluster.views import SpecInvalidError
from truekeep.domain.conditions import Finding, find, settle
from truekeep.domain.observed import Meta
from truekeep.domain.plan import Note
from truekeep.domain.pods import refused

MAIN: Mapping[str, Literal["True", "False"]] = {"Ready": "False", "Reconciling": "False", "Stalled": "True"}
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


def unreadable(stored: AnyStatus, about: Meta, error: SpecInvalidError, now: datetime) -> AnyStatus:
    """The stored status with conditions that say why nothing is done about the object."""
    message = f"{error}; apply it anew, or install the version that it was written for"
    kept = [condition for condition in stored.conditions if condition.type not in MAIN]
    findings = [Finding(kind, flag, "SpecUnreadable", message) for kind, flag in MAIN.items()]
    findings += [Finding(each.type, each.status, each.reason, each.message) for each in kept]
    return stored.model_copy(update={"conditions": settle(stored.conditions, findings, about.generation, now)})


def _words(error: ClusterError) -> tuple[str, str]:
    if isinstance(error, NameTaken):
        return "NameTaken", str(error)
    quota = refused(str(error)).reason == "QuotaExceeded"
    remedy = "free some of the namespace's quota" if quota else "mend what the message names"
    return ("QuotaExceeded" if quota else "Refused"), f"the API server refused: {error}; {remedy}; it is tried again"


def _finding(planned: Condition, reason: str, message: str) -> Finding:
    flag = MAIN.get(planned.type)
    if flag is None:
        return Finding(planned.type, planned.status, planned.reason, planned.message)
    return Finding(planned.type, flag, reason, "" if planned.type == "Reconciling" else message)

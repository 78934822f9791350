"""Where a run stands, and how its conditions and Events say it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from truekeep.api.common import Condition
from truekeep.api.trainingrun import TrainingRunStatus
from truekeep.domain.conditions import Finding, find, holds, settle
from truekeep.domain.data import data_finding
from truekeep.domain.observed import RunView
from truekeep.domain.plan import Note, RunPlan

State = Literal["Working", "Stuck", "Succeeded", "Failed", "Declined"]
# What says nothing about the spec that was trained, nor of the model: it is as if the run had not been.
VOID = frozenset({"SpecChanged"})
# How a run may end that says nothing is broken: the live model is simply the better one, or another spec is wanted.
DECLINED = frozenset({"ChampionKept"}) | VOID


@dataclass(frozen=True)
class Stand:
    """Where a run stands."""

    state: State
    reason: str
    message: str


def finished(run: RunView) -> bool:
    """Whether the run ended, one way or the other."""
    return ended(run.status.conditions)


def ended(conditions: Sequence[Condition]) -> bool:
    """Whether a run with these conditions ended."""
    return holds(conditions, "Complete") or holds(conditions, "Failed")


def succeeded(run: RunView) -> bool:
    """Whether the run is a revision."""
    return run.status.revision is not None and holds(run.status.conditions, "Complete")


def reason_of(run: RunView) -> str:
    """The one word for where the run stands."""
    ready = find(run.status.conditions, "Ready")
    return ready.reason if ready else "Pending"


def message_of(run: RunView) -> str:
    """The sentence for where the run stands."""
    ready = find(run.status.conditions, "Ready")
    return ready.message if ready else ""


def stand_again(run: RunView) -> Stand:
    """A finished run's stand, from its own conditions: it never changes any more."""
    reason, message = reason_of(run), message_of(run)
    if succeeded(run):
        return Stand("Succeeded", reason, message)
    return Stand("Declined" if reason in DECLINED else "Failed", reason, message)


def says(
    run: RunView,
    status: TrainingRunStatus,
    stand: Stand,
    now: datetime,
    look_again: float | None = None,
    notes: Iterable[Note] = (),
) -> RunPlan:
    """A plan that does nothing yet but say where the run stands: its status, and an Event where the reason is new.

    notes: what to say instead of that Event."""
    done = stand.state in {"Succeeded", "Failed", "Declined"}

    def flag(value: bool) -> Literal["True", "False"]:
        return "True" if value else "False"

    wanted = [
        Finding("Ready", flag(stand.state == "Succeeded"), stand.reason, stand.message),
        Finding("Reconciling", flag(stand.state == "Working"), stand.reason, "" if done else stand.message),
        Finding("Stalled", flag(stand.state in {"Stuck", "Failed"}), stand.reason, stand.message),
        Finding("Complete", flag(stand.state == "Succeeded"), stand.reason),
        Finding("Failed", flag(stand.state in {"Failed", "Declined"}), stand.reason),
        data_finding(stand.reason, stand.message, status.data),
    ]
    generation = run.meta.generation
    conditions = settle(run.status.conditions, wanted, generation, now)
    status = status.model_copy(update={"observed_generation": generation, "conditions": conditions})
    told = tuple(notes)
    if not told and reason_of(run) != stand.reason:
        bad = stand.state in {"Stuck", "Failed"}
        told = (Note("Warning" if bad else "Normal", stand.reason, stand.message or stand.reason),)
    return RunPlan(status=status, notes=told, look_again_seconds=look_again)

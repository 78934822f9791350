"""Conditions: every one of a kind's is always there, and its transition time moves only with its status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from truekeep.api.common import Condition

Status = Literal["True", "False", "Unknown"]
MESSAGE_LIMIT = 2048


@dataclass(frozen=True)
class Finding:
    """What a condition is to say."""

    type: str
    status: Status
    reason: str
    message: str = ""


def settle(old: Sequence[Condition], wanted: Iterable[Finding], generation: int, now: datetime) -> list[Condition]:
    """The conditions to write: those wanted, each with the time at which its status last changed."""
    before = {condition.type: condition for condition in old}
    result = []
    for finding in wanted:
        last = before.get(finding.type)
        unchanged = last is not None and last.status == finding.status
        result.append(
            Condition(
                type=finding.type,
                status=finding.status,
                observed_generation=generation,
                last_transition_time=last.last_transition_time if last and unchanged else whole_seconds(now),
                reason=finding.reason,
                message=finding.message[:MESSAGE_LIMIT],
            )
        )
    return result


def whole_seconds(moment: datetime) -> datetime:
    """The time as the API server keeps it, so that what was written equals what is read."""
    return moment.replace(microsecond=0)


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of that type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def holds(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether the condition of that type is True."""
    condition = find(conditions, kind)
    return condition is not None and condition.status == "True"

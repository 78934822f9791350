"""The tries of a stage: which failed, whether there is another one, when, and with how much memory.

A try that failed is written into the run's status before the next is made; the next one's number, and so its Job's
name, follows from what is written. So a crash between any two writes neither loses a try nor doubles one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from truekeep.api.common import quantity
from truekeep.api.model import ModelSpec
from truekeep.api.retries import MoreMemory, Retries
from truekeep.api.trainingrun import Stage, TrainingRunStatus, Try
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.failures import Remedy, may_be_repeated, remedy
from truekeep.domain.observed import JobView
from truekeep.domain.pods import Trouble

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(seconds=300)
MOST_TRIES = 24  # that the status keeps
MESSAGE_LIMIT = 512
MEBI, GIBI = 2**20, 2**30


@dataclass(frozen=True)
class Again:
    """Whether a stage is tried again, and the sentence for it."""

    due: datetime | None  # None: not
    words: str = ""


def failed(status: TrainingRunStatus, stage: Stage) -> list[Try]:
    """The tries of a stage that failed, the oldest first."""
    return sorted((each for each in status.attempts if each.stage == stage), key=lambda each: each.number)


def number(status: TrainingRunStatus, stage: Stage) -> int:
    """Number of the try that is under way, or comes next."""
    return max((each.number for each in failed(status, stage)), default=0) + 1


def recorded(status: TrainingRunStatus, job: JobView) -> bool:
    """Whether a Job's failure is in the status."""
    return job.attempt < number(status, job.stage)


def record(status: TrainingRunStatus, job: JobView, trouble: Trouble, now: datetime) -> TrainingRunStatus:
    """The status with one more try that failed. Of many, those go first that came from outside: they count nothing."""
    entry = Try(
        stage=job.stage,
        number=job.attempt,
        reason=trouble.reason,
        message=trouble.message[:MESSAGE_LIMIT],
        time=whole_seconds(job.finished or now),
        memory=job.memory,
    )
    tries = [*status.attempts, entry]
    while len(tries) > MOST_TRIES:
        tries.remove(next((each for each in tries[:-1] if remedy(each.reason) == "Outside"), tries[0]))
    return status.model_copy(update={"attempts": tries})


def deadline(status: TrainingRunStatus, spec: ModelSpec, now: datetime) -> datetime:
    """When the run's time is over. It begins with the first Job, and anew after a try that had all of it."""
    begins = [each.time for each in status.attempts if remedy(each.reason) == "Deadline"]
    begins += [status.start_time] if status.start_time else []
    return max(begins, default=now) + timedelta(seconds=spec.training.timeout_seconds)


def again(status: TrainingRunStatus, job: JobView, trouble: Trouble, spec: ModelSpec, now: datetime) -> Again:
    """Whether a stage is tried again whose newest try, which is in the status, failed so."""
    kind = remedy(trouble.reason)
    if kind == "Never" or not may_be_repeated(trouble):
        return Again(None)
    why_not = None if kind == "Outside" else _refused(status, job, kind, spec.training.retries)
    if why_not is not None:
        return Again(None, why_not)
    due = due_at(status, job.stage)
    if due >= deadline(status, spec, now):
        return Again(None, no_time(spec))
    more = memory(status, job.stage, spec.training.retries.memory) if kind == "Memory" else None
    return Again(due, f"try {job.attempt + 1}{f' with {more} of memory' if more else ''} begins at {due:%H:%M:%S} UTC")


def no_time(spec: ModelSpec) -> str:
    """Why there is no further try, where the run's time is over."""
    return f"spec.training.timeoutSeconds ({spec.training.timeout_seconds}) leaves no time for another try"


def _refused(status: TrainingRunStatus, job: JobView, kind: Remedy, retries: Retries) -> str | None:
    """Why the Model allows no further try, in words, which may be none. None where it allows one."""
    if (kind == "Deadline" and retries.on_deadline == "Fail") or (kind == "Memory" and retries.memory is None):
        return ""
    if kind == "Memory" and retries.memory and job.memory and quantity(job.memory) >= quantity(retries.memory.limit):
        return f"spec.training.retries.memory.limit ({retries.memory.limit}) allows no more"
    counted = [each for each in failed(status, job.stage) if remedy(each.reason) not in {"Outside", "Never"}]
    if len(counted) > retries.limit:
        return f"spec.training.retries.limit ({retries.limit}) allows no further try" if retries.limit else ""
    return None


def due_at(status: TrainingRunStatus, stage: Stage) -> datetime:
    """When the next try of a stage may begin, whose newest one failed: later after each."""
    newest = failed(status, stage)[-1]
    pause: timedelta = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(newest.number - 1, 10))
    return newest.time + pause


def memory(status: TrainingRunStatus, stage: Stage, rule: MoreMemory | None) -> str | None:
    """The limit that the next try gets: more than the last had that ran out of it. None: as the spec says."""
    short = [each.memory for each in failed(status, stage) if remedy(each.reason) == "Memory" and each.memory]
    if rule is None or not short:
        return None
    most = quantity(rule.limit)
    grown = min(max(quantity(each) for each in short) * Decimal(rule.factor), most)
    return rule.limit if grown == most else _bytes(grown)


def before(tries: Sequence[Try]) -> str:
    """What the tries before failed for, in a few words; nothing where there were none."""
    reasons = [each.reason for each in tries]
    counts = {reason: reasons.count(reason) for reason in reasons}
    return ", ".join(f"{reason} ({count} times)" if count > 1 else reason for reason, count in counts.items())


def _bytes(amount: Decimal) -> str:
    mebi = math.floor(amount / MEBI)
    return f"{mebi * MEBI // GIBI}Gi" if mebi * MEBI % GIBI == 0 else f"{mebi}Mi"

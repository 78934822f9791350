"""What a pod hands back: a termination message of at most 4 KiB, and the same, whole, in the object store.

Exit codes: 0, the work was judged (a gate may have failed); 3, the input is at fault and a second try can't help;
4, something outside was missing (the store) and a second try may help; 137, it needs more memory; anything else is a
crash.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from truekeep.api.common import Digest, Schema
from truekeep.api.driftpolicy import Finding, PerformanceVerdict, WindowVerdict
from truekeep.api.model import Rehearsal
from truekeep.api.trainingrun import (
    Artifact,
    ChampionResult,
    DataRead,
    GateResult,
    MetricValue,
    Record,
    Restored,
    TuningSummary,
)
from truekeep.contract.requests import TERMINATION_LIMIT

EXIT_JUDGED = 0
EXIT_INPUT = 3
EXIT_OUTSIDE = 4
EXIT_OUT_OF_MEMORY = 137  # said by the pod itself, or by the kernel that killed it
VIOLATIONS_KEPT = 3  # in a termination message that has no room for more
MESSAGE_KEPT = 500  # characters of words that stay before those go, too
LEAST_MESSAGE = 8

TrainReason = Literal[
    "Succeeded", "DataInvalid", "DataTooLarge", "DataChanged", "ParametersInvalid", "ImportInvalid", "TuningFailed",
    "DeliveryInvalid", "GatesFailed", "ChampionKept", "RestoreInvalid", "StoreUnreachable",
]  # fmt: skip


class FormerRun(Schema):
    """What a run was before it was restored, as the store has it."""

    facts: Restored
    revision: int | None = None
    started: datetime | None = None
    finished: datetime | None = None
    model_generation: int | None = None
    author: str | None = Field(default=None, max_length=512)
    image: str | None = Field(default=None, max_length=512)
    image_id: str | None = Field(default=None, max_length=512)

    def shorter(self) -> FormerRun | None:
        """Without what matters least, all of which is in the store. None where nothing can go."""
        facts = self.facts
        if facts.word and facts.word.reason:
            return self._with(word=facts.word.model_copy(update={"reason": ""}))
        if len(facts.failures) > 1:
            return self._with(failures=facts.failures[:-1])
        if len(facts.promotions) > 1:
            return self._with(promotions=facts.promotions[:-1])
        if self.image or self.image_id:
            return self.model_copy(update={"image": None, "image_id": None})
        return None

    def _with(self, **update: object) -> FormerRun:
        return self.model_copy(update={"facts": self.facts.model_copy(update=update)})


class TrainResult(Schema):
    """How a run ended."""

    run_uid: str
    reason: TrainReason
    message: str = Field(max_length=2048)  # what happened, and what to do, for a person
    training_fingerprint: Digest
    data: DataRead | None = None
    tuning: TuningSummary | None = None
    metrics: tuple[MetricValue, ...] = ()
    gates: tuple[GateResult, ...] = ()
    champion: ChampionResult | None = None
    cut_off: str | None = None
    fit_seconds: str | None = None
    artifact: Artifact | None = None  # only where reason is Succeeded
    record: Record | None = None
    trained_until: datetime | None = None
    former: FormerRun | None = None  # of a run that was restored

    def to_message(self) -> str:
        """JSON of at most 4096 bytes: the gates that passed go first, then words that the record has, too."""
        result = self
        while len(text := result.model_dump_json(by_alias=True, exclude_none=True).encode()) > TERMINATION_LIMIT:
            if result.gates:
                result = result.model_copy(update={"gates": result.gates[:-1]})
            elif result.data and (shorter := _shorter(result.data, len(result.message) > MESSAGE_KEPT)):
                result = result.model_copy(update={"data": shorter})
            elif result.tuning and result.tuning.parameters and len(result.message) <= MESSAGE_KEPT:
                result = result.model_copy(update={"tuning": result.tuning.model_copy(update={"parameters": []})})
            elif result.former and len(result.message) <= MESSAGE_KEPT and (less := result.former.shorter()):
                result = result.model_copy(update={"former": less})
            elif len(result.message) > LEAST_MESSAGE:
                result = result.model_copy(update={"message": result.message[: len(result.message) // 2] + " …"})
            else:
                break  # nothing is left to go without: addresses that are this long have no room
        return text.decode()


def _shorter(data: DataRead, keep: bool) -> DataRead | None:
    """Without what is told twice, or matters least. `keep`: the worst violations stay. None where nothing can go."""
    if data.warnings:
        return data.model_copy(update={"warnings": data.warnings[:-1]})
    if data.not_judged:
        return data.model_copy(update={"not_judged": data.not_judged[:-1]})
    if len(data.violations) > (VIOLATIONS_KEPT if keep else 0):
        return data.model_copy(update={"violations": data.violations[:-1]})
    return None


class MonitorResult(Schema):
    """What a look found. The recent windows are repeated in each, so that a lost message is no loss."""

    policy_uid: str
    revision: int
    reason: Literal["Looked", "StoreUnreachable", "ProfileMissing"]
    message: str = Field(default="", max_length=1024)
    windows: tuple[WindowVerdict, ...] = ()  # the newest first
    findings: tuple[Finding, ...] = ()  # of the newest window, the strongest first
    performance: tuple[PerformanceVerdict, ...] = ()  # likewise
    newest_event: datetime | None = None

    def to_message(self) -> str:
        """JSON of at most 4096 bytes: weak findings go first, then old windows."""
        result = self
        while len(text := result.model_dump_json(by_alias=True, exclude_none=True).encode()) > TERMINATION_LIMIT:
            if len(result.findings) > 3 or (result.findings and len(result.windows) <= 1):
                result = result.model_copy(update={"findings": result.findings[:-1]})
            elif len(result.performance) > max(1, len(result.windows)):
                result = result.model_copy(update={"performance": result.performance[:-1]})
            elif len(result.windows) > 1:
                result = result.model_copy(update={"windows": result.windows[:-1]})
            else:
                result = result.model_copy(update={"message": result.message[: len(result.message) // 2]})
        return text.decode()


class CountResult(Schema):
    """How many rows came since the last run."""

    model_uid: str
    since: datetime
    reason: Literal["Counted", "DataInvalid", "StoreUnreachable"]
    message: str = Field(default="", max_length=1024)
    rows: int = Field(default=0, ge=0)
    newest: datetime | None = None
    listing: str = ""


class KeepResult(Schema):
    """What of a Model's decisions is in its store."""

    told: Digest  # of the decisions that it was handed
    reason: Literal["Kept", "StoreUnreachable"]
    message: str = Field(default="", max_length=512)
    pages: int = Field(default=0, ge=0)
    head: Digest | None = None  # of the newest page


class RehearseResult(Schema):
    """How a candidate answered what the live revision had answered before."""

    candidate: str
    reason: Literal["Rehearsed", "NothingCaptured", "NotReady", "StoreUnreachable"]
    rehearsal: Rehearsal

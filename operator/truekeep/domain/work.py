"""One decision about a rollout in the making: what was seen, and what stands so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from truekeep.api.model import Candidate, Failure, ModelSpec, Rejection, ServedRevision
from truekeep.api.rollout import Check, LastRollout
from truekeep.domain.observed import DeploymentView, ModelObserved
from truekeep.domain.plan import Note, Settings
from truekeep.domain.pods import Trouble


@dataclass
class Work:
    """One decision in the making."""

    observed: ModelObserved
    settings: Settings
    now: datetime
    active: ServedRevision | None
    previous: ServedRevision | None
    candidate: Candidate | None
    rejected: list[Rejection]
    former: ServedRevision | None = None
    last_rollout: LastRollout | None = None
    failure: Failure | None = None
    hold: Trouble | None = None
    widened: bool = False
    clearing: bool = False  # the selector is about to widen: who is neither live nor candidate has to be gone before
    rehearse: bool = False
    repeat_rehearsal: bool = False
    analysis: tuple[Check, ...] = ()  # of live traffic, just now
    notes: list[Note] = field(default_factory=list)
    look_again: float | None = None

    @property
    def spec(self) -> ModelSpec:
        """What the team wants."""
        return self.observed.model.spec

    @property
    def there(self) -> Mapping[str, DeploymentView]:
        """The Deployments by name."""
        return {deployment.meta.name: deployment for deployment in self.observed.deployments}

    def soon(self, seconds: float) -> None:
        """Look again after so many seconds, or earlier."""
        self.look_again = seconds if self.look_again is None else min(self.look_again, seconds)

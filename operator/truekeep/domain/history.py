"""Which revision answered when, as far back as the status keeps it."""

from __future__ import annotations

from datetime import datetime

from truekeep.api.model import Answered, ModelStatus, ServedRevision
from truekeep.domain.conditions import whole_seconds

KEPT = 30


def with_history(status: ModelStatus, now: datetime) -> ModelStatus:
    """The status with the live revision noted as the newest that answered. The newest is first."""
    active, known = status.active, status.history
    if active is None:
        return status
    if known and _is_same(known[0], active):
        return status
    moment = active.since or whole_seconds(now)
    newest = Answered(
        revision=active.revision,
        run=active.run,
        artifact_digest=active.artifact_digest,
        deployment=active.deployment,
        since=moment,
        approver=active.approval.approver if active.approval else None,
        server_image=active.server_image,
    )
    return status.model_copy(update={"history": [newest, *known][:KEPT]})


def _is_same(noted: Answered, active: ServedRevision) -> bool:
    return noted.deployment == active.deployment and (active.since is None or noted.since == active.since)

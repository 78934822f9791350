"""What failed is remembered, so that it is not tried again as it is."""

from __future__ import annotations

from truekeep.api.model import Failure, Rejection, ServedRevision
from truekeep.api.rollout import LastRollout
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.plan import Note
from truekeep.domain.pods import Trouble
from truekeep.domain.wish import KEPT_REJECTIONS, Target, fingerprint_of
from truekeep.domain.work import Work


def remember(work: Work, target: Target, trouble: Trouble, location: str) -> None:
    """Rejects this way of serving: in the status as a rejection, as the last failure and as the end of a rollout."""
    fingerprint = fingerprint_of(work.observed, target, work.settings)
    moment = whole_seconds(work.now)
    kept = [rejection for rejection in work.rejected if rejection.fingerprint != fingerprint]
    new = Rejection(
        fingerprint=fingerprint,
        revision=target.revision,
        deployment=target.deployment,
        reason=trouble.reason,
        time=moment,
    )
    work.rejected = [*kept, new][-KEPT_REJECTIONS:]
    work.failure = Failure.model_validate(
        {
            "location": location,
            "reason": trouble.reason,
            "message": trouble.message[:4000],
            "revision": target.revision,
            "run": target.run,
            "time": moment,
            "exit_code": trouble.exit_code,
        }
    )
    work.last_rollout = LastRollout(
        revision=target.revision,
        deployment=target.deployment,
        outcome="RolledBack",
        reason=trouble.reason,
        time=moment,
        analysis=list(work.analysis),
    )


def reject(work: Work, target: Target, trouble: Trouble) -> None:
    """Takes the candidate back: the selector names the live revision again, then the pods go."""
    remember(work, target, trouble, "Rollout")
    stays = f"revision {work.active.revision} goes on" if work.active else "nothing serves yet"
    work.notes.append(
        Note("Warning", "RolledBack", f"revision {target.revision} was taken back ({stays}): {trouble.message}")
    )
    work.candidate = None
    work.widened = False
    work.hold = None


def condemn(work: Work, live: ServedRevision, trouble: Trouble) -> None:
    """Rejects the live revision. `wish` then leads back to the one before it."""
    view = work.there.get(live.deployment)
    target = Target(live.revision, live.run, live.artifact_digest, live.deployment, view.serving_key if view else "")
    remember(work, target, trouble, "Serving")

"""Whether a revision may serve: by the gates alone, or by what a person decided on its artifact's digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from truekeep.api.modelapproval import GivenApproval
from truekeep.api.names import ANNOTATION_AUTHOR
from truekeep.domain.observed import ApprovalView, ModelObserved, RunView


@dataclass(frozen=True)
class Consent:
    """Whether a revision may serve, and why (not)."""

    state: Literal["Given", "Awaited", "Refused"]
    reason: str
    message: str
    approval: GivenApproval | None = None


AUTOMATIC = Consent("Given", "Automatic", "spec.approval.mode is Automatic: the gates decide")


def consent(observed: ModelObserved, run: RunView, now: datetime) -> Consent:
    """What was decided on the run's artifact.

    What a restored revision's store says of people's words holds: a rejection, and that it answered before.
    One rejection rejects. An approval counts while it has not expired, which matters until the rollout begins, and
    unless its approver is the author of the change. What counts is the digest: a retrain makes another one."""
    model, artifact = observed.model, run.status.artifact
    if model.spec.approval.mode == "Automatic" or artifact is None:
        return AUTOMATIC
    about = f"revision {run.status.revision} ({artifact.digest})"
    mine = [
        each
        for each in observed.approvals
        if each.spec.model_ref.name == model.meta.name and each.spec.artifact_digest == artifact.digest
    ]
    rejection = next((each for each in mine if each.spec.decision == "Reject"), None)
    if rejection is not None:
        words = f"{rejection.spec.approver} rejected {about}: {rejection.spec.reason}; a retrain makes another one"
        return Consent("Refused", "Rejected", words)
    before = run.status.restored
    if before is not None and before.word is not None and before.word.decision == "Reject":
        words = f"{before.word.approver} rejected {about} before it was restored: {before.word.reason}"
        return Consent("Refused", "Rejected", f"{words}; a retrain makes another one")
    author = author_of(observed, run)
    strict = model.spec.approval.author == "MustNotApprove"
    others = [each for each in mine if not (strict and author is not None and each.spec.approver == author)]
    begun = _begun(observed, artifact.digest)
    valid = [each for each in others if each.spec.expires_at is None or each.spec.expires_at > (begun or now)]
    if valid:
        first = valid[0]
        given = GivenApproval(name=first.meta.name, approver=first.spec.approver, time=first.meta.created)
        return Consent("Given", "Approved", f"{first.spec.approver} approved {about}: {first.spec.reason}", given)
    if before is not None and before.promotions:
        word = before.word
        told = GivenApproval(name=word.name, approver=word.approver, time=word.time) if word else None
        return Consent("Given", "AnsweredBefore", f"{about} answered before it was restored", told)
    return Consent("Awaited", *_why_awaited(model.meta.name, about, author, others, mine))


def author_of(observed: ModelObserved, run: RunView) -> str | None:
    """Who made the change that the run trained: the author noted with its Job, else the Model's own; None: unknown."""
    return run.status.author or observed.model.meta.annotations.get(ANNOTATION_AUTHOR) or None


def _begun(observed: ModelObserved, digest: str) -> datetime | None:
    """When the rollout of this artifact began, where it did."""
    status = observed.model.status
    if status.candidate is not None and status.candidate.artifact_digest == digest:
        return status.candidate.started_at
    if status.active is not None and status.active.artifact_digest == digest:
        return status.active.since
    return None


def _why_awaited(
    model: str, about: str, author: str | None, others: Sequence[ApprovalView], mine: Sequence[ApprovalView]
) -> tuple[str, str]:
    remedy = f"truekeep approve {model}, or truekeep reject {model}"
    if others:
        last = max(others, key=lambda each: each.spec.expires_at or each.meta.created)
        words = f"the approval of {about} by {last.spec.approver} expired before its rollout began; {remedy}"
        return "ApprovalExpired", words
    if mine:
        words = (
            f"{author} approved {about}, but is the author of the change, and spec.approval.author is MustNotApprove; "
            f"somebody else is to decide: {remedy}"
        )
        return "ApproverIsAuthor", words
    return "AwaitingApproval", f"{about} passed its gates and waits for a ModelApproval: {remedy}"

"""What a Model that is lost leaves to the one that is restored: which revisions it had, which of them answered last,
and which ways of serving had failed. It follows from the decisions in the store alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from truekeep.api.trainingrun import MOST_RESTORED, Restored, RestoredFailure, RestoredPromotion, RestoredWord
from truekeep.contract.decisions import Decision

WORD_KEPT = 200  # characters of a person's reason: all of it is in the decisions


@dataclass(frozen=True)
class Heritage:
    """Of one Model, also where it was restored before. `model_uids`: those that it had."""

    model_uids: frozenset[str] = frozenset()
    revisions: Mapping[int, Decision] = field(default_factory=dict)  # by number
    promotions: tuple[Decision, ...] = ()  # the oldest first
    failures: tuple[Decision, ...] = ()
    words: tuple[Decision, ...] = ()  # of people

    @property
    def latest(self) -> int:
        """Highest number that was given, 0 for none."""
        return max(self.revisions, default=0)

    @property
    def champion(self) -> Decision | None:
        """Since when what answered last did."""
        return self.promotions[-1] if self.promotions else None

    def of_run(self, run_uid: str) -> Decision | None:
        """What was registered of a run; None where it made no revision, or nobody wrote it down."""
        return next((one for one in self.revisions.values() if one.run_uid == run_uid), None)

    def facts(self, run_uid: str) -> Restored:
        """What else there is to know of a run, as much as a status holds."""
        made = self.of_run(run_uid)
        if made is None:
            return Restored(run_uid=run_uid)
        newest = [one for one in reversed(self.promotions) if _is_about(one, made)]
        failed = [one for one in reversed(self.failures) if _is_about(one, made) and one.fingerprint]
        return Restored.model_validate(
            {
                "run_uid": run_uid,
                "promotions": [
                    RestoredPromotion(deployment=one.deployment, since=one.time, approver=one.approver)
                    for one in newest[:MOST_RESTORED]
                    if one.deployment
                ],
                "failures": [
                    RestoredFailure(
                        fingerprint=one.fingerprint, deployment=one.deployment, reason=one.reason or "", time=one.time
                    )
                    for one in failed[:MOST_RESTORED]
                    if one.fingerprint
                ],
                "taken_back": self._taken_back(made),
                "word": self._word(made),
            }
        )

    def _taken_back(self, made: Decision) -> object:
        """When an older revision followed it, without a failure that says why: a person, or the spec, went back."""
        places = [place for place, one in enumerate(self.promotions) if _is_about(one, made)]
        if not places or places[-1] + 1 == len(self.promotions):
            return None
        last, following = self.promotions[places[-1]], self.promotions[places[-1] + 1]
        if (following.revision or 0) >= (made.revision or 0):
            return None
        explained = any(_is_about(one, made) and last.time <= one.time <= following.time for one in self.failures)
        return None if explained else following.time

    def _word(self, made: Decision) -> RestoredWord | None:
        about = [one for one in self.words if one.artifact_digest == made.artifact_digest and one.approver]
        rejections = [one for one in about if one.kind == "Rejected"]
        if not about:
            return None
        one = (rejections or about)[-1]
        return RestoredWord(
            decision="Reject" if one.kind == "Rejected" else "Approve",
            name=one.approval or "",
            approver=one.approver or "",
            reason=(one.reason or "")[:WORD_KEPT],
            time=one.time,
        )


def _is_about(one: Decision, made: Decision) -> bool:
    return one.revision == made.revision and one.artifact_digest in (None, made.artifact_digest)


def heritage(decisions: Sequence[Decision], model_uid: str | None = None) -> Heritage:
    """Of the Model of this UID, or of the one that was told of last. `decisions`: in the order in which they were
    written."""
    if not decisions:
        return Heritage()
    uids = _same_model(decisions, model_uid or decisions[-1].model_uid)
    mine = [one for one in decisions if one.model_uid in uids]
    promotions = {(one.deployment, one.time): one for one in _of("Promoted", mine)}
    return Heritage(
        model_uids=uids,
        revisions={one.revision: one for one in _of("Revision", mine) if one.revision and one.artifact_digest},
        promotions=tuple(promotions.values()),
        failures=tuple(_of("Failed", mine)),
        words=tuple(one for one in decisions if one.kind in {"Approved", "Rejected"}),  # about artifacts
    )


def _of(kind: str, decisions: Iterable[Decision]) -> list[Decision]:
    return sorted((one for one in decisions if one.kind == kind), key=lambda one: (one.time, one.id))


def _same_model(decisions: Iterable[Decision], model_uid: str) -> frozenset[str]:
    """The UIDs under which the Model was known: a restored one has revisions of the same runs."""
    by_uid: dict[str, set[tuple[int | None, str | None]]] = {}
    for one in decisions:
        if one.kind == "Revision":
            by_uid.setdefault(one.model_uid, set()).add((one.revision, one.run_uid))
    same, shared = {model_uid}, set(by_uid.get(model_uid, set()))
    while more := {uid for uid, runs in by_uid.items() if uid not in same and runs & shared}:
        same |= more
        for uid in more:
            shared |= by_uid[uid]
    return frozenset(same)

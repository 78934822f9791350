"""What of a Model's decisions is to be kept in the store, where it outlives the Model and the cluster. Pure.

What there is to keep follows from the objects alone: numbers of revisions, words of people, which revision took over
when, which way of serving failed. A Job hands it over; its name follows from what it hands over, and the store takes
each decision once, so that nothing is lost or doubled by a crash or a second try. Nothing waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from truekeep.api.model import KeptDecisions
from truekeep.api.names import decisions_name
from truekeep.contract.canonical import canonical_json
from truekeep.contract.decisions import MOST_BYTES, Decision, promoted_id, revision_id, told
from truekeep.contract.requests import complete
from truekeep.contract.results import KeepResult
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.observed import ApprovalView, JobView, ModelObserved, RunView
from truekeep.domain.pods import newest, tail
from truekeep.domain.restoring import TAKEN_BACK, told_already

PATIENCE = timedelta(minutes=5)  # while a run or a rollout is under way, for all of it to be handed over at once
RETRY = timedelta(minutes=5)
PROBLEM_LENGTH = 512


@dataclass(frozen=True)
class Keeping:
    """`kept`: for the status; `hand_over`: make the Job that takes these to the store; `delete`: a Job that failed, to
    be made again; `wait_seconds`: when to look again."""

    kept: KeptDecisions | None = None
    hand_over: tuple[Decision, ...] = ()
    delete: JobView | None = None
    wait_seconds: float | None = None


def decisions(observed: ModelObserved) -> tuple[Decision, ...]:
    """All that the objects tell now, the oldest first: the newest, as far as one Job can be handed."""
    found = [*_revisions(observed), *_words(observed), *_promotions(observed), *_failures(observed)]
    found.sort(key=lambda one: (one.time, one.id))
    size = 0
    for place in range(len(found) - 1, -1, -1):
        size += len(canonical_json(found[place].dump())) + 1
        if size > MOST_BYTES:
            return tuple(found[place + 1 :])
    return tuple(found)


def unkept(observed: ModelObserved) -> bool:
    """Whether there is something to hand over: only then somebody has to look for its Job."""
    kept, there = observed.model.status.decisions, decisions(observed)
    return bool(there) and (kept is None or kept.told != told(there))


def keeping(observed: ModelObserved, now: datetime) -> Keeping:
    """What to do about them, by the status as it is stored; what is decided now is there at the next look."""
    kept = observed.model.status.decisions
    if not unkept(observed):
        return Keeping(kept)
    there = decisions(observed)
    name = decisions_name(observed.model.meta.name, told(there))
    if any(job.meta.name != name and not _over(job) for job in observed.keepers):
        return Keeping(kept)  # one after the other: its end wakes us
    job = next((job for job in observed.keepers if job.meta.name == name), None)
    if job is None:
        return _begun(observed, there, now)
    return _ended(job, kept, told(there), now) if _over(job) else Keeping(kept)


def _over(job: JobView) -> bool:
    return job.complete or job.failed_reason is not None


def _begun(observed: ModelObserved, there: tuple[Decision, ...], now: datetime) -> Keeping:
    """Now, or when what is under way has come to its own decisions."""
    status = observed.model.status
    early = PATIENCE - (now - there[-1].time)
    if (status.candidate is not None or status.run is not None) and early > timedelta(0):
        return Keeping(status.decisions, wait_seconds=early.total_seconds())
    return Keeping(status.decisions, hand_over=there)


def _ended(job: JobView, kept: KeptDecisions | None, digest: str, now: datetime) -> Keeping:
    result = _result(job)
    if result is not None and result.reason == "Kept" and job.complete:
        return Keeping(KeptDecisions(told=digest, pages=result.pages, head=result.head, time=job.finished or now))
    problem = (result.message if result else _last_words(job))[:PROBLEM_LENGTH]
    failed = (kept or KeptDecisions()).model_copy(update={"problem": problem})
    late = RETRY - (now - (job.finished or job.meta.created))
    if late > timedelta(0):
        return Keeping(failed, wait_seconds=late.total_seconds())
    return Keeping(failed, delete=job)


def _result(job: JobView) -> KeepResult | None:
    for pod in sorted(job.pods, key=lambda pod: (pod.created, pod.name), reverse=True):
        if pod.exit_code is not None and pod.exit_message.lstrip().startswith("{"):
            try:
                return KeepResult.model_validate_json(pod.exit_message)
            except ValidationError:
                continue
    return None


def _last_words(job: JobView) -> str:
    pod = newest(job.pods)
    words = tail(pod.exit_message) if pod else job.failed_message
    return f"the Job {job.meta.name} left no result: {words}"


def _revisions(observed: ModelObserved) -> Iterable[Decision]:
    uid = observed.model.meta.uid
    for run in observed.runs:
        status, former = run.status, run.status.restored
        if status.revision is None or status.artifact is None:
            continue
        yield Decision(
            id=revision_id(uid, status.revision), kind="Revision", model_uid=uid,
            artifact_digest=status.artifact.digest,
            time=whole_seconds(status.completion_time or run.meta.created), revision=status.revision, run=run.meta.name,
            run_uid=former.run_uid if former else run.meta.uid, record=status.record.id if status.record else None,
            author=status.author, trigger=run.spec.trigger.type, image=status.image, image_id=status.image_id,
        )  # fmt: skip


def _words(observed: ModelObserved) -> Iterable[Decision]:
    """Of people, on artifacts of this Model."""
    ours = {run.status.artifact.digest: run for run in observed.runs if run.status.artifact is not None}
    for each in observed.approvals:
        if each.spec.artifact_digest in ours and each.spec.model_ref.name == observed.model.meta.name:
            yield _word(observed.model.meta.uid, each, ours[each.spec.artifact_digest])


def _word(uid: str, each: ApprovalView, run: RunView) -> Decision:
    return Decision(
        id=f"approval/{each.meta.uid}", kind="Approved" if each.spec.decision == "Approve" else "Rejected",
        model_uid=uid, artifact_digest=each.spec.artifact_digest, time=whole_seconds(each.meta.created),
        revision=run.status.revision, approver=each.spec.approver, approval=each.meta.name, reason=each.spec.reason,
        expires_at=each.spec.expires_at,
    )  # fmt: skip


def _promotions(observed: ModelObserved) -> Iterable[Decision]:
    model = observed.model
    capture = model.spec.serving.capture
    before = told_already(observed.runs)
    for each in model.status.history:
        if (each.deployment, each.since) in before:
            continue
        yield Decision(
            id=promoted_id(model.meta.uid, each.deployment, each.since), kind="Promoted", model_uid=model.meta.uid,
            artifact_digest=each.artifact_digest, time=whole_seconds(each.since), revision=each.revision, run=each.run,
            deployment=each.deployment, approver=each.approver, server_image=each.server_image,
            captures=complete(capture.s3, model.spec.store.s3).uri if capture else None,
        )  # fmt: skip


def _failures(observed: ModelObserved) -> Iterable[Decision]:
    meta = observed.model.meta
    digests = {run.status.revision: run.status.artifact.digest for run in observed.runs if run.status.artifact}
    before = told_already(observed.runs)
    for each in observed.model.status.rejected:
        if (each.deployment, each.time) in before or each.reason == TAKEN_BACK:
            continue
        moment = whole_seconds(each.time)
        yield Decision(
            id=f"failed/{meta.uid}/{each.fingerprint.removeprefix('sha256:')[:16]}/{moment:%Y-%m-%dT%H:%M:%SZ}",
            kind="Failed", model_uid=meta.uid, artifact_digest=digests.get(each.revision), time=moment,
            revision=each.revision, deployment=each.deployment, fingerprint=each.fingerprint, reason=each.reason,
        )  # fmt: skip

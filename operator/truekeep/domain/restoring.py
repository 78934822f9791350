"""What restored runs tell of the Model that was lost: the revision that answered last, and what had failed.

All of it follows from the runs, at each look anew, so that a restore may be interrupted anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from truekeep.api.model import Answered, ModelStatus, Rejection
from truekeep.api.trainingrun import Restored
from truekeep.contract.canonical import digest_of
from truekeep.domain.observed import ModelObserved, RunView
from truekeep.domain.stand import finished, succeeded

AT_ONCE = 4  # Jobs of one Model that read results
HISTORY_KEPT = 30
TAKEN_BACK = "TakenBack"


def to_come(runs: Iterable[RunView]) -> list[RunView]:
    """Runs that are being restored, by name."""
    found = [run for run in runs if run.spec.restore and not finished(run) and not run.meta.deleting]
    return sorted(found, key=lambda run: run.meta.name)


def came_to_nothing(run: RunView) -> bool:
    """Whether it was to be restored, and could not be: it says nothing of the spec, nor of any model."""
    return run.spec.restore is not None and run.status.restored is None and finished(run)


def highest(runs: Iterable[RunView]) -> int:
    """The highest number that the lost Model had given, as far as the runs say it."""
    return max((run.spec.restore.latest_revision for run in runs if run.spec.restore), default=0)


def champion(known: Mapping[int, RunView]) -> int | None:
    """The revision that answered last before the cluster was lost, if it is restored; of all revisions by number."""
    since = {
        number: run.status.restored.promotions[0].since
        for number, run in known.items()
        if run.status.restored and run.status.restored.promotions
    }
    return max(since, key=lambda number: (since[number], number), default=None)


def told_already(runs: Iterable[RunView]) -> frozenset[tuple[str | None, datetime]]:
    """Deployment and time of what is in the store's decisions since before the cluster was lost."""
    found: set[tuple[str | None, datetime]] = set()
    for run in runs:
        if (restored := run.status.restored) is not None:
            found |= {(each.deployment, each.since) for each in restored.promotions}
            found |= {(each.deployment, each.time) for each in restored.failures}
    return frozenset(found)


def remembering(observed: ModelObserved, most_rejections: int) -> ModelObserved:
    """The Model with what its restored revisions tell: its status knows it as if it had been there."""
    runs = [run for run in observed.runs if run.status.restored is not None and succeeded(run)]
    if not runs:
        return observed
    status = observed.model.status
    update = {"rejected": _rejected(status, runs, most_rejections), "history": _history(status, runs)}
    return replace(observed, model=replace(observed.model, status=status.model_copy(update=update)))


def _rejected(status: ModelStatus, runs: Sequence[RunView], most: int) -> list[Rejection]:
    known = {each.fingerprint for each in status.rejected}
    found = [
        each
        for run in runs
        if run.status.restored and run.status.revision
        for each in _rejections(run.status.restored, run.status.revision)
        if each.fingerprint not in known
    ]
    if not found:
        return status.rejected
    return sorted([*found, *status.rejected], key=lambda each: each.time)[-most:]


def _rejections(restored: Restored, revision: int) -> Iterable[Rejection]:
    for each in restored.failures:
        yield Rejection(
            fingerprint=each.fingerprint,
            revision=revision,
            deployment=each.deployment,
            reason=each.reason,
            time=each.time,
        )
    if restored.taken_back is not None:
        mark = digest_of([TAKEN_BACK, restored.run_uid])
        yield Rejection(fingerprint=mark, revision=revision, reason=TAKEN_BACK, time=restored.taken_back)


def _history(status: ModelStatus, runs: Sequence[RunView]) -> list[Answered]:
    known = {(each.deployment, each.since) for each in status.history}
    found = [
        Answered(
            revision=run.status.revision,
            run=run.meta.name,
            artifact_digest=run.status.artifact.digest,
            deployment=each.deployment,
            since=each.since,
            approver=each.approver,
        )
        for run in runs
        if run.status.restored and run.status.revision and run.status.artifact
        for each in run.status.restored.promotions
        if (each.deployment, each.since) not in known
    ]
    if not found:
        return status.history
    # Sorting keeps the order of those that are of one moment: the status knows which was the newer one.
    return sorted([*status.history, *found], key=lambda each: each.since, reverse=True)[:HISTORY_KEPT]

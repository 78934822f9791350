"""The live revision turned out to be worse than the one before it, and the way back.

The one before is warm within the rollback window: then it is one write of the selector. Else it is started first, as
any candidate, and `wish` names it for as long as the live revision is the condemned one. There is one way back and no
second: from the revision that was returned to, nothing leads back by itself."""

from __future__ import annotations

from truekeep.api.model import ServedRevision
from truekeep.domain import overrides
from truekeep.domain.analysis import Evidence, failed, judge, same_verdicts, watches
from truekeep.domain.breaches import answer, decayed, shown
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.fleet import stand_in
from truekeep.domain.observed import Traffic
from truekeep.domain.plan import Note
from truekeep.domain.pods import Trouble, crash
from truekeep.domain.rejection import condemn
from truekeep.domain.wish import condemned
from truekeep.domain.work import Work

POLL_SECONDS = 3.0
ANALYSIS_SECONDS = 30.0  # between two writes of an analysis whose verdicts are the same


def return_from_a_regression(work: Work) -> None:
    """Condemns the live revision where it regressed, and goes back at once where the one before is warm."""
    active, way = work.active, work.previous or work.former
    if active is None or way is None or condemned(work.observed.model.status):
        return
    trouble = _dead(work) or _worse(work) or _decayed(work, active, way)
    if trouble is None:
        return
    condemn(work, active, trouble)
    words = f"revision {active.revision} → {way.revision}: {trouble.message}"
    work.notes.append(Note("Warning", "RolledBack", words))
    if _warm(work):
        _switch(work, way)


def _switch(work: Work, way: ServedRevision) -> None:
    if work.candidate is not None:
        words = f"revision {work.candidate.revision} has to wait: the live revision is taken back"
        work.notes.append(Note("Normal", "RolloutAborted", words))
    work.active = way.model_copy(update={"since": whole_seconds(work.now)})
    work.previous = work.former = work.candidate = None


def _warm(work: Work) -> bool:
    """Whether the revision before can take over now."""
    before = work.there.get(work.previous.deployment) if work.previous else None
    live = work.there.get(work.active.deployment) if work.active else None
    if before is None or before.ready == 0:
        return False
    return live is None or live.ready == 0 or before.ready >= min(stand_in(work), before.replicas)


def _dead(work: Work) -> Trouble | None:
    """The live revision's pods all ended, within the rollback window."""
    live = work.there.get(work.active.deployment) if work.active else None
    if live is None or live.ready > 0 or not _warm(work):
        return None
    return crash(live.pods)


def _worse(work: Work) -> Trouble | None:
    """The live revision fails its callers, or lets them wait, more than the one before did until it was replaced."""
    last = work.last_rollout
    if not watches(work.observed.model) or last is None or last.reference is None or work.active is None:
        return None
    work.soon(POLL_SECONDS)
    reference = last.reference
    evidence = Evidence(
        work.observed.traffic.get(work.active.deployment),
        Traffic(reference.requests, reference.errors),
        side="the revision before",
        answers=work.observed.answers,
        age=work.now - (work.active.since or work.now),
        called=True,
        late=reference.p99_milliseconds,
    )
    rows = judge(work.spec.serving.rollout, evidence, shift=False)
    trouble = failed(rows)
    if trouble is not None:
        work.analysis = rows
        return trouble
    stale = last.watched_at is None or (work.now - last.watched_at).total_seconds() >= ANALYSIS_SECONDS
    if stale or not same_verdicts(last.watch, rows):
        update = {"watch": list(rows), "watched_at": whole_seconds(work.now)}
        work.last_rollout = last.model_copy(update=update)
    return None


def _decayed(work: Work, active: ServedRevision, way: ServedRevision) -> Trouble | None:
    """Labels say that the live revision is worse than its gates had shown, and a policy wants to go back then, whether
    the one before is warm or not. Not where that is the same model, or one that labels show no better."""
    if overrides.pin(work.observed.model) is not None or way.artifact_digest == active.artifact_digest:
        return None
    for policy in sorted(work.observed.policies, key=lambda policy: policy.meta.name):
        verdict = decayed(policy, active.revision)
        if verdict is None or policy.meta.deleting or answer(policy.spec, "Performance") != "Rollback":
            continue
        known = (one for one in policy.status.performance if one.revision == way.revision and one.value is not None)
        before = next(known, None)
        if before is None or before.verdict != "Decayed":
            window = f"{verdict.start:%Y-%m-%d %H:%M} to {verdict.end:%Y-%m-%d %H:%M}"
            words = f"DriftPolicy {policy.meta.name}, {window}: {shown(verdict)}"
            return Trouble("PerformanceRegressed", words)
    return None

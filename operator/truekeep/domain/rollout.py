"""The next step on the way to the revision that ought to answer, or back.

The order that keeps clients from noticing: pods are ready before the selector names them, and the selector has left
them before they go. Every step follows from what is seen; status keeps only when a step began."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from truekeep.api.model import Candidate, Failure, ModelStatus, Rejection, ServedRevision
from truekeep.api.rollout import LastRollout, Reference, Step
from truekeep.domain.analysis import Evidence, doubts, failed, judge, p99_milliseconds, same_verdicts
from truekeep.domain.conditions import Finding, whole_seconds
from truekeep.domain.fleet import (
    autoscaler_intent,
    autoscaler_surplus,
    budget_intent,
    candidate_replicas,
    deployment_intents,
    drain_words,
    returns_or_first,
    steps_of,
    surplus,
    wanted_replicas,
)
from truekeep.domain.mounts import mounts
from truekeep.domain.observed import DeploymentView, ModelObserved
from truekeep.domain.plan import (
    AutoscalerIntent,
    BudgetIntent,
    DeploymentIntent,
    Note,
    RouteIntent,
    ServiceIntent,
    Settings,
)
from truekeep.domain.pods import Trouble, crash, obstacle, storeless
from truekeep.domain.regression import return_from_a_regression
from truekeep.domain.rehearsal import failed_rehearsal, handed_over, rehearsal_trouble, wants_rehearsal
from truekeep.domain.rejection import reject
from truekeep.domain.traffic import (
    by_route,
    gateway_finding,
    reached_percent,
    route_intent,
    route_surplus,
    service_intent,
    shadow_trouble,
    shadowed,
    stands,
    strangers_gone,
)
from truekeep.domain.wish import Target
from truekeep.domain.work import Work

POLL_SECONDS = 2.0
REHEARSE_AGAIN = timedelta(seconds=15)
ANALYSIS_SECONDS = 5.0  # between two writes of an analysis whose verdicts are the same
PATIENCE = 3  # an inconclusive step is held for so many times its duration


@dataclass(frozen=True)
class Rollout:
    """Where the rollout stands, and what to do next."""

    active: ServedRevision | None
    previous: ServedRevision | None
    former: ServedRevision | None
    candidate: Candidate | None
    rejected: tuple[Rejection, ...]
    last_rollout: LastRollout | None = None
    failure: Failure | None = None  # a new one
    hold: Trouble | None = None  # what keeps the candidate (or the first revision) from getting ready, for now
    service: ServiceIntent | None = None
    route: RouteIntent | None = None
    delete_route: bool = False
    routed: Finding | None = None  # how the Gateway takes the route
    autoscaler: AutoscalerIntent | None = None
    delete_autoscaler: bool = False
    budget: BudgetIntent | None = None
    drain: str = ""  # what becomes of a node's drain that has to wait for the live revision's only pod
    deployments: tuple[DeploymentIntent, ...] = ()
    delete: tuple[str, ...] = ()
    rehearse: Candidate | None = None
    repeat_rehearsal: bool = False
    notes: tuple[Note, ...] = ()
    look_again_seconds: float | None = None


def advance(observed: ModelObserved, target: Target | None, settings: Settings, now: datetime) -> Rollout:
    """The next step towards the target."""
    status = observed.model.status
    work = Work(
        observed,
        settings,
        now,
        status.active,
        status.previous,
        status.candidate,
        list(status.rejected),
        status.former,
        last_rollout=status.last_rollout,
    )
    return_from_a_regression(work)
    if work.failure is None:
        _choose_candidate(work, target)
        if work.candidate is not None and target is not None:
            _advance_candidate(work, target)
    _expire_previous(work)
    _watch_live(work)
    replicas = wanted_replicas(work)
    return Rollout(
        active=work.active,
        previous=work.previous,
        former=work.former,
        candidate=work.candidate,
        rejected=tuple(work.rejected),
        last_rollout=work.last_rollout,
        failure=work.failure,
        hold=work.hold,
        service=service_intent(work),
        route=route_intent(work),
        delete_route=route_surplus(work),
        routed=gateway_finding(observed, now, work.active),
        autoscaler=autoscaler_intent(work),
        delete_autoscaler=autoscaler_surplus(work),
        budget=budget_intent(work),
        drain=drain_words(work),
        deployments=deployment_intents(work, target, replicas),
        delete=surplus(work, replicas),
        rehearse=work.candidate if work.rehearse else None,
        repeat_rehearsal=work.repeat_rehearsal,
        notes=tuple(work.notes),
        look_again_seconds=work.look_again,
    )


def _choose_candidate(work: Work, target: Target | None) -> None:
    name = work.active.deployment if work.active else None
    if target is None or target.deployment == name:
        if work.candidate is not None:
            work.notes.append(
                Note("Normal", "RolloutAborted", f"revision {work.candidate.revision} is not wanted any more")
            )
        work.candidate = None
        return
    if work.candidate is None or work.candidate.deployment != target.deployment:
        work.candidate = Candidate(
            revision=target.revision,
            run=target.run,
            artifact_digest=target.artifact_digest,
            deployment=target.deployment,
            started_at=whole_seconds(work.now),
            approval=target.approval,
        )
        work.notes.append(Note("Normal", "RolloutStarted", f"revision {target.revision} is started"))


def _advance_candidate(work: Work, target: Target) -> None:
    candidate = work.candidate
    if candidate is None:
        return
    steps = steps_of(work)
    step = min(candidate.step, len(steps))
    wanted = candidate_replicas(work, steps, step)
    deployment = work.there.get(candidate.deployment)
    ready = deployment.ready if deployment else 0
    rehearses = (
        step < 0 and candidate.rehearsal is None and returns_or_first(work) is False and wants_rehearsal(work.spec)
    )
    # The rehearsal's pod starts beside the candidate's, and waits for it.
    work.rehearse = rehearses and deployment is not None and work.observed.rehearsal is None
    if deployment is None or ready < wanted or deployment.replicas != wanted:
        _await_pods(work, target, deployment, wanted)
        return
    if rehearses:
        _judge_rehearsal(work, target)
        return
    if step < 0 and steps:
        work.clearing = True
        if strangers_gone(work):
            _enter_step(work, candidate, steps, 0)
        else:
            work.soon(POLL_SECONDS)
        return
    if steps and step < len(steps):
        _judge_step(work, target, candidate, steps, step)
        return
    _promote(work, candidate)


def _await_pods(work: Work, target: Target, deployment: DeploymentView | None, wanted: int) -> None:
    """Waits for the candidate's pods; gives up where they end, or take too long without an obstacle outside."""
    candidate = work.candidate
    if candidate is None:
        return
    work.widened = candidate.step >= 0
    work.soon(POLL_SECONDS)
    if deployment is None or (work.widened and not _analyse(work, target, candidate)):
        return
    trouble = crash(deployment.pods)
    if trouble is not None:
        reject(work, target, trouble)
        return
    work.hold = _in_the_way(work, deployment)
    if work.hold is not None and _half_is_enough(work, deployment, wanted):
        _promote(work, candidate)
        return
    limit = work.spec.serving.rollout.progress_deadline_seconds
    since = max(candidate.step_since or candidate.started_at, candidate.started_at)
    if work.hold is None and work.now - since > timedelta(seconds=limit):
        message = (
            f"{deployment.ready} of {wanted} pods were ready after {limit} s "
            "(spec.serving.rollout.progressDeadlineSeconds)"
        )
        reject(work, target, Trouble("NotReadyInTime", message))


def _in_the_way(work: Work, deployment: DeploymentView) -> Trouble | None:
    """What keeps pods from getting ready that is none of the revision's fault."""
    pods = deployment.pods
    return obstacle(pods, deployment.create_error, work.now, mounts(work.spec)) or storeless(pods)


def _half_is_enough(work: Work, deployment: DeploymentView, wanted: int) -> bool:
    """Whether the way back is taken with the pods that there are, because nothing can start the others now: a bad
    revision is not kept for want of a node."""
    goes_back = work.active is not None and returns_or_first(work)
    return goes_back and deployment.replicas == wanted and 0 < wanted <= 2 * deployment.ready


def _judge_rehearsal(work: Work, target: Target) -> None:
    """Judges how the candidate answered captured requests; an obstacle outside is waited for, and it is tried again."""
    candidate, job = work.candidate, work.observed.rehearsal
    work.soon(POLL_SECONDS)
    if candidate is None or job is None:
        return
    result = handed_over(job, candidate)
    ended = job.complete or job.failed_reason is not None
    if result is None or result.reason in {"StoreUnreachable", "NotReady"}:
        work.hold = rehearsal_trouble(job, result) if ended else obstacle(job.pods, job.create_error, work.now)
        gone_for = work.now - (job.finished or job.meta.created)
        work.repeat_rehearsal = ended and gone_for > REHEARSE_AGAIN and not job.meta.deleting
        return
    seen = result.rehearsal
    trouble = failed_rehearsal(seen, work.spec.serving.rollout)
    if trouble is not None:
        reject(work, target, trouble)
        return
    work.candidate = candidate.model_copy(update={"rehearsal": seen})
    words = seen.message
    if seen.requests:
        words = (
            f"revision {candidate.revision} answered {seen.requests} captured requests of {seen.rows} rows, "
            f"{seen.failed} failed, 99 % within {seen.p99_milliseconds} ms; its predictions moved by "
            f"{seen.prediction_shift}"
        )
    work.notes.append(Note("Normal", "Rehearsed", words))


def _enter_step(work: Work, candidate: Candidate, steps: list[Step], step: int) -> None:
    weight = steps[step].weight_percent if step < len(steps) else candidate.weight_percent
    work.widened = True
    # Where a Gateway makes the share, the step begins when it took the weights.
    waits = step < len(steps) and (by_route(work) or shadowed(work))
    work.candidate = candidate.model_copy(
        update={
            "step": step,
            "step_since": None if waits else whole_seconds(work.now),
            "weight_percent": weight,
            "reached_percent": reached_percent(work),
            "analysis": list(work.analysis),
        }
    )
    if step < len(steps):
        share = "a copy" if shadowed(work) else f"{weight} %"
        message = f"revision {candidate.revision} gets {share} of the traffic for {steps[step].duration_seconds} s"
        work.notes.append(Note("Normal", "CanaryStep", message))
    work.soon(POLL_SECONDS)


def _analyse(work: Work, target: Target, candidate: Candidate) -> bool:
    """Judges the candidate's live traffic, beside the live revision's. Whether it goes on: what fails is rejected.
    Past the last step, what that step had shown stays in the status."""
    traffic = work.observed.traffic
    evidence = Evidence(
        traffic.get(candidate.deployment),
        traffic.get(work.active.deployment) if work.active else None,
        answers=work.observed.answers,
        age=work.now - (candidate.step_since or work.now),
    )
    work.analysis = judge(work.spec.serving.rollout, evidence)
    trouble = failed(work.analysis)
    if trouble is not None:
        reject(work, target, trouble)
        return False
    last = candidate.analysed_at
    update: dict[str, object] = {"reached_percent": reached_percent(work)}
    stale = last is None or (work.now - last).total_seconds() >= ANALYSIS_SECONDS
    past = candidate.step >= len(steps_of(work))
    if not past and (stale or not same_verdicts(candidate.analysis, work.analysis)):
        update |= {"analysis": list(work.analysis), "analysed_at": whole_seconds(work.now)}
    work.candidate = candidate.model_copy(update=update)
    return True


def _judge_step(work: Work, target: Target, candidate: Candidate, steps: list[Step], step: int) -> None:
    """Judges a step: what surely fails rejects at once; time and enough requests lead on."""
    work.widened = True
    if not _step_stands(work, candidate):
        return
    candidate = work.candidate or candidate
    rollout = work.spec.serving.rollout
    if not _analyse(work, target, candidate) or work.candidate is None:
        return
    elapsed = (work.now - (candidate.step_since or work.now)).total_seconds()
    duration = steps[step].duration_seconds
    work.soon(min(POLL_SECONDS, max(0.2, duration - elapsed)))
    if elapsed < duration:
        return
    doubt = doubts(work.analysis)
    if not doubt or (elapsed >= PATIENCE * duration and rollout.on_inconclusive == "Promote"):
        _enter_step(work, work.candidate, steps, step + 1)
    elif elapsed >= PATIENCE * duration:
        reject(work, target, Trouble("Inconclusive", f"after {elapsed:.0f} s: {doubt}"))


def _step_stands(work: Work, candidate: Candidate) -> bool:
    """Whether the traffic goes as the step asks. With a Gateway that is so from its word on, and the step begins then;
    a copy that stopped begins anew."""
    if stands(work):
        if candidate.step_since is None:
            work.candidate = candidate.model_copy(
                update={"step_since": whole_seconds(work.now), "reached_percent": reached_percent(work)}
            )
        return True
    work.soon(POLL_SECONDS)
    work.hold = shadow_trouble(work)
    if shadowed(work):
        work.candidate = candidate.model_copy(update={"step_since": None})
        return False
    return candidate.step_since is not None


def _promote(work: Work, candidate: Candidate) -> None:
    """The candidate is live. What it replaces stays warm, for the way back; on the way back itself it goes at once, or
    clients that keep their connections would go on getting its answers."""
    before = work.active
    goes_back = returns_or_first(work) or (before is not None and candidate.revision < before.revision)
    now = whole_seconds(work.now)
    work.active = ServedRevision(
        revision=candidate.revision,
        run=candidate.run,
        artifact_digest=candidate.artifact_digest,
        deployment=candidate.deployment,
        since=now,
        approval=candidate.approval,
        server_image=deployment.image if (deployment := work.there.get(candidate.deployment)) else None,
    )
    work.previous = before.model_copy(update={"since": now}) if before and not goes_back else None
    work.former = work.previous
    work.candidate = None
    if not goes_back or before is None:
        work.last_rollout = LastRollout(
            revision=candidate.revision,
            deployment=candidate.deployment,
            outcome="Promoted",
            time=now,
            analysis=list(candidate.analysis),
            reference=_reference(work, before),
        )
    instead = f" instead of revision {before.revision}" if before else ""
    work.notes.append(Note("Normal", "Promoted", f"revision {candidate.revision} answers{instead}"))


def _reference(work: Work, before: ServedRevision | None) -> Reference | None:
    """What the replaced revision showed lately, where it was read."""
    seen = work.observed.traffic.get(before.deployment) if before else None
    if seen is None:
        return None
    return Reference(requests=seen.requests, errors=seen.errors, p99_milliseconds=p99_milliseconds(seen))


def _expire_previous(work: Work) -> None:
    """Lets the revision before go cold when the rollback window is over."""
    previous = work.previous
    if previous is None:
        return
    if work.active is not None and previous.deployment == work.active.deployment:
        work.previous = None
        return
    end = (previous.since or work.now) + timedelta(seconds=work.spec.serving.rollback_window_seconds)
    left = (end - work.now).total_seconds()
    if left > 0:
        work.soon(left)
    else:
        work.previous = None


def _watch_live(work: Work) -> None:
    """Says why the live revision is not ready, where no candidate's trouble is said already."""
    live = work.there.get(work.active.deployment) if work.active else None
    if live is None or work.hold is not None or live.ready >= min(1, work.spec.serving.replicas):
        return
    work.hold = crash(live.pods) or _in_the_way(work, live)


def apply_to(status: ModelStatus, rollout: Rollout) -> ModelStatus:
    """The status with the rollout's outcome."""
    return status.model_copy(
        update={
            "active": rollout.active,
            "previous": rollout.previous,
            "former": rollout.former,
            "candidate": rollout.candidate,
            "rejected": list(rollout.rejected),
            "last_rollout": rollout.last_rollout,
            "last_failure": rollout.failure or status.last_failure,
        }
    )

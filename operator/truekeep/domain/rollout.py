"""Which revision ought to answer, and the next step on the way there, or back.

The order that keeps clients from noticing: pods are ready before the selector names them, and the selector has left
them before they go. Every step follows from what is seen; status keeps only when a step began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import ValidationError

from truekeep.api.model import Candidate, Failure, ModelSpec, ModelStatus, Rejection, ServedRevision
from truekeep.api.names import deployment_name, serving_selector
from truekeep.api.rollout import Step
from truekeep.contract.results import RehearseResult
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.fingerprints import serving_fingerprint, serving_key
from truekeep.domain.observed import DeploymentView, JobView, ModelObserved, RunView, Traffic
from truekeep.domain.plan import DeploymentIntent, Note, ServiceIntent, Settings
from truekeep.domain.pods import Trouble, crash, newest, obstacle, tail
from truekeep.domain.run import mounts, succeeded

POLL_SECONDS = 2.0
KEPT_REJECTIONS = 20
REHEARSE_AGAIN = timedelta(seconds=15)
PATIENCE = 3  # an inconclusive step is held for so many times its duration


@dataclass(frozen=True)
class Target:
    """One way of serving one revision."""

    revision: int
    run: str
    artifact_digest: str
    deployment: str
    key: str


@dataclass(frozen=True)
class Wish:
    """What ought to answer. refused: the way of serving that the spec asks for, but that failed before."""

    target: Target | None
    refused: Target | None = None
    problem: Trouble | None = None


@dataclass(frozen=True)
class Rollout:
    """Where the rollout stands, and what to do next."""

    active: ServedRevision | None
    previous: ServedRevision | None
    candidate: Candidate | None
    rejected: tuple[Rejection, ...]
    failure: Failure | None = None  # a new one
    hold: Trouble | None = None  # what keeps the candidate (or the first revision) from getting ready, for now
    service: ServiceIntent | None = None
    deployments: tuple[DeploymentIntent, ...] = ()
    delete: tuple[str, ...] = ()
    rehearse: Candidate | None = None
    repeat_rehearsal: bool = False
    notes: tuple[Note, ...] = ()
    look_again_seconds: float | None = None


def revisions(runs: tuple[RunView, ...]) -> dict[int, RunView]:
    """The runs that are revisions, by number."""
    return {run.status.revision: run for run in runs if succeeded(run) and run.status.revision and run.status.artifact}


def wish(observed: ModelObserved, settled: bool, settings: Settings) -> Wish:
    """Which revision ought to answer, in which way.

    A pin wins. Else it is the newest revision that was not rejected, but never one before the live one: whatever goes
    wrong, the live one stays. While a run for the spec is under way, nothing else is rolled out: a change is one."""
    spec, status = observed.model.spec, observed.model.status
    known = revisions(observed.runs)
    key = serving_key(spec)
    held = _as_is(observed)
    pinned = spec.serving.pinned_revision
    if pinned is not None:
        if pinned not in known:
            numbers = ", ".join(str(number) for number in sorted(known)) or "none"
            message = (
                f"spec.serving.pinnedRevision is {pinned}, but there is no such revision; there are {numbers}; "
                "the live revision goes on"
            )
            return Wish(held, problem=Trouble("PinnedRevisionMissing", message))
        return _unless_rejected(observed, _target(observed, known[pinned], key), held, settings)
    if held is not None and not settled:
        return Wish(held)
    floor = status.active.revision if status.active else 0
    refused: Target | None = None
    for number in sorted((number for number in known if number >= floor), reverse=True):
        if number == floor and refused is not None:
            break  # the new revision failed: the live one is not put at risk with the same change
        target = _target(observed, known[number], key)
        if not is_rejected(observed, target, settings):
            return Wish(target, refused)
        refused = refused or target
    return Wish(held, refused)


def _unless_rejected(observed: ModelObserved, target: Target, held: Target | None, settings: Settings) -> Wish:
    return Wish(held, target) if is_rejected(observed, target, settings) else Wish(target)


def _target(observed: ModelObserved, run: RunView, key: str) -> Target:
    revision, artifact = run.status.revision, run.status.artifact
    if revision is None or artifact is None:
        raise ValueError(f"run {run.meta.name} is no revision")
    name = deployment_name(observed.model.meta.name, revision, key)
    return Target(revision, run.meta.name, artifact.digest, name, key)


def _as_is(observed: ModelObserved) -> Target | None:
    """The live revision in the way in which it is served now."""
    active = observed.model.status.active
    if active is None:
        return None
    there = {deployment.meta.name: deployment for deployment in observed.deployments}
    live = there.get(active.deployment)
    key = live.serving_key if live else serving_key(observed.model.spec)
    return Target(active.revision, active.run, active.artifact_digest, active.deployment, key)


def fingerprint_of(observed: ModelObserved, target: Target, settings: Settings) -> str:
    """What a rejection remembers: artifact, serving spec, server image."""
    images = {deployment.meta.name: deployment.image for deployment in observed.deployments}
    image = images.get(target.deployment, settings.server_image)
    return serving_fingerprint(target.artifact_digest, target.key, image)


def is_rejected(observed: ModelObserved, target: Target, settings: Settings) -> bool:
    """Whether this way of serving failed before."""
    fingerprint = fingerprint_of(observed, target, settings)
    return any(rejection.fingerprint == fingerprint for rejection in observed.model.status.rejected)


@dataclass
class _Work:
    """One decision in the making."""

    observed: ModelObserved
    settings: Settings
    now: datetime
    active: ServedRevision | None
    previous: ServedRevision | None
    candidate: Candidate | None
    rejected: list[Rejection]
    failure: Failure | None = None
    hold: Trouble | None = None
    widened: bool = False
    rehearse: bool = False
    repeat_rehearsal: bool = False
    notes: list[Note] = field(default_factory=list)
    look_again: float | None = None

    @property
    def spec(self) -> ModelSpec:
        return self.observed.model.spec

    @property
    def there(self) -> Mapping[str, DeploymentView]:
        return {deployment.meta.name: deployment for deployment in self.observed.deployments}

    def soon(self, seconds: float) -> None:
        self.look_again = seconds if self.look_again is None else min(self.look_again, seconds)


def advance(observed: ModelObserved, target: Target | None, settings: Settings, now: datetime) -> Rollout:
    """The next step towards the target."""
    status = observed.model.status
    work = _Work(
        observed,
        settings,
        now,
        status.active,
        status.previous,
        status.candidate,
        list(status.rejected),
    )
    _return_from_a_dead_revision(work)
    if work.failure is None:
        _choose_candidate(work, target)
        if work.candidate is not None and target is not None:
            _advance_candidate(work, target)
    _expire_previous(work)
    _watch_live(work)
    replicas = _wanted_replicas(work)
    return Rollout(
        active=work.active,
        previous=work.previous,
        candidate=work.candidate,
        rejected=tuple(work.rejected[-KEPT_REJECTIONS:]),
        failure=work.failure,
        hold=work.hold,
        service=_service(work),
        deployments=_deployments(work, target, replicas),
        delete=_surplus(work, replicas),
        rehearse=work.candidate if work.rehearse else None,
        repeat_rehearsal=work.repeat_rehearsal,
        notes=tuple(work.notes),
        look_again_seconds=work.look_again,
    )


def _return_from_a_dead_revision(work: _Work) -> None:
    """Goes back to the revision before, where the live one's pods all ended within the rollback window."""
    if work.active is None or work.previous is None or work.candidate is not None:
        return
    live, before = work.there.get(work.active.deployment), work.there.get(work.previous.deployment)
    if live is None or before is None or live.ready > 0 or before.ready == 0:
        return
    trouble = crash(live.pods)
    if trouble is None:
        return
    target = Target(
        work.active.revision, work.active.run, work.active.artifact_digest, live.meta.name, live.serving_key
    )
    _remember(work, target, trouble, "Serving")
    work.notes.append(
        Note("Warning", "RolledBack", f"revision {target.revision} → {work.previous.revision}: {trouble.message}")
    )
    work.active = work.previous.model_copy(update={"since": whole_seconds(work.now)})
    work.previous = None


def _choose_candidate(work: _Work, target: Target | None) -> None:
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
        )
        work.notes.append(Note("Normal", "RolloutStarted", f"revision {target.revision} is started"))


def canary_replicas(live: int, weight_percent: int) -> int:
    """Pods of the candidate that make about this share of the traffic beside so many live ones."""
    return max(1, round(live * weight_percent / (100 - weight_percent)))


def _returns_or_first(work: _Work) -> bool:
    """Whether the candidate served before, or nothing serves: then there is nothing to be careful of, or with."""
    candidate, active, previous = work.candidate, work.active, work.previous
    if candidate is None or active is None:
        return True
    return (
        previous is not None and candidate.deployment == previous.deployment
    ) or candidate.revision < active.revision


def wants_rehearsal(spec: ModelSpec) -> bool:
    """Whether a candidate is to answer captured requests first. Rows that lack a column can't be sent again."""
    capture = spec.serving.capture
    return (
        capture is not None
        and not capture.drop
        and spec.serving.rollout.rehearsal_rows > 0
        and capture.fraction_percent > 0
        and spec.serving.replicas > 0
    )


def _steps(work: _Work) -> list[Step]:
    """The steps of this rollout: none for a first revision, for blue-green, or on the way back to a former one."""
    rollout = work.spec.serving.rollout
    if rollout.strategy == "BlueGreen" or _returns_or_first(work) or work.spec.serving.replicas == 0:
        return []
    live = work.there.get(work.active.deployment) if work.active else None
    # With no live pod there is nothing to compare with, and nobody to protect.
    return list(rollout.steps) if live is not None and live.ready > 0 else []


def _candidate_replicas(work: _Work, steps: list[Step], step: int) -> int:
    live = work.spec.serving.replicas
    if not steps or step >= len(steps):
        return live
    return min(live, canary_replicas(live, steps[max(step, 0)].weight_percent)) if live else 0


def _advance_candidate(work: _Work, target: Target) -> None:
    candidate = work.candidate
    if candidate is None:
        return
    steps = _steps(work)
    step = min(candidate.step, len(steps))
    wanted = _candidate_replicas(work, steps, step)
    deployment = work.there.get(candidate.deployment)
    ready = deployment.ready if deployment else 0
    rehearses = (
        step < 0 and candidate.rehearsal is None and _returns_or_first(work) is False and wants_rehearsal(work.spec)
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
        if _strangers_gone(work):
            _enter_step(work, candidate, steps, 0)
        else:
            work.soon(POLL_SECONDS)
        return
    if steps and step < len(steps):
        _judge_step(work, target, candidate, steps, step)
        return
    _promote(work, candidate)


def _await_pods(work: _Work, target: Target, deployment: DeploymentView | None, wanted: int) -> None:
    """Waits for the candidate's pods; gives up where they end, or take too long without an obstacle outside."""
    candidate = work.candidate
    if candidate is None:
        return
    work.widened = candidate.step >= 0
    work.soon(POLL_SECONDS)
    if deployment is None:
        return
    trouble = crash(deployment.pods)
    if trouble is not None:
        _reject(work, target, trouble)
        return
    work.hold = obstacle(deployment.pods, deployment.create_error, work.now, mounts(work.spec))
    limit = work.spec.serving.rollout.progress_deadline_seconds
    since = max(candidate.step_since or candidate.started_at, candidate.started_at)
    if work.hold is None and work.now - since > timedelta(seconds=limit):
        message = (
            f"{deployment.ready} of {wanted} pods were ready after {limit} s "
            "(spec.serving.rollout.progressDeadlineSeconds)"
        )
        _reject(work, target, Trouble("NotReadyInTime", message))


def _judge_rehearsal(work: _Work, target: Target) -> None:
    """Judges how the candidate answered captured requests; an obstacle outside is waited for, and it is tried again."""
    candidate, job = work.candidate, work.observed.rehearsal
    work.soon(POLL_SECONDS)
    if candidate is None or job is None:
        return
    result = _rehearsed(job, candidate)
    ended = job.complete or job.failed_reason is not None
    if result is None or result.reason in {"StoreUnreachable", "NotReady"}:
        work.hold = _rehearsal_trouble(work, job, result) if ended else obstacle(job.pods, job.create_error, work.now)
        gone_for = work.now - (job.finished or job.meta.created)
        work.repeat_rehearsal = ended and gone_for > REHEARSE_AGAIN and not job.meta.deleting
        return
    seen, rollout = result.rehearsal, work.spec.serving.rollout
    failed = seen.failed / seen.requests if seen.requests else 0.0
    trouble: Trouble | None = None
    if failed > float(rollout.max_error_fraction):
        message = f"{seen.failed} of {seen.requests} captured requests failed, before any live traffic: {seen.message}"
        trouble = Trouble("RehearsalFailed", message)
    elif rollout.max_p99_milliseconds is not None and float(seen.p99_milliseconds) > rollout.max_p99_milliseconds:
        limit = f"spec.serving.rollout.maxP99Milliseconds is {rollout.max_p99_milliseconds}"
        trouble = Trouble(
            "TooSlow", f"99 % of {seen.requests} captured requests took {seen.p99_milliseconds} ms; {limit}"
        )
    elif rollout.max_prediction_shift is not None and float(seen.prediction_shift) > float(
        rollout.max_prediction_shift
    ):
        limit = f"spec.serving.rollout.maxPredictionShift is {rollout.max_prediction_shift}"
        trouble = Trouble(
            "PredictionShift", f"predictions of {seen.rows} captured rows moved by {seen.prediction_shift}; {limit}"
        )
    if trouble is not None:
        _reject(work, target, trouble)
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


def _rehearsed(job: JobView, candidate: Candidate) -> RehearseResult | None:
    """What the rehearsal's pod handed over."""
    for pod in sorted(job.pods, key=lambda pod: (pod.created, pod.name), reverse=True):
        if pod.exit_code is None or not pod.exit_message.lstrip().startswith("{"):
            continue
        try:
            result = RehearseResult.model_validate_json(pod.exit_message)
        except ValidationError:
            continue
        if result.candidate == candidate.deployment:
            return result
    return None


def _rehearsal_trouble(work: _Work, job: JobView, result: RehearseResult | None) -> Trouble:
    again = "it is tried again, and the live revision goes on"
    if result is not None:
        return Trouble(result.reason, f"the rehearsal could not take place: {result.rehearsal.message}; {again}")
    pod = newest(job.pods)
    words = tail(pod.exit_message) if pod else job.failed_message
    return Trouble("RehearsalLost", f"the rehearsal's pod left no result: {words}; {again}")


def _strangers_gone(work: _Work) -> bool:
    """Whether no third revision has a pod left: the widened selector would reach it."""
    ours = {work.active.deployment if work.active else "", work.candidate.deployment if work.candidate else ""}
    return not any(view.pods for name, view in work.there.items() if name not in ours)


def _enter_step(work: _Work, candidate: Candidate, steps: list[Step], step: int) -> None:
    weight = steps[step].weight_percent if step < len(steps) else candidate.weight_percent
    work.widened = True
    work.candidate = candidate.model_copy(
        update={
            "step": step,
            "step_since": whole_seconds(work.now),
            "weight_percent": weight,
            "reached_percent": _reached(work),
        }
    )
    if step < len(steps):
        message = f"revision {candidate.revision} gets {weight} % of the traffic for {steps[step].duration_seconds} s"
        work.notes.append(Note("Normal", "CanaryStep", message))
    work.soon(POLL_SECONDS)


def _reached(work: _Work) -> int:
    candidate = work.there.get(work.candidate.deployment) if work.candidate else None
    live = work.there.get(work.active.deployment) if work.active else None
    ready, others = (candidate.ready if candidate else 0), (live.ready if live else 0)
    return round(100 * ready / (ready + others)) if ready else 0


def _judge_step(work: _Work, target: Target, candidate: Candidate, steps: list[Step], step: int) -> None:
    """Judges a step: errors beyond the live revision's reject at once; time and enough requests lead on."""
    work.widened = True
    rollout = work.spec.serving.rollout
    counted = work.observed.traffic.get(candidate.deployment)
    live = work.observed.traffic.get(work.active.deployment, Traffic()) if work.active else Traffic()
    if counted is not None and counted.requests >= rollout.min_requests:
        excess = counted.error_fraction - live.error_fraction
        if excess > float(rollout.max_error_fraction):
            message = (
                f"{counted.errors} of {counted.requests} replies failed ({counted.error_fraction:.1%}), the live "
                f"revision's {live.error_fraction:.1%}; spec.serving.rollout.maxErrorFraction allows "
                f"{rollout.max_error_fraction} more"
            )
            _reject(work, target, Trouble("ErrorRate", message))
            return
    work.candidate = candidate.model_copy(update={"reached_percent": _reached(work)})
    elapsed = (work.now - (candidate.step_since or work.now)).total_seconds()
    duration = steps[step].duration_seconds
    work.soon(min(POLL_SECONDS, max(0.2, duration - elapsed)))
    if elapsed < duration:
        return
    # Nobody calls this model, or enough did: on it goes. Nobody may be called by nobody only where counts were read.
    conclusive = counted is not None and (counted.requests == 0 or counted.requests >= rollout.min_requests)
    if conclusive or (elapsed >= PATIENCE * duration and rollout.on_inconclusive == "Promote"):
        _enter_step(work, work.candidate, steps, step + 1)
    elif elapsed >= PATIENCE * duration:
        seen = f"{counted.requests} requests" if counted else "no readable metrics"
        message = f"{seen} in {elapsed:.0f} s, spec.serving.rollout.minRequests is {rollout.min_requests}"
        _reject(work, target, Trouble("Inconclusive", message))


def _promote(work: _Work, candidate: Candidate) -> None:
    before = work.active
    now = whole_seconds(work.now)
    work.active = ServedRevision(
        revision=candidate.revision,
        run=candidate.run,
        artifact_digest=candidate.artifact_digest,
        deployment=candidate.deployment,
        since=now,
    )
    work.previous = before.model_copy(update={"since": now}) if before else None
    work.candidate = None
    instead = f" instead of revision {before.revision}" if before else ""
    work.notes.append(Note("Normal", "Promoted", f"revision {candidate.revision} answers{instead}"))


def _remember(work: _Work, target: Target, trouble: Trouble, location: str) -> None:
    fingerprint = fingerprint_of(work.observed, target, work.settings)
    moment = whole_seconds(work.now)
    work.rejected = [rejection for rejection in work.rejected if rejection.fingerprint != fingerprint]
    work.rejected.append(
        Rejection(fingerprint=fingerprint, revision=target.revision, reason=trouble.reason, time=moment)
    )
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


def _reject(work: _Work, target: Target, trouble: Trouble) -> None:
    """Takes the candidate back: the selector names the live revision again, then the pods go."""
    _remember(work, target, trouble, "Rollout")
    stays = f"revision {work.active.revision} goes on" if work.active else "nothing serves yet"
    work.notes.append(
        Note("Warning", "RolledBack", f"revision {target.revision} was taken back ({stays}): {trouble.message}")
    )
    work.candidate = None
    work.widened = False
    work.hold = None


def _expire_previous(work: _Work) -> None:
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


def _watch_live(work: _Work) -> None:
    """Says why the live revision is not ready, where no candidate's trouble is said already."""
    live = work.there.get(work.active.deployment) if work.active else None
    if live is None or work.hold is not None or live.ready >= min(1, work.spec.serving.replicas):
        return
    work.hold = crash(live.pods) or obstacle(live.pods, live.create_error, work.now, mounts(work.spec))


def _wanted_replicas(work: _Work) -> dict[str, int]:
    """Replicas of each Deployment; those that are not named get none."""
    wanted: dict[str, int] = {}
    canary = work.candidate is not None and bool(_steps(work))
    if work.previous is not None and not canary:
        wanted[work.previous.deployment] = work.spec.serving.replicas
    if work.active is not None:
        wanted[work.active.deployment] = work.spec.serving.replicas
    if work.candidate is not None:
        steps = _steps(work)
        wanted[work.candidate.deployment] = _candidate_replicas(work, steps, min(work.candidate.step, len(steps)))
    return wanted


def _deployments(work: _Work, target: Target | None, replicas: Mapping[str, int]) -> tuple[DeploymentIntent, ...]:
    """The Deployments that differ from what is wanted."""
    intents = []
    key = serving_key(work.spec)
    for served in (work.previous, work.active, work.candidate):
        if served is None or served.deployment not in replicas:
            continue
        view = work.there.get(served.deployment)
        count = replicas[served.deployment]
        if view is None or view.replicas != count or not view.intact:
            intents.append(
                DeploymentIntent(
                    name=served.deployment,
                    revision=served.revision,
                    run=served.run,
                    artifact_digest=served.artifact_digest,
                    serving_key=view.serving_key if view else (target.key if target else key),
                    replicas=count,
                )
            )
    for name, view in sorted(work.there.items()):
        if name not in replicas and view.replicas != 0 and not view.meta.deleting:
            intents.append(
                DeploymentIntent(name, view.revision, view.run, view.artifact_digest, view.serving_key, replicas=0)
            )
    return tuple(intents)


def _surplus(work: _Work, replicas: Mapping[str, int]) -> tuple[str, ...]:
    """Deployments beyond spec.serving.keptRevisions, the oldest first, once they have no pod."""
    idle = [view for name, view in work.there.items() if name not in replicas and not view.meta.deleting]
    idle.sort(key=lambda view: (view.revision, view.meta.created, view.meta.name))
    excess = max(0, len(idle) + len(replicas) - work.spec.serving.kept_revisions)
    return tuple(view.meta.name for view in idle[:excess] if view.replicas == 0 and not view.pods)


def _service(work: _Work) -> ServiceIntent | None:
    if work.active is None:
        return None
    name = work.observed.model.meta.name
    wanted = ServiceIntent(name, None if work.widened else work.active.deployment)
    there = next((service for service in work.observed.services if service.name == name), None)
    if there and there.intact and dict(there.selector) == serving_selector(name, wanted.deployment):
        return None
    return wanted


def apply_to(status: ModelStatus, rollout: Rollout) -> ModelStatus:
    """The status with the rollout's outcome."""
    return status.model_copy(
        update={
            "active": rollout.active,
            "previous": rollout.previous,
            "candidate": rollout.candidate,
            "rejected": list(rollout.rejected),
            "last_failure": rollout.failure or status.last_failure,
        }
    )


__all__ = ["Rollout", "Target", "Wish", "advance", "apply_to", "canary_replicas", "revisions", "wish"]

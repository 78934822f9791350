"""What to do about a Model: the next run, the next step of a rollout, and what to say about both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from truekeep.api.model import Awaiting, Candidate, Failure, ModelStatus
from truekeep.api.names import ANNOTATION_ROLLBACK, serving_selector
from truekeep.domain import overrides
from truekeep.domain.approval import AUTOMATIC
from truekeep.domain.captures import swept
from truekeep.domain.conditions import Finding, find, holds, settle, whole_seconds
from truekeep.domain.data import data_finding
from truekeep.domain.decisions import keeping
from truekeep.domain.fingerprints import serves_as_asked, training_fingerprint
from truekeep.domain.history import with_history
from truekeep.domain.observed import ModelObserved, ModelView, RunView
from truekeep.domain.plan import ModelPlan, Note, Settings
from truekeep.domain.pods import Trouble
from truekeep.domain.pruning import pruned
from truekeep.domain.restoring import highest, remembering
from truekeep.domain.rollout import Rollout, advance, apply_to
from truekeep.domain.stand import DECLINED, message_of, reason_of, succeeded
from truekeep.domain.triggers import Training, training
from truekeep.domain.wish import KEPT_REJECTIONS, OF_THE_ARTIFACT, Wish, wish

NO_AUTOSCALING = "NoAutoscaling"
PAUSED = "PausedByHand"
Flag = Literal["True", "False", "Unknown"]
TRAINED_REASONS = frozenset({"Succeeded", "GatesFailed", "ChampionKept"})
FAILURE_LOCATION = {"DataInvalid": "Data", "DataTooLarge": "Data", "GatesFailed": "Gates", "ChampionKept": "Gates"}


def decide(observed: ModelObserved, settings: Settings, now: datetime) -> ModelPlan:
    """What to do about a Model. Pure: the same observation and time, the same answer."""
    if observed.model.meta.deleting:
        return ModelPlan(status=observed.model.status)
    observed = remembering(observed, KEPT_REJECTIONS)

    def plan(seen: ModelObserved) -> ModelPlan:
        return _decide(seen, settings, now)

    return pruned(observed, plan(observed), plan, now)


def _decide(observed: ModelObserved, settings: Settings, now: datetime) -> ModelPlan:
    """All but what of the history may go."""
    model = observed.model
    work = training(observed, training_fingerprint(model.spec), model.status.candidate is not None, now)
    wanted = wish(observed, work.settled, settings, now)
    rollout = advance(observed, wanted.target, settings, now)
    status = apply_to(model.status, rollout)
    status = with_history(_registry(observed, status, work, settings), now)
    status = status.model_copy(update={"last_failure": _failure(status, work, rollout), "awaiting": _awaiting(wanted)})
    findings = _findings(observed, status, work, wanted, rollout)
    if sweeping := swept(observed, now):
        findings.append(sweeping)
    generation = model.meta.generation
    kept = keeping(observed, now)
    status = status.model_copy(
        update={
            "decisions": kept.kept,
            "observed_generation": generation,
            "conditions": settle(model.status.conditions, findings, generation, now),
        }
    )
    waits = [rollout.look_again_seconds, work.wait_seconds, kept.wait_seconds]
    return ModelPlan(
        status=status,
        service=rollout.service,
        route=rollout.route,
        delete_route=rollout.delete_route,
        autoscaler=rollout.autoscaler,
        delete_autoscaler=rollout.delete_autoscaler,
        budget=rollout.budget,
        retention=model.spec.serving.capture is not None and model.spec.serving.capture.retention_days is not None,
        count_since=work.news.since,
        delete_count=work.news.count is None and model.status.new_data is not None,
        deployments=rollout.deployments,
        delete_deployments=rollout.delete,
        rehearse=rollout.rehearse,
        repeat_rehearsal=rollout.repeat_rehearsal,
        hand_over=kept.hand_over,
        repeat_keeper=kept.delete,
        run=work.wanted,
        notes=(*rollout.notes, *_notes(observed, findings)),
        look_again_seconds=min((wait for wait in waits if wait is not None), default=None),
    )


def _registry(observed: ModelObserved, status: ModelStatus, work: Training, settings: Settings) -> ModelStatus:
    """The parts of the status that follow from runs and pods."""
    meta = observed.model.meta
    numbers = [run.status.revision for run in observed.runs if run.status.revision]
    live = next((d for d in observed.deployments if status.active and d.meta.name == status.active.deployment), None)
    run = next((run for run in observed.runs if status.active and run.meta.name == status.active.run), None)
    selector = ",".join(f"{key}={value}" for key, value in sorted(serving_selector(meta.name).items()))
    return status.model_copy(
        update={
            "latest_revision": max([status.latest_revision, highest(observed.runs), *numbers]),
            "run": work.active.meta.name if work.active else (work.wanted.name if work.wanted else None),
            "metric": _metric(observed, run) if run else status.metric,
            "report": (run.status.record.report if run.status.record else None) if run else status.report,
            "handled_retrain": work.handled_retrain,
            "rollback": overrides.handled(observed.model),
            "schedule": work.schedule,
            "new_data": work.news.count,
            "replicas": live.ready if live else 0,
            "selector": selector,
            "url": f"http://{meta.name}.{meta.namespace}.svc.{settings.cluster_domain}" if status.active else None,
        }
    )


def _metric(observed: ModelObserved, run: RunView) -> str | None:
    """The metric that the spec names first, as the active revision's run measured it."""
    evaluation = observed.model.spec.evaluation
    names = [gate.metric for gate in evaluation.gates] + ([evaluation.champion.metric] if evaluation.champion else [])
    values = {metric.name: metric.value for metric in run.status.metrics}
    values |= {gate.metric: gate.value for gate in run.status.gates if gate.metric not in values}
    name = next((name for name in names if name in values), next(iter(values), None))
    return f"{name} {values[name]}" if name else None


def _failure(status: ModelStatus, work: Training, rollout: Rollout) -> Failure | None:
    """What went wrong last: the rollout's failure, or the newest run's."""
    if rollout.failure is not None:
        return rollout.failure
    last = work.last
    if last is None or succeeded(last) or reason_of(last) in DECLINED:
        return status.last_failure
    moment = whole_seconds(last.status.completion_time or last.meta.created)
    if status.last_failure is not None and status.last_failure.time >= moment:
        return status.last_failure
    reason = reason_of(last)
    return Failure.model_validate(
        {
            "location": FAILURE_LOCATION.get(reason, "Training"),
            "reason": reason,
            "message": message_of(last),
            "run": last.meta.name,
            "time": moment,
        }
    )


def _findings(
    observed: ModelObserved, status: ModelStatus, work: Training, wanted: Wish, rollout: Rollout
) -> list[Finding]:
    serving = _serving(status, rollout)
    rolled_out = _rolled_out(observed, status, work, wanted, rollout)
    ready = _ready(_Facts(observed, status, work, wanted, serving, rolled_out, rollout.routed))
    waits = status.awaiting is not None or ready.reason == PAUSED
    busy = ready.status == "False" and (_under_way(work, status, rollout) or waits)
    stalled = ready.status == "False" and not busy
    return [
        ready,
        Finding("Reconciling", "True" if busy else "False", ready.reason, ready.message if busy else ""),
        Finding("Stalled", "True" if stalled else "False", ready.reason, ready.message if stalled else ""),
        serving,
        *_training_findings(work),
        _approved(observed, status, wanted),
        overrides.finding(observed.model),
        rolled_out,
        _scaled(observed),
        *([rollout.routed] if rollout.routed else []),
        _drift(observed),
    ]


def _under_way(work: Training, status: ModelStatus, rollout: Rollout) -> bool:
    """Whether something is still to happen by itself for this generation."""
    if rollout.hold is not None:
        return False
    if work.active is not None and not holds(work.active.status.conditions, "Stalled"):
        return True
    return work.wanted is not None or status.candidate is not None or not (work.settled or work.active)


def _awaiting(wanted: Wish) -> Awaiting | None:
    if wanted.withheld is None or wanted.withheld.consent.state != "Awaited":
        return None
    target = wanted.withheld.target
    return Awaiting(revision=target.revision, run=target.run, artifact_digest=target.artifact_digest)


def _approved(observed: ModelObserved, status: ModelStatus, wanted: Wish) -> Finding:
    """What was decided on the newest revision."""
    if observed.model.spec.approval.mode == "Automatic":
        return Finding("Approved", "True", AUTOMATIC.reason, AUTOMATIC.message)
    if wanted.withheld is not None:
        return Finding("Approved", "False", wanted.withheld.consent.reason, wanted.withheld.consent.message)
    served = status.candidate or status.active
    if served is None:
        return Finding("Approved", "Unknown", "NothingToApprove", "no revision passed its gates yet")
    if served.approval is None:
        words = f"revision {served.revision} served before spec.approval.mode was Manual"
        return Finding("Approved", "True", "ServedBefore", words)
    words = f"{served.approval.approver} approved revision {served.revision} ({served.approval.name})"
    return Finding("Approved", "True", "Approved", words)


def _serving(status: ModelStatus, rollout: Rollout) -> Finding:
    if status.active is None:
        why = f": {rollout.hold.message}" if rollout.hold else ""
        return Finding("Serving", "False", "NothingServes", f"no revision was promoted yet{why}")
    revision = f"revision {status.active.revision}"
    if status.replicas > 0:
        pods = "1 pod" if status.replicas == 1 else f"{status.replicas} pods"
        leaves = f"; {rollout.drain}" if rollout.drain else ""
        return Finding("Serving", "True", "Answering", f"{revision} answers from {pods} at {status.url}{leaves}")
    if rollout.hold is not None:
        return Finding("Serving", "False", rollout.hold.reason, f"{revision} has no ready pod: {rollout.hold.message}")
    return Finding("Serving", "False", "NoReadyPod", f"{revision} has no ready pod")


def _progress(observed: ModelObserved, candidate: Candidate, rollout: Rollout) -> str:
    if candidate.step < 0:
        return "its pods are starting and testing themselves"
    if observed.model.spec.serving.rollout.strategy == "Shadow":
        began = "gets a copy of the traffic" if candidate.step_since else "waits for a copy of the traffic"
        return f"{began}, and nobody sees its answers"
    gateway = rollout.routed is not None and rollout.routed.reason == "Accepted"
    how = "by the Gateway's weights" if gateway else "by its share of the pods"
    return f"{candidate.reached_percent} % of the traffic, {how} (wanted {candidate.weight_percent} %)"


def _scaled(observed: ModelObserved) -> Finding:
    """Who decides about the number of pods, and whether that works."""
    scaling, seen = observed.model.spec.serving.autoscaling, observed.autoscaler
    if scaling is None:
        return Finding("Scaled", "Unknown", NO_AUTOSCALING, "spec.serving.replicas decides about the number of pods")
    least, most = scaling.min_replicas, scaling.max_replicas
    words = f"{least} to {most} pods, so that they use {scaling.cpu_percent} % of the CPU that they request"
    if seen is None:
        return Finding("Scaled", "Unknown", "AutoscalerStarting", f"{words}; it begins with the first pods")
    if seen.problem:
        remedy = "is metrics-server there, and do the pods run?"
        return Finding("Scaled", "False", "AutoscalerBlind", f"{words}; it can't tell yet: {seen.problem}; {remedy}")
    if not seen.working:
        return Finding("Scaled", "Unknown", "AutoscalerStarting", f"{words}; it has not decided yet")
    return Finding("Scaled", "True", "Autoscaling", words)


def _rolled_out(
    observed: ModelObserved, status: ModelStatus, work: Training, wanted: Wish, rollout: Rollout
) -> Finding:
    def say(flag: Flag, reason: str, message: str) -> Finding:
        return Finding("RolledOut", flag, reason, message)

    candidate = status.candidate
    if candidate is not None:
        if rollout.hold is not None:
            return say("False", rollout.hold.reason, f"revision {candidate.revision} waits: {rollout.hold.message}")
        where = _progress(observed, candidate, rollout)
        return say("False", "Progressing", f"revision {candidate.revision}: {where}")
    obstacle = wanted.problem or (wanted.withheld.consent if wanted.withheld else _pause(observed, status))
    if obstacle is not None:
        return say("False", obstacle.reason, obstacle.message)
    if wanted.refused is not None or rollout.failure is not None:
        return say("False", "RolledBack", _rolled_back(observed, status, wanted))
    if status.active is None:
        return say("False", "NothingToRollOut", "there is no revision yet")
    return say("True", "Promoted", f"revision {status.active.revision} answers")


def _pause(observed: ModelObserved, status: ModelStatus) -> Trouble | None:
    """What waits for the end of a pause."""
    if not overrides.paused(observed.model) or _meets(observed, status):
        return None
    return Trouble(PAUSED, f"what the spec asks for waits; {overrides.finding(observed.model).message}")


def _rolled_back(observed: ModelObserved, status: ModelStatus, wanted: Wish) -> str:
    stays = f"rolled back to revision {status.active.revision}" if status.active else "nothing serves"
    failure = status.last_failure
    why = ""
    if failure is not None and failure.revision is not None:
        why = f": revision {failure.revision} failed, {failure.reason}: {failure.message}"
    elif wanted.refused is not None:
        rejection = next((r for r in status.rejected if r.revision == wanted.refused.revision), None)
        why = f": revision {wanted.refused.revision} was rejected, {rejection.reason if rejection else 'earlier'}"
    if failure is not None and failure.reason in OF_THE_ARTIFACT:
        return f"{stays}{why}; train anew, it is not tried again"
    return f"{stays}{why}; mend the spec, it is tried again when it changes"


@dataclass(frozen=True)
class _Facts:
    """What the checks of Ready look at."""

    observed: ModelObserved
    status: ModelStatus
    work: Training
    wanted: Wish
    serving: Finding
    rolled_out: Finding
    routed: Finding | None


def _no(reason: str, message: str) -> Finding:
    return Finding("Ready", "False", reason, message)


def _unreadable(facts: _Facts) -> Finding | None:
    problem = facts.observed.problem
    return _no("Unreadable", problem) if problem else None


def _not_trained(facts: _Facts) -> Finding | None:
    """No revision was trained as the spec says, and none is pinned."""
    work = facts.work
    if work.satisfied or overrides.pin(facts.observed.model) is not None:
        return None
    if work.active is not None:
        return _no(reason_of(work.active), f"run {work.active.meta.name}: {message_of(work.active)}")
    if work.wanted is not None:
        return _no("Training", f"run {work.wanted.name} is being started: {work.wanted.trigger.message}")
    if overrides.paused(facts.observed.model):
        return _no(PAUSED, overrides.finding(facts.observed.model).message)
    last = _last_of(facts.observed, work.fingerprint)
    if last is None:
        return None
    again = "" if work.settled else "; it is tried again"
    return _no(reason_of(last), f"run {last.meta.name}: {message_of(last)}{again}")


def _bad_pin(facts: _Facts) -> Finding | None:
    problem = facts.wanted.problem
    return _no(problem.reason, problem.message) if problem else None


def _bad_schedule(facts: _Facts) -> Finding | None:
    problem = facts.work.problem
    return _no(problem.reason, problem.message) if problem else None


def _not_met(facts: _Facts) -> Finding | None:
    """Another revision, or another way of serving, answers than the spec asks for."""
    met = _meets(facts.observed, facts.status)
    return None if met else _no(facts.rolled_out.reason, facts.rolled_out.message)


def _not_serving(facts: _Facts) -> Finding | None:
    if facts.serving.status == "True" or facts.observed.model.spec.serving.replicas == 0:
        return None
    return _no(facts.serving.reason, facts.serving.message)


def _not_routed(facts: _Facts) -> Finding | None:
    """The Gateway that the spec names does not send anybody here."""
    routed = facts.routed
    return _no(routed.reason, routed.message) if routed is not None and routed.status == "False" else None


# In this order: the first that has something to say is why the Model is not ready.
READY_CHECKS = (_unreadable, _not_trained, _bad_pin, _not_met, _not_serving, _bad_schedule, _not_routed)


def _ready(facts: _Facts) -> Finding:
    for check in READY_CHECKS:
        finding = check(facts)
        if finding is not None:
            return finding
    note = f"; {facts.rolled_out.message}" if facts.rolled_out.reason == "RolledBack" else ""
    return Finding("Ready", "True", _how(facts.observed.model), f"{facts.serving.message}{note}{_by_hand(facts)}")


def _how(model: ModelView) -> str:
    """Who chose the revision that answers."""
    if model.spec.serving.pinned_revision is not None:
        return "Pinned"
    return "RolledBackByHand" if overrides.pin(model) is not None else "Serving"


def _by_hand(facts: _Facts) -> str:
    """What is held by annotation, and how it ends."""
    model = facts.observed.model
    if _how(model) != "RolledBackByHand":
        return ""
    return (
        f"; annotation {ANNOTATION_ROLLBACK} holds it until the spec changes or the annotation goes (truekeep resume)"
    )


def _last_of(observed: ModelObserved, fingerprint: str) -> RunView | None:
    """The newest run that was trained as the spec says."""
    same = [run for run in observed.runs if run.status.training_fingerprint == fingerprint]
    return max(same, key=lambda run: (run.meta.created, run.meta.name), default=None)


def _meets(observed: ModelObserved, status: ModelStatus) -> bool:
    """Whether the revision that answers was trained and is served as this generation of the spec says."""
    spec, active = observed.model.spec, status.active
    if active is None:
        return False
    live = next((d for d in observed.deployments if d.meta.name == active.deployment), None)
    if live is not None and not serves_as_asked(live.serving_key, live.image, spec):
        return False
    if (pinned := overrides.pin(observed.model)) is not None:
        return active.revision == pinned
    run = next((run for run in observed.runs if run.meta.name == active.run), None)
    return run is None or run.status.training_fingerprint == training_fingerprint(spec)


def _training_findings(work: Training) -> list[Finding]:
    """DataValid, Trained and GatesPassed, from the newest run that ended; a stuck run that is under way goes first."""
    last = work.last
    if work.active is not None and holds(work.active.status.conditions, "Stalled"):
        stuck = Finding("Trained", "False", reason_of(work.active), message_of(work.active))
    else:
        stuck = None
    if last is None:
        reason = "Training" if work.active or work.wanted else "NoRun"
        unknown = [Finding(kind, "Unknown", reason) for kind in ("DataValid", "Trained", "GatesPassed")]
        return [unknown[0], stuck or unknown[1], unknown[2]]
    reason, message = reason_of(last), message_of(last)
    data, gates = last.status.data, [gate for gate in last.status.gates if gate.result == "Failed"]
    valid = data_finding(reason, message, data)
    trained = stuck or Finding("Trained", "True" if reason in TRAINED_REASONS else "False", reason, message)
    if reason not in TRAINED_REASONS:
        passed = Finding("GatesPassed", "Unknown", reason)
    elif reason == "Succeeded":
        passed = Finding("GatesPassed", "True", "Passed", f"{len(last.status.gates)} gates passed")
    else:
        worst = message
        if gates:
            missed = "below" if gates[0].bound == "Minimum" else "above"
            worst = f"{gates[0].name}: {gates[0].value} is {missed} {gates[0].threshold}"
        passed = Finding("GatesPassed", "False", reason, worst if reason == "GatesFailed" else message)
    return [valid, trained, passed]


def _drift(observed: ModelObserved) -> Finding:
    """Drift as the policies say it: True where one of them detects it."""
    if not observed.policies:
        return Finding("DriftDetected", "Unknown", "NoPolicy", "no DriftPolicy watches this Model")
    said = [
        (policy.meta.name, condition)
        for policy in sorted(observed.policies, key=lambda policy: policy.meta.name)
        if (condition := find(policy.status.conditions, "DriftDetected")) is not None
    ]
    for flag in ("True", "False"):
        for name, condition in said:
            if condition.status == flag:
                return Finding("DriftDetected", condition.status, condition.reason, f"{name}: {condition.message}")
    return Finding("DriftDetected", "Unknown", "NoWindowYet", "no window of the live revision is closed yet")


def _notes(observed: ModelObserved, findings: list[Finding]) -> list[Note]:
    """An Event where Ready or DriftDetected turns, or Ready has another reason, and where a sweep of captures fails."""
    notes = []
    for finding in findings:
        old = find(observed.model.status.conditions, finding.type)
        before = (old.status, old.reason) if old else ("Unknown", "")
        if finding.type == "Ready" and before != (finding.status, finding.reason):
            bad = finding.status == "False" and next(f for f in findings if f.type == "Stalled").status == "True"
            notes.append(Note("Warning" if bad else "Normal", finding.reason, finding.message or finding.reason))
        elif finding.type == "DriftDetected" and finding.status == "True" and before[0] != "True":
            notes.append(Note("Warning", "DriftDetected", finding.message))
        elif finding.type == "CapturesSwept" and finding.status == "False" and before[0] != "False":
            notes.append(Note("Warning", finding.reason, finding.message))
    return notes

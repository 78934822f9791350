"""What to do about a DriftPolicy: keep its CronJob on the live revision, and turn monitors' reports into a verdict.

What asks for an answer is in `breaches`, what holds it back in `restraint`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from truekeep.api.driftpolicy import DriftPolicyStatus, PerformanceVerdict, WindowVerdict
from truekeep.contract.results import MonitorResult
from truekeep.domain import breaches, notices, system
from truekeep.domain.breaches import consecutive
from truekeep.domain.conditions import Finding, find, settle
from truekeep.domain.mounts import mounts
from truekeep.domain.observed import JobView, ModelView, PolicyObserved, PolicyView, RunView
from truekeep.domain.plan import Note, PolicyPlan, Settings
from truekeep.domain.pods import obstacle, tail

KEPT_WINDOWS = 30
QUIET = frozenset({"NothingToAnswer", "Started", "Answered", "NotWatched", "NoWindowYet", "InsufficientData"})
Flag = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Stand:
    """Whether the policy watches."""

    state: Literal["Watching", "Waiting", "Stuck"]
    reason: str
    message: str


def decide(observed: PolicyObserved, settings: Settings, now: datetime) -> PolicyPlan:
    """What to do about a policy. Pure: the same observation and time, the same answer."""
    policy, model = observed.policy, observed.model
    if policy.meta.deleting:
        return PolicyPlan(status=policy.status)
    stand = _stand(observed, now)
    revision = model.status.active.revision if model and model.status.active else None
    status = _absorb(observed, revision)
    suspended = policy.spec.suspend == "Now"
    watch = revision is not None and model is not None and model.spec.serving.capture is not None
    wrong = not observed.cronjob_intact or observed.cronjob_revision != revision
    held = _held(policy, status, observed, now)
    told = notices.settled(policy, observed.notices)
    status = status.model_copy(update={**breaches.outlook(policy, status, observed.runs, now), "notices": told})
    telling = PolicyView(policy.meta, policy.spec, policy.status.model_copy(update={"notices": told}))
    return _plan(
        policy,
        status,
        stand,
        now,
        held=held,
        health=system.serving(observed),
        stale=_stale(status, observed.model, now),
        told=notices.finding(telling),
        tell=notices.to_send(telling, observed.notices),
        apply_cronjob=watch and wrong,
        watch_revision=revision if watch else None,
        suspend_cronjob=suspended,
        delete_cronjob=not watch and observed.cronjob_intact is not None,
    )


def _stand(observed: PolicyObserved, now: datetime) -> Stand:
    policy, model = observed.policy, observed.model
    if model is None:
        name = policy.spec.model_ref.name
        return Stand(
            "Stuck", "ModelNotFound", f"there is no Model {name} in this namespace; apply it, or mend modelRef"
        )
    if model.spec.serving.capture is None:
        message = f"Model {model.meta.name} keeps no predictions; set its spec.serving.capture"
        return Stand("Stuck", "NothingCaptured", message)
    if model.status.active is None:
        return Stand("Waiting", "NothingServes", f"Model {model.meta.name} has no live revision yet")
    if policy.spec.suspend == "Now":
        return Stand("Waiting", "Suspended", "spec.suspend is Now: nothing is watched and no run is started")
    if (unfit := _unfit(policy, model)) is not None:
        return Stand("Stuck", "ColumnUnfit", unfit)
    return _monitor_stand(observed, model, now)


def _unfit(policy: PolicyView, model: ModelView) -> str | None:
    """What is wrong with a column that the policy names."""
    types = {feature.name: feature.type for feature in model.spec.data.features}
    for one in policy.spec.data.columns:
        if one.name not in types:
            return f"spec.data.columns: Model {model.meta.name} has no feature {one.name}; mend the name, or remove it"
        if types[one.name] == "Category" and one.statistic in ("KolmogorovSmirnov", "Wasserstein"):
            return (
                f"spec.data.columns: {one.name} is a Category, {one.statistic} is for numbers; name another statistic"
            )
    entity = policy.spec.performance.entity if policy.spec.performance else None
    if entity is None:
        return None
    field, name = "spec.performance.entity.column", entity.column
    if name not in {*types, model.spec.data.key}:
        return f"{field}: Model {model.meta.name} has no feature {name}, nor is it its key; mend the name"
    if model.spec.serving.capture and name in model.spec.serving.capture.drop:
        return f"{field}: {name} is in the Model's spec.serving.capture.drop; put it into capture.hash instead"
    return None


def _monitor_stand(observed: PolicyObserved, model: ModelView, now: datetime) -> Stand:
    job = max(observed.jobs, key=lambda job: (job.meta.created, job.meta.name), default=None)
    revision = model.status.active.revision if model.status.active else 0
    watched = f"revision {revision} is watched on schedule {observed.policy.spec.schedule}"
    good = Stand("Watching", "Watching", watched + _not_compared(model) + _gone_too_soon(model, observed.policy))
    if job is None:
        return good
    if job.failed_reason is None:
        trouble = None if job.complete else obstacle(job.pods, job.create_error, now, mounts(model.spec))
        return Stand("Stuck", trouble.reason, trouble.message) if trouble else good
    results = _results((job,), observed.policy.meta.uid)
    if results:
        return Stand("Stuck", results[-1].reason, results[-1].message)
    pods = [pod for pod in job.pods if pod.exit_code is not None]
    if any(pod.exit_reason == "OOMKilled" for pod in pods):
        return Stand("Stuck", "OutOfMemory", "the monitor pod needed more memory; raise spec.resources.limits.memory")
    words = tail(pods[-1].exit_message) if pods else job.failed_message
    return Stand("Stuck", "MonitorFailed", f"the last look failed ({job.failed_reason}): {words}")


def _not_compared(model: ModelView) -> str:
    """Which features nothing can be said of, because captures lack them or have their hashes only."""
    capture = model.spec.serving.capture
    features = {feature.name for feature in model.spec.data.features}
    without = sorted(features & {*capture.drop, *capture.hash}) if capture else []
    return f"; not compared, because capture drops or hashes them: {', '.join(without)}" if without else ""


def _gone_too_soon(model: ModelView, policy: PolicyView) -> str:
    """Whether captures are deleted before the window that they are in is judged, or before its labels are ripe."""
    capture = model.spec.serving.capture
    if capture is None or capture.retention_days is None:
        return ""
    labels = model.spec.data.label.matures_after_seconds if policy.spec.performance else 0
    window = policy.spec.window
    hours = window.hours + (window.allowed_lateness_seconds + labels) / 3600
    if capture.retention_days * 24 >= hours:
        return ""
    return (
        f"; captures are deleted after {capture.retention_days} days, but a window is judged up to {hours / 24:.1f} "
        "days after its first row: raise the Model's spec.serving.capture.retentionDays"
    )


def _results(jobs: Sequence[JobView], policy_uid: str) -> list[MonitorResult]:
    """What monitors handed over, the oldest first."""
    found: list[tuple[datetime, str, MonitorResult]] = []
    for job in jobs:
        for pod in job.pods:
            if pod.exit_code is None or not pod.exit_message.lstrip().startswith("{"):
                continue
            try:
                result = MonitorResult.model_validate_json(pod.exit_message)
            except ValidationError:
                continue
            if result.policy_uid == policy_uid:
                found.append((pod.finished or pod.created, pod.name, result))
    return [result for _, _, result in sorted(found, key=lambda item: item[:2])]


def _absorb(observed: PolicyObserved, revision: int | None) -> DriftPolicyStatus:
    """The status with everything that monitors reported. Reports that are seen again change nothing."""
    status = observed.policy.status
    windows = {(window.revision, window.start): window for window in status.windows}
    findings = status.findings if status.watched_revision == revision else []
    newest = max((w.start for w in status.windows if w.revision == revision), default=None)
    for result in _results(observed.jobs, observed.policy.meta.uid):
        windows |= {(window.revision, window.start): window for window in result.windows}
        top = max((window.start for window in result.windows), default=None)
        if result.revision == revision and top is not None and (newest is None or top >= newest):
            findings, newest = list(result.findings), top
    ordered = sorted(windows.values(), key=lambda window: (window.start, window.revision), reverse=True)[:KEPT_WINDOWS]
    mine = [window for window in ordered if window.revision == revision]
    performance = _performance(observed)
    shown = [one for one in performance if one.revision == revision]
    told = [status.newest_event_time, *(one.newest_event for one in _results(observed.jobs, observed.policy.meta.uid))]
    events = [event for event in told if event is not None]
    finished = [pod.finished for job in observed.jobs for pod in job.pods if pod.finished]
    started = [run for run in observed.runs if _policy_uid(run) == observed.policy.meta.uid]
    last = max(started, key=lambda run: (run.meta.created, run.meta.name), default=None)
    return status.model_copy(
        update={
            "watched_revision": revision,
            "windows": ordered,
            "findings": findings,
            "consecutive": consecutive(mine),
            "performance": performance,
            "decayed": breaches.decayed_windows(shown),
            "last_run": last.meta.name if last else status.last_run,
            "last_check_time": max(
                [*finished, *([status.last_check_time] if status.last_check_time else [])], default=None
            ),
            "newest_event_time": max(events, default=None),
            "summary": _summary(mine[0]) if mine else None,
        }
    )


def _performance(observed: PolicyObserved) -> list[PerformanceVerdict]:
    """The newest that labels judged and the newest that wait for them: a long wait must not push out what is known."""
    known = {(one.revision, one.start): one for one in observed.policy.status.performance}
    for result in _results(observed.jobs, observed.policy.meta.uid):
        for one in result.performance:
            before = known.get((one.revision, one.start))
            if before is None or before.value is None or one.value is not None or one.metric != before.metric:
                known[one.revision, one.start] = one
    ordered = sorted(known.values(), key=lambda one: (one.start, one.revision), reverse=True)
    judged = [one for one in ordered if one.value is not None][: KEPT_WINDOWS // 2]
    waiting = [one for one in ordered if one.value is None][: KEPT_WINDOWS // 2]
    return sorted([*judged, *waiting], key=lambda one: (one.start, one.revision), reverse=True)


def _policy_uid(run: RunView) -> str | None:
    return run.spec.trigger.policy.uid if run.spec.trigger.policy else None


def _summary(window: WindowVerdict) -> str:
    columns = f", {window.columns} column{'s' if window.columns != 1 else ''}" if window.columns else ""
    return f"{window.start:%Y-%m-%d} {window.verdict}{columns}"


def _drift(policy: PolicyView, status: DriftPolicyStatus) -> Finding:
    mine = [window for window in status.windows if window.revision == status.watched_revision]
    if not mine:
        return Finding("DriftDetected", "Unknown", "NoWindowYet", "no window of the live revision is closed yet")
    needed = policy.spec.consecutive_windows
    if status.consecutive >= needed:
        found = status.findings[0].message if status.findings else f"{mine[0].columns} columns"
        message = f"{status.consecutive} windows in a row, up to {mine[0].end:%Y-%m-%d %H:%M}: {found}"
        return Finding("DriftDetected", "True", "Breach", message)
    if status.consecutive:
        return Finding("DriftDetected", "False", "Suspected", f"{status.consecutive} of {needed} windows in a row")
    reasons = {"InsufficientData": "InsufficientData", "DataQuality": "DataQuality", "Blackout": "Blackout"}
    return Finding("DriftDetected", "False", reasons.get(mine[0].verdict, "NoDrift"), _summary(mine[0]))


def _decay(policy: PolicyView, status: DriftPolicyStatus) -> Finding:
    """Performance by labels; where they are not enough, by estimate, which is called one."""
    kind = "PerformanceDecayed"
    if policy.spec.performance is None:
        return Finding(kind, "Unknown", "NotWatched", "spec.performance is not set, so labels are not read")
    mine = [one for one in status.performance if one.revision == status.watched_revision]
    if not mine:
        return Finding(kind, "Unknown", "NoWindowYet", "no window of the live revision is closed yet")
    return Finding(kind, *_decay_of(policy, status, mine))


def _decay_of(
    policy: PolicyView, status: DriftPolicyStatus, mine: Sequence[PerformanceVerdict]
) -> tuple[Flag, str, str]:
    """Status, reason and message; `mine`: of the live revision, the newest first."""
    needed = policy.spec.consecutive_windows
    acts = policy.spec.performance is not None and policy.spec.performance.estimates == "Act"
    known = next((one for one in mine if one.value is not None), None)
    estimated = breaches.estimated_windows(mine)
    if known is not None and status.decayed >= needed:
        return "True", "Decayed", f"{status.decayed} windows in a row: {breaches.shown(known)}"
    if estimated >= needed:
        newest = next(one for one in mine if one.estimate is not None)
        words = f"{estimated} windows in a row by estimate, not by labels yet: {breaches.estimate(newest)}"
        return ("True", "Estimated", words) if acts else ("False", "EstimatedOnly", words)
    if known is None:
        return "Unknown", "InsufficientData", f"no window has enough labels; {breaches.estimate(mine[0])}"
    if status.decayed:
        return "False", "Suspected", f"{status.decayed} of {needed} windows in a row: {breaches.shown(known)}"
    return "False", "Holds", breaches.shown(known)


def _held(policy: PolicyView, status: DriftPolicyStatus, observed: PolicyObserved, now: datetime) -> Finding:
    """Why a breach that asks for a run gets none."""
    view = PolicyView(policy.meta, policy.spec, status)
    revision = status.watched_revision
    found = breaches.to_retrain(view, revision) if revision is not None else None
    if found is None:
        return Finding("RetrainHeld", "False", "NothingToAnswer", "no breach asks for a run")
    held = breaches.nothing_to_retrain(observed.model) if observed.model else None
    held = held or breaches.restraint(view, found, observed.runs, now)
    if held is None:
        return Finding("RetrainHeld", "False", "Started", f"a run answers {found.kind}")
    return Finding("RetrainHeld", "False" if held.reason == "Answered" else "True", held.reason, held.message)


def _stale(status: DriftPolicyStatus, model: ModelView | None, now: datetime) -> Finding | None:
    """Whether events stopped to come, by the Model's rule on the age of its data."""
    ages = [rule.max_age_seconds for rule in model.spec.data.rules if rule.max_age_seconds] if model else []
    newest = status.newest_event_time
    if not ages or newest is None or now - newest <= timedelta(seconds=min(ages)):
        return None
    words = f"the newest captured event is of {newest:%Y-%m-%d %H:%M} UTC, a rule's maxAgeSeconds is {min(ages)}"
    return Finding("DataValid", "False", "NotFresh", f"{words}; look upstream: does anybody ask the model?")


def _broken(status: DriftPolicyStatus) -> Finding | None:
    """Whether the newest window's data is broken, which says more than its age."""
    mine = [window for window in status.windows if window.revision == status.watched_revision]
    if not mine or mine[0].verdict != "DataQuality":
        return None
    words = _defect(status) or _summary(mine[0])
    return Finding(
        "DataValid", "False", "DataQuality", f"{words}; mend it upstream: nothing is retrained on broken data"
    )


def _data(status: DriftPolicyStatus) -> Finding:
    mine = [window for window in status.windows if window.revision == status.watched_revision]
    if not mine:
        return Finding("DataValid", "Unknown", "NoWindowYet", "no window of the live revision is closed yet")
    if "DataQuality" not in mine[0].kinds:
        return Finding("DataValid", "True", "NoDefect", _summary(mine[0]))
    words = _defect(status) or _summary(mine[0])
    return Finding("DataValid", "False", "DataDefect", f"{words}; look upstream, before it gets worse")


def _defect(status: DriftPolicyStatus) -> str | None:
    return next((finding.message for finding in status.findings if finding.kind == "DataQuality"), None)


def _plan(
    policy: PolicyView,
    status: DriftPolicyStatus,
    stand: Stand,
    now: datetime,
    *,
    held: Finding,
    health: Finding,
    stale: Finding | None,
    told: Finding,
    tell: tuple[notices.Due, ...],
    apply_cronjob: bool,
    watch_revision: int | None,
    suspend_cronjob: bool,
    delete_cronjob: bool,
) -> PolicyPlan:
    def flag(value: bool) -> Flag:
        return "True" if value else "False"

    drift, decay = _drift(policy, status), _decay(policy, status)
    data = _broken(status) or stale or _data(status)
    wanted = [
        Finding("Ready", flag(stand.state == "Watching"), stand.reason, stand.message),
        Finding("Reconciling", flag(stand.state == "Waiting" and stand.reason != "Suspended"), stand.reason),
        Finding("Stalled", flag(stand.state == "Stuck"), stand.reason, stand.message),
        drift,
        data,
        decay,
        held,
        health,
        told,
    ]
    generation = policy.meta.generation
    old = policy.status.conditions
    notes = [
        Note("Warning" if bad else "Normal", finding.reason, finding.message or finding.reason)
        for finding, bad in (
            (wanted[0], stand.state == "Stuck"),
            (drift, drift.status == "True"),
            (data, data.status == "False"),
            (decay, decay.status == "True" or decay.reason == "EstimatedOnly"),
            (held, held.status == "True"),
            (health, health.status == "False"),
            (told, told.status == "False"),
        )
        if _turned(find(old, finding.type), finding)
    ]
    conditions = settle(old, wanted, generation, now)
    return PolicyPlan(
        status=status.model_copy(update={"observed_generation": generation, "conditions": conditions}),
        apply_cronjob=apply_cronjob,
        watch_revision=watch_revision,
        suspend_cronjob=suspend_cronjob,
        delete_cronjob=delete_cronjob,
        tell=tell,
        notes=tuple(notes),
    )


def _turned(old: object, finding: Finding) -> bool:
    """Whether a condition says something new that is worth an Event."""
    if finding.type == notices.KIND:  # that it was delivered, the receiver knows
        return finding.status == "False" and getattr(old, "message", None) != finding.message
    if old is None:
        return finding.status == "True" and finding.type != "DataValid"
    if finding.reason in QUIET and finding.type in ("RetrainHeld", "PerformanceDecayed"):
        return False
    if finding.type == system.KIND:  # that nobody asks is no news
        return finding.status == "False" or (finding.status == "True" and getattr(old, "status", None) == "False")
    return getattr(old, "status", None) != finding.status or getattr(old, "reason", None) != finding.reason

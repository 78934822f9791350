"""What to do about a DriftPolicy: keep its CronJob on the live revision, and turn monitors' reports into a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import ValidationError

from truekeep.api.driftpolicy import DriftPolicyStatus, WindowVerdict
from truekeep.contract.results import MonitorResult
from truekeep.domain.conditions import Finding, find, settle
from truekeep.domain.observed import JobView, ModelView, PolicyObserved, PolicyView, RunView
from truekeep.domain.plan import Note, PolicyPlan, Settings
from truekeep.domain.pods import obstacle, tail
from truekeep.domain.run import mounts

KEPT_WINDOWS = 30
POLL_SECONDS = 60.0
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
    return _plan(
        policy,
        status,
        stand,
        now,
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
    return _monitor_stand(observed, model, now)


def _monitor_stand(observed: PolicyObserved, model: ModelView, now: datetime) -> Stand:
    job = max(observed.jobs, key=lambda job: (job.meta.created, job.meta.name), default=None)
    revision = model.status.active.revision if model.status.active else 0
    watched = f"revision {revision} is watched on schedule {observed.policy.spec.schedule}{_not_compared(model)}"
    good = Stand("Watching", "Watching", watched)
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
    finished = [pod.finished for job in observed.jobs for pod in job.pods if pod.finished]
    started = [run for run in observed.runs if _policy_uid(run) == observed.policy.meta.uid]
    last = max(started, key=lambda run: (run.meta.created, run.meta.name), default=None)
    return status.model_copy(
        update={
            "watched_revision": revision,
            "windows": ordered,
            "findings": findings,
            "consecutive": consecutive(mine),
            "last_run": last.meta.name if last else status.last_run,
            "last_check_time": max(
                [*finished, *([status.last_check_time] if status.last_check_time else [])], default=None
            ),
            "summary": _summary(mine[0]) if mine else None,
        }
    )


def _policy_uid(run: RunView) -> str | None:
    return run.spec.trigger.policy.uid if run.spec.trigger.policy else None


def consecutive(windows: Sequence[WindowVerdict]) -> int:
    """How many windows in a row, up to the newest, breached. windows: of one revision, the newest first.

    A window with too few rows neither counts nor ends the row; one with broken data ends it."""
    count = 0
    for window in windows:
        if window.verdict == "InsufficientData":
            continue
        if window.verdict != "Drift" or not window.kinds:
            break
        count += 1
    return count


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
    reasons = {"InsufficientData": "InsufficientData", "DataQuality": "DataQuality"}
    return Finding("DriftDetected", "False", reasons.get(mine[0].verdict, "NoDrift"), _summary(mine[0]))


def _data(status: DriftPolicyStatus) -> Finding:
    mine = [window for window in status.windows if window.revision == status.watched_revision]
    if not mine:
        return Finding("DataValid", "Unknown", "NoWindowYet", "no window of the live revision is closed yet")
    if mine[0].verdict != "DataQuality" and "DataQuality" not in mine[0].kinds:
        return Finding("DataValid", "True", "NoDefect", _summary(mine[0]))
    broken = [finding.message for finding in status.findings if finding.kind == "DataQuality"]
    words = broken[0] if broken else _summary(mine[0])
    if mine[0].verdict == "DataQuality":
        remedy = "mend it upstream: nothing is retrained on broken data"
        return Finding("DataValid", "False", "DataQuality", f"{words}; {remedy}")
    return Finding("DataValid", "False", "DataDefect", f"{words}; look upstream, before it gets worse")


def _plan(
    policy: PolicyView,
    status: DriftPolicyStatus,
    stand: Stand,
    now: datetime,
    *,
    apply_cronjob: bool,
    watch_revision: int | None,
    suspend_cronjob: bool,
    delete_cronjob: bool,
) -> PolicyPlan:
    def flag(value: bool) -> Flag:
        return "True" if value else "False"

    drift, data = _drift(policy, status), _data(status)
    wanted = [
        Finding("Ready", flag(stand.state == "Watching"), stand.reason, stand.message),
        Finding("Reconciling", flag(stand.state == "Waiting" and stand.reason != "Suspended"), stand.reason),
        Finding("Stalled", flag(stand.state == "Stuck"), stand.reason, stand.message),
        drift,
        data,
    ]
    generation = policy.meta.generation
    old = policy.status.conditions
    notes = [
        Note("Warning" if bad else "Normal", finding.reason, finding.message or finding.reason)
        for finding, bad in (
            (wanted[0], stand.state == "Stuck"),
            (drift, drift.status == "True"),
            (data, data.status == "False"),
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
        notes=tuple(notes),
        look_again_seconds=POLL_SECONDS,
    )


def _turned(old: object, finding: Finding) -> bool:
    """Whether a condition says something new that is worth an Event."""
    if old is None:
        return finding.status == "True" and finding.type != "DataValid"
    return getattr(old, "status", None) != finding.status or getattr(old, "reason", None) != finding.reason

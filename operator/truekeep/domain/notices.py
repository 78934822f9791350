"""What a policy's webhook has to be told: each turn of a condition for the worse, and the turn back, once. Pure.

What is due follows from the stored conditions and from what status says was told, so that a crash repeats and loses
nothing: a turn has its Job, whose name says which turn it is, and its end is kept in the status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from truekeep.api.common import Condition
from truekeep.api.names import notice_name
from truekeep.api.webhook import Notice, Told, Webhook
from truekeep.contract.canonical import digest_of
from truekeep.domain.conditions import Finding, find
from truekeep.domain.observed import JobView, PolicyView
from truekeep.domain.pods import newest, tail

KIND = "Notified"
# The conditions that somebody is told of, and the status that is the bad one.
BAD: dict[Told, str] = {
    "PerformanceDecayed": "True",
    "DriftDetected": "True",
    "DataValid": "False",
    "ServingHealthy": "False",
    "Stalled": "True",
}
MESSAGE_LENGTH = 512


@dataclass(frozen=True)
class Due:
    """A turn that is to be told. `job`: the name of the Job that tells it; `event`: the id of the CloudEvent."""

    condition: Told
    turned: Condition
    job: str
    event: str

    @property
    def alerting(self) -> bool:
        """Whether it is a turn for the worse."""
        return self.turned.status == BAD[self.condition]


def due(policy: PolicyView) -> list[Due]:
    """What is to be told now, the worst first. Nothing without a webhook, or while the policy is suspended."""
    webhook = policy.spec.webhook
    if webhook is None or policy.spec.suspend == "Now":
        return []
    told = {notice.condition: notice for notice in policy.status.notices}
    found = [_due(policy, webhook, name, told.get(name)) for name in BAD]
    return [one for one in found if one is not None]


def _due(policy: PolicyView, webhook: Webhook, name: Told, told: Notice | None) -> Due | None:
    condition = find(policy.status.conditions, name)
    if condition is None or condition.status == "Unknown":
        return None
    if condition.status != BAD[name] and (told is None or told.status != BAD[name]):
        return None  # that all is well is news only to those who heard that it was not
    event = digest_of([policy.meta.uid, name, condition.status, condition.last_transition_time.isoformat()])
    job = notice_name(policy.meta.name, digest_of([event, webhook.dump()]))
    turn = (condition.status, condition.last_transition_time)
    if told is not None and (told.status, told.since) == turn and (told.result == "Delivered" or told.job == job):
        return None
    return Due(name, condition, job, event.removeprefix("sha256:")[:32])


def settled(policy: PolicyView, jobs: Sequence[JobView]) -> list[Notice]:
    """What status says was told, with what Jobs that ended add to it."""
    if policy.spec.webhook is None:
        return []
    ended = {job.meta.name: job for job in jobs if job.complete or job.failed_reason is not None}
    known = {notice.condition: notice for notice in policy.status.notices}
    for one in due(policy):
        if one.job in ended:
            known[one.condition] = _notice(one, ended[one.job])
    return [known[name] for name in BAD if name in known]


def to_send(policy: PolicyView, jobs: Sequence[JobView]) -> tuple[Due, ...]:
    """What is due and has no Job yet."""
    there = {job.meta.name for job in jobs}
    return tuple(one for one in due(policy) if one.job not in there)


def finding(policy: PolicyView) -> Finding:
    """Whether those who want to know were told."""
    if policy.spec.webhook is None:
        return Finding(KIND, "Unknown", "NoWebhook", "spec.webhook is not set: conditions, Events and metrics tell")
    notices = policy.status.notices
    if waiting := due(policy):
        names = ", ".join(one.condition for one in waiting)
        return Finding(KIND, "Unknown", "Delivering", f"being told: {names}")
    failed = next((one for one in notices if one.result == "NotDelivered"), None)
    if failed is not None:
        words = f"{failed.condition} {failed.status} since {failed.since:%Y-%m-%d %H:%M} UTC was not taken: "
        remedy = "; mend spec.webhook, and it is sent again"
        return Finding(KIND, "False", "NotDelivered", f"{words}{failed.message}{remedy}")
    if not notices:
        return Finding(KIND, "True", "NothingToTell", "nothing was found yet that is worth telling")
    last = max(notices, key=lambda one: one.since)
    words = f"{last.condition} {last.status} since {last.since:%Y-%m-%d %H:%M} UTC was told"
    return Finding(KIND, "True", "Delivered", words)


def _notice(one: Due, job: JobView) -> Notice:
    message = "" if job.complete else _why(job)
    return Notice(
        condition=one.condition,
        status="True" if one.turned.status == "True" else "False",
        since=one.turned.last_transition_time,
        result="Delivered" if job.complete else "NotDelivered",
        job=one.job,
        message=message[:MESSAGE_LENGTH],
    )


def _why(job: JobView) -> str:
    pod = newest(job.pods)
    words = tail(pod.exit_message) if pod else ""
    return words or f"its Job failed ({job.failed_reason}): {job.failed_message}"


def event(policy: PolicyView, one: Due) -> dict[str, Any]:
    """The CloudEvent (specification 1.0, structured): the same turn, the same id, however often it is sent."""
    findings = [finding.dump() for finding in policy.status.findings] if one.condition == "DriftDetected" else []
    kind = {"True": "alert", "False": "resolved"}[str(one.alerting)]
    data: dict[str, Any] = {
        "namespace": policy.meta.namespace,
        "model": policy.spec.model_ref.name,
        "policy": policy.meta.name,
        "revision": policy.status.watched_revision,
        "condition": one.condition,
        "status": one.turned.status,
        "reason": one.turned.reason,
        "message": one.turned.message,
        "findings": findings,
        "report": next((window.report for window in policy.status.windows if window.report), ""),
    }
    return {
        "specversion": "1.0",
        "id": one.event,
        "source": f"/apis/truekeep.dev/namespaces/{policy.meta.namespace}/driftpolicies/{policy.meta.name}",
        "type": f"dev.truekeep.policy.{kind}",
        "subject": policy.spec.model_ref.name,
        "time": _rfc3339(one.turned.last_transition_time),
        "datacontenttype": "application/json",
        "data": {key: value for key, value in data.items() if value is not None},
    }


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")

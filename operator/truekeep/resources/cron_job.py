"""What our CronJobs have in common: one look at a time, in UTC, and pods that are like all pods of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from truekeep.api.names import MANAGED_BY
from truekeep.resources.failure_rules import failure_rules


@dataclass(frozen=True)
class Timing:
    """When it runs, how often it tries, and when it is given up. Durations in seconds."""

    cron: str
    late: int  # a start that is later than this is left out
    deadline: int
    retries: int
    suspended: bool = False
    kept: int = 2  # finished Jobs that succeeded
    job: Mapping[str, Any] = field(default_factory=dict)  # more of the Job's spec


def cron_job(
    metadata: dict[str, Any], labels: Mapping[str, str], component: str, timing: Timing, template: dict[str, Any]
) -> dict[str, Any]:
    """A CronJob around a pod template."""
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata,
        "spec": {
            "schedule": timing.cron,
            "timeZone": "Etc/UTC",
            "suspend": timing.suspended,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": timing.late,
            "successfulJobsHistoryLimit": timing.kept,
            "failedJobsHistoryLimit": 2,
            "jobTemplate": {
                "metadata": {"labels": {**MANAGED_BY, **labels}},
                "spec": {
                    **timing.job,
                    "backoffLimit": timing.retries,
                    "activeDeadlineSeconds": timing.deadline,
                    "podFailurePolicy": {"rules": failure_rules(component)},
                    "template": template,
                },
            },
        },
    }

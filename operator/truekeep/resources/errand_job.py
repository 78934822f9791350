"""Jobs in which the monitor's image does one thing, and which go by themselves some time after it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truekeep.api.common import Place, Pods, ResourceAmounts, Resources, Schema
from truekeep.api.names import LABEL_COMPONENT, MANAGED_BY
from truekeep.domain.plan import Settings
from truekeep.resources.amounts import MONITOR, container_resources
from truekeep.resources.failure_rules import failure_rules
from truekeep.resources.pods import pod_template

SMALL = ResourceAmounts(cpu="20m", memory="64Mi")


@dataclass(frozen=True)
class Errand:
    """What is done, and how long it may take. Durations in seconds."""

    module: str  # of truekeep.monitor
    deadline: int
    kept: int  # when it is done; its result is in a status by then
    retries: int = 0
    requests: ResourceAmounts = SMALL
    tmp_size: str = "16Mi"


def errand_job(
    metadata: dict[str, Any],
    errand: Errand,
    request: Schema,
    settings: Settings,
    *,
    pods: Pods,
    locations: Iterable[Place] = (),
    secrets: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The Job. Its labels, the component among them, are its pod's too."""
    labels: dict[str, str] = metadata["labels"]
    component = labels[LABEL_COMPONENT]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": errand.retries,
            "activeDeadlineSeconds": errand.deadline,
            "ttlSecondsAfterFinished": errand.kept,
            "podFailurePolicy": {"rules": failure_rules(component)},
            "template": pod_template(
                component=component,
                image=settings.monitor_image,
                pull_secrets=settings.image_pull_secrets,
                request=request,
                resources=container_resources(Resources(requests=errand.requests), MONITOR),
                pods=pods,
                locations=locations,
                secrets=secrets,
                labels={**MANAGED_BY, **labels},
                tmp_size=errand.tmp_size,
                spec={"restartPolicy": "Never"},
                container={"command": ["python3", "-m", f"truekeep.monitor.{errand.module}"]},
            ),
        },
    }

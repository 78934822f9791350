"""The objects that the operator reads and writes, written down: no discovery is needed, and none can be stale."""

from __future__ import annotations

from dataclasses import dataclass

from truekeep.api.common import GROUP, VERSION


@dataclass(frozen=True)
class Kind:
    """A kind of object."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As in a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version


MODEL = Kind(GROUP, VERSION, "Model", "models")
TRAINING_RUN = Kind(GROUP, VERSION, "TrainingRun", "trainingruns")
DRIFT_POLICY = Kind(GROUP, VERSION, "DriftPolicy", "driftpolicies")
MODEL_APPROVAL = Kind(GROUP, VERSION, "ModelApproval", "modelapprovals")
OWN = (MODEL, TRAINING_RUN, DRIFT_POLICY)

JOB = Kind("batch", "v1", "Job", "jobs")
CRON_JOB = Kind("batch", "v1", "CronJob", "cronjobs")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
SERVICE = Kind("", "v1", "Service", "services")
POD = Kind("", "v1", "Pod", "pods")
DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
NODE = Kind("", "v1", "Node", "nodes", namespaced=False)
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
EVENT = Kind("events.k8s.io", "v1", "Event", "events")

ALL = (
    *OWN, MODEL_APPROVAL, JOB, CRON_JOB, DEPLOYMENT, SERVICE, POD, DISRUPTION_BUDGET, AUTOSCALER, HTTP_ROUTE, NODE,
    LEASE, EVENT,
)  # fmt: skip
BY_NAME = {kind.kind: kind for kind in ALL}

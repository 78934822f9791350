"""What a reconciler saw: plain values, read from the API server just now, without any Kubernetes type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from truekeep.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus
from truekeep.api.model import ModelSpec, ModelStatus
from truekeep.api.modelapproval import ModelApprovalSpec
from truekeep.api.trainingrun import Stage, TrainingRunSpec, TrainingRunStatus
from truekeep.domain.histogram import Histogram


@dataclass(frozen=True)
class Meta:
    """The part of an object's metadata that decisions use."""

    namespace: str
    name: str
    uid: str
    created: datetime
    generation: int = 1
    resource_version: str = ""
    deleting: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelView:
    """A Model."""

    meta: Meta
    spec: ModelSpec
    status: ModelStatus


@dataclass(frozen=True)
class RunView:
    """A TrainingRun."""

    meta: Meta
    spec: TrainingRunSpec
    status: TrainingRunStatus
    # UID of the Model that owns it, where the operator made it and nobody else wrote to it since
    made_for: str | None = None


@dataclass(frozen=True)
class PolicyView:
    """A DriftPolicy."""

    meta: Meta
    spec: DriftPolicySpec
    status: DriftPolicyStatus


@dataclass(frozen=True)
class ApprovalView:
    """A ModelApproval."""

    meta: Meta
    spec: ModelApprovalSpec


@dataclass(frozen=True)
class PodView:
    """A pod of ours: its one container, or, of several, the one that is in trouble."""

    name: str
    created: datetime
    phase: str = "Pending"  # Pending, Running, Succeeded, Failed, Unknown
    ready: bool = False
    deleting: bool = False
    ip: str | None = None
    waiting_reason: str | None = None  # ImagePullBackOff, CrashLoopBackOff, CreateContainerConfigError, …
    waiting_message: str = ""
    # How the container ended: now, or before its last restart.
    exit_code: int | None = None
    exit_reason: str | None = None  # Completed, Error, OOMKilled, Evicted, …
    exit_message: str = ""  # the termination message, else the last lines of the log
    ended_because: str = ""  # the kubelet's words, where it ended the whole pod
    disruption: str | None = None  # who takes or took the pod away: reason of its condition DisruptionTarget
    finished: datetime | None = None
    restarts: int = 0
    image_id: str | None = None  # of its own container, by digest, as its node names it
    fit_image_id: str | None = None  # of a team's training image, by digest, as its node names it
    theirs: bool = False  # what waits or ended is the container of a team's own image: its exit codes mean nothing
    unschedulable: str | None = None  # the scheduler's words, where it found no node
    node: str | None = None
    drained: bool = False  # its node takes no more pods: it is being emptied


@dataclass(frozen=True)
class JobView:
    """A training Job, or one of a policy's monitor Jobs."""

    meta: Meta
    complete: bool = False
    failed_reason: str | None = None  # BackoffLimitExceeded, DeadlineExceeded, PodFailurePolicy
    failed_message: str = ""
    failing: str | None = None  # it is about to fail for this reason; its pods are being ended
    disruption: str | None = None  # who took its pod away, where that is gone: as in PodView
    finished: datetime | None = None
    suspended: bool = False
    pods: tuple[PodView, ...] = ()
    create_error: str | None = None  # why no pod could be made: quota, a missing PriorityClass, admission
    stage: Stage = "Train"  # of the run that it belongs to
    attempt: int = 1  # number of the try
    memory: str | None = None  # limit of its container
    completions: int | None = None  # of an Indexed Job: how many pods must succeed
    succeeded: int = 0  # pods that did
    started: datetime | None = None  # when its controller began with it, or did so again
    queue: str = ""  # Kueue's queue that lets it begin


@dataclass(frozen=True)
class DeploymentView:
    """A serving Deployment."""

    meta: Meta
    revision: int
    run: str
    artifact_digest: str
    serving_key: str
    image: str
    replicas: int
    ready: int = 0
    pods: tuple[PodView, ...] = ()  # those that are leaving included
    create_error: str | None = None  # ReplicaFailure: quota, admission
    intact: bool = True  # False: somebody changed what we own; applying it again restores it


@dataclass(frozen=True)
class ServiceView:
    """A Service: its stable one, or one Deployment's."""

    name: str
    selector: Mapping[str, str]
    intact: bool = True


@dataclass(frozen=True)
class RouteView:
    """The HTTPRoute of ours, and what its Gateway says of it."""

    weights: Mapping[str, int]  # by Deployment; a Gateway that accepted them sends so much to its Service
    mirror: str | None = None  # the Deployment that gets a copy
    # Unanswered: no Gateway said anything yet. Stale: it accepted an earlier generation, and has not seen this one.
    verdict: Literal["Accepted", "Refused", "Stale", "Unanswered"] = "Unanswered"
    message: str = ""  # why it is refused
    created: datetime | None = None
    changed: datetime | None = None  # by us, the last time
    intact: bool = True  # all besides weights and mirror is as it ought to be


@dataclass(frozen=True)
class AutoscalerView:
    """The HorizontalPodAutoscaler of ours."""

    deployment: str  # whose replicas it decides about
    intact: bool = True  # all besides the deployment and the least number of pods is as it ought to be
    least: int = 1  # fewest pods
    problem: str | None = None  # why it can't decide, in its own words
    working: bool = False  # it has decided already


@dataclass(frozen=True)
class Traffic:
    """What the pods of one Deployment counted over some seconds. Rehearsals and refusals for overload do not count."""

    requests: int = 0
    errors: int = 0  # replies that were no success
    seconds: Histogram = field(default_factory=Histogram)  # from request to answer, of the successes
    predictions: Histogram = field(default_factory=Histogram)  # probabilities, a row each

    def plus(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(
            self.requests + other.requests,
            self.errors + other.errors,
            self.seconds.plus(other.seconds),
            self.predictions.plus(other.predictions),
        )

    @property
    def error_fraction(self) -> float:
        """Errors per request, 0 where there was none."""
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Answer:
    """What Prometheus says to a query: one finite number, or why there is none."""

    value: float | None
    problem: str = ""


@dataclass(frozen=True)
class ModelObserved:
    """All that decides about a Model."""

    model: ModelView
    runs: tuple[RunView, ...] = ()
    policies: tuple[PolicyView, ...] = ()
    approvals: tuple[ApprovalView, ...] = ()  # all that name the Model, the oldest first
    deployments: tuple[DeploymentView, ...] = ()
    services: tuple[ServiceView, ...] = ()
    autoscaler: AutoscalerView | None = None
    gateway_api: bool = True  # whether the cluster has HTTPRoutes; asked only where a Gateway is or was named
    route: RouteView | None = None
    traffic: Mapping[str, Traffic] = field(default_factory=dict)  # by Deployment, over the seconds of analysis.Interest
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by the name of the query
    rehearsal: JobView | None = None  # the candidate's
    counts: tuple[JobView, ...] = ()  # Jobs that counted new rows
    sweeps: tuple[JobView, ...] = ()  # Jobs that deleted old captures
    keepers: tuple[JobView, ...] = ()  # Jobs that take decisions to the store; looked for where there are some to take
    problem: str | None = None  # a stored status or annotation that could not be read, in words


@dataclass(frozen=True)
class RunObserved:
    """All that decides about a TrainingRun."""

    run: RunView
    model: ModelView | None
    siblings: tuple[RunView, ...] = ()  # the other runs of the same Model
    jobs: Mapping[Stage, JobView] = field(default_factory=dict)  # the newest try of each stage
    earlier: tuple[JobView, ...] = ()  # tries that others followed
    turn: bool = True  # whether it may take one of the slots that there are for runs, were it to begin now


@dataclass(frozen=True)
class PolicyObserved:
    """All that decides about a DriftPolicy."""

    policy: PolicyView
    model: ModelView | None
    runs: tuple[RunView, ...] = ()
    jobs: tuple[JobView, ...] = ()  # the CronJob's
    notices: tuple[JobView, ...] = ()  # Jobs that tell the webhook
    cronjob_intact: bool | None = None  # None: there is none; False: it differs from what is wanted
    cronjob_revision: int | None = None  # the revision that it watches now
    traffic: Traffic | None = None  # of the live revision, lately; None: unknown

"""What is to be done about what was seen. The controller carries a plan out in a fixed order: Services, Deployments,
Jobs and runs, deletions, then the status, then Events; whatever it did not get to, the next look finds again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from truekeep.api.driftpolicy import DriftPolicyStatus
from truekeep.api.model import Candidate, ModelStatus
from truekeep.api.trainingrun import Stage, TrainingRunStatus, Trigger
from truekeep.contract.decisions import Decision
from truekeep.domain.notices import Due
from truekeep.domain.observed import JobView, Meta


@dataclass(frozen=True)
class Settings:
    """What the operator was started with."""

    trainer_image: str = "truekeep/trainer:0.1.0"
    server_image: str = "truekeep/server:0.1.0"
    monitor_image: str = "truekeep/monitor:0.1.0"
    operator_version: str = "0.1.0"
    cluster_domain: str = "cluster.local"
    image_pull_secrets: tuple[str, ...] = ()  # Secrets of each Model's namespace, for the images above
    serving_annotations: tuple[tuple[str, str], ...] = ()  # of serving pods, from the next revision that rolls out on
    max_training_runs: int = 0  # that are under way at once, in all namespaces together; 0: as many as there are
    job_retention_seconds: int = 600  # a finished Job stays this long, so that its log can be read


@dataclass(frozen=True)
class Note:
    """An Event about the object that was reconciled."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class RunIntent:
    """A TrainingRun to create, unless there is one of this name."""

    name: str
    trigger: Trigger


@dataclass(frozen=True)
class DeploymentIntent:
    """A serving Deployment, and the Service of the same name, with so many replicas.

    Its pod template is frozen at the first apply: later applies change the replicas alone, and not even these where
    an autoscaler of ours decides about them (scaled)."""

    name: str
    revision: int
    run: str
    artifact_digest: str
    serving_key: str
    replicas: int
    scaled: bool = False


@dataclass(frozen=True)
class ServiceIntent:
    """The stable Service: it names one Deployment, or, during a canary, all serving pods of the Model (None)."""

    name: str
    deployment: str | None


@dataclass(frozen=True)
class RouteIntent:
    """The HTTPRoute: so much of the traffic for each Deployment, and a copy of it for one more."""

    weights: tuple[tuple[str, int], ...]
    mirror: str | None = None


@dataclass(frozen=True)
class AutoscalerIntent:
    """The HorizontalPodAutoscaler: it decides about the replicas of one Deployment, and never below `least`."""

    deployment: str
    least: int


@dataclass(frozen=True)
class BudgetIntent:
    """The PodDisruptionBudget: over the so many pods of one Deployment."""

    deployment: str
    pods: int


@dataclass(frozen=True)
class ModelPlan:
    """What to do about a Model. Intents that already hold are left out, so an empty plan writes nothing."""

    status: ModelStatus
    service: ServiceIntent | None = None
    route: RouteIntent | None = None
    delete_route: bool = False
    autoscaler: AutoscalerIntent | None = None
    delete_autoscaler: bool = False
    budget: BudgetIntent | None = None  # always what ought to be there; None: there ought to be none
    retention: bool = False  # whether there ought to be a CronJob that deletes old captures
    count_since: datetime | None = None  # the CronJob that counts rows since then ought to be there
    delete_count: bool = False
    deployments: tuple[DeploymentIntent, ...] = ()
    delete_deployments: tuple[str, ...] = ()
    rehearse: Candidate | None = None  # make the Job in which this candidate answers captured requests
    repeat_rehearsal: bool = False  # take its failed Job away, so that it is made again
    hand_over: tuple[Decision, ...] = ()  # make the Job that takes these to the store
    repeat_keeper: JobView | None = None  # take this failed one away, so that it is made again
    run: RunIntent | None = None
    delete_run: Meta | None = None  # history that is beyond what is kept
    notes: tuple[Note, ...] = ()
    look_again_seconds: float | None = None


@dataclass(frozen=True)
class Attempt:
    """One try of a stage: what its Job has of its own, besides what the spec says."""

    number: int = 1
    seconds: int | None = None  # that are left of the run's time; None: all of spec.training.timeoutSeconds
    memory: str | None = None  # limit that it gets, where that is more than the spec says


FIRST_ATTEMPT = Attempt()


@dataclass(frozen=True)
class RunPlan:
    """What to do about a TrainingRun."""

    status: TrainingRunStatus
    create_job: Stage | None = None
    attempt: Attempt = FIRST_ATTEMPT  # of the Job to create
    delete_jobs: tuple[Stage, ...] = ()  # all tries of these stages
    notes: tuple[Note, ...] = ()
    look_again_seconds: float | None = None


@dataclass(frozen=True)
class PolicyPlan:
    """What to do about a DriftPolicy."""

    status: DriftPolicyStatus
    apply_cronjob: bool = False  # make it, or restore it, for watch_revision
    watch_revision: int | None = None
    suspend_cronjob: bool = False
    delete_cronjob: bool = False
    tell: tuple[Due, ...] = ()  # make the Jobs that tell the webhook
    notes: tuple[Note, ...] = ()
    look_again_seconds: float | None = None

"""All that decides about one object, read from the API server just now. Nothing is cached: what a stale cache shows
can't double a run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from truekeep.api.names import (
    FIELD_MANAGER,
    LABEL_COMPONENT,
    LABEL_MODEL,
    LABEL_POLICY,
    LABEL_REVISION,
    LABEL_RUN,
    monitor_name,
    newdata_name,
    retention_name,
)
from truekeep.cluster import kinds
from truekeep.cluster.api import Api
from truekeep.cluster.metrics import PodMetrics
from truekeep.cluster.prometheus import Prometheus
from truekeep.cluster.serving import Serving, services
from truekeep.cluster.slots import TrainingSlots
from truekeep.cluster.together import NOT_READ, There, Together
from truekeep.cluster.views import (
    SpecInvalidError,
    approval_view,
    controller_uid,
    job_view,
    label,
    meta,
    model_view,
    policy_view,
    run_view,
)
from truekeep.cluster.workloads import Workloads, by_stage
from truekeep.domain.analysis import questions
from truekeep.domain.decisions import unkept
from truekeep.domain.observed import (
    ApprovalView,
    JobView,
    ModelObserved,
    ModelView,
    PolicyObserved,
    PolicyView,
    RunObserved,
    RunView,
)
from truekeep.domain.plan import Settings
from truekeep.domain.slots import Slots
from truekeep.domain.stand import finished
from truekeep.resources.compare import holds, left_over
from truekeep.resources.monitor_cronjob import Watched, monitor_cronjob

Json = dict[str, Any]
Observed = TypeVar("Observed", ModelObserved, RunObserved, PolicyObserved)
View = TypeVar("View", RunView, PolicyView, ApprovalView)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen(Generic[Observed]):
    """What was observed, the status as it is stored, to tell whether a new one is news, and what was read of what is to
    be compared before it is written."""

    observed: Observed
    stored_status: Mapping[str, Any] = field(default_factory=dict)
    there: There = NOT_READ


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class Observer:
    """Reads what reconcilers decide on."""

    def __init__(
        self,
        api: Api,
        metrics: PodMetrics,
        settings: Settings,
        clock: Callable[[], datetime] = now,
        prometheus: Prometheus | None = None,
        namespaces: Sequence[str] = (),
        routes_are_served: Callable[[], None] = lambda: None,
    ) -> None:
        self._reads = reads = Together(api)
        self._prometheus = prometheus or Prometheus()
        self._settings = settings
        self._workloads = Workloads(reads, clock)
        self._serving = Serving(reads, self._workloads, metrics, settings, clock, routes_are_served)
        self._slots = TrainingSlots(reads, settings, namespaces or (None,))

    async def model(self, namespace: str, name: str) -> Seen[ModelObserved] | None:
        """All that decides about a Model; None where there is none (any more)."""
        item, runs, policies, (deployments, owned, pods), beside = await asyncio.gather(
            self._reads.get(kinds.MODEL, namespace, name),
            self._reads.naming(kinds.TRAINING_RUN, namespace, name),
            self._reads.naming(kinds.DRIFT_POLICY, namespace, name),
            self._serving.items(namespace, name),
            self._beside(namespace, name),
        )
        if item is None:
            return None
        model, problem = model_view(item)
        views = await self._serving.deployments(model, deployments, pods)
        gateway_api, route = await self._serving.route(model)
        candidate = model.status.candidate
        canary = candidate is not None and candidate.step >= 0
        observed = ModelObserved(
            model=model,
            runs=_of_model(runs, name, run_view),
            policies=_of_model(policies, name, policy_view),
            approvals=await self._approvals(model),
            counts=await self._counts(model),
            sweeps=await self._sweeps(model),
            deployments=views,
            services=services(model, owned),
            autoscaler=await self._serving.autoscaler(model),
            gateway_api=gateway_api,
            route=route,
            traffic=await self._serving.traffic(model, views),
            answers=await self._prometheus.ask(questions(model)),
            rehearsal=await self._serving.rehearsal(model) if candidate and not canary else None,
            problem=problem,
        )
        if unkept(observed):
            observed = replace(observed, keepers=await self._keepers(model))
        serving = {(kinds.DEPLOYMENT, meta(each).name): each for each in deployments}
        there = replace(beside, objects={**beside.objects, **serving})
        return Seen(observed, item.get("status") or {}, there)

    async def _beside(self, namespace: str, name: str) -> There:
        """What decides nothing, but nearly every look at a Model compares with what it wants: read together with the
        rest, since each answer that has to be waited for first is dear where the API server is busy."""
        budget, retention = (kinds.DISRUPTION_BUDGET, name), (kinds.CRON_JOB, retention_name(name))
        autoscalers, had_budget, had_retention = await asyncio.gather(
            self._reads.list(kinds.AUTOSCALER, namespace),
            self._reads.get(budget[0], namespace, budget[1]),
            self._reads.get(retention[0], namespace, retention[1]),
        )
        return There({budget: had_budget, retention: had_retention}, autoscalers)

    async def _keepers(self, model: ModelView) -> tuple[JobView, ...]:
        """The Jobs that take decisions to the store."""
        labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: "decisions"}
        return await self._workloads.jobs(model.meta.namespace, labels, model.meta.uid)

    async def _counts(self, model: ModelView) -> tuple[JobView, ...]:
        """The Jobs that counted new rows, where somebody wants to know."""
        if model.spec.retraining is None or model.spec.retraining.new_data is None:
            return ()
        return await self._jobs_of(model, newdata_name(model.meta.name), "newdata")

    async def _sweeps(self, model: ModelView) -> tuple[JobView, ...]:
        """The Jobs that deleted old captures, where that is asked for."""
        capture = model.spec.serving.capture
        if capture is None or capture.retention_days is None:
            return ()
        return await self._jobs_of(model, retention_name(model.meta.name), "retention")

    async def _jobs_of(self, model: ModelView, name: str, component: str) -> tuple[JobView, ...]:
        """The Jobs of one of the Model's CronJobs."""
        labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: component}
        _, jobs = await self._workloads.jobs_of_cronjob(model.meta.namespace, name, labels, model.meta.uid)
        return jobs

    async def _approvals(self, model: ModelView) -> tuple[ApprovalView, ...]:
        """What people decided, where it is theirs to decide."""
        if model.spec.approval.mode == "Automatic":
            return ()
        found = await self._reads.naming(kinds.MODEL_APPROVAL, model.meta.namespace, model.meta.name)
        return _of_model(found, model.meta.name, approval_view)

    async def run(self, namespace: str, name: str) -> Seen[RunObserved] | None:
        """All that decides about a TrainingRun; None where there is none (any more)."""
        item = await self._reads.get(kinds.TRAINING_RUN, namespace, name)
        if item is None:
            return None
        run = run_view(item)
        labels = {LABEL_RUN: name, LABEL_COMPONENT: "trainer"}
        if finished(run):  # it never changes any more; what is left to see are its Jobs
            jobs = await self._reads.list(kinds.JOB, namespace, labels)
            mine = [job_view(job) for job in jobs if controller_uid(job) == run.meta.uid]
            return Seen(RunObserved(run, None, **by_stage(mine)), item.get("status") or {})
        model_name = run.spec.model_ref.name
        model, siblings, jobs, pods = await asyncio.gather(
            self._reads.get(kinds.MODEL, namespace, model_name),
            self._reads.naming(kinds.TRAINING_RUN, namespace, model_name),
            self._reads.list(kinds.JOB, namespace, labels),
            self._reads.list(kinds.POD, namespace, labels),
        )
        mine = await asyncio.gather(
            *(self._workloads.job(job, pods) for job in jobs if controller_uid(job) == run.meta.uid)
        )
        others = _of_model(siblings, model_name, run_view)
        view = model_view(model)[0] if model else None
        observed = RunObserved(
            run=run,
            model=view,
            turn=await self._slots.has_turn(run, view),
            siblings=tuple(other for other in others if other.meta.name != name),
            **by_stage(mine),
        )
        return Seen(observed, item.get("status") or {})

    async def slots(self) -> Slots | None:
        """The slots for runs as they are now, in all namespaces; None where there may be as many as there are."""
        return await self._slots.now()

    async def policy(self, namespace: str, name: str) -> Seen[PolicyObserved] | None:
        """All that decides about a DriftPolicy; None where there is none (any more)."""
        item = await self._reads.get(kinds.DRIFT_POLICY, namespace, name)
        if item is None:
            return None
        policy = policy_view(item)
        model_name = policy.spec.model_ref.name
        labels = {LABEL_POLICY: name, LABEL_COMPONENT: "monitor"}
        model_item, runs, (cronjob, jobs) = await asyncio.gather(
            self._reads.get(kinds.MODEL, namespace, model_name),
            self._reads.naming(kinds.TRAINING_RUN, namespace, model_name),
            self._workloads.jobs_of_cronjob(namespace, monitor_name(name), labels, policy.meta.uid),
        )
        model = model_view(model_item)[0] if model_item else None
        revision = label(cronjob, LABEL_REVISION) if cronjob else ""
        observed = PolicyObserved(
            policy=policy,
            model=model,
            runs=_of_model(runs, model_name, run_view),
            jobs=tuple(sorted(jobs, key=lambda job: (job.meta.created, job.meta.name))),
            notices=await self._notices(policy),
            cronjob_intact=self._cronjob_intact(cronjob, policy, model) if cronjob else None,
            cronjob_revision=int(revision) if revision.isdecimal() else None,
            traffic=await self._serving.live_traffic(model) if model else None,
        )
        return Seen(observed, item.get("status") or {})

    async def _notices(self, policy: PolicyView) -> tuple[JobView, ...]:
        """The Jobs that tell the webhook, where there is one."""
        if policy.spec.webhook is None:
            return ()
        labels = {LABEL_POLICY: policy.meta.name, LABEL_COMPONENT: "notice"}
        return await self._workloads.jobs(policy.meta.namespace, labels, policy.meta.uid)

    def _cronjob_intact(self, cronjob: Json, policy: PolicyView, model: ModelView | None) -> bool:
        active = model.status.active if model else None
        if model is None or active is None:
            return True
        watched = Watched(active.revision, active.artifact_digest, policy.spec.suspend == "Now")
        wanted = monitor_cronjob(model, policy, watched, self._settings)
        return wanted is None or (holds(wanted, cronjob) and not left_over(wanted, cronjob, FIELD_MANAGER))


def _of_model(items: list[Json], model: str, view: Callable[[Json], View]) -> tuple[View, ...]:
    """Those that name the Model. One whose spec can't be read is left out, and said: the rest must go on."""
    found = []
    for item in items:
        reference = (item.get("spec") or {}).get("modelRef") or {}
        if reference.get("name") != model:
            continue
        try:
            found.append(view(item))
        except SpecInvalidError as error:
            about = meta(item)
            logger.warning("%s %s/%s is left out: %s", item.get("kind"), about.namespace, about.name, error)
    return tuple(sorted(found, key=lambda each: (each.meta.created, each.meta.name)))

"""All that decides about one object, read from the API server just now. Nothing is cached: what a stale cache shows
can't double a run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar

from truekeep.api.names import (
    FIELD_MANAGER,
    LABEL_COMPONENT,
    LABEL_DEPLOYMENT,
    LABEL_MODEL,
    LABEL_POLICY,
    LABEL_REVISION,
    LABEL_RUN,
    MANAGED_BY,
    autoscaler_name,
    deployment_name,
    monitor_name,
    newdata_name,
    rehearsal_name,
    retention_name,
    serving_selector,
)
from truekeep.api.trainingrun import Stage
from truekeep.cluster import kinds
from truekeep.cluster.api import Api
from truekeep.cluster.errors import NotFound, Refused
from truekeep.cluster.kinds import Kind
from truekeep.cluster.metrics import PodMetrics
from truekeep.cluster.prometheus import Prometheus
from truekeep.cluster.views import (
    SpecInvalidError,
    approval_view,
    autoscaler_view,
    controller_uid,
    deployment_of,
    deployment_view,
    disrupted_pod,
    disruption_by_events,
    frozen_template,
    job_view,
    label,
    meta,
    model_view,
    node_is_emptied,
    owned_by,
    pod_view,
    policy_view,
    route_view,
    run_view,
    service_view,
)
from truekeep.domain import system
from truekeep.domain.analysis import interest, questions
from truekeep.domain.conditions import find
from truekeep.domain.decisions import unkept
from truekeep.domain.fingerprints import serving_key
from truekeep.domain.model import NO_AUTOSCALING
from truekeep.domain.observed import (
    ApprovalView,
    AutoscalerView,
    DeploymentView,
    JobView,
    ModelObserved,
    ModelView,
    PodView,
    PolicyObserved,
    PolicyView,
    RouteView,
    RunObserved,
    RunView,
    ServiceView,
    Traffic,
)
from truekeep.domain.plan import AutoscalerIntent, DeploymentIntent, RouteIntent, ServiceIntent, Settings
from truekeep.domain.run import begun
from truekeep.domain.slots import Slots, may_begin, slots
from truekeep.domain.stand import finished
from truekeep.domain.traffic import NO_GATEWAY
from truekeep.resources.autoscaler import autoscaler
from truekeep.resources.compare import holds, left_over
from truekeep.resources.httproute import httproute, parent_reference
from truekeep.resources.monitor_cronjob import Watched, monitor_cronjob
from truekeep.resources.services import deployment_service, stable_service
from truekeep.resources.serving_deployment import serving_deployment

Json = dict[str, Any]
Observed = TypeVar("Observed", ModelObserved, RunObserved, PolicyObserved)
View = TypeVar("View", RunView, PolicyView, ApprovalView)
# A pod that waits for its mounts says so only in events; they are asked for when it took this long.
QUIET = timedelta(seconds=5)
MODEL_FIELD = "spec.modelRef.name"
ENDED_FIELD = "status.completionTime"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen(Generic[Observed]):
    """What was observed, and the status as it is stored, to tell whether a new one is news."""

    observed: Observed
    stored_status: Mapping[str, Any] = field(default_factory=dict)


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
        self._api = api
        self._routes_are_served = routes_are_served
        self._namespaces = namespaces or (None,)
        self._prometheus = prometheus or Prometheus()
        self._metrics = metrics
        self._settings = settings
        self._clock = clock
        self._selects = True  # whether the API server can select by the Model that an object names

    async def _naming(self, kind: Kind, namespace: str, model: str) -> list[Json]:
        """Objects that name a Model in their spec. Kubernetes before 1.31 can't select them: then it is all of them,
        and `_of_model` picks those that do."""
        if self._selects:
            with suppress(Refused):
                return await self._api.list(kind, namespace, fields=f"{MODEL_FIELD}={model}")
            logger.info("the API server can't select %s by %s, so all are read", kind.plural, MODEL_FIELD)
            self._selects = False
        return await self._api.list(kind, namespace)

    async def model(self, namespace: str, name: str) -> Seen[ModelObserved] | None:
        """All that decides about a Model; None where there is none (any more)."""
        ours = serving_selector(name)
        item, runs, policies, deployments, services, pods = await asyncio.gather(
            self._api.get(kinds.MODEL, namespace, name),
            self._naming(kinds.TRAINING_RUN, namespace, name),
            self._naming(kinds.DRIFT_POLICY, namespace, name),
            self._api.list(kinds.DEPLOYMENT, namespace, ours),
            self._api.list(kinds.SERVICE, namespace, ours),
            self._api.list(kinds.POD, namespace, ours),
        )
        if item is None:
            return None
        model, problem = model_view(item)
        by_deployment = await self._pods_by(pods, deployment_of)
        views = tuple(
            self._deployment(model, each, by_deployment.get(meta(each).name, []))
            for each in owned_by(deployments, model.meta.uid)
        )
        views = await self._drained(model, views)
        gateway_api, route = await self._route(model)
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
            services=tuple(_service(model, each) for each in owned_by(services, model.meta.uid)),
            autoscaler=await self._autoscaler(model),
            gateway_api=gateway_api,
            route=route,
            traffic=await self._traffic(model, views),
            answers=await self._prometheus.ask(questions(model)),
            rehearsal=await self._rehearsal(model) if candidate and not canary else None,
            problem=problem,
        )
        if unkept(observed):
            observed = replace(observed, keepers=await self._keepers(model))
        return Seen(observed, item.get("status") or {})

    async def _keepers(self, model: ModelView) -> tuple[JobView, ...]:
        """The Jobs that take decisions to the store."""
        namespace, labels = model.meta.namespace, {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: "decisions"}
        jobs, pods = await asyncio.gather(
            self._api.list(kinds.JOB, namespace, labels), self._api.list(kinds.POD, namespace, labels)
        )
        mine = [job for job in jobs if controller_uid(job) == model.meta.uid]
        return tuple(await asyncio.gather(*(self._job(job, pods) for job in mine)))

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
        namespace = model.meta.namespace
        labels = {LABEL_MODEL: model.meta.name, LABEL_COMPONENT: component}
        cronjob, jobs, pods = await asyncio.gather(
            self._api.get(kinds.CRON_JOB, namespace, name),
            self._api.list(kinds.JOB, namespace, labels),
            self._api.list(kinds.POD, namespace, labels),
        )
        if cronjob is None or controller_uid(cronjob) != model.meta.uid:
            return ()
        mine = [job for job in jobs if controller_uid(job) == meta(cronjob).uid]
        return tuple(await asyncio.gather(*(self._job(job, pods) for job in mine)))

    async def _approvals(self, model: ModelView) -> tuple[ApprovalView, ...]:
        """What people decided, where it is theirs to decide."""
        if model.spec.approval.mode == "Automatic":
            return ()
        found = await self._naming(kinds.MODEL_APPROVAL, model.meta.namespace, model.meta.name)
        return _of_model(found, model.meta.name, approval_view)

    async def _autoscaler(self, model: ModelView) -> AutoscalerView | None:
        """The autoscaler, where there is one and it is ours. Nobody asks for one that never was wanted."""
        had = find(model.status.conditions, "Scaled")
        if model.spec.serving.autoscaling is None and (had is None or had.reason == NO_AUTOSCALING):
            return None
        about = model.meta
        item = await self._api.get(kinds.AUTOSCALER, about.namespace, autoscaler_name(about.name))
        if item is None or controller_uid(item) != about.uid:
            return None
        seen = autoscaler_view(item, {})
        wanted = autoscaler(model, AutoscalerIntent(seen.deployment, seen.least))
        return autoscaler_view(item, wanted or {})

    async def _route(self, model: ModelView) -> tuple[bool, RouteView | None]:
        """Whether the cluster has routes, and ours. Nobody asks where no Gateway is or was named."""
        had = find(model.status.conditions, "Routed")
        if model.spec.serving.gateway is None and (had is None or had.reason == NO_GATEWAY):
            return True, None
        about = model.meta
        try:
            # A list, because a route that is missing and a kind that is missing are both "not found" to a get.
            items = await self._api.list(kinds.HTTP_ROUTE, about.namespace, serving_selector(about.name))
        except NotFound:
            return False, None
        self._routes_are_served()
        mine = [item for item in items if meta(item).name == about.name and controller_uid(item) == about.uid]
        if not mine:
            return True, None
        seen = route_view(mine[0], {}, None)
        wanted = httproute(model, RouteIntent(tuple(seen.weights.items()), seen.mirror))
        return True, route_view(mine[0], parent_reference(model), wanted)

    async def _drained(self, model: ModelView, deployments: tuple[DeploymentView, ...]) -> tuple[DeploymentView, ...]:
        """The Deployments, the live one's pods with what becomes of their nodes where that matters: where there is
        but one pod, or had been until a moment ago."""
        serving, active = model.spec.serving, model.status.active
        least = serving.autoscaling.min_replicas if serving.autoscaling else serving.replicas
        if least != 1 or active is None:
            return deployments
        return tuple([await self._on_nodes(d) if d.meta.name == active.deployment else d for d in deployments])

    async def _on_nodes(self, deployment: DeploymentView) -> DeploymentView:
        names = sorted({pod.node for pod in deployment.pods if pod.node})[:2]
        try:
            nodes = await asyncio.gather(*(self._api.get(kinds.NODE, "", name) for name in names))
        except Refused:  # an operator of some namespaces may have no right in the whole cluster
            return deployment
        emptied = {name for name, node in zip(names, nodes, strict=True) if node and node_is_emptied(node)}
        return replace(deployment, pods=tuple(replace(pod, drained=pod.node in emptied) for pod in deployment.pods))

    async def _traffic(self, model: ModelView, deployments: tuple[DeploymentView, ...]) -> dict[str, Traffic]:
        """What the pods whose traffic decides now counted lately."""
        wanted = interest(model, self._clock())
        if wanted is None:
            return {}
        asked = [each for each in deployments if each.meta.name in wanted.deployments]
        return await self._metrics.traffic(asked, wanted.seconds)

    async def _live_traffic(self, model: ModelView) -> Traffic | None:
        """What the live revision's pods counted lately; None where no pod tells."""
        active = model.status.active
        if active is None:
            return None
        item, pods = await asyncio.gather(
            self._api.get(kinds.DEPLOYMENT, model.meta.namespace, active.deployment),
            self._api.list(kinds.POD, model.meta.namespace, {LABEL_DEPLOYMENT: active.deployment}),
        )
        if item is None:
            return None
        views = (await self._pods_by(pods, deployment_of)).get(active.deployment, [])
        found = await self._metrics.traffic([self._deployment(model, item, views)], system.LOOK_BACK_SECONDS)
        return found.get(active.deployment)

    async def _rehearsal(self, model: ModelView) -> JobView | None:
        """The Job in which the candidate answers captured requests."""
        candidate, namespace = model.status.candidate, model.meta.namespace
        if candidate is None or candidate.rehearsal is not None:
            return None
        job, pods = await asyncio.gather(
            self._api.get(kinds.JOB, namespace, rehearsal_name(candidate.deployment)),
            self._api.list(
                kinds.POD, namespace, {LABEL_DEPLOYMENT: candidate.deployment, LABEL_COMPONENT: "rehearsal"}
            ),
        )
        return await self._job(job, pods) if job and controller_uid(job) == model.meta.uid else None

    def _deployment(self, model: ModelView, item: Json, pods: list[PodView]) -> DeploymentView:
        seen = _as_the_status_says(model, deployment_view(item, pods, None))
        intent = DeploymentIntent(
            seen.meta.name, seen.revision, seen.run, seen.artifact_digest, seen.serving_key, seen.replicas
        )
        template = frozen_template(item)
        if template is None:
            return seen
        wanted = serving_deployment(model, intent, self._settings, template, scaled_by_others=True)
        return replace(seen, intact=holds(wanted, item))

    async def run(self, namespace: str, name: str) -> Seen[RunObserved] | None:
        """All that decides about a TrainingRun; None where there is none (any more)."""
        item = await self._api.get(kinds.TRAINING_RUN, namespace, name)
        if item is None:
            return None
        run = run_view(item)
        labels = {LABEL_RUN: name, LABEL_COMPONENT: "trainer"}
        if finished(run):  # it never changes any more; what is left to see are its Jobs
            jobs = await self._api.list(kinds.JOB, namespace, labels)
            mine = [job_view(job) for job in jobs if controller_uid(job) == run.meta.uid]
            return Seen(RunObserved(run, None, **_by_stage(mine)), item.get("status") or {})
        model_name = run.spec.model_ref.name
        model, siblings, jobs, pods = await asyncio.gather(
            self._api.get(kinds.MODEL, namespace, model_name),
            self._naming(kinds.TRAINING_RUN, namespace, model_name),
            self._api.list(kinds.JOB, namespace, labels),
            self._api.list(kinds.POD, namespace, labels),
        )
        mine = await asyncio.gather(*(self._job(job, pods) for job in jobs if controller_uid(job) == run.meta.uid))
        others = _of_model(siblings, model_name, run_view)
        view = model_view(model)[0] if model else None
        observed = RunObserved(
            run=run,
            model=view,
            turn=await self._has_turn(run, view),
            siblings=tuple(other for other in others if other.meta.name != name),
            **_by_stage(mine),
        )
        return Seen(observed, item.get("status") or {})

    async def _has_turn(self, run: RunView, model: ModelView | None) -> bool:
        """Whether a run may take a slot. One that has begun, is for a queue, or is restored needs none."""
        if model is None or model.spec.training.queue_name or run.spec.restore or begun(run):
            return True
        seen = await self.slots()
        return seen is None or may_begin(run, seen)

    async def slots(self) -> Slots | None:
        """The slots for runs as they are now, in all namespaces; None where there may be as many as there are."""
        limit = self._settings.max_training_runs
        if limit == 0:
            return None
        runs: list[RunView] = []
        with_jobs, queued = set(), set()
        for namespace in self._namespaces:
            async for item in self._unfinished(namespace):
                with suppress(SpecInvalidError):
                    runs.append(run_view(item))
            async for job in self._api.each(kinds.JOB, namespace, {**MANAGED_BY, LABEL_COMPONENT: "trainer"}):
                seen, where = job_view(job), (meta(job).namespace, label(job, LABEL_RUN))
                if seen.complete or seen.failed_reason:
                    continue
                with_jobs.add(where)
                if seen.queue:
                    queued.add(where)
        return slots(runs, with_jobs, queued, limit)

    async def _unfinished(self, namespace: str | None) -> AsyncIterator[Json]:
        """Runs that did not end yet, and where Kubernetes can't select by that, all."""
        if self._selects:
            with suppress(Refused):
                async for item in self._api.each(kinds.TRAINING_RUN, namespace, fields=f"{ENDED_FIELD}="):
                    yield item
                return
            self._selects = False
        async for item in self._api.each(kinds.TRAINING_RUN, namespace):
            yield item

    async def policy(self, namespace: str, name: str) -> Seen[PolicyObserved] | None:
        """All that decides about a DriftPolicy; None where there is none (any more)."""
        item = await self._api.get(kinds.DRIFT_POLICY, namespace, name)
        if item is None:
            return None
        policy = policy_view(item)
        model_name = policy.spec.model_ref.name
        labels = {LABEL_POLICY: name, LABEL_COMPONENT: "monitor"}
        model_item, runs, cronjob, jobs, pods = await asyncio.gather(
            self._api.get(kinds.MODEL, namespace, model_name),
            self._naming(kinds.TRAINING_RUN, namespace, model_name),
            self._api.get(kinds.CRON_JOB, namespace, monitor_name(name)),
            self._api.list(kinds.JOB, namespace, labels),
            self._api.list(kinds.POD, namespace, labels),
        )
        model = model_view(model_item)[0] if model_item else None
        if cronjob is not None and controller_uid(cronjob) != policy.meta.uid:
            cronjob = None
        mine = [job for job in jobs if cronjob and controller_uid(job) == meta(cronjob).uid]
        views = await asyncio.gather(*(self._job(job, pods) for job in mine))
        revision = label(cronjob, LABEL_REVISION) if cronjob else ""
        observed = PolicyObserved(
            policy=policy,
            model=model,
            runs=_of_model(runs, model_name, run_view),
            jobs=tuple(sorted(views, key=lambda job: (job.meta.created, job.meta.name))),
            notices=await self._notices(policy),
            cronjob_intact=self._cronjob_intact(cronjob, policy, model) if cronjob else None,
            cronjob_revision=int(revision) if revision.isdecimal() else None,
            traffic=await self._live_traffic(model) if model else None,
        )
        return Seen(observed, item.get("status") or {})

    async def _notices(self, policy: PolicyView) -> tuple[JobView, ...]:
        """The Jobs that tell the webhook, where there is one."""
        if policy.spec.webhook is None:
            return ()
        namespace, labels = policy.meta.namespace, {LABEL_POLICY: policy.meta.name, LABEL_COMPONENT: "notice"}
        jobs, pods = await asyncio.gather(
            self._api.list(kinds.JOB, namespace, labels), self._api.list(kinds.POD, namespace, labels)
        )
        mine = [job for job in jobs if controller_uid(job) == policy.meta.uid]
        return tuple(await asyncio.gather(*(self._job(job, pods) for job in mine)))

    def _cronjob_intact(self, cronjob: Json, policy: PolicyView, model: ModelView | None) -> bool:
        active = model.status.active if model else None
        if model is None or active is None:
            return True
        watched = Watched(active.revision, active.artifact_digest, policy.spec.suspend == "Now")
        wanted = monitor_cronjob(model, policy, watched, self._settings)
        return wanted is None or (holds(wanted, cronjob) and not left_over(wanted, cronjob, FIELD_MANAGER))

    async def _job(self, job: Json, pods: list[Json]) -> JobView:
        about = meta(job)
        mine = [pod for pod in pods if controller_uid(pod) == about.uid]
        views = [view for group in (await self._pods_by(mine, lambda pod: "")).values() for view in group]
        seen = job_view(job, views)
        if seen.failed_reason and not views and (pod := disrupted_pod(seen.failed_message)):
            return replace(seen, disruption=await self._who_took(about.namespace, pod))
        if views or seen.complete or seen.failed_reason or self._clock() - about.created < QUIET:
            return seen
        return job_view(job, views, await self._why_no_pod(about.namespace, about.uid))

    async def _why_no_pod(self, namespace: str, uid: str) -> str | None:
        """What the Job controller said when it could make no pod: a quota, an admission policy."""
        events = await self._warnings(namespace, kinds.JOB, uid)
        failed = [event for event in events if event.get("reason") == "FailedCreate"]
        return str(failed[-1].get("note") or "") if failed else None

    async def _who_took(self, namespace: str, pod: str) -> str:
        """Who took a pod away that is gone, by the Events that it left."""
        events = await self._api.list(kinds.EVENT, namespace, fields=f"regarding.kind=Pod,regarding.name={pod}")
        return disruption_by_events(str(event.get("reason") or "") for event in events)

    async def _pods_by(self, pods: list[Json], group: Callable[[Json], str]) -> dict[str, list[PodView]]:
        result: dict[str, list[PodView]] = {}
        for pod in pods:
            view = pod_view(pod)
            creating = view.phase == "Pending" and view.waiting_reason == "ContainerCreating"
            if creating and self._clock() - view.created > QUIET:
                about = meta(pod)
                view = pod_view(pod, await self._warnings(about.namespace, kinds.POD, about.uid))
            result.setdefault(group(pod), []).append(view)
        return result

    async def _warnings(self, namespace: str, kind: Kind, uid: str) -> list[Json]:
        """Warnings about an object, the oldest first."""
        fields = f"regarding.kind={kind.kind},regarding.uid={uid},type=Warning"
        events = await self._api.list(kinds.EVENT, namespace, fields=fields)
        return sorted(events, key=_last_seen)


class _Tries(TypedDict):
    """The Jobs of a run, as RunObserved takes them."""

    jobs: dict[Stage, JobView]
    earlier: tuple[JobView, ...]


def _by_stage(jobs: Iterable[JobView]) -> _Tries:
    newest: dict[Stage, JobView] = {}
    earlier = []
    for job in sorted(jobs, key=lambda job: (job.attempt, job.meta.created, job.meta.name)):
        if job.stage in newest:
            earlier.append(newest[job.stage])
        newest[job.stage] = job
    return {"jobs": newest, "earlier": tuple(earlier)}


def _last_seen(event: Json) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")


def _service(model: ModelView, item: Json) -> ServiceView:
    name = meta(item).name
    stable = name == model.meta.name
    wanted = stable_service(model, ServiceIntent(name, None)) if stable else deployment_service(model, name)
    return service_view(item, wanted)


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


__all__ = ["Observer", "Seen", "now"]


def _as_the_status_says(model: ModelView, seen: DeploymentView) -> DeploymentView:
    """A Deployment that the status names is what the status says, whatever somebody made of its marks. Its serving key
    is in no status, but the beginning of it is in its name."""
    status = model.status
    known = (status.active, status.previous, status.candidate)
    served = next((each for each in known if each and each.deployment == seen.meta.name), None)
    if served is None:
        return seen
    keys = (seen.serving_key, serving_key(model.spec))
    names = {key: deployment_name(model.meta.name, served.revision, key) for key in keys}
    key = next((key for key in keys if names[key] == seen.meta.name), seen.serving_key)
    return replace(
        seen, revision=served.revision, run=served.run, artifact_digest=served.artifact_digest, serving_key=key
    )

"""What serves a Model: its Deployments, Services, autoscaler and route, and what its pods counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from truekeep.api.names import (
    LABEL_COMPONENT,
    LABEL_DEPLOYMENT,
    autoscaler_name,
    deployment_name,
    rehearsal_name,
    serving_selector,
)
from truekeep.cluster import kinds
from truekeep.cluster.errors import NotFound, Refused
from truekeep.cluster.metrics import PodMetrics
from truekeep.cluster.together import Together
from truekeep.cluster.views import (
    autoscaler_view,
    controller_uid,
    deployment_of,
    deployment_view,
    frozen_template,
    meta,
    node_is_emptied,
    owned_by,
    route_view,
    service_view,
)
from truekeep.cluster.workloads import Workloads
from truekeep.domain import system
from truekeep.domain.analysis import interest
from truekeep.domain.conditions import find
from truekeep.domain.fingerprints import serving_key
from truekeep.domain.model import NO_AUTOSCALING
from truekeep.domain.observed import (
    AutoscalerView,
    DeploymentView,
    JobView,
    ModelView,
    PodView,
    RouteView,
    ServiceView,
    Traffic,
)
from truekeep.domain.plan import AutoscalerIntent, DeploymentIntent, RouteIntent, ServiceIntent, Settings
from truekeep.domain.traffic import NO_GATEWAY
from truekeep.resources.autoscaler import autoscaler
from truekeep.resources.compare import holds
from truekeep.resources.httproute import httproute, parent_reference
from truekeep.resources.services import deployment_service, stable_service
from truekeep.resources.serving_deployment import serving_deployment

Json = dict[str, Any]


class Serving:
    """Reads what serves."""

    def __init__(
        self,
        reads: Together,
        workloads: Workloads,
        metrics: PodMetrics,
        settings: Settings,
        clock: Callable[[], datetime],
        routes_are_served: Callable[[], None] = lambda: None,
    ) -> None:
        self._reads = reads
        self._workloads = workloads
        self._metrics = metrics
        self._settings = settings
        self._clock = clock
        self._routes_are_served = routes_are_served

    async def items(self, namespace: str, name: str) -> tuple[list[Json], list[Json], list[Json]]:
        """The Deployments, Services and pods that bear the Model's labels."""
        ours = serving_selector(name)
        return await asyncio.gather(
            self._reads.list(kinds.DEPLOYMENT, namespace, ours),
            self._reads.list(kinds.SERVICE, namespace, ours),
            self._reads.list(kinds.POD, namespace, ours),
        )

    async def deployments(self, model: ModelView, items: list[Json], pods: list[Json]) -> tuple[DeploymentView, ...]:
        """Those of the Deployments that are the Model's, with their pods."""
        by_deployment = await self._workloads.pods_by(pods, deployment_of)
        views = tuple(
            self._deployment(model, each, by_deployment.get(meta(each).name, []))
            for each in owned_by(items, model.meta.uid)
        )
        return await self._drained(model, views)

    async def autoscaler(self, model: ModelView) -> AutoscalerView | None:
        """The autoscaler, where there is one and it is ours. Nobody asks for one that never was wanted."""
        had = find(model.status.conditions, "Scaled")
        if model.spec.serving.autoscaling is None and (had is None or had.reason == NO_AUTOSCALING):
            return None
        about = model.meta
        item = await self._reads.get(kinds.AUTOSCALER, about.namespace, autoscaler_name(about.name))
        if item is None or controller_uid(item) != about.uid:
            return None
        seen = autoscaler_view(item, {})
        wanted = autoscaler(model, AutoscalerIntent(seen.deployment, seen.least))
        return autoscaler_view(item, wanted or {})

    async def route(self, model: ModelView) -> tuple[bool, RouteView | None]:
        """Whether the cluster has routes, and ours. Nobody asks where no Gateway is or was named."""
        had = find(model.status.conditions, "Routed")
        if model.spec.serving.gateway is None and (had is None or had.reason == NO_GATEWAY):
            return True, None
        about = model.meta
        try:
            # A list, because a route that is missing and a kind that is missing are both "not found" to a get.
            items = await self._reads.list(kinds.HTTP_ROUTE, about.namespace, serving_selector(about.name))
        except NotFound:
            return False, None
        self._routes_are_served()
        mine = [item for item in items if meta(item).name == about.name and controller_uid(item) == about.uid]
        if not mine:
            return True, None
        seen = route_view(mine[0], {}, None)
        wanted = httproute(model, RouteIntent(tuple(seen.weights.items()), seen.mirror))
        return True, route_view(mine[0], parent_reference(model), wanted)

    async def traffic(self, model: ModelView, deployments: tuple[DeploymentView, ...]) -> dict[str, Traffic]:
        """What the pods whose traffic decides now counted lately."""
        wanted = interest(model, self._clock())
        if wanted is None:
            return {}
        asked = [each for each in deployments if each.meta.name in wanted.deployments]
        return await self._metrics.traffic(asked, wanted.seconds)

    async def live_traffic(self, model: ModelView) -> Traffic | None:
        """What the live revision's pods counted lately; None where no pod tells."""
        active = model.status.active
        if active is None:
            return None
        item, pods = await asyncio.gather(
            self._reads.get(kinds.DEPLOYMENT, model.meta.namespace, active.deployment),
            self._reads.list(kinds.POD, model.meta.namespace, {LABEL_DEPLOYMENT: active.deployment}),
        )
        if item is None:
            return None
        views = (await self._workloads.pods_by(pods, deployment_of)).get(active.deployment, [])
        found = await self._metrics.traffic([self._deployment(model, item, views)], system.LOOK_BACK_SECONDS)
        return found.get(active.deployment)

    async def rehearsal(self, model: ModelView) -> JobView | None:
        """The Job in which the candidate answers captured requests."""
        candidate, namespace = model.status.candidate, model.meta.namespace
        if candidate is None or candidate.rehearsal is not None:
            return None
        job, pods = await asyncio.gather(
            self._reads.get(kinds.JOB, namespace, rehearsal_name(candidate.deployment)),
            self._reads.list(
                kinds.POD, namespace, {LABEL_DEPLOYMENT: candidate.deployment, LABEL_COMPONENT: "rehearsal"}
            ),
        )
        return await self._workloads.job(job, pods) if job and controller_uid(job) == model.meta.uid else None

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
            nodes = await asyncio.gather(*(self._reads.get(kinds.NODE, "", name) for name in names))
        except Refused:  # an operator of some namespaces may have no right in the whole cluster
            return deployment
        emptied = {name for name, node in zip(names, nodes, strict=True) if node and node_is_emptied(node)}
        return replace(deployment, pods=tuple(replace(pod, drained=pod.node in emptied) for pod in deployment.pods))

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


def services(model: ModelView, items: list[Json]) -> tuple[ServiceView, ...]:
    """Those of the Services that are the Model's."""
    return tuple(_service(model, each) for each in owned_by(items, model.meta.uid))


def _service(model: ModelView, item: Json) -> ServiceView:
    name = meta(item).name
    stable = name == model.meta.name
    wanted = stable_service(model, ServiceIntent(name, None)) if stable else deployment_service(model, name)
    return service_view(item, wanted)


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

"""Who is sent requests: by the stable Service's selector, where the ready pods make the share of the traffic, or by a
Gateway's route, which sets it exactly. A Gateway that does not take the route leaves it to the pods."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from truekeep.api.model import ServedRevision
from truekeep.api.names import LABEL_DEPLOYMENT, serving_selector
from truekeep.domain.conditions import Finding
from truekeep.domain.observed import ModelObserved, RouteView
from truekeep.domain.plan import RouteIntent, ServiceIntent
from truekeep.domain.pods import Trouble
from truekeep.domain.work import Work

GATEWAY_PATIENCE = timedelta(seconds=60)
ROUTE_SECONDS = 2.0  # between two looks at what the Gateway says
NO_GATEWAY = "NoGateway"
GatewayState = Literal["off", "missing", "pending", "accepted", "refused", "silent"]


def strangers_gone(work: Work) -> bool:
    """Whether no third revision has a pod left: the widened selector would reach it."""
    ours = {work.active.deployment if work.active else "", work.candidate.deployment if work.candidate else ""}
    return not any(view.pods for name, view in work.there.items() if name not in ours)


def gateway_state(observed: ModelObserved, now: datetime) -> GatewayState:
    """How the route stands with its Gateway. One that never answers, or stopped answering, is silent after a while."""
    if observed.model.spec.serving.gateway is None:
        return "off"
    if not observed.gateway_api:
        return "missing"
    route = observed.route
    if route is None:
        return "pending"
    if route.verdict in ("Accepted", "Refused"):
        return "accepted" if route.verdict == "Accepted" else "refused"
    since = route.changed if route.verdict == "Stale" else route.created
    return "pending" if since is None or now - since < GATEWAY_PATIENCE else "silent"


def by_route(work: Work) -> bool:
    """Whether the Gateway makes the share of the traffic, and not the pods."""
    return gateway_state(work.observed, work.now) in ("pending", "accepted")


def shadowed(work: Work) -> bool:
    """Whether the candidate gets a copy of the traffic, and no traffic of its own."""
    return work.spec.serving.rollout.strategy == "Shadow"


def stands(work: Work) -> bool:
    """Whether the traffic goes as the candidate's step asks: the Gateway took the weights, or the pods make them."""
    if not by_route(work):
        return not shadowed(work)
    route, wanted = work.observed.route, _wanted_route(work)
    accepted = gateway_state(work.observed, work.now) == "accepted"
    return accepted and route is not None and wanted is not None and _same(route, wanted)


def shadow_trouble(work: Work) -> Trouble | None:
    """Why there is no copy of the traffic, and can be none until somebody mends the Gateway."""
    if not shadowed(work) or by_route(work):
        return None
    said = gateway_finding(work.observed, work.now, work.active)
    return Trouble(said.reason, f"there is no copy of the traffic to judge by: {said.message}")


def reached_percent(work: Work) -> int:
    """Share of the traffic, in percent, that the candidate has: by the weights that the Gateway took, or by the ready
    pods while the selector names all of them."""
    if shadowed(work):
        return 0
    if by_route(work):
        route = work.observed.route
        if route is None or not work.candidate or gateway_state(work.observed, work.now) != "accepted":
            return work.candidate.reached_percent if work.candidate else 0
        return round(100 * route.weights.get(work.candidate.deployment, 0) / (sum(route.weights.values()) or 1))
    candidate = work.there.get(work.candidate.deployment) if work.candidate else None
    live = work.there.get(work.active.deployment) if work.active else None
    ready, others = (candidate.ready if candidate else 0), (live.ready if live else 0)
    return round(100 * ready / (ready + others)) if ready else 0


def last_resort(work: Work) -> str | None:
    """The Deployment that the selector names now, where it has ready pods and the live revision's has none.

    So it is where the operator was stopped between two writes of a switch and something changed meanwhile: clients stay
    where they are answered until the live revision's pods are ready."""
    live = work.active
    service = next((each for each in work.observed.services if each.name == work.observed.model.meta.name), None)
    if live is None or service is None or work.spec.serving.replicas == 0:
        return None
    name = dict(service.selector).get(LABEL_DEPLOYMENT)
    named, wanted = work.there.get(name or ""), work.there.get(live.deployment)
    if named is None or named.ready == 0 or name == live.deployment or (wanted is not None and wanted.ready > 0):
        return None
    return name


def service_intent(work: Work) -> ServiceIntent | None:
    """The stable Service, where it differs from what is wanted."""
    if work.active is None or last_resort(work):
        return None
    name = work.observed.model.meta.name
    by_pods = work.widened and not by_route(work) and not shadowed(work)
    wanted = ServiceIntent(name, None if by_pods else work.active.deployment)
    there = next((service for service in work.observed.services if service.name == name), None)
    if there and there.intact and dict(there.selector) == serving_selector(name, wanted.deployment):
        return None
    return wanted


def route_intent(work: Work) -> RouteIntent | None:
    """The route, where it differs from what is wanted and can be made."""
    wanted, route = _wanted_route(work), work.observed.route
    if wanted is None or last_resort(work):
        return None
    if gateway_state(work.observed, work.now) == "pending":
        work.soon(ROUTE_SECONDS)
    return None if route is not None and route.intact and _same(route, wanted) else wanted


def route_surplus(work: Work) -> bool:
    """Whether there is a route that nobody wants any more."""
    return work.observed.route is not None and work.spec.serving.gateway is None


def still_routed(work: Work, deployment: str) -> bool:
    """Whether the Gateway may go on sending requests to a Deployment, so that its pods have to stay."""
    route, state = work.observed.route, gateway_state(work.observed, work.now)
    if route is None or state not in ("pending", "accepted"):
        return False
    return state == "pending" or deployment == route.mirror or deployment in route.weights


def _wanted_route(work: Work) -> RouteIntent | None:
    active, candidate = work.active, work.candidate
    if active is None or work.spec.serving.gateway is None or not work.observed.gateway_api:
        return None
    if candidate is None or not work.widened:
        return RouteIntent(((active.deployment, 100),))
    if shadowed(work):
        return RouteIntent(((active.deployment, 100),), mirror=candidate.deployment)
    share = candidate.weight_percent
    return RouteIntent(((active.deployment, 100 - share), (candidate.deployment, share)))


def _same(route: RouteView, wanted: RouteIntent) -> bool:
    return (dict(route.weights), route.mirror) == (dict(wanted.weights), wanted.mirror)


def gateway_finding(observed: ModelObserved, now: datetime, active: ServedRevision | None) -> Finding:
    """What the condition Routed says."""
    gateway, route = observed.model.spec.serving.gateway, observed.route
    if gateway is None:
        return Finding("Routed", "Unknown", NO_GATEWAY, "spec.serving.gateway is not set")
    name = f"Gateway {gateway.namespace or observed.model.meta.namespace}/{gateway.name}"
    pods = "until then the Service shares the traffic out by pods"
    match gateway_state(observed, now):
        case "missing":
            words = "the cluster has no HTTPRoute (gateway.networking.k8s.io/v1): install the Gateway API's CRDs"
            return Finding("Routed", "False", "GatewayApiMissing", f"{words}; {pods}")
        case "refused":
            words = route.message if route else ""
            return Finding("Routed", "False", "GatewayRefused", f"{name} does not take the route: {words}; {pods}")
        case "silent":
            words = (
                f"{name} has not answered for {GATEWAY_PATIENCE.seconds} s: is it there, and does its controller run?"
            )
            return Finding("Routed", "False", "GatewaySilent", f"{words} {pods}")
        case "accepted" if route is not None:
            return Finding("Routed", "True", "Accepted", f"{name} sends {_shares(observed, route)}")
    waits = "has not answered yet" if active else "gets a route when the first revision serves"
    return Finding("Routed", "Unknown", "RouteWaits", f"{name} {waits}")


def _shares(observed: ModelObserved, route: RouteView) -> str:
    numbers = {view.meta.name: view.revision for view in observed.deployments}

    def named(deployment: str) -> str:
        return f"revision {numbers[deployment]}" if deployment in numbers else deployment

    total = sum(route.weights.values()) or 1
    shares = [f"{round(100 * weight / total)} % to {named(name)}" for name, weight in sorted(route.weights.items())]
    copy = f", and a copy to {named(route.mirror)}" if route.mirror else ""
    return f"{', '.join(shares)}{copy}"

"""Who is sent requests: the stable Service's selector, and the share of the traffic that the ready pods make."""

from __future__ import annotations

from truekeep.api.names import LABEL_DEPLOYMENT, serving_selector
from truekeep.domain.plan import ServiceIntent
from truekeep.domain.work import Work


def strangers_gone(work: Work) -> bool:
    """Whether no third revision has a pod left: the widened selector would reach it."""
    ours = {work.active.deployment if work.active else "", work.candidate.deployment if work.candidate else ""}
    return not any(view.pods for name, view in work.there.items() if name not in ours)


def reached_percent(work: Work) -> int:
    """Share of the traffic, in percent, that the candidate's ready pods make while the selector names all pods."""
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
    wanted = ServiceIntent(name, None if work.widened else work.active.deployment)
    there = next((service for service in work.observed.services if service.name == name), None)
    if there and there.intact and dict(there.selector) == serving_selector(name, wanted.deployment):
        return None
    return wanted

"""How many pods each revision gets, and which Deployments may go."""

from __future__ import annotations

from collections.abc import Mapping

from truekeep.api.rollout import Step
from truekeep.domain import overrides
from truekeep.domain.fingerprints import serving_key
from truekeep.domain.observed import DeploymentView
from truekeep.domain.plan import AutoscalerIntent, BudgetIntent, DeploymentIntent
from truekeep.domain.pods import obstacle
from truekeep.domain.traffic import ROUTE_SECONDS, last_resort, shadowed, still_routed
from truekeep.domain.wish import Target
from truekeep.domain.work import Work


def canary_replicas(live: int, weight_percent: int) -> int:
    """Pods of the candidate that make about this share of the traffic beside so many live ones."""
    return max(1, round(live * weight_percent / (100 - weight_percent)))


def returns_or_first(work: Work) -> bool:
    """Whether the candidate served before, or nothing serves: then there is nothing to be careful of, or with."""
    candidate, active = work.candidate, work.active
    if candidate is None or active is None:
        return True
    served = {each.deployment for each in (work.previous, work.former) if each}
    insisted = candidate.revision == overrides.pin(work.observed.model) and candidate.revision < active.revision
    return candidate.deployment in served or insisted


def steps_of(work: Work) -> list[Step]:
    """The steps of this rollout: none for a first revision, for blue-green, or on the way back to a former one."""
    rollout = work.spec.serving.rollout
    if rollout.strategy == "BlueGreen" or returns_or_first(work) or work.spec.serving.replicas == 0:
        return []
    live = work.there.get(work.active.deployment) if work.active else None
    # With no live pod there is nothing to compare with, and nobody to protect.
    if live is None or live.ready == 0:
        return []
    if shadowed(work):
        return [Step.model_construct(weight_percent=0, duration_seconds=rollout.shadow_seconds)]
    return list(rollout.steps)


def stand_in(work: Work) -> int:
    """Pods that a revision needs to take the live one's place: as many as are declared, or, where an autoscaler
    decides, as many as the live one has ready, within the autoscaler's bounds."""
    serving = work.spec.serving
    scaling = serving.autoscaling
    if scaling is None or serving.replicas == 0:
        return serving.replicas
    live = work.there.get(work.active.deployment) if work.active else None
    return min(max(live.ready if live else 0, scaling.min_replicas), scaling.max_replicas)


def way_back(work: Work, deployment: str) -> int:
    """Pods of the warm revision: as many as take the live one's place. What it has ready already does not go while the
    autoscaler wants as many of the live one, however few of those are ready: then they may be needed at once."""
    warm, live = work.there.get(deployment), work.there.get(work.active.deployment) if work.active else None
    if not autoscaled(work) or warm is None or live is None:
        return stand_in(work)
    return max(stand_in(work), min(warm.ready, live.replicas))


def drained_nodes(work: Work) -> tuple[str, ...]:
    """Nodes that are being emptied, while the live revision's only pod is on one of them."""
    live = work.there.get(work.active.deployment) if work.active else None
    staying = [pod for pod in live.pods if not pod.deleting and not pod.drained and pod.ready] if live else []
    if live is None or len(staying) > 1:
        return ()
    return tuple(sorted({pod.node for pod in live.pods if pod.drained and pod.node and not pod.deleting}))


def drain_words(work: Work) -> str:
    """What becomes of a drain that has to wait for the live revision's only pod; empty where there is none."""
    live, nodes = work.there.get(work.active.deployment) if work.active else None, drained_nodes(work)
    if live is None or not nodes or fewest(work) < 2:
        return ""
    why = obstacle([pod for pod in live.pods if not pod.drained], live.create_error, work.now)
    waits = f", but it waits: {why.message}" if why else ""
    return f"node {', '.join(nodes)} is being emptied; the pod there may go once a second one is ready{waits}"


def fewest(work: Work) -> int:
    """Pods that the live revision has at least. One that has to leave its node is not the only one: the budget lets it
    go once the second is ready."""
    serving = work.spec.serving
    least = serving.autoscaling.min_replicas if serving.autoscaling and serving.replicas else serving.replicas
    return 2 if least == 1 and drained_nodes(work) else least


def live_replicas(work: Work, view: DeploymentView | None) -> int:
    """Pods of the live revision: those that are declared, or those that the autoscaler chose."""
    if not autoscaled(work):
        return fewest(work)
    return view.replicas if view is not None and view.replicas else stand_in(work)


def autoscaled(work: Work) -> bool:
    """Whether an autoscaler decides about the live revision's pods."""
    return work.spec.serving.autoscaling is not None and work.spec.serving.replicas > 0


def autoscaler_intent(work: Work) -> AutoscalerIntent | None:
    """The autoscaler, where it differs from what is wanted."""
    if work.active is None or not autoscaled(work) or work.active.deployment not in work.there:
        return None
    there, wanted = work.observed.autoscaler, AutoscalerIntent(work.active.deployment, fewest(work))
    same = there is not None and there.intact and (there.deployment, there.least) == (wanted.deployment, wanted.least)
    return None if same else wanted


def autoscaler_surplus(work: Work) -> bool:
    """Whether there is an autoscaler that nobody wants any more."""
    return work.observed.autoscaler is not None and (work.active is None or not autoscaled(work))


def budget_intent(work: Work) -> BudgetIntent | None:
    """The disruption budget over the live revision's pods; there is none where it has no pod."""
    if work.active is None or work.spec.serving.replicas == 0:
        return None
    pods = live_replicas(work, work.there.get(work.active.deployment))
    return BudgetIntent(work.active.deployment, pods)


def candidate_replicas(work: Work, steps: list[Step], step: int) -> int:
    """Pods of the candidate at this step; past the last one, as many as the live revision ought to have."""
    live = stand_in(work)
    if shadowed(work):  # a copy of all that the live one answers
        return live
    if not steps or step >= len(steps):
        return live
    return min(live, canary_replicas(live, steps[max(step, 0)].weight_percent)) if live else 0


def wanted_replicas(work: Work) -> dict[str, int]:
    """Replicas of each Deployment; those that are not named get none."""
    wanted: dict[str, int] = {}
    # The way back stays open until the candidate gets live traffic, in case it never does.
    canary = work.candidate is not None and bool(steps_of(work)) and (work.candidate.step >= 0 or work.clearing)
    if work.previous is not None and not canary:
        wanted[work.previous.deployment] = way_back(work, work.previous.deployment)
    if work.active is not None:
        wanted[work.active.deployment] = live_replicas(work, work.there.get(work.active.deployment))
    if work.candidate is not None:
        steps = steps_of(work)
        wanted[work.candidate.deployment] = candidate_replicas(work, steps, min(work.candidate.step, len(steps)))
    if (name := last_resort(work)) is not None:
        wanted.setdefault(name, work.there[name].replicas)
    for name, view in work.there.items():
        if name not in wanted and view.replicas and not view.meta.deleting and still_routed(work, name):
            wanted[name] = view.replicas
            work.soon(ROUTE_SECONDS)
    return wanted


def deployment_intents(work: Work, target: Target | None, replicas: Mapping[str, int]) -> tuple[DeploymentIntent, ...]:
    """The Deployments that differ from what is wanted."""
    intents = []
    key = serving_key(work.spec)
    for served in (work.previous, work.active, work.candidate):
        if served is None or served.deployment not in replicas:
            continue
        view = work.there.get(served.deployment)
        count = replicas[served.deployment]
        if view is None or view.replicas != count or not view.intact:
            intents.append(
                DeploymentIntent(
                    name=served.deployment,
                    revision=served.revision,
                    run=served.run,
                    artifact_digest=served.artifact_digest,
                    serving_key=view.serving_key if view else (target.key if target else key),
                    replicas=count,
                    scaled=served is work.active and autoscaled(work) and view is not None and view.replicas > 0,
                )
            )
    for name, view in sorted(work.there.items()):
        if name not in replicas and view.replicas != 0 and not view.meta.deleting:
            intents.append(
                DeploymentIntent(name, view.revision, view.run, view.artifact_digest, view.serving_key, replicas=0)
            )
    return tuple(intents)


def surplus(work: Work, replicas: Mapping[str, int]) -> tuple[str, ...]:
    """Deployments beyond spec.serving.keptRevisions, the oldest first, once they have no pod."""
    kept = {*replicas, work.former.deployment if work.former else ""}  # the way back is kept in any case
    idle = [view for name, view in work.there.items() if name not in kept and not view.meta.deleting]
    idle.sort(key=lambda view: (view.revision, view.meta.created, view.meta.name))
    excess = max(0, len(idle) + len(kept & set(work.there)) - work.spec.serving.kept_revisions)
    return tuple(view.meta.name for view in idle[:excess] if view.replicas == 0 and not view.pods)

"""How many pods each revision gets, and which Deployments may go."""

from __future__ import annotations

from collections.abc import Mapping

from truekeep.api.rollout import Step
from truekeep.domain.fingerprints import serving_key
from truekeep.domain.plan import DeploymentIntent
from truekeep.domain.traffic import last_resort
from truekeep.domain.wish import Target
from truekeep.domain.work import Work


def canary_replicas(live: int, weight_percent: int) -> int:
    """Pods of the candidate that make about this share of the traffic beside so many live ones."""
    return max(1, round(live * weight_percent / (100 - weight_percent)))


def returns_or_first(work: Work) -> bool:
    """Whether the candidate served before, or nothing serves: then there is nothing to be careful of, or with."""
    candidate, active, previous = work.candidate, work.active, work.previous
    if candidate is None or active is None:
        return True
    return (
        previous is not None and candidate.deployment == previous.deployment
    ) or candidate.revision < active.revision


def steps_of(work: Work) -> list[Step]:
    """The steps of this rollout: none for a first revision, for blue-green, or on the way back to a former one."""
    rollout = work.spec.serving.rollout
    if rollout.strategy == "BlueGreen" or returns_or_first(work) or work.spec.serving.replicas == 0:
        return []
    live = work.there.get(work.active.deployment) if work.active else None
    # With no live pod there is nothing to compare with, and nobody to protect.
    return list(rollout.steps) if live is not None and live.ready > 0 else []


def candidate_replicas(work: Work, steps: list[Step], step: int) -> int:
    """Pods of the candidate at this step; past the last one, as many as the live revision ought to have."""
    live = work.spec.serving.replicas
    if not steps or step >= len(steps):
        return live
    return min(live, canary_replicas(live, steps[max(step, 0)].weight_percent)) if live else 0


def wanted_replicas(work: Work) -> dict[str, int]:
    """Replicas of each Deployment; those that are not named get none."""
    wanted: dict[str, int] = {}
    # The way back stays open until the candidate gets live traffic, in case it never does.
    canary = work.candidate is not None and bool(steps_of(work)) and (work.candidate.step >= 0 or work.clearing)
    if work.previous is not None and not canary:
        wanted[work.previous.deployment] = work.spec.serving.replicas
    if work.active is not None:
        wanted[work.active.deployment] = work.spec.serving.replicas
    if work.candidate is not None:
        steps = steps_of(work)
        wanted[work.candidate.deployment] = candidate_replicas(work, steps, min(work.candidate.step, len(steps)))
    if (name := last_resort(work)) is not None:
        wanted.setdefault(name, work.there[name].replicas)
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
    idle = [view for name, view in work.there.items() if name not in replicas and not view.meta.deleting]
    idle.sort(key=lambda view: (view.revision, view.meta.created, view.meta.name))
    excess = max(0, len(idle) + len(replicas) - work.spec.serving.kept_revisions)
    return tuple(view.meta.name for view in idle[:excess] if view.replicas == 0 and not view.pods)

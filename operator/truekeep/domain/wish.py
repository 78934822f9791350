"""Which revision ought to answer, and in which way: the newest that did not fail, or the one that is pinned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from truekeep.api.modelapproval import GivenApproval
from truekeep.api.names import deployment_name
from truekeep.domain.approval import Consent, consent
from truekeep.domain.fingerprints import serving_fingerprint, serving_key
from truekeep.domain.observed import ModelObserved, RunView
from truekeep.domain.plan import Settings
from truekeep.domain.pods import Trouble
from truekeep.domain.run import succeeded


@dataclass(frozen=True)
class Target:
    """One way of serving one revision."""

    revision: int
    run: str
    artifact_digest: str
    deployment: str
    key: str
    approval: GivenApproval | None = None  # where one was needed


@dataclass(frozen=True)
class Withheld:
    """A revision that passed its gates, but may not serve (yet): a person's decision is missing, or was no."""

    target: Target
    consent: Consent


@dataclass(frozen=True)
class Wish:
    """What ought to answer. refused: the way of serving that the spec asks for, but that failed before."""

    target: Target | None
    refused: Target | None = None
    problem: Trouble | None = None
    withheld: Withheld | None = None


def revisions(runs: tuple[RunView, ...]) -> dict[int, RunView]:
    """The runs that are revisions, by number."""
    return {run.status.revision: run for run in runs if succeeded(run) and run.status.revision and run.status.artifact}


def wish(observed: ModelObserved, settled: bool, settings: Settings, now: datetime) -> Wish:
    """Which revision ought to answer, in which way.

    A pin wins. Else it is the newest revision that was not rejected, but never one before the live one: whatever goes
    wrong, the live one stays. While a run for the spec is under way, nothing else is rolled out: a change is one."""
    spec, status = observed.model.spec, observed.model.status
    known = revisions(observed.runs)
    key = serving_key(spec)
    held = _as_is(observed)
    pinned = spec.serving.pinned_revision
    if pinned is not None:
        if pinned not in known:
            numbers = ", ".join(str(number) for number in sorted(known)) or "none"
            message = (
                f"spec.serving.pinnedRevision is {pinned}, but there is no such revision; there are {numbers}; "
                "the live revision goes on"
            )
            return Wish(held, problem=Trouble("PinnedRevisionMissing", message))
        return _pinned(observed, _target(observed, known[pinned], key), held, settings, now)
    if held is not None and not settled:
        return Wish(held)
    floor = status.active.revision if status.active else 0
    refused: Target | None = None
    for number in sorted((number for number in known if number >= floor), reverse=True):
        if refused is not None and (number == floor or spec.approval.mode == "Manual"):
            break  # the new revision failed: the live one is not put at risk with the same change, nor an old one tried
        target = _target(observed, known[number], key)
        allowed = consent(observed, known[number], now)
        if allowed.state != "Given" and number != floor:
            return Wish(held, withheld=Withheld(target, allowed))
        target = replace(target, approval=allowed.approval)
        if not is_rejected(observed, target, settings):
            return Wish(target, refused)
        refused = refused or target
    return Wish(held, refused)


def _pinned(observed: ModelObserved, target: Target, held: Target | None, settings: Settings, now: datetime) -> Wish:
    """The pinned revision. What served once needs no new approval on its way back."""
    allowed = consent(observed, revisions(observed.runs)[target.revision], now)
    served = any(deployment.revision == target.revision for deployment in observed.deployments)
    if allowed.state == "Refused" or (allowed.state == "Awaited" and not served):
        message = f"spec.serving.pinnedRevision is {target.revision}, but {allowed.message}; the live revision goes on"
        return Wish(held, problem=Trouble("PinnedRevisionNotApproved", message), withheld=Withheld(target, allowed))
    return _unless_rejected(observed, replace(target, approval=allowed.approval), held, settings)


def _unless_rejected(observed: ModelObserved, target: Target, held: Target | None, settings: Settings) -> Wish:
    return Wish(held, target) if is_rejected(observed, target, settings) else Wish(target)


def _target(observed: ModelObserved, run: RunView, key: str) -> Target:
    revision, artifact = run.status.revision, run.status.artifact
    if revision is None or artifact is None:
        raise ValueError(f"run {run.meta.name} is no revision")
    name = deployment_name(observed.model.meta.name, revision, key)
    return Target(revision, run.meta.name, artifact.digest, name, key)


def _as_is(observed: ModelObserved) -> Target | None:
    """The live revision in the way in which it is served now."""
    active = observed.model.status.active
    if active is None:
        return None
    there = {deployment.meta.name: deployment for deployment in observed.deployments}
    live = there.get(active.deployment)
    key = live.serving_key if live else serving_key(observed.model.spec)
    return Target(active.revision, active.run, active.artifact_digest, active.deployment, key)


def fingerprint_of(observed: ModelObserved, target: Target, settings: Settings) -> str:
    """What a rejection remembers: artifact, serving spec, server image."""
    images = {deployment.meta.name: deployment.image for deployment in observed.deployments}
    image = images.get(target.deployment, settings.server_image)
    return serving_fingerprint(target.artifact_digest, target.key, image)


def is_rejected(observed: ModelObserved, target: Target, settings: Settings) -> bool:
    """Whether this way of serving failed before."""
    fingerprint = fingerprint_of(observed, target, settings)
    return any(rejection.fingerprint == fingerprint for rejection in observed.model.status.rejected)

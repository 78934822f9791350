"""Which revision ought to answer, and in which way: the newest that did not fail, or the one that is pinned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from truekeep.api.model import ModelStatus, Rejection
from truekeep.api.modelapproval import GivenApproval
from truekeep.api.names import deployment_name
from truekeep.domain import overrides
from truekeep.domain.approval import Consent, consent
from truekeep.domain.fingerprints import (
    renewed_key,
    serves_as_asked,
    serving_fingerprint,
    serving_key,
    training_fingerprint,
)
from truekeep.domain.observed import ModelObserved, RunView
from truekeep.domain.plan import Settings
from truekeep.domain.pods import Trouble
from truekeep.domain.restoring import TAKEN_BACK, champion, to_come
from truekeep.domain.stand import succeeded

KEPT_REJECTIONS = 20
# What is wrong with these is the model itself: no other way of serving mends it.
OF_THE_ARTIFACT = frozenset({"PerformanceRegressed", TAKEN_BACK})


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

    A pin wins, the spec's or a person's. Where nothing serves and revisions were restored, it is the one that answered
    last. Then a live revision that regressed leads back to the one before it. While
    the Model is paused, the live one stays. Else it is the newest revision that was trained as the spec says and not
    rejected, but never one before the live one, where that was trained so too: whatever goes wrong, the live one stays.
    A spec that goes back to a former one, as by a revert in Git, goes back to its revision. While a run for the spec is
    under way, nothing else is rolled out: a change is one."""
    spec, status = observed.model.spec, observed.model.status
    known = revisions(observed.runs)
    key = serving_key(spec)
    held = _as_is(observed)
    unclear = _being_restored(observed, held) or overrides.trouble(observed.model, known)
    if unclear is not None:
        return Wish(held, problem=unclear)
    pinned = overrides.pin(observed.model)
    if pinned is not None:
        if pinned not in known:  # what a person's rollback names is known, or it is unclear
            numbers = ", ".join(str(number) for number in sorted(known)) or "none"
            message = (
                f"spec.serving.pinnedRevision is {pinned}, but there is no such revision; there are {numbers}; "
                f"the live revision goes on{overrides.no_run_any_more(observed.model, pinned)}"
            )
            return Wish(held, problem=Trouble("PinnedRevisionMissing", message))
        return _pinned(observed, _target(observed, known[pinned], settings), held, settings, now)
    back = _way_back(observed, key) if held else _answered_last(observed, known, settings, now)
    if back is not None or overrides.paused(observed.model):
        return Wish(back or held, held if back else None)
    found = _forward(observed, held, known, settled, settings, now)
    verdict = condemned(status)
    if verdict is not None and found.target == held:
        message = f"revision {verdict.revision} regressed ({verdict.reason}), and there is no way back that works"
        return replace(found, problem=Trouble("NoWayBack", f"{message}; mend the spec, or train anew"))
    return found


def _forward(
    observed: ModelObserved,
    held: Target | None,
    known: Mapping[int, RunView],
    settled: bool,
    settings: Settings,
    now: datetime,
) -> Wish:
    """The newest revision that was trained as the spec says and not rejected; not one before the live one, unless the
    spec went back to what it was before that."""
    spec, status = observed.model.spec, observed.model.status
    if held is not None and not settled:
        return Wish(held)
    full = len(status.rejected) >= KEPT_REJECTIONS
    oldest = min(rejection.revision for rejection in status.rejected) if full else 0  # older rejections are forgotten
    asked = asked_for(observed, known)
    floor = status.active.revision if status.active and status.active.revision in asked else 0
    refused: Target | None = None
    for number in sorted((number for number in asked if number >= floor), reverse=True):
        if number < oldest:
            break
        if refused is not None and (number == floor or spec.approval.mode == "Manual"):
            break  # the new revision failed: the live one is not put at risk with the same change, nor an old one tried
        target = _target(observed, known[number], settings)
        allowed = consent(observed, known[number], now)
        if allowed.state != "Given" and number != floor:
            return Wish(held, withheld=Withheld(target, allowed))
        target = replace(target, approval=allowed.approval)
        if not is_rejected(observed, target, settings):
            return Wish(target, refused)
        refused = refused or target
    return Wish(held, refused)


def asked_for(observed: ModelObserved, known: Mapping[int, RunView]) -> Mapping[int, RunView]:
    """The revisions that were trained as the spec says; all of them while nothing serves, because any is better."""
    fingerprint = training_fingerprint(observed.model.spec)
    same = {number: run for number, run in known.items() if run.status.training_fingerprint == fingerprint}
    return same if same or observed.model.status.active else known


def condemned(status: ModelStatus) -> Rejection | None:
    """Why the live revision is to be left: it was rejected as it is served, after it took over."""
    active = status.active
    if active is None or active.since is None:
        return None
    mine = [each for each in status.rejected if each.deployment == active.deployment and each.time >= active.since]
    return mine[-1] if mine else None


def _way_back(observed: ModelObserved, key: str) -> Target | None:
    """The revision before a condemned one, in the way in which it was served; None where that failed meanwhile."""
    status = observed.model.status
    verdict, former = condemned(status), status.former
    if verdict is None or former is None:
        return None
    if any(each.deployment == former.deployment and each.time >= verdict.time for each in status.rejected):
        return None
    view = next((each for each in observed.deployments if each.meta.name == former.deployment), None)
    name = former.deployment
    if view is None:
        name = deployment_name(observed.model.meta.name, former.revision, key)
    key = view.serving_key if view else key
    return Target(former.revision, former.run, former.artifact_digest, name, key, former.approval)


def _being_restored(observed: ModelObserved, held: Target | None) -> Trouble | None:
    """While nothing serves, all that is restored is waited for: which revision answered last shows only then."""
    pending = to_come(observed.runs)
    if held is not None or not pending:
        return None
    runs = f"run {pending[0].meta.name} is" if len(pending) == 1 else f"{len(pending)} runs are"
    return Trouble("Restoring", f"{runs} being restored; what answered last serves again when all of it is known")


def _answered_last(
    observed: ModelObserved, known: Mapping[int, RunView], settings: Settings, now: datetime
) -> Target | None:
    """The revision that answered last in a cluster that is lost, also while the Model is paused: serving goes on."""
    number = champion(known)
    if number is None:
        return None
    target = _target(observed, known[number], settings)
    allowed = consent(observed, known[number], now)
    if allowed.state != "Given" or is_rejected(observed, target, settings):
        return None
    return replace(target, approval=allowed.approval)


def _pinned(observed: ModelObserved, target: Target, held: Target | None, settings: Settings, now: datetime) -> Wish:
    """The pinned revision. What served once needs no new approval on its way back."""
    allowed = consent(observed, revisions(observed.runs)[target.revision], now)
    served = any(deployment.revision == target.revision for deployment in observed.deployments)
    if allowed.state == "Refused" or (allowed.state == "Awaited" and not served):
        message = f"spec.serving.pinnedRevision is {target.revision}, but {allowed.message}; the live revision goes on"
        return Wish(held, problem=Trouble("PinnedRevisionNotApproved", message), withheld=Withheld(target, allowed))
    return _unless_rejected(observed, replace(target, approval=allowed.approval), held, settings)


def _unless_rejected(observed: ModelObserved, target: Target, held: Target | None, settings: Settings) -> Wish:
    """A pinned target. A person may insist on a model that did worse than another one."""
    return Wish(held, target) if _failed_as_it_is(observed, target, settings) else Wish(target)


def key_of(observed: ModelObserved, revision: int, settings: Settings) -> str:
    """In which way a revision is to be served: as it is, where that is as the spec says.

    With spec.serving.serverImage Follow only the present server image is as the spec says: else it is rolled out anew,
    under another key. With Frozen pods stay with theirs."""
    spec, status = observed.model.spec, observed.model.status
    plain = serving_key(spec)
    there = [
        view
        for view in observed.deployments
        if view.revision == revision and serves_as_asked(view.serving_key, view.image, spec)
    ]
    if spec.serving.server_image == "Follow":
        current = [view.serving_key for view in there if view.image == settings.server_image]
        return current[0] if current else renewed_key(plain, settings.server_image) if there else plain
    in_use = [each.deployment for each in (status.active, status.candidate) if each is not None]
    return next((view.serving_key for name in in_use for view in there if view.meta.name == name), plain)


def _target(observed: ModelObserved, run: RunView, settings: Settings) -> Target:
    revision, artifact = run.status.revision, run.status.artifact
    if revision is None or artifact is None:
        raise ValueError(f"run {run.meta.name} is no revision")
    key = key_of(observed, revision, settings)
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
    """What a rejection remembers: artifact, serving spec, the limits of the rollout, server image."""
    images = {deployment.meta.name: deployment.image for deployment in observed.deployments}
    image = images.get(target.deployment, settings.server_image)
    return serving_fingerprint(target.artifact_digest, target.key, image, observed.model.spec.serving.rollout)


def is_rejected(observed: ModelObserved, target: Target, settings: Settings) -> bool:
    """Whether this way of serving failed before, or the model itself in whatever way."""
    return _failed_as_it_is(observed, target, settings) or any(
        rejection.revision == target.revision and rejection.reason in OF_THE_ARTIFACT
        for rejection in observed.model.status.rejected
    )


def _failed_as_it_is(observed: ModelObserved, target: Target, settings: Settings) -> bool:
    fingerprint = fingerprint_of(observed, target, settings)
    return any(
        rejection.fingerprint == fingerprint and rejection.reason not in OF_THE_ARTIFACT
        for rejection in observed.model.status.rejected
    )

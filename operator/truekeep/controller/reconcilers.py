"""A reconciler a kind: observe, decide, carry out, in an order in which a crash between any two writes repeats nothing.

First what serves (Services, Deployments), then what is made (runs, Jobs, CronJobs), then what goes, then the status,
then Events. Whatever a crash or a refusal leaves undone, the next look finds again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from truekeep.api.driftpolicy import DriftPolicyStatus
from truekeep.api.model import ModelStatus
from truekeep.api.names import autoscaler_name, monitor_name, newdata_name, retention_name
from truekeep.api.trainingrun import TrainingRunStatus
from truekeep.cluster import kinds
from truekeep.cluster.errors import NameTaken, Refused
from truekeep.cluster.kinds import Kind
from truekeep.cluster.observe import Observer
from truekeep.cluster.together import There
from truekeep.cluster.views import SpecInvalidError, lenient_status, meta
from truekeep.cluster.write import Writer
from truekeep.contract.requests import Champion
from truekeep.controller.policy_metrics import Policy, PolicyMetrics
from truekeep.controller.queue import Key
from truekeep.controller.refusal import AnyStatus, explained, unreadable
from truekeep.controller.state_metrics import StateMetrics
from truekeep.domain import model as model_domain
from truekeep.domain import policy as policy_domain
from truekeep.domain import pruning
from truekeep.domain import run as run_domain
from truekeep.domain.data import last_valid
from truekeep.domain.observed import Meta, ModelObserved, ModelView, PolicyObserved, RunObserved
from truekeep.domain.plan import ModelPlan, Note, PolicyPlan, RunPlan, Settings
from truekeep.domain.slots import turns
from truekeep.domain.stand import ended, finished
from truekeep.resources.autoscaler import autoscaler
from truekeep.resources.decisions_job import decisions_job
from truekeep.resources.disruption_budget import disruption_budget
from truekeep.resources.httproute import httproute
from truekeep.resources.monitor_cronjob import Watched, monitor_cronjob
from truekeep.resources.newdata_cronjob import newdata_cronjob
from truekeep.resources.notice_job import notice_job
from truekeep.resources.rehearsal_job import rehearsal_job
from truekeep.resources.retention_cronjob import retention_cronjob
from truekeep.resources.services import deployment_service, stable_service
from truekeep.resources.stage_job import stage_job
from truekeep.resources.training_run import training_run

logger = logging.getLogger(__name__)
Done = TypeVar("Done")


class Reconciler(Protocol):
    """Brings one object closer to what it wants."""

    async def reconcile(self, key: Key) -> float | None:
        """Seconds after which to look again, None for not by itself."""


@dataclass(frozen=True)
class Tools:
    """What reconcilers work with."""

    observer: Observer
    writer: Writer
    settings: Settings
    clock: Callable[[], datetime]
    wake: Callable[[Iterable[Key]], None]  # look at these, too
    others_wait: Callable[[Key], bool] = lambda key: False  # while this one is worked on
    policies: PolicyMetrics = field(default_factory=PolicyMetrics)
    states: StateMetrics = field(default_factory=lambda: StateMetrics(lambda: datetime.now(UTC)))


@dataclass
class Outcome(Generic[AnyStatus]):
    """What is left to write of a plan: the status, then Events; and the refusal that kept the rest from being made."""

    kind: Kind
    about: Meta
    stored: AnyStatus
    status: AnyStatus
    notes: tuple[Note, ...]
    refusal: Refused | NameTaken | None = None

    async def attempt(self, work: Awaitable[Done], now: datetime) -> Done | None:
        """Carry out what comes before the status. A refusal becomes what the status says."""
        try:
            return await work
        except (Refused, NameTaken) as error:
            self.refusal = error
            self.status, self.notes = explained(self.stored, self.status, self.about, error, now)
        return None

    async def conclude(self, tools: Tools, stored: Mapping[str, Any]) -> bool:
        """Write the status and Events. Whether the status was news."""
        tools.states.tell(self.kind.kind, self.about.namespace, self.about.name, self.status.conditions)
        if self.about.deleting:
            return False
        news = await tools.writer.status(self.kind, self.about, stored, self.status.dump())
        said = {"kind": self.kind.kind, "namespace": self.about.namespace, "object": self.about.name}
        for note in self.notes:
            logger.log(
                logging.WARNING if note.type == "Warning" else logging.INFO,
                "%s: %s",
                note.reason,
                note.message,
                extra=said,
            )
            await tools.writer.event(self.kind, self.about, note, tools.clock())
        return news

    def complain(self) -> None:
        """The refusal, so that the key is tried again like any other failure."""
        if self.refusal:
            raise self.refusal


class Guarded:
    """A reconciler; an object whose spec it can't read says so in its conditions, and is otherwise left alone."""

    def __init__(self, inner: Reconciler, tools: Tools) -> None:
        self._inner = inner
        self._tools = tools

    async def reconcile(self, key: Key) -> float | None:
        """One look at an object."""
        try:
            return await self._inner.reconcile(key)
        except SpecInvalidError as error:
            if error.item.get("kind") == key.kind:
                await self._tell(error)
            raise

    async def _tell(self, error: SpecInvalidError) -> None:
        about, now = meta(error.item), self._tools.clock()
        status: ModelStatus | TrainingRunStatus | DriftPolicyStatus
        match error.item["kind"]:
            case "Model":
                kind, status = kinds.MODEL, unreadable(lenient_status(ModelStatus, error.item)[0], about, error, now)
            case "TrainingRun":
                run, _ = lenient_status(TrainingRunStatus, error.item)
                kind, status = kinds.TRAINING_RUN, unreadable(run, about, error, now)
            case _:
                policy, _ = lenient_status(DriftPolicyStatus, error.item)
                kind, status = kinds.DRIFT_POLICY, unreadable(policy, about, error, now)
        self._tools.states.tell(kind.kind, about.namespace, about.name, status.conditions)
        await self._tools.writer.status(kind, about, error.item.get("status") or {}, status.dump())


class ModelReconciler:
    """Models: their Services, Deployments, runs."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def reconcile(self, key: Key) -> float | None:
        """One look at a Model."""
        seen = await self._tools.observer.model(key.namespace, key.name)
        if seen is None:
            self._tools.states.forget(key.kind, key.namespace, key.name)
            return None
        observed, now = seen.observed, self._tools.clock()
        plan = model_domain.decide(observed, self._tools.settings, now)
        model = observed.model
        outcome = Outcome(kinds.MODEL, model.meta, model.status, plan.status, plan.notes)
        if not model.meta.deleting:
            rolled = await outcome.attempt(self._carry_out(observed, plan, seen.there), now)
            if rolled and not plan.notes and not plan.run and self._tools.others_wait(key):
                return 0.0  # what is to be said of it changes in a moment, and others have nothing yet
            if plan.delete_run and outcome.refusal is None:
                plan = await self._prune(model, plan, plan.delete_run)
                outcome.status, outcome.notes = plan.status, plan.notes
        news = await outcome.conclude(self._tools, seen.stored_status)
        if news or plan.run:
            self._tools.wake(_related(key, observed, plan))
        outcome.complain()
        return plan.look_again_seconds

    async def _carry_out(self, observed: ModelObserved, plan: ModelPlan, there: There) -> bool:
        """Whether a Deployment changed."""
        model, writer = observed.model, self._tools.writer
        if plan.service:
            await writer.ensure(kinds.SERVICE, stable_service(model, plan.service))
        await self._autoscaler(model, plan)
        rolled = [await writer.deployment(model, intent, there) for intent in plan.deployments]
        await self._own_services(observed, plan)
        await self._route(model, plan)
        await self._disruption_budget(model, plan, there)
        await self._retention(model, plan, there)
        await self._newdata(model, plan, there)
        if plan.run:
            await writer.create(kinds.TRAINING_RUN, training_run(model, plan.run))
        job = rehearsal_job(model, plan.rehearse, self._tools.settings) if plan.rehearse else None
        if job:
            await writer.create(kinds.JOB, job)
        if plan.repeat_rehearsal and observed.rehearsal:
            failed = observed.rehearsal.meta
            await writer.delete(kinds.JOB, failed.namespace, failed.name, failed.uid)
        if plan.hand_over:
            await writer.create(kinds.JOB, decisions_job(model, plan.hand_over, self._tools.settings))
        if plan.repeat_keeper:
            late = plan.repeat_keeper.meta
            await writer.delete(kinds.JOB, late.namespace, late.name, late.uid)
        for name in plan.delete_deployments:
            await writer.delete_owned(kinds.DEPLOYMENT, model.meta, name)
        return any(rolled)

    async def _prune(self, model: ModelView, plan: ModelPlan, old: Meta) -> ModelPlan:
        """Delete a run that is history. What is left of the plan, which no refusal stops."""
        try:
            await self._tools.writer.delete(kinds.TRAINING_RUN, old.namespace, old.name, old.uid)
        except Refused as error:
            logger.warning("TrainingRun %s/%s is history, and stays: %s", old.namespace, old.name, error)
            return pruning.stayed(plan, model.status)
        return pruning.went(plan)

    async def _own_services(self, observed: ModelObserved, plan: ModelPlan) -> None:
        """Every Deployment has the Service of its name, and no other has one."""
        model = observed.model
        there = {service.name: service for service in observed.services if service.name != model.meta.name}
        wanted = {each.meta.name for each in observed.deployments} | {each.name for each in plan.deployments}
        wanted -= set(plan.delete_deployments)
        for name in sorted(wanted):
            manifest = deployment_service(model, name)
            service = there.get(name)
            if service is None or not service.intact or dict(service.selector) != manifest["spec"]["selector"]:
                await self._tools.writer.ensure(kinds.SERVICE, manifest)
        for name in sorted(set(there) - wanted):
            await self._tools.writer.delete_owned(kinds.SERVICE, model.meta, name)

    async def _route(self, model: ModelView, plan: ModelPlan) -> None:
        """After the Services that it names."""
        wanted = httproute(model, plan.route) if plan.route else None
        if wanted:
            await self._tools.writer.ensure(kinds.HTTP_ROUTE, wanted)
        elif plan.delete_route:
            await self._tools.writer.delete_owned(kinds.HTTP_ROUTE, model.meta, model.meta.name)

    async def _autoscaler(self, model: ModelView, plan: ModelPlan) -> None:
        """Before the Deployments, so that it never argues with us about replicas."""
        wanted = autoscaler(model, plan.autoscaler) if plan.autoscaler else None
        if wanted:
            await self._tools.writer.ensure(kinds.AUTOSCALER, wanted)
        elif plan.delete_autoscaler:
            await self._tools.writer.delete_owned(kinds.AUTOSCALER, model.meta, autoscaler_name(model.meta.name))

    async def _retention(self, model: ModelView, plan: ModelPlan, there: There) -> None:
        cronjob = retention_cronjob(model, self._tools.settings) if plan.retention else None
        if cronjob:
            await self._tools.writer.ensure(kinds.CRON_JOB, cronjob, there)
        else:
            await self._tools.writer.delete_owned(kinds.CRON_JOB, model.meta, retention_name(model.meta.name), there)

    async def _newdata(self, model: ModelView, plan: ModelPlan, there: There) -> None:
        cronjob = newdata_cronjob(model, plan.count_since, self._tools.settings) if plan.count_since else None
        if cronjob:
            await self._tools.writer.ensure(kinds.CRON_JOB, cronjob, there)
        elif plan.delete_count:
            await self._tools.writer.delete_owned(kinds.CRON_JOB, model.meta, newdata_name(model.meta.name), there)

    async def _disruption_budget(self, model: ModelView, plan: ModelPlan, there: There) -> None:
        if plan.budget:
            await self._tools.writer.ensure(kinds.DISRUPTION_BUDGET, disruption_budget(model, plan.budget), there)
        else:
            await self._tools.writer.delete_owned(kinds.DISRUPTION_BUDGET, model.meta, model.meta.name, there)


def _related(key: Key, observed: ModelObserved, plan: ModelPlan) -> list[Key]:
    """What looks at this Model's status: its unfinished runs and its policies."""
    runs = [run.meta.name for run in observed.runs if not finished(run)]
    runs += [plan.run.name] if plan.run else []
    names = [("TrainingRun", name) for name in runs]
    names += [("DriftPolicy", policy.meta.name) for policy in observed.policies]
    return [Key(kind, key.namespace, name, key.model) for kind, name in names]


class RunReconciler:
    """TrainingRuns: their Jobs."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._turn = asyncio.Lock()

    async def reconcile(self, key: Key) -> float | None:
        """One look at a TrainingRun. Where slots are limited, the runs are counted and begun one after the other: two
        that see the same free slot must not both take it."""
        if self._tools.settings.max_training_runs:
            async with self._turn:
                return await self._look(key)
        return await self._look(key)

    async def _look(self, key: Key) -> float | None:
        seen = await self._tools.observer.run(key.namespace, key.name)
        if seen is None:
            self._tools.states.forget(key.kind, key.namespace, key.name)
            return None
        observed, now = seen.observed, self._tools.clock()
        plan = run_domain.decide(observed, self._tools.settings, now)
        run = observed.run
        outcome = Outcome(kinds.TRAINING_RUN, run.meta, run.status, plan.status, plan.notes)
        await outcome.attempt(self._carry_out(observed, plan), now)
        if await outcome.conclude(self._tools, seen.stored_status):
            model = run.spec.model_ref.name
            waiting = [other.meta.name for other in observed.siblings if not finished(other)]
            names = [("Model", model), *(("TrainingRun", name) for name in waiting)]
            self._tools.wake(Key(kind, key.namespace, name, model) for kind, name in names)
            if ended(plan.status.conditions):
                await self._wake_next()
        outcome.complain()
        return plan.look_again_seconds

    async def _wake_next(self) -> None:
        """A slot is free again: whose turn it is looks at once."""
        seen = await self._tools.observer.slots()
        if seen is not None:
            self._tools.wake(Key("TrainingRun", each.namespace, each.name, each.model) for each in turns(seen))

    async def _carry_out(self, observed: RunObserved, plan: RunPlan) -> None:
        if plan.create_job and observed.model and not observed.run.meta.deleting:
            settings, champion = self._tools.settings, champion_of(observed)
            last = last_valid(observed.siblings)
            fitted = fit_image_of(observed)
            job = stage_job(
                plan.create_job, observed.model, observed.run, settings, champion, plan.attempt, last, fitted
            )
            await self._tools.writer.create(kinds.JOB, job)
        for each in (*observed.earlier, *observed.jobs.values()):
            if each.stage in plan.delete_jobs and not each.meta.deleting:
                await self._tools.writer.delete(kinds.JOB, each.meta.namespace, each.meta.name, each.meta.uid)


def fit_image_of(observed: RunObserved) -> str | None:
    """The team's image that fitted, by digest, as the node of its pod named it."""
    job = observed.jobs.get("Fit")
    pods = sorted(job.pods, key=lambda pod: (pod.created, pod.name)) if job else []
    return next((pod.fit_image_id for pod in reversed(pods) if pod.fit_image_id), None)


def champion_of(observed: RunObserved) -> Champion | None:
    """The live revision, for the comparison, with the newest event that it was trained on."""
    active = observed.model.status.active if observed.model else None
    if active is None:
        return None
    made_by = next((run for run in observed.siblings if run.meta.name == active.run), None)
    data = made_by.status.data if made_by else None
    return Champion(
        revision=active.revision,
        artifact_digest=active.artifact_digest,
        trained_until=data.window_end if data else None,
    )


class PolicyReconciler:
    """DriftPolicies: their CronJobs."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def reconcile(self, key: Key) -> float | None:
        """One look at a DriftPolicy."""
        seen = await self._tools.observer.policy(key.namespace, key.name)
        if seen is None:
            self._tools.states.forget(key.kind, key.namespace, key.name)
            self._tools.policies.forget(key.namespace, key.name)
            return None
        observed, now = seen.observed, self._tools.clock()
        plan = policy_domain.decide(observed, self._tools.settings, now)
        policy = observed.policy
        about = Policy(policy.meta.namespace, policy.meta.name, policy.spec.model_ref.name)
        self._tools.policies.tell(about, plan.status)
        outcome = Outcome(kinds.DRIFT_POLICY, policy.meta, policy.status, plan.status, plan.notes)
        if not policy.meta.deleting:
            await outcome.attempt(self._carry_out(observed, plan), now)
        if await outcome.conclude(self._tools, seen.stored_status):
            self._tools.wake([Key("Model", key.namespace, policy.spec.model_ref.name, policy.spec.model_ref.name)])
        outcome.complain()
        return plan.look_again_seconds

    async def _carry_out(self, observed: PolicyObserved, plan: PolicyPlan) -> None:
        policy, model = observed.policy, observed.model
        for due in plan.tell:
            job = notice_job(model, policy, due, self._tools.settings)
            if job:
                await self._tools.writer.create(kinds.JOB, job)
        if plan.delete_cronjob:
            await self._tools.writer.delete_owned(kinds.CRON_JOB, policy.meta, monitor_name(policy.meta.name))
        active = model.status.active if model else None
        if not plan.apply_cronjob or model is None or active is None or active.revision != plan.watch_revision:
            return
        watched = Watched(active.revision, active.artifact_digest, plan.suspend_cronjob)
        cronjob = monitor_cronjob(model, policy, watched, self._tools.settings)
        if cronjob:
            await self._tools.writer.ensure(kinds.CRON_JOB, cronjob)


def reconcilers(tools: Tools) -> dict[str, Reconciler]:
    """All of them, by kind."""
    inner: dict[str, Reconciler] = {
        "Model": ModelReconciler(tools),
        "TrainingRun": RunReconciler(tools),
        "DriftPolicy": PolicyReconciler(tools),
    }
    return {kind: Guarded(reconciler, tools) for kind, reconciler in inner.items()}

"""A small world that carries plans out, as a cluster would: Deployments get pods, Jobs end, time passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from truekeep.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus, PerformanceVerdict, WindowVerdict
from truekeep.api.model import ModelSpec, ModelStatus
from truekeep.api.modelapproval import ModelApprovalSpec
from truekeep.api.names import ANNOTATION_AUTHOR, ANNOTATION_FINGERPRINT, ANNOTATION_GENERATION, serving_selector
from truekeep.api.trainingrun import TrainingRunSpec, TrainingRunStatus
from truekeep.contract.results import MonitorResult, RehearseResult, TrainResult
from truekeep.domain import model as model_domain
from truekeep.domain import policy as policy_domain
from truekeep.domain import run as run_domain
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.notices import Due
from truekeep.domain.observed import (
    Answer,
    ApprovalView,
    AutoscalerView,
    DeploymentView,
    JobView,
    Meta,
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
from truekeep.domain.plan import DeploymentIntent, ModelPlan, Note, Settings
from truekeep.domain.stages import LAST, Order, job_name, stages

START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
SETTINGS = Settings()
SPEC = {
    "store": {"s3": {"uri": "s3://models/", "credentialsSecretRef": {"name": "lake"}}},
    "data": {
        "source": {"s3": {"uri": "s3://lake/flights/"}},
        "timeColumn": "at",
        "key": "id",
        "label": {"column": "late"},
        "features": [{"name": "hour", "type": "Number"}, {"name": "carrier", "type": "Category"}],
    },
    "training": {"recipe": {"estimator": "sklearn.linear_model.LogisticRegression"}},
    "evaluation": {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.6"}]},
    "serving": {
        "replicas": 2,
        "rollout": {"steps": [{"weightPercent": 33, "durationSeconds": 10}], "minRequests": 5},
        "rollbackWindowSeconds": 60,
        "capture": {"s3": {"uri": "s3://lake/captures/"}},
    },
}
POLICY = {
    "modelRef": {"name": "m"},
    "schedule": "* * * * *",
    "window": {"hours": 24},
    "responses": [{"finding": "DataDrift", "action": "Retrain"}, {"finding": "DataQuality", "action": "Alert"}],
    "consecutiveWindows": 2,
    "cooldownSeconds": 100,
    "maxRunsPerWeek": 2,
}


def spec(**changes: object) -> ModelSpec:
    """The spec with some of its serving or training fields changed: `serving={…}`, `seed=3`."""
    base = {key: dict(value) if isinstance(value, dict) else value for key, value in SPEC.items()}
    seed = changes.pop("seed", None)
    if seed is not None:
        base["training"] = {"recipe": {**SPEC["training"]["recipe"], "seed": seed}}
    for section, fields in changes.items():
        base[section] = {**SPEC.get(section, {}), **fields}
    return ModelSpec.model_validate(base)


def result_message(run: RunView, fingerprint: str, reason: str = "Succeeded", digest: str = "a") -> str:
    """A termination message as the trainer writes it."""
    body: dict[str, object] = {
        "runUid": run.meta.uid,
        "reason": reason,
        "message": f"it ended: {reason}",
        "trainingFingerprint": fingerprint,
        "metrics": [{"name": "roc_auc", "value": "0.71"}],
    }
    if reason == "Succeeded":
        hexes = (digest.encode().hex() * 64)[:64]
        body["artifact"] = {"digest": f"sha256:{hexes}", "uri": "s3://models/x/", "sizeBytes": 9}
    return TrainResult.model_validate(body).to_message()


@dataclass
class World:
    """What a cluster would hold for one Model `m`."""

    spec: ModelSpec = field(default_factory=spec)
    now: datetime = START
    status: ModelStatus = field(default_factory=ModelStatus)
    annotations: dict[str, str] = field(default_factory=dict)
    generation: int = 1
    settings: Settings = SETTINGS
    runs: dict[str, RunView] = field(default_factory=dict)
    jobs: dict[str, JobView] = field(default_factory=dict)
    policy: PolicyView | None = None
    monitor_jobs: list[JobView] = field(default_factory=list)
    notice_jobs: dict[str, JobView] = field(default_factory=dict)  # that tell the webhook
    told: list[Due] = field(default_factory=list)
    cronjob_revision: int | None = None
    deployments: dict[str, DeploymentView] = field(default_factory=dict)
    service: ServiceView | None = None
    route: RouteView | None = None
    gateway: str = (
        "Accepted"  # what its controller says of routes: Accepted, Refused; Silent: nothing; Missing: no CRDs
    )
    gateway_sends: frozenset[str] = frozenset()  # Deployments to which it sends requests, or copies
    autoscaler: AutoscalerView | None = None
    load: int = 1  # pods that the callers keep busy
    traffic: dict[str, Traffic] | None = None  # None: nobody calls; a Deployment that is left out: unreadable
    approvals: list[ApprovalView] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)  # what Prometheus says
    counts: tuple[JobView, ...] = ()  # Jobs that counted new rows
    rehearsals: dict[str, JobView] = field(default_factory=dict)  # by Deployment
    rehearsal: dict[str, object] = field(default_factory=dict)  # what they answer, besides the defaults
    healthy: dict[str, bool] = field(default_factory=dict)  # by Deployment: do its pods get ready? Default: yes
    notes: list[Note] = field(default_factory=list)
    writes: int = 0
    jobs_made: list[str] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)  # the run of each Job that was ever made
    seconds: dict[str, int | None] = field(default_factory=dict)  # that they got
    order: Order = stages

    # what is there ---------------------------------------------------------------------------------------------

    def meta(self, name: str, uid: str | None = None, created: datetime | None = None, generation: int = 1) -> Meta:
        return Meta("ns", name, uid or f"uid-{name}", created or self.now, generation, annotations=self.annotations)

    @property
    def model(self) -> ModelView:
        return ModelView(self.meta("m", created=START, generation=self.generation), self.spec, self.status)

    def run_of(self, job: JobView) -> str:
        return self.owners[job.meta.name]

    def observed(self) -> ModelObserved:
        return ModelObserved(
            model=self.model,
            runs=tuple(self.runs.values()),
            policies=(self.policy,) if self.policy else (),
            approvals=tuple(self.approvals) if self.spec.approval.mode == "Manual" else (),
            counts=self.counts if self.spec.retraining and self.spec.retraining.new_data else (),
            deployments=tuple(self.deployments.values()),
            services=(self.service,) if self.service else (),
            autoscaler=self.autoscaler,
            gateway_api=self.gateway != "Missing",
            route=self.route,
            rehearsal=self.rehearsals.get(self.status.candidate.deployment) if self.status.candidate else None,
            answers=self.answers,
            traffic=dict.fromkeys(self.deployments, Traffic()) if self.traffic is None else self.traffic,
        )

    # what people and time do -----------------------------------------------------------------------------------

    def change(self, new: ModelSpec) -> None:
        self.spec, self.generation = new, self.generation + 1

    def watch(self, **changes: object) -> None:
        self.policy = PolicyView(
            self.meta("p"), DriftPolicySpec.model_validate({**POLICY, **changes}), DriftPolicyStatus()
        )

    def decide_on(self, digest: str, decision: str = "Approve", approver: str = "ann", **more: object) -> None:
        """A person's decision on an artifact."""
        body = {"modelRef": {"name": "m"}, "artifactDigest": digest, "reason": "seen", "approver": approver, **more}
        decided = ModelApprovalSpec.model_validate({**body, "decision": decision})
        self.approvals.append(ApprovalView(self.meta(f"decision-{len(self.approvals)}"), decided))

    def external_run(self, name: str) -> None:
        body = TrainingRunSpec.model_validate({"modelRef": {"name": "m"}})
        self.runs[name] = RunView(self.meta(name), body, TrainingRunStatus())

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def answer_route(self) -> None:
        """The Gateway's controller looks at the route."""
        if self.route is None:
            self.gateway_sends = frozenset()
        elif self.gateway in ("Accepted", "Refused"):
            self.route = replace(self.route, verdict=self.gateway, message="not allowed")
            reached = {*self.route.weights, *([self.route.mirror] if self.route.mirror else [])}
            self.gateway_sends = frozenset(reached) if self.gateway == "Accepted" else frozenset()

    def scale(self) -> None:
        """The autoscaler's controller looks at the load."""
        scaling, seen = self.spec.serving.autoscaling, self.autoscaler
        view = self.deployments.get(seen.deployment) if seen else None
        if scaling is None or seen is None or view is None or view.replicas == 0:
            return
        self.deployments[view.meta.name] = replace(
            view, replicas=min(max(self.load, seen.least), max(scaling.max_replicas, seen.least))
        )

    def settle_pods(self) -> None:
        """Pods get ready, where their Deployment is healthy; those that ought to go linger for one round first."""
        for name, view in self.deployments.items():
            good = self.healthy.get(name, True)
            pods = tuple(
                PodView(f"{name}-{i}", view.meta.created, phase="Running", ready=True)
                if good
                else PodView(f"{name}-{i}", view.meta.created, exit_code=137, exit_reason="OOMKilled", restarts=3)
                for i in range(view.replicas)
            )
            leaving = tuple(
                replace(pod, ready=False, deleting=True) for pod in view.pods[view.replicas :] if not pod.deleting
            )
            self.deployments[name] = replace(view, pods=pods + leaving, ready=view.replicas if good else 0)

        for name, job in self.rehearsals.items():
            view = self.deployments.get(name)
            if not job.complete and view is not None and view.ready:
                seen = {"rows": 100, "requests": 10, "failed": 0, "predictionShift": "0.1", **self.rehearsal}
                reason = str(seen.pop("reason", "Rehearsed"))
                result = RehearseResult.model_validate({"candidate": name, "reason": reason, "rehearsal": seen})
                message = result.model_dump_json(by_alias=True)
                pod = PodView(f"{name}-rehearsal", self.now, exit_code=0, exit_message=message, finished=self.now)
                self.rehearsals[name] = replace(job, complete=True, finished=self.now, pods=(pod,))

    def end_job(self, name: str, reason: str = "Succeeded", digest: str = "a", **pod: object) -> None:
        """The pod of a Job of a run ends, with a result or as `pod` says."""
        job = self.jobs.get(name)
        if job is None:
            return
        run = self.runs[self.run_of(job)]
        if job.complete or job.failed_reason:
            return
        if pod:
            view = PodView(f"{name}-x", self.now, phase="Failed", **pod)
            self.jobs[name] = replace(job, failed_reason="PodFailurePolicy", finished=self.now, pods=(view,))
            return
        if job.stage != LAST and reason == "Succeeded":
            view = PodView(f"{name}-x", self.now, phase="Succeeded", exit_code=0, finished=self.now)
            self.jobs[name] = replace(job, complete=True, finished=self.now, pods=(view,))
            return
        good = reason in {"Succeeded", "GatesFailed", "ChampionKept"}
        message = result_message(run, job.meta.annotations[ANNOTATION_FINGERPRINT], reason, digest)
        view = PodView(f"{name}-x", self.now, exit_code=0 if good else 3, exit_message=message, finished=self.now)
        failed = None if good else "PodFailurePolicy"
        self.jobs[name] = replace(job, complete=good, failed_reason=failed, finished=self.now, pods=(view,))

    def end_notices(self, words: str = "") -> None:
        """The Jobs that tell the webhook end: well, or with these last words."""
        for name, job in self.notice_jobs.items():
            if job.complete or job.failed_reason:
                continue
            pod = PodView(f"{name}-x", self.now, exit_code=4 if words else 0, exit_message=words, finished=self.now)
            failed = "BackoffLimitExceeded" if words else None
            self.notice_jobs[name] = replace(
                job, complete=not words, failed_reason=failed, finished=self.now, pods=(pod,)
            )

    def report(
        self,
        *days: int,
        verdict: str = "Drift",
        revision: int | None = None,
        kinds: Sequence[str] = ("DataDrift",),
        performance: Sequence[PerformanceVerdict] = (),
        newest: datetime | None = None,
    ) -> None:
        """A monitor reports windows, each a day of January by its number."""
        assert self.policy is not None
        revision = revision or (self.status.active.revision if self.status.active else 1)
        windows = [
            WindowVerdict.model_validate(
                {
                    "start": datetime(2026, 1, day, tzinfo=UTC),
                    "end": datetime(2026, 1, day, tzinfo=UTC) + timedelta(days=1),
                    "revision": revision,
                    "rows": 5000,
                    "verdict": verdict,
                    "kinds": list(kinds) if verdict == "Drift" else [],
                    "columns": 1 if verdict == "Drift" else 0,
                }
            )
            for day in sorted(days, reverse=True)
        ]
        finding = {"kind": "DataDrift", "column": "hour", "statistic": "ks", "value": "0.5", "threshold": "0.1"}
        result = MonitorResult.model_validate(
            {
                "policyUid": self.policy.meta.uid,
                "revision": revision,
                "reason": "Looked",
                "windows": windows,
                "performance": list(performance),
                "newestEvent": newest,
                "findings": [{**finding, "message": "`hour` moved"}] if verdict == "Drift" else [],
            }
        )
        name = f"look-{len(self.monitor_jobs)}"
        pod = PodView(name, self.now, exit_code=0, exit_message=result.to_message(), finished=self.now)
        self.monitor_jobs.append(JobView(self.meta(name), complete=True, finished=self.now, pods=(pod,)))

    # what the operator does -------------------------------------------------------------------------------------

    def reconcile(self, stop_after: int | None = None) -> int:
        """One look at everything; answers how many writes it made. stop_after: killed after so many writes."""
        before = self.writes
        budget = [stop_after if stop_after is not None else 10**6]
        for step in (self._reconcile_model, self._reconcile_runs, self._reconcile_policy):
            step(budget)
        return self.writes - before

    def _write(self, budget: list[int]) -> bool:
        if budget[0] <= 0:
            return False
        budget[0] -= 1
        self.writes += 1
        return True

    def _reconcile_model(self, budget: list[int]) -> None:
        plan = model_domain.decide(self.observed(), self.settings, self.now)
        if plan.service is not None and self._write(budget):
            self._switch(plan)
        if plan.route is not None and self._write(budget):
            verdict = "Stale" if self.route and self.route.verdict == "Accepted" else "Unanswered"
            if self.route is not None and self.route.verdict != "Accepted":
                verdict = self.route.verdict
            created = self.route.created if self.route else self.now
            self.route = RouteView(
                dict(plan.route.weights), plan.route.mirror, verdict, "not allowed", created, changed=self.now
            )
        if plan.delete_route and self._write(budget):
            self.route, self.gateway_sends = None, frozenset()
        if plan.autoscaler is not None and self._write(budget):
            assert plan.status.active
            assert plan.autoscaler.deployment == plan.status.active.deployment, "only the live revision is scaled"
            self.autoscaler = AutoscalerView(plan.autoscaler.deployment, True, plan.autoscaler.least, working=True)
        if plan.delete_autoscaler and self._write(budget):
            self.autoscaler = None
        for intent in plan.deployments:
            if self._write(budget):
                self._deploy(intent)
        if plan.run is not None and plan.run.name not in self.runs and self._write(budget):
            body = TrainingRunSpec.model_validate({"modelRef": {"name": "m"}, "trigger": plan.run.trigger.dump()})
            self.runs[plan.run.name] = RunView(self.meta(plan.run.name), body, TrainingRunStatus())
        candidate = plan.rehearse
        if candidate and candidate.deployment not in self.rehearsals and self._write(budget):
            self.rehearsals[candidate.deployment] = JobView(self.meta(f"{candidate.deployment}-rehearsal"))
        if plan.repeat_rehearsal and self._write(budget):
            del self.rehearsals[self.status.candidate.deployment]
        for name in plan.delete_deployments:
            if self._write(budget):
                assert not self.deployments[name].pods
                del self.deployments[name]
        if plan.status.dump() != self.status.dump() and self._write(budget):
            self.status = ModelStatus.model_validate_json(plan.status.model_dump_json(by_alias=True))
            self.notes += plan.notes

    def _switch(self, plan: ModelPlan) -> None:
        assert plan.service is not None
        name = plan.service.deployment
        if name is not None and self.service is not None and self.spec.serving.replicas > 0:
            chosen = self.deployments.get(name)
            others = [d for d in self.deployments.values() if d.ready and d.meta.name != name]
            assert (chosen and chosen.ready) or not others, f"the selector would leave ready pods for {name}"
        if name is None:
            allowed = {served.deployment for served in (plan.status.active, plan.status.candidate) if served}
            strangers = [d.meta.name for d in self.deployments.values() if d.pods and d.meta.name not in allowed]
            assert not strangers, f"the widened selector reaches {strangers}"
        self.service = ServiceView("m", serving_selector("m", name))

    def _deploy(self, intent: DeploymentIntent) -> None:
        selected = self.service.selector if self.service else {}
        if intent.replicas == 0 and self.spec.serving.gateway and self.spec.serving.replicas > 0:
            assert intent.name not in self.gateway_sends or self.gateway != "Accepted", "the Gateway still sends there"
        if intent.replicas == 0 and selected == serving_selector("m", intent.name):
            assert self.spec.serving.replicas == 0, "pods would go while the selector names them"
        old = self.deployments.get(intent.name)
        argues = self.autoscaler is not None and self.autoscaler.deployment == intent.name and old is not None
        assert intent.scaled or not argues or not old.replicas, "the operator argues with the autoscaler"
        if old is not None:
            replicas = old.replicas if intent.scaled else intent.replicas
            self.deployments[intent.name] = replace(old, replicas=replicas, intact=True)
            return
        self.deployments[intent.name] = DeploymentView(
            self.meta(intent.name),
            intent.revision,
            intent.run,
            intent.artifact_digest,
            intent.serving_key,
            self.settings.server_image,
            intent.replicas,
        )

    def _reconcile_runs(self, budget: list[int]) -> None:
        for name in sorted(self.runs):
            run = self.runs[name]
            siblings = tuple(other for other in self.runs.values() if other.meta.name != name)
            mine = sorted((j for j in self.jobs.values() if self.run_of(j) == name), key=lambda j: j.attempt)
            newest = {job.stage: job for job in mine}
            earlier = tuple(job for job in mine if job is not newest[job.stage])
            observed = RunObserved(run, self.model, siblings, newest, earlier)
            plan = run_domain.decide(observed, SETTINGS, self.now, self.order)
            made = job_name(name, plan.create_job, plan.attempt.number) if plan.create_job else ""
            if plan.create_job and made not in self.jobs and self._write(budget):
                marks = {
                    ANNOTATION_FINGERPRINT: training_fingerprint(self.spec),
                    ANNOTATION_GENERATION: str(self.generation),
                }
                author = self.annotations.get(ANNOTATION_AUTHOR)
                marks |= {ANNOTATION_AUTHOR: author} if author else {}
                about = replace(self.meta(made), annotations=marks)
                limits = self.spec.training.resources.limits
                memory = plan.attempt.memory or (limits.memory if limits else None) or "4Gi"
                self.jobs[made] = JobView(about, stage=plan.create_job, attempt=plan.attempt.number, memory=memory)
                self.owners[made] = name
                self.seconds[made] = plan.attempt.seconds
                self.jobs_made.append(made)
            for job in mine:
                if job.stage in plan.delete_jobs and self._write(budget):
                    del self.jobs[job.meta.name]
            if plan.status.dump() != run.status.dump() and self._write(budget):
                status = TrainingRunStatus.model_validate_json(plan.status.model_dump_json(by_alias=True))
                self.runs[name] = replace(run, status=status)
                self.notes += plan.notes

    def _reconcile_policy(self, budget: list[int]) -> None:
        if self.policy is None:
            return
        plan = policy_domain.decide(
            PolicyObserved(
                self.policy,
                self.model,
                tuple(self.runs.values()),
                tuple(self.monitor_jobs),
                notices=tuple(self.notice_jobs.values()),
                cronjob_intact=True if self.cronjob_revision is not None else None,
                cronjob_revision=self.cronjob_revision,
            ),
            SETTINGS,
            self.now,
        )
        for due in plan.tell:
            if self._write(budget):
                assert due.job not in self.notice_jobs, "a turn would be told twice"
                self.notice_jobs[due.job] = JobView(self.meta(due.job))
                self.told.append(due)
        if plan.apply_cronjob and self._write(budget):
            self.cronjob_revision = plan.watch_revision
        if plan.status.dump() != self.policy.status.dump() and self._write(budget):
            status = DriftPolicyStatus.model_validate_json(plan.status.model_dump_json(by_alias=True))
            self.policy = replace(self.policy, status=status)
            self.notes += plan.notes

    # shortcuts ---------------------------------------------------------------------------------------------------

    def calm(self, rounds: int = 80, train: str = "Succeeded", quiet_rounds: int = 20, step: float = 5) -> None:
        """Lets everything come to rest: Jobs end, pods settle, time passes, until nothing is written for a while."""
        quiet = 0
        for _ in range(rounds):
            for name in list(self.jobs):
                self.end_job(name, train, digest=name)
            self.scale()
            self.answer_route()
            self.settle_pods()
            quiet = quiet + 1 if self.reconcile() == 0 else 0
            self.pass_time(step)
            if quiet >= quiet_rounds:
                return
        raise AssertionError(f"no rest after {rounds} rounds")

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(condition for condition in self.status.conditions if condition.type == kind)
        return found.status, found.reason

    def reasons(self) -> list[str]:
        return [note.reason for note in self.notes]

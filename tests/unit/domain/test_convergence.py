"""From any state that people, pods and crashes can bring about, repeated looks come to rest and then write nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.domain.world import SETTINGS, SPEC, World, spec
from truekeep.api.driftpolicy import PerformanceVerdict
from truekeep.api.model import ModelStatus
from truekeep.api.names import ANNOTATION_RETRAIN
from truekeep.api.trainingrun import Stage
from truekeep.domain.fingerprints import serving_key
from truekeep.domain.histogram import Histogram
from truekeep.domain.observed import Traffic
from truekeep.domain.stand import finished
from truekeep.domain.wish import Target, is_rejected

SPECS = (
    spec(),
    spec(seed=1),
    spec(seed=2, serving={"replicas": 3}),
    spec(serving={"replicas": 1, "connectionMaxAgeSeconds": 5}),
    spec(serving={"rollout": {"strategy": "BlueGreen"}, "rollbackWindowSeconds": 0}),
    spec(
        serving={
            "rollout": {
                "steps": [{"weightPercent": 10, "durationSeconds": 5}, {"weightPercent": 50, "durationSeconds": 5}]
            }
        }
    ),
    spec(serving={"rollout": {"strategy": "BlueGreen", "maxP99Milliseconds": 50, "maxPredictionShift": "0.3"}}),
    spec(seed=3, serving={"rollout": {"onInconclusive": "Promote", "maxP99Milliseconds": 50}, "keptRevisions": 2}),
    spec(serving={"pinnedRevision": 1}),
    spec(seed=4, approval={"mode": "Manual"}),
    spec(approval={"mode": "Manual"}, serving={"pinnedRevision": 2}),
    spec(serving={"pinnedRevision": 4}),
    spec(seed=1, serving={"replicas": 0}),
    spec(serving={"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}),
    spec(seed=4, serving={"gateway": {"name": "g"}}),
    spec(seed=5, serving={"gateway": {"name": "g"}, "rollout": {"strategy": "Shadow", "shadowSeconds": 10}}),
    spec(seed=6, serving={"gateway": {"name": "g"}, "rollout": {"strategy": "BlueGreen"}, "rollbackWindowSeconds": 0}),
    spec(seed=3, serving={"autoscaling": {"minReplicas": 3, "maxReplicas": 3}, "rollbackWindowSeconds": 0}),
    spec(serving={"replicas": 0, "autoscaling": {"minReplicas": 2, "maxReplicas": 4}}),
    spec(training={**SPEC["training"], "retries": {"limit": 0}}),
    spec(training={**SPEC["training"], "retries": {"limit": 9, "memory": {"limit": "64Gi", "factor": "1.5"}}}),
)
REASONS = ("Succeeded", "Succeeded", "Succeeded", "DataInvalid", "GatesFailed", "ChampionKept", "StoreUnreachable")

actions = st.one_of(
    st.tuples(st.just("look"), st.none() | st.integers(0, 4)),
    st.tuples(st.just("look"), st.none()),
    st.tuples(st.just("pods"), st.none()),
    st.tuples(st.just("time"), st.sampled_from([1, 6, 12, 61, 700])),
    st.tuples(st.just("job"), st.sampled_from(REASONS)),
    st.tuples(st.just("oom"), st.none()),
    st.tuples(st.just("evict"), st.none()),
    st.tuples(st.just("crash"), st.none()),
    st.tuples(st.just("lose pods"), st.none()),
    st.tuples(st.just("spec"), st.integers(0, len(SPECS) - 1)),
    st.tuples(st.just("retrain"), st.sampled_from("xyz")),
    st.tuples(st.just("external"), st.sampled_from("abc")),
    st.tuples(st.just("windows"), st.integers(6, 20)),
    st.tuples(st.just("sick"), st.booleans()),
    st.tuples(st.just("errors"), st.booleans()),
    st.tuples(st.just("live errors"), st.booleans()),
    st.tuples(st.just("slow"), st.booleans()),
    st.tuples(st.just("few requests"), st.none()),
    st.tuples(st.just("labels"), st.sampled_from(["Decayed", "Holds"])),
    st.tuples(st.just("delete deployment"), st.none()),
    st.tuples(st.just("touch deployment"), st.none()),
    st.tuples(st.just("decide"), st.sampled_from(["Approve", "Approve", "Reject"])),
    st.tuples(st.just("load"), st.integers(1, 6)),
    st.tuples(st.just("delete autoscaler"), st.none()),
    st.tuples(st.just("gateway"), st.sampled_from(["Accepted", "Accepted", "Refused", "Silent", "Missing"])),
    st.tuples(st.just("answer route"), st.none()),
    st.tuples(st.just("touch route"), st.none()),
    st.tuples(st.just("delete route"), st.none()),
    st.tuples(st.just("delete job"), st.none()),
)


def act(world: World, kind: str, value: object) -> None:
    newest = max(world.deployments.values(), key=lambda d: (d.revision, d.meta.name), default=None)
    match kind:
        case "look":
            world.reconcile(stop_after=value)
        case "pods":
            world.settle_pods()
        case "time":
            world.pass_time(value)
        case "job":
            for name in list(world.jobs):
                world.end_job(name, value, digest=name)
        case "oom":
            for name in list(world.jobs):
                world.end_job(name, exit_code=137, exit_reason="OOMKilled")
        case "evict":
            for name in list(world.jobs):
                world.end_job(name, exit_code=143, disruption="EvictionByEvictionAPI")
        case "crash":
            for name in list(world.jobs):
                world.end_job(name, exit_code=1, exit_message="Traceback")
        case "lose pods":
            world.jobs = {name: replace(job, pods=()) for name, job in world.jobs.items()}
        case "delete job":
            world.jobs.clear()
        case "spec":
            world.change(SPECS[value])
        case "retrain":
            world.annotations = {ANNOTATION_RETRAIN: value}
        case "external":
            if value not in world.runs:
                world.external_run(value)
        case "windows":
            if world.status.active is not None:
                world.report(value, value + 1)
        case "sick" if newest is not None:
            world.healthy[newest.meta.name] = not value
            world.settle_pods()
        case "errors" if newest is not None:
            others = dict.fromkeys(world.deployments, Traffic(100, 0))
            world.traffic = {**others, newest.meta.name: Traffic(100, 50)} if value else None
        case "decide" if world.status.awaiting is not None:
            world.decide_on(world.status.awaiting.artifact_digest, value)
        case "load":
            world.load = value
            world.scale()
        case "gateway":
            world.gateway = value
            if value == "Missing":
                world.route, world.gateway_sends = None, frozenset()
        case "answer route":
            world.answer_route()
        case "touch route" if world.route is not None:
            world.route = replace(world.route, intact=False)
        case "delete route":
            world.route, world.gateway_sends = None, frozenset()
        case "delete autoscaler":
            world.autoscaler = None
        case "live errors" if world.status.active is not None:
            others = dict.fromkeys(world.deployments, Traffic(100, 0))
            world.traffic = {**others, world.status.active.deployment: Traffic(100, 50)} if value else None
        case "slow" if newest is not None:
            times = Histogram((0.01, 1.0), (0, 100, 0) if value else (100, 0, 0))
            world.traffic = dict.fromkeys(world.deployments, Traffic(100, 0, times))
        case "few requests":
            world.traffic = dict.fromkeys(world.deployments, Traffic(2, 1))
        case "labels" if world.status.active is not None and world.policy is not None:
            judged = PerformanceVerdict(
                start=world.now,
                end=world.now,
                revision=world.status.active.revision,
                metric="roc_auc",
                baseline="0.7",
                verdict=value,
                value="0.5",
            )
            known = world.policy.status.performance[:20]
            status = world.policy.status.model_copy(update={"performance": [judged, *known]})
            world.policy = replace(world.policy, status=status)
        case "delete deployment" if newest is not None:
            del world.deployments[newest.meta.name]
        case "touch deployment" if newest is not None:
            world.deployments[newest.meta.name] = replace(newest, intact=False, replicas=newest.replicas + 1)


def never_forward_to_what_failed(world: World, before: ModelStatus) -> None:
    """What was rejected takes over no more under the same spec, unless as the way back, or because it is pinned."""
    active = world.status.active
    if active is None or world.spec.serving.pinned_revision is not None:
        return
    known = {served.deployment for served in (before.active, before.previous, before.former) if served}
    if active.deployment in known:
        return
    view = world.deployments.get(active.deployment)
    key = view.serving_key if view else serving_key(world.spec)
    target = Target(active.revision, active.run, active.artifact_digest, active.deployment, key)
    assert not is_rejected(world.observed(), target, SETTINGS), "a rejected revision was promoted"


ORDERS: tuple[tuple[Stage, ...], ...] = (("Train",), ("Tune", "Train"), ("Fit", "Train"), ("Tune", "Fit", "Train"))


@given(st.lists(actions, max_size=40), st.sampled_from(ORDERS))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_it_comes_to_rest_and_then_writes_nothing(script: list[tuple[str, object]], order: tuple[Stage, ...]) -> None:
    world = World(order=lambda spec: order)
    world.watch(
        performance={"metric": "roc_auc"},
        responses=[{"finding": "DataDrift", "action": "Retrain"}, {"finding": "Performance", "action": "Rollback"}],
    )
    for kind, value in script:
        before, status = world.status.latest_revision, world.status
        act(world, kind, value)
        assert world.status.latest_revision >= before
        never_forward_to_what_failed(world, status)
    # From here on the world is kind: pods get ready, runs succeed.
    world.healthy.clear()
    world.traffic = None
    world.gateway = "Accepted"
    world.calm(rounds=400, quiet_rounds=40, step=20)
    assert world.reconcile() == 0

    assert all(finished(run) for run in world.runs.values())
    numbers = [run.status.revision for run in world.runs.values() if run.status.revision]
    assert len(numbers) == len(set(numbers)), "a revision number was given twice"
    assert world.status.candidate is None
    if numbers and world.spec.serving.replicas:
        withheld = world.condition("Approved")[0] == "False"
        assert world.status.active or world.status.rejected or world.spec.serving.pinned_revision or withheld
    causes = [
        (run.spec.trigger.policy.revision, run.spec.trigger.policy.window_end)
        for run in world.runs.values()
        if run.spec.trigger.policy
    ]
    assert len(causes) == len(set(causes)), "a breach was answered twice"
    values = [run.spec.trigger.value for run in world.runs.values() if run.spec.trigger.type == "Manual"]
    assert len(values) == len(set(values)), "an annotation was answered twice"

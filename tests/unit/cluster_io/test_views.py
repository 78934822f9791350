from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.resources.samples import FULL, INTENT, SETTINGS, model
from truekeep.api.model import ModelStatus
from truekeep.cluster.views import (
    SpecInvalidError,
    autoscaler_view,
    deployment_view,
    disrupted_pod,
    disruption_by_events,
    frozen_template,
    job_view,
    lenient_status,
    model_view,
    node_is_emptied,
    owned_by,
    parsed_time,
    pod_view,
    policy_view,
    route_view,
    run_view,
    service_view,
)
from truekeep.domain.plan import ServiceIntent
from truekeep.resources.services import stable_service
from truekeep.resources.serving_deployment import serving_deployment

Json = dict[str, Any]
META = {
    "namespace": "demo",
    "name": "x",
    "uid": "u",
    "creationTimestamp": "2026-11-23T06:50:17Z",
    "generation": 3,
    "resourceVersion": "77",
}


def pod(**status: Any) -> Json:
    return {"metadata": META, "spec": {}, "status": status}


def container(**state: Any) -> Json:
    return {"name": "trainer", "ready": False, "restartCount": 0, "state": state}


# As kubelets and schedulers wrote them.
RUNNING = pod(
    phase="Running",
    podIP="10.244.0.17",
    conditions=[{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
    containerStatuses=[container(running={"startedAt": "2026-11-23T06:50:20Z"})],
)
OUT_OF_MEMORY = pod(
    phase="Failed",
    containerStatuses=[
        container(
            terminated={
                "exitCode": 137,
                "reason": "OOMKilled",
                "startedAt": "2026-11-23T06:50:20Z",
                "finishedAt": "2026-11-23T06:50:31Z",
            }
        )
    ],
)
PULL = pod(
    phase="Pending",
    conditions=[{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
    containerStatuses=[
        container(waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/x:1"'})
    ],
)
UNSCHEDULABLE = pod(
    phase="Pending",
    conditions=[
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient memory.",
        }
    ],
)
GATED = pod(
    phase="Pending",
    conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "…"}],
)
EVICTED = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
CRASHING = pod(
    phase="Running",
    conditions=[{"type": "Ready", "status": "False"}],
    containerStatuses=[
        {
            **container(waiting={"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}),
            "restartCount": 2,
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "ValueError: no"}},
        }
    ],
)
CREATING = pod(
    phase="Pending",
    conditions=[{"type": "PodScheduled", "status": "True"}],
    containerStatuses=[container(waiting={"reason": "ContainerCreating"})],
)


def test_a_running_pod() -> None:
    view = pod_view(RUNNING)
    assert (view.phase, view.ready, view.ip, view.exit_code) == ("Running", True, "10.244.0.17", None)
    assert view.created == datetime(2026, 11, 23, 6, 50, 17, tzinfo=UTC)


def test_a_pod_that_was_killed_for_its_memory() -> None:
    view = pod_view(OUT_OF_MEMORY)
    assert (view.exit_code, view.exit_reason) == (137, "OOMKilled")
    assert view.finished == datetime(2026, 11, 23, 6, 50, 31, tzinfo=UTC)


def test_an_image_that_cannot_be_pulled() -> None:
    view = pod_view(PULL)
    assert view.waiting_reason == "ImagePullBackOff"
    assert "nowhere/x:1" in view.waiting_message


def test_a_pod_that_no_node_takes() -> None:
    assert pod_view(UNSCHEDULABLE).unschedulable == "0/1 nodes are available: 1 Insufficient memory."
    assert pod_view(GATED).unschedulable is None  # somebody holds it back on purpose


def test_an_evicted_pod() -> None:
    view = pod_view(EVICTED)
    assert (view.exit_code, view.exit_reason) == (None, "Evicted")
    assert "low on resource" in view.exit_message


def test_a_pod_that_crashes_and_is_restarted() -> None:
    view = pod_view(CRASHING)
    assert (view.restarts, view.exit_code, view.exit_message) == (2, 1, "ValueError: no")
    assert view.waiting_reason == "CrashLoopBackOff"


def test_events_say_why_a_pod_waits_for_its_mounts() -> None:
    event = {"reason": "FailedMount", "note": 'secret "lake" not found'}
    view = pod_view(CREATING, [event])
    assert (view.waiting_reason, view.waiting_message) == ("ContainerCreating", 'secret "lake" not found')
    assert pod_view(PULL, [event]).waiting_message.startswith("Back-off")  # who says why himself is believed


JOB_FAILED: Json = {
    "metadata": META,
    "spec": {"backoffLimit": 2},
    "status": {
        "conditions": [
            {"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"},
            {
                "type": "Failed",
                "status": "True",
                "reason": "PodFailurePolicy",
                "message": "Container trainer for pod demo/x failed with exit code 3",
                "lastTransitionTime": "2026-11-23T06:51:00Z",
            },
        ]
    },
}


def test_a_failed_job() -> None:
    view = job_view(JOB_FAILED)
    assert (view.complete, view.failed_reason, view.finished) == (
        False,
        "PodFailurePolicy",
        datetime(2026, 11, 23, 6, 51, tzinfo=UTC),
    )


def test_a_job_that_is_under_way_or_suspended() -> None:
    view = job_view({"metadata": META, "spec": {"suspend": True}, "status": {}}, create_error="exceeded quota: small")
    assert (view.complete, view.failed_reason, view.suspended) == (False, None, True)
    assert view.create_error == "exceeded quota: small"


def live_deployment(**changes: Any) -> Json:
    item = serving_deployment(model(), INTENT, SETTINGS)
    item["metadata"] = {**META, **item["metadata"], "uid": "u"}
    item["spec"] = {**item["spec"], **changes}
    # What the API server adds by itself.
    item["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    item["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
    del item["spec"]["minReadySeconds"]
    return copy.deepcopy(item)


def wanted_for(item: Json) -> Json:
    return serving_deployment(model(), INTENT, SETTINGS, frozen_template(item), scaled_by_others=True)


def test_a_deployment_as_it_should_be() -> None:
    item = live_deployment(replicas=7)
    item["status"] = {"readyReplicas": 1}
    view = deployment_view(item, [pod_view(RUNNING)], wanted_for(item))
    assert view.intact  # how many replicas is another question
    assert (view.revision, view.replicas, view.ready, view.image) == (3, 7, 1, "registry.example/server:1")
    assert (view.artifact_digest, view.serving_key) == (INTENT.artifact_digest, INTENT.serving_key)


def test_a_deployment_that_somebody_changed() -> None:
    item = live_deployment()
    item["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
    assert not deployment_view(item, [], wanted_for(item)).intact


def test_a_deployment_whose_frozen_template_is_lost() -> None:
    item = live_deployment()
    item["metadata"]["annotations"]["truekeep.dev/template"] = "{}"
    assert frozen_template(item) is None
    assert not deployment_view(item, [], None).intact


def test_a_quota_that_refuses_a_pod() -> None:
    item = live_deployment()
    message = 'pods "x" is forbidden: exceeded quota: small'
    item["status"] = {
        "conditions": [
            {"type": "Available", "status": "False"},
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message},
        ]
    }
    assert deployment_view(item, [], wanted_for(item)).create_error == message


def test_a_service_is_intact_whatever_its_selector() -> None:
    wanted = stable_service(model(), ServiceIntent("flight-delay", None))
    item = copy.deepcopy(wanted)
    item["spec"]["clusterIP"] = "10.96.1.1"
    item["spec"]["selector"] = {"app": "other"}
    assert service_view(item, wanted).intact
    item["spec"]["ports"][0]["targetPort"] = 9999
    view = service_view(item, wanted)
    assert not view.intact
    assert view.selector == {"app": "other"}


def test_children_of_an_owner_that_is_gone_are_not_ours() -> None:
    def child(name: str, uid: str | None) -> Json:
        owners = [{"uid": uid, "controller": True}] if uid else []
        return {"metadata": {"name": name, "ownerReferences": owners}}

    items = [child("ours", "new"), child("leftover", "old"), child("orphan", None)]
    assert [item["metadata"]["name"] for item in owned_by(items, "new")] == ["ours", "orphan"]


@pytest.mark.parametrize(
    "garbage",
    [
        "text",
        7,
        [],
        {"conditions": 5},
        {"conditions": [{"type": "Ready"}]},
        {"active": {"revision": "many"}},
        {"latestRevision": -4},
        {"previous": [1], "candidate": "x", "rejected": {}},
    ],
)
def test_garbage_in_a_status_crashes_nothing(garbage: Any) -> None:
    status, problem = lenient_status(ModelStatus, {"metadata": META, "status": garbage})
    assert isinstance(status, ModelStatus)
    assert status.active is None
    assert bool(problem) == isinstance(garbage, dict)


def test_what_is_sound_in_a_status_is_kept() -> None:
    stored = {"latestRevision": 4, "metric": "roc_auc 0.7", "candidate": {"revision": 0}}
    status, problem = lenient_status(ModelStatus, {"metadata": META, "status": stored})
    assert (status.latest_revision, status.metric, status.candidate) == (4, "roc_auc 0.7", None)
    assert problem is not None
    assert "candidate" in problem


def test_annotations_of_any_kind_are_text() -> None:
    item = {"metadata": {**META, "annotations": {"truekeep.dev/retrain": 7, "x": None}}, "spec": FULL}
    view, problem = model_view(item)
    assert view.meta.annotations == {"truekeep.dev/retrain": "7", "x": "None"}
    assert problem is None
    assert (view.meta.generation, view.meta.resource_version) == (3, "77")


@pytest.mark.parametrize("view", [model_view, run_view, policy_view])
def test_a_spec_that_cannot_be_read_says_where(view: Any) -> None:
    with pytest.raises(SpecInvalidError, match="spec can't be read by this version of the operator: "):
        view({"metadata": META, "spec": {"modelRef": 3, "store": 4}})


@pytest.mark.parametrize("text", [None, "", "yesterday", 7, {}])
def test_a_time_that_is_none(text: Any) -> None:
    assert parsed_time(text) is None


def test_a_frozen_template_survives_json() -> None:
    item = live_deployment()
    frozen = frozen_template(item)
    assert frozen is not None
    assert json.loads(item["metadata"]["annotations"]["truekeep.dev/template"]) == frozen


PARENT = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "infra", "name": "public"}


def answer(generation: int = 3, parent: Json | None = None, **conditions: tuple[str, str]) -> Json:
    """What a Gateway's controller writes about a route."""
    said = [
        {"type": kind, "status": status, "reason": reason, "message": f"about {kind}", "observedGeneration": generation}
        for kind, (status, reason) in conditions.items()
    ]
    return {"parentRef": {**PARENT, **(parent or {})}, "controllerName": "x/y", "conditions": said}


GOOD = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
NOT_ALLOWED = {**GOOD, "Accepted": ("False", "NotAllowedByListeners")}
NO_BACKEND = {**GOOD, "ResolvedRefs": ("False", "BackendNotFound")}


@pytest.mark.parametrize(
    ("parents", "verdict"),
    [
        ([], "Unanswered"),
        ([answer(**GOOD)], "Accepted"),
        ([answer(2, **GOOD)], "Stale"),
        ([answer(Accepted=("True", "Accepted"))], "Accepted"),
        ([answer(**NOT_ALLOWED)], "Refused"),
        ([answer(2, **NO_BACKEND)], "Refused"),
        ([answer(parent={"name": "other"}, **GOOD)], "Unanswered"),
        ([answer(parent={"sectionName": "https"}, **GOOD)], "Accepted"),
        ([answer(**NOT_ALLOWED), answer(**GOOD)], "Accepted"),
        ([{"parentRef": PARENT}], "Unanswered"),
    ],
)
def test_what_a_gateway_says_of_a_route(parents: list[Json], verdict: str) -> None:
    services = [{"name": "live", "weight": 67}, {"name": "candidate", "weight": 33}, {"name": "gone", "weight": 0}]
    copy_to = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shadow"}}}
    route = {
        "metadata": {
            **META,
            "managedFields": [
                {"manager": "truekeep", "time": "2026-11-23T07:00:00Z"},
                {"manager": "gateway", "time": "2026-11-23T07:10:00Z"},
            ],
        },
        "spec": {"rules": [{"filters": [copy_to], "backendRefs": services}]},
        "status": {"parents": parents},
    }
    seen = route_view(route, PARENT, None)
    assert seen.verdict == verdict
    assert dict(seen.weights) == {"live": 67, "candidate": 33}
    assert seen.mirror == "shadow"
    assert seen.changed == datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
    if verdict == "Refused":
        assert "False" in seen.message


def test_a_broken_route_breaks_nothing() -> None:
    for spec in ({}, {"rules": None}, {"rules": [{}]}, {"rules": [{"backendRefs": [{}]}]}):
        assert route_view({"metadata": META, "spec": spec, "status": {"parents": [{}]}}, PARENT, None).mirror is None


def test_an_autoscaler_says_what_it_scales_and_what_it_misses() -> None:
    blind = [{"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "no metrics"}]
    spec = {"scaleTargetRef": {"name": "live"}, "minReplicas": 2}
    seen = autoscaler_view({"metadata": META, "spec": spec, "status": {"conditions": blind}}, {})
    assert (seen.deployment, seen.least, seen.problem, seen.working) == ("live", 2, "no metrics", False)


@pytest.mark.parametrize(
    ("spec", "emptied"),
    [
        ({}, False),
        ({"unschedulable": True}, True),
        ({"taints": [{"key": "dedicated", "effect": "NoSchedule"}]}, False),
        ({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}, True),
    ],
)
def test_a_node_that_is_to_go(spec: Json, emptied: bool) -> None:
    assert node_is_emptied({"metadata": META, "spec": spec}) is emptied


# A pod with a team's own image: our server's container, the one that fetches, and theirs.
def of_image(server: Json, backend: Json, **more: Any) -> Json:
    fetch = {**container(terminated={"exitCode": 0, "reason": "Completed"}), "name": "fetch"}
    return pod(
        phase="Running",
        initContainerStatuses=[fetch, {**backend, "name": "backend"}],
        containerStatuses=[{**server, "name": "server"}],
        **more,
    )


CRASHED = {"lastState": {"terminated": {"exitCode": 3, "reason": "Error", "message": "no model"}}, "restartCount": 4}
GOES = container(running={"startedAt": "2026-11-23T06:50:20Z"})


def test_of_several_containers_the_one_in_trouble_is_told_of() -> None:
    waits = {**container(waiting={"reason": "CrashLoopBackOff", "message": "back-off"}), **CRASHED}
    view = pod_view(of_image(GOES, waits))
    assert (view.theirs, view.exit_code, view.restarts, view.exit_message) == (True, 3, 4, "no model")
    assert view.waiting_reason == "CrashLoopBackOff"
    ours = {**container(waiting={"reason": "CrashLoopBackOff"}), **CRASHED, "restartCount": 1}
    assert (pod_view(of_image(ours, GOES)).theirs, pod_view(of_image(ours, GOES)).restarts) == (False, 1)
    both = pod_view(of_image(ours, waits))
    assert (both.theirs, both.restarts) == (False, 1)
    between = pod_view(of_image(GOES, {**GOES, **CRASHED}))
    assert (between.theirs, between.exit_code) == (True, 3)
    old = {**GOES, **CRASHED, "restartCount": 1}
    assert pod_view(of_image(old, waits)).theirs


def test_an_image_that_can_not_be_pulled_is_seen_although_it_is_not_the_pods_own() -> None:
    pulling = container(waiting={"reason": "ErrImagePull", "message": "no such image"})
    view = pod_view(of_image(container(waiting={"reason": "PodInitializing"}), pulling))
    assert (view.waiting_reason, view.waiting_message, view.theirs) == ("ErrImagePull", "no such image", True)


def test_one_that_fetches_in_vain_speaks_for_the_pod() -> None:
    status = {
        "phase": "Pending",
        "initContainerStatuses": [
            {
                **container(terminated={"exitCode": 4, "reason": "Error", "message": "the store is away"}),
                "name": "fetch",
            },
            {**container(waiting={"reason": "PodInitializing"}), "name": "backend"},
        ],
        "containerStatuses": [{**container(waiting={"reason": "PodInitializing"}), "name": "server"}],
    }
    view = pod_view(pod(**status))
    assert (view.exit_code, view.exit_message, view.theirs) == (4, "the store is away", False)


def test_where_all_is_well_the_pods_own_container_is_told_of() -> None:
    view = pod_view(of_image(GOES, GOES, conditions=[{"type": "Ready", "status": "True"}]))
    assert (view.ready, view.theirs, view.exit_code, view.restarts) == (True, False, None, 0)


def test_a_pod_that_is_taken_away_says_by_whom() -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "…"}
    assert pod_view(pod(phase="Running", conditions=[target])).disruption == "PreemptionByScheduler"
    assert pod_view(pod(phase="Running", conditions=[{**target, "status": "False"}])).disruption is None
    assert pod_view(RUNNING).disruption is None


def test_the_words_of_a_kubelet_that_ended_a_pod_are_kept_beside_those_of_its_container() -> None:
    said = container(terminated={"exitCode": 137, "reason": "Error", "message": "fold 3"})
    view = pod_view({**EVICTED, "status": {**EVICTED["status"], "containerStatuses": [said]}})
    assert (view.exit_reason, view.exit_message, view.ended_because) == (
        "Evicted",
        "fold 3",
        "The node was low on resource: memory.",
    )
    assert pod_view(RUNNING).ended_because == ""


def test_a_job_that_is_about_to_fail_says_so() -> None:
    target = {"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "message": "…"}
    view = job_view({"metadata": META, "status": {"conditions": [target]}})
    assert (view.failing, view.failed_reason, view.complete) == ("DeadlineExceeded", None, False)


@pytest.mark.parametrize(
    ("labels", "stage", "attempt"),
    [
        ({"truekeep.dev/stage": "Tune", "truekeep.dev/attempt": "12"}, "Tune", 12),
        ({}, "Train", 1),  # as operators before 0.2 made them
        ({"truekeep.dev/stage": "Nap", "truekeep.dev/attempt": "-1"}, "Train", 1),
    ],
)
def test_a_job_knows_its_stage_and_its_try(labels: dict[str, str], stage: str, attempt: int) -> None:
    resources = {"limits": {"memory": "2Gi"}}
    spec = {"template": {"spec": {"containers": [{"name": "trainer", "resources": resources}]}}}
    view = job_view({"metadata": {**META, "labels": labels}, "spec": spec})
    assert (view.stage, view.attempt, view.memory) == (stage, attempt, "2Gi")


def test_an_indexed_job_tells_how_far_it_is() -> None:
    spec = {"completionMode": "Indexed", "completions": 8, "parallelism": 2}
    failed = {"type": "Failed", "status": "True", "reason": "FailedIndexes", "message": "Job has failed indexes"}
    view = job_view({"metadata": META, "spec": spec, "status": {"succeeded": 7, "failed": 1, "conditions": [failed]}})
    assert (view.completions, view.succeeded, view.failed_reason) == (8, 7, "FailedIndexes")
    started = job_view({"metadata": META, "spec": spec, "status": {}})
    assert (started.completions, started.succeeded, started.failed_reason) == (8, 0, None)
    plain = {"completionMode": "NonIndexed", "completions": 1}  # as the API server fills it in
    assert job_view({"metadata": META, "spec": plain, "status": {"succeeded": 1}}).completions is None


@pytest.mark.parametrize(
    ("events", "who"),
    [
        ([], "EvictionByEvictionAPI"),
        (["Scheduled", "Pulled", "Killing"], "EvictionByEvictionAPI"),
        (["Scheduled", "Preempted"], "PreemptionByScheduler"),
        (["NodeNotReady", "Killing"], "DeletionByPodGC"),
        (["TaintManagerEviction"], "DeletionByTaintManager"),
        (["Evicted"], "TerminationByKubelet"),
    ],
)
def test_events_say_who_took_a_pod_that_is_gone(events: list[str], who: str) -> None:
    assert disruption_by_events(events) == who


def test_a_job_says_which_pod_was_taken_from_it() -> None:
    said = "Pod demo/m-1-267gq has condition DisruptionTarget matching FailJob rule at index 0"
    assert disrupted_pod(said) == "m-1-267gq"
    assert disrupted_pod("Container trainer for pod demo/x failed with exit code 1") is None


def test_a_pod_tells_which_image_its_node_ran() -> None:
    there = {**container(running={}), "imageID": "registry.example/trainer@sha256:12"}
    assert pod_view(pod(phase="Running", containerStatuses=[there])).image_id == "registry.example/trainer@sha256:12"
    assert pod_view(pod(phase="Pending")).image_id is None

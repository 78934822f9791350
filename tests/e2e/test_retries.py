"""A try of a run fails, in each of the ways in which a cluster lets it: each has its own reason, is tried again where
that helps and never where it can't, and ends with the right number of runs and Jobs.

No Model here serves before: what a live revision does meanwhile is in test_faults.py."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping

import pytest

from tests.e2e.shop import Shop, merged, open_shop, parameters, small_model
from tests.story.kube import Json, Kube, condition, holds, name_of

NAMESPACE = "truekeep-e2e-retries"
FLAKY = "s3-flaky"
SLOW = parameters(max_iter="150")  # some seconds, so that there is a pod to take away
HUNGRY = {"resources": {"requests": {"memory": "48Mi"}, "limits": {"memory": "48Mi"}}}
BAD_DATA = {"data": {"source": {"s3": {"uri": "s3://lake/broken/payments/"}}}}
NO_IMAGE = "registry.invalid/team/trainer:1"
AWAY = {"store": {"s3": {"endpoint": f"http://{FLAKY}:7070"}}}
MODELS: Mapping[str, Json] = {
    "evicted": SLOW,
    "deleted": SLOW,
    "grows": {"training": {**HUNGRY, "retries": {"memory": {"limit": "768Mi", "factor": "8"}}}},
    "grows-too-little": {"training": {**HUNGRY, "retries": {"memory": {"limit": "60Mi"}}}},
    "stays": {"training": HUNGRY},
    "store-away": AWAY,
    "late": {
        "pods": {"nodeSelector": {"disk": "nowhere"}},
        "training": {"timeoutSeconds": 30, "retries": {"limit": 1, "onDeadline": "Retry"}},
    },
    "bad-data": merged(BAD_DATA, {"training": {"retries": {"limit": 10, "memory": {"limit": "8Gi"}}}}),
    "no-image": {
        "training": {"recipe": None, "image": {"reference": NO_IMAGE, "format": "ONNX"}},
        "evaluation": {"refit": None},
    },
}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """The Models, as yet untrained, all at once."""
    with open_shop(kube, NAMESPACE, {}) as shop:
        shop.apply(*(small_model(name, **spec) for name, spec in MODELS.items()))
        yield shop


def run_of(shop: Shop, model: str) -> Json:
    """The one run of a Model, once there is one."""
    shop.until(f"a run of {model}", 60, lambda: shop.runs(model))
    (run,) = shop.runs(model)
    return run


def attempts(shop: Shop, model: str) -> list[Json]:
    found = run_of(shop, model).get("status", {}).get("attempts", [])
    assert isinstance(found, list)
    return found


def tried(shop: Shop, model: str, count: int, seconds: float) -> list[Json]:
    """The tries that failed, once there are so many."""
    shop.until(f"{count} failed tries of {model}", seconds, lambda: len(attempts(shop, model)) >= count)
    return attempts(shop, model)


def ended(shop: Shop, model: str, outcome: str, seconds: float) -> Json:
    """The run, once it is Complete or Failed."""
    shop.until(f"the run of {model} to be {outcome}", seconds, lambda: holds(run_of(shop, model), outcome))
    return run_of(shop, model)


def training_pod(shop: Shop, model: str) -> str:
    """The training pod of a Model, once it runs."""

    def running() -> list[str]:
        pods = shop.pods(model, "trainer")
        return [name_of(pod) for pod in pods if pod.get("status", {}).get("phase") == "Running"]

    shop.until(f"a training pod of {model}", 120, running)
    return running()[0]


def jobs(shop: Shop, model: str) -> list[str]:
    """Names of the Jobs of the Model's run, without the run's own."""
    name = name_of(run_of(shop, model))
    return [name_of(job).removeprefix(name) for job in shop.jobs(model)]


def events(shop: Shop, model: str, reason: str) -> list[str]:
    found = shop.events("TrainingRun", name_of(run_of(shop, model)))
    return [event["message"] for event in found if event["reason"] == reason and event["type"] == "Warning"]


@pytest.fixture(scope="module")
def taken(shop: Shop) -> Shop:
    """One training pod is evicted by the Eviction API, another is deleted by force, as with its node."""
    pod = training_pod(shop, "evicted")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": shop.namespace},
    }
    path = f"/api/v1/namespaces/{shop.namespace}/pods/{pod}/eviction"
    shop.kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    pod = training_pod(shop, "deleted")
    shop.kube.kubectl("delete", "pod", pod, "-n", shop.namespace, "--force", "--grace-period=0", "--wait=false")
    return shop


@pytest.mark.parametrize(("model", "reason"), [("evicted", "Evicted"), ("deleted", "PodLost")])
def test_a_pod_that_is_taken_away_is_followed_by_another(taken: Shop, model: str, reason: str) -> None:
    (first,) = tried(taken, model, 1, 60)
    assert (first["stage"], first["number"], first["reason"]) == ("Train", 1, reason)
    run = ended(taken, model, "Complete", 180)
    assert run["status"]["revision"] == 1
    assert [each["reason"] for each in run["status"]["attempts"]] == [reason]
    assert jobs(taken, model) == ["", "-try2"]
    assert any("try 2 begins" in message for message in events(taken, model, reason))


def test_with_permission_it_is_tried_again_with_more_memory(shop: Shop) -> None:
    run = ended(shop, "grows", "Complete", 180)
    (first,) = run["status"]["attempts"]
    assert (first["reason"], first["memory"]) == ("OutOfMemory", "48Mi")
    last = shop.jobs("grows")[-1]
    (container,) = last["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "384Mi"
    assert jobs(shop, "grows") == ["", "-try2"]


def test_only_up_to_what_the_model_allows(shop: Shop) -> None:
    run = ended(shop, "grows-too-little", "Failed", 120)
    assert [(each["reason"], each["memory"]) for each in run["status"]["attempts"]] == [
        ("OutOfMemory", "48Mi"),
        ("OutOfMemory", "60Mi"),
    ]
    assert "spec.training.retries.memory.limit (60Mi) allows no more" in condition(run, "Ready")["message"]
    assert len(jobs(shop, "grows-too-little")) == 2


def test_without_permission_the_run_fails_at_once(shop: Shop) -> None:
    run = ended(shop, "stays", "Failed", 120)
    assert condition(run, "Ready")["reason"] == "OutOfMemory"
    assert "(48Mi)" in condition(run, "Ready")["message"]
    assert jobs(shop, "stays") == [""]


def test_bad_data_is_never_tried_again(shop: Shop) -> None:
    run = ended(shop, "bad-data", "Failed", 180)
    assert condition(run, "Ready")["reason"] == "DataInvalid"
    assert "attempts" not in run["status"] or not run["status"]["attempts"]
    assert jobs(shop, "bad-data") == [""]


def test_a_store_that_comes_back_while_the_run_has_time_is_enough(shop: Shop) -> None:
    tried(shop, "store-away", 1, 180)
    model = shop.model("store-away")
    said = condition(run_of(shop, "store-away"), "Ready")
    if said["reason"] == "StoreUnreachable":
        assert FLAKY in said["message"]
    assert not holds(model, "Ready")
    s3 = shop.kube.get(shop.namespace, "services", "s3") or {}
    spec = {"selector": s3["spec"]["selector"], "ports": [{"port": 7070, "targetPort": "s3"}]}
    shop.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": FLAKY}, "spec": spec})
    run = ended(shop, "store-away", "Complete", 240)
    assert {each["reason"] for each in run["status"]["attempts"]} == {"StoreUnreachable"}
    assert len(jobs(shop, "store-away")) == len(run["status"]["attempts"]) + 1
    assert len(shop.runs("store-away")) == 1


def test_an_image_that_can_not_be_pulled_is_no_failed_try_and_a_mended_one_is_taken(shop: Shop) -> None:
    said = shop.reason("no-image", "ImagePullFailed", 120)
    assert NO_IMAGE in said["message"]
    assert not attempts(shop, "no-image")
    assert jobs(shop, "no-image") == ["-fit"]
    recipe = small_model("no-image")["spec"]["training"]["recipe"]
    shop.patch("no-image", {"training": {"image": None, "recipe": recipe}})
    run = ended(shop, "no-image", "Complete", 180)
    assert run["status"]["revision"] == 1


def test_a_deadline_is_tried_again_where_that_is_allowed_and_then_no_more(shop: Shop) -> None:
    run = ended(shop, "late", "Failed", 150)
    assert [each["reason"] for each in run["status"]["attempts"]] == ["DeadlineExceeded"] * 2
    said = condition(run, "Ready")
    assert said["reason"] == "DeadlineExceeded"
    for word in ("spec.training.timeoutSeconds (30)", "spec.training.retries.limit (1)"):
        assert word in said["message"]
    assert jobs(shop, "late") == ["", "-try2"]


def test_in_the_end_every_model_had_one_run(shop: Shop) -> None:
    time.sleep(3)  # a run that must not come would come by now
    assert {model: len(shop.runs(model)) for model in MODELS} == dict.fromkeys(MODELS, 1)

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.resources import golden
from tests.unit.resources.samples import (
    CHAMPION,
    DIGEST,
    FULL,
    INTENT,
    PLAIN,
    SETTINGS,
    TUNED,
    built,
    model,
    policy,
    run,
)
from truekeep.api.common import Resources, quantity
from truekeep.api.driftpolicy import LabelEntity
from truekeep.contract.requests import MonitorRequest, ServeRequest, TrainRequest
from truekeep.domain.plan import Attempt, AutoscalerIntent, BudgetIntent, RouteIntent, Settings
from truekeep.resources.amounts import SERVER, TRAINER, container_resources, threads
from truekeep.resources.autoscaler import autoscaler
from truekeep.resources.compare import holds
from truekeep.resources.disruption_budget import disruption_budget
from truekeep.resources.failure_rules import failure_rules
from truekeep.resources.httproute import httproute
from truekeep.resources.monitor_cronjob import Watched, monitor_cronjob
from truekeep.resources.retention_cronjob import retention_cronjob, schedule
from truekeep.resources.serving_deployment import ANNOTATION_TEMPLATE, serving_deployment
from truekeep.resources.stage_job import stage_job
from truekeep.resources.training_job import training_job

BUILT = built()


@pytest.mark.parametrize("name", sorted(BUILT))
def test_a_manifest_is_as_it_was_agreed(name: str) -> None:
    assert BUILT[name] == golden.read(name), "read the diff; then python -m tests.unit.resources.golden"


def test_there_is_no_golden_manifest_too_many() -> None:
    assert {file.stem for file in golden.GOLDEN.glob("*.yaml")} == set(BUILT)


def pod_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, manifest in BUILT.items():
        assert manifest is not None
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield name, spec["template"]["spec"]


PODS = dict(pod_specs())


def test_the_operators_pull_secrets_are_in_every_pod_after_the_models_own() -> None:
    given = built(replace(SETTINGS, image_pull_secrets=("mirror", "registry")))
    for name, pod in PODS.items():
        manifest = given[name]
        assert manifest is not None
        spec = manifest["spec"].get("jobTemplate", manifest)["spec"]["template"]["spec"]
        expected = ["registry", "mirror"] if "imagePullSecrets" in pod else ["mirror", "registry"]
        assert [each["name"] for each in spec["imagePullSecrets"]] == expected, name


@pytest.mark.parametrize("name", sorted(PODS))
def test_every_pod_passes_pod_security_restricted(name: str) -> None:
    pod = PODS[name]
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for volume in pod["volumes"]:
        assert volume.keys() - {"name"} <= {"emptyDir", "secret", "configMap"}
    (own,) = pod["containers"]
    for container in [own, *pod.get("initContainers", [])]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("name", sorted(PODS))
def test_no_pod_holds_a_kubernetes_token(name: str) -> None:
    assert PODS[name]["automountServiceAccountToken"] is False
    assert PODS[name]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", sorted(PODS))
def test_every_pod_is_bounded(name: str) -> None:
    (container,) = PODS[name]["containers"]
    assert set(container["resources"]["requests"]) == set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert all("sizeLimit" in volume["emptyDir"] for volume in PODS[name]["volumes"] if "emptyDir" in volume)


def request_of(pod: dict[str, Any]) -> str:
    (value,) = (each["value"] for each in pod["containers"][0]["env"] if each["name"] == "TRUEKEEP_REQUEST")
    return str(value)


def test_a_training_request_says_all_that_the_trainer_needs() -> None:
    request = TrainRequest.model_validate_json(request_of(PODS["training-job"]))
    assert request.champion == CHAMPION
    assert request.run_uid == "run-uid"
    assert request.model_generation == 4
    assert request.data.source.s3.endpoint == "https://s3.demo:7070"  # completed from the store
    assert request.data.joins[0].source.s3.credentials_secret_ref is None  # a stranger's endpoint gets no credentials
    job = BUILT["training-job"]
    assert job is not None
    assert job["metadata"]["annotations"]["truekeep.dev/training-fingerprint"] == request.training_fingerprint


def test_requests_to_server_and_monitor_are_complete() -> None:
    serve = ServeRequest.model_validate_json(request_of(PODS["serving-deployment"]))
    assert serve.capture is not None
    assert serve.capture.s3.endpoint == "https://s3.demo:7070"
    monitor = MonitorRequest.model_validate_json(request_of(PODS["monitor-cronjob"]))
    assert monitor.capture == serve.capture.s3
    assert (monitor.revision, monitor.artifact_digest) == (3, DIGEST)


@pytest.mark.parametrize(
    ("pod", "secrets"),
    [
        ("training-job", {"arrivals.reader", "captures", "lake"}),
        ("serving-deployment", {"captures", "lake"}),
        ("monitor-cronjob", {"arrivals.reader", "captures", "lake"}),
        ("training-job-plain", set()),
        ("training-job-import", {"imports", "sets"}),
        ("tuning-job", set()),
    ],
)
def test_a_pod_mounts_the_secrets_that_it_needs_and_no_other(pod: str, secrets: set[str]) -> None:
    volumes = [volume["secret"] for volume in PODS[pod]["volumes"] if "secret" in volume]
    assert {volume["secretName"] for volume in volumes} == secrets
    assert all(volume["optional"] is False for volume in volumes)
    paths = {mount["mountPath"] for mount in PODS[pod]["containers"][0]["volumeMounts"]}
    assert {f"/var/run/truekeep/secrets/{name}" for name in secrets} <= paths


def test_the_key_of_the_hashes_is_mounted_beside_the_credentials_and_only_where_it_is_used() -> None:
    spec = copy.deepcopy(FULL)
    for secret in ("captures", "salt"):  # the Secret of the credentials, or another one
        spec["serving"]["capture"] |= {"hash": ["hour", "flight_id"], "hashKeySecretRef": {"name": secret}}
        view = model(spec)
        pod = serving_deployment(view, INTENT, SETTINGS)["spec"]["template"]["spec"]
        items = {each["secret"]["secretName"]: each["secret"] for each in pod["volumes"] if "secret" in each}
        assert {"key": "HASH_KEY", "path": "HASH_KEY"} in items[secret]["items"]
        assert len({mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}) == len(pod["volumes"])
        request = ServeRequest.model_validate_json(request_of(pod))
        assert request.capture is not None
        assert request.capture.hash == ["hour", "flight_id"]
        for watches in (None, policy().spec.performance):  # the join of labels has to hash their keys, too
            spec_of = policy().spec.model_copy(update={"performance": watches})
            monitor = monitor_cronjob(view, replace(policy(), spec=spec_of), Watched(3, DIGEST), SETTINGS)
            assert monitor is not None
            pod = monitor["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            assert ("HASH_KEY" in str(pod["volumes"])) == (watches is not None)
            assert MonitorRequest.model_validate_json(request_of(pod)).hashed == ("hour", "flight_id")


def test_labels_that_join_by_an_entity_need_the_key_of_the_hashes_where_that_is_hashed() -> None:
    watched = policy().spec.performance
    assert watched is not None
    for hashed, column, needed in (("hour", "hour", True), ("hour", "carrier", False), ("flight_id", "hour", False)):
        spec = copy.deepcopy(FULL)
        spec["serving"]["capture"] |= {"hash": [hashed], "hashKeySecretRef": {"name": "salt"}}
        entity = LabelEntity(column=column, time_column="at", tolerance_seconds=60)
        by_time = watched.model_copy(update={"join": "EntityTime", "entity": entity})
        changed = replace(policy(), spec=policy().spec.model_copy(update={"performance": by_time}))
        monitor = monitor_cronjob(model(spec), changed, Watched(3, DIGEST), SETTINGS)
        assert monitor is not None
        pod = monitor["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert ("HASH_KEY" in str(pod["volumes"])) == needed
        request = MonitorRequest.model_validate_json(request_of(pod))
        assert request.performance == by_time


def test_the_monitor_is_told_where_labels_lie_only_where_they_are_watched() -> None:
    request = MonitorRequest.model_validate_json(request_of(PODS["monitor-cronjob"]))
    assert request.performance is not None
    assert request.labels is not None
    assert (request.labels.key, request.labels.column) == (FULL["data"]["key"], FULL["data"]["label"]["column"])
    assert request.labels.source.place.uri == FULL["data"]["label"]["source"]["s3"]["uri"]
    assert request.labels.source.s3.endpoint is not None
    assert request.labels.matures_after_seconds == FULL["data"]["label"]["maturesAfterSeconds"]
    assert [one.name for one in request.slices] == [one["name"] for one in FULL["evaluation"].get("slices", [])]
    without = replace(policy(), spec=policy().spec.model_copy(update={"performance": None}))
    plain = monitor_cronjob(model(FULL), without, Watched(3, DIGEST), SETTINGS)
    assert plain is not None
    pod = plain["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert MonitorRequest.model_validate_json(request_of(pod)).labels is None
    assert "arrivals.reader" not in str(pod["volumes"])


def test_captures_that_wait_have_room_of_their_own() -> None:
    spec = copy.deepcopy(FULL)
    for mebibytes, limit in ((256, ["320Mi"]), (10, ["74Mi"]), (0, [])):
        spec["serving"]["capture"]["spoolMebibytes"] = mebibytes
        pod = serving_deployment(model(spec), INTENT, SETTINGS)["spec"]["template"]["spec"]
        assert [each["emptyDir"]["sizeLimit"] for each in pod["volumes"] if each["name"] == "spool"] == limit
        mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
        assert mounts.get("spool") == ("/var/spool/truekeep" if limit else None)


def test_no_sweep_where_captures_are_kept_for_ever() -> None:
    assert retention_cronjob(model(PLAIN), SETTINGS) is None
    spec = copy.deepcopy(FULL)
    del spec["serving"]["capture"]["retentionDays"]
    assert retention_cronjob(model(spec), SETTINGS) is None


def test_sweeps_are_spread_over_the_day() -> None:
    times = {schedule(f"uid-{number}") for number in range(200)}
    assert len(times) > 150
    for time in times:
        minute, hour, *rest = time.split()
        assert (0 <= int(minute) < 60, 0 <= int(hour) < 24, rest) == (True, True, ["*", "*", "*"])


def test_two_keys_of_one_bundle_share_a_volume() -> None:
    (bundle,) = (volume["configMap"] for volume in PODS["training-job"]["volumes"] if "configMap" in volume)
    assert [item["key"] for item in bundle["items"]] == ["ca.crt", "other.pem"]


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({}, ("500m", "1Gi"), ("2", "4Gi")),
        ({"requests": {"memory": "8Gi"}}, ("500m", "8Gi"), ("2", "8Gi")),
        ({"limits": {"memory": "512Mi", "cpu": "250m"}}, ("250m", "512Mi"), ("250m", "512Mi")),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}, ("1", "1Gi"), ("3", "4Gi")),
    ],
)
def test_resources_are_given_or_default_and_never_contradict(
    given: dict[str, Any], requests: tuple[str, str], limits: tuple[str, str]
) -> None:
    resources = container_resources(Resources.model_validate(given), TRAINER)
    assert resources == {
        "requests": {"cpu": requests[0], "memory": requests[1]},
        "limits": {"cpu": limits[0], "memory": limits[1]},
    }


@pytest.mark.parametrize(("cpu", "count"), [("250m", 1), ("1", 1), ("1500m", 2), ("4", 4)])
def test_threads_follow_the_limit(cpu: str, count: int) -> None:
    resources = container_resources(Resources.model_validate({"limits": {"cpu": cpu}}), SERVER)
    assert threads(resources) == count


@pytest.mark.parametrize(("pods", "bound"), [(1, {"minAvailable": 1}), (2, {"maxUnavailable": 1})])
def test_the_budget_takes_one_pod_at_a_time_and_never_the_last(pods: int, bound: dict[str, int]) -> None:
    spec = disruption_budget(model(), BudgetIntent(INTENT.name, pods))["spec"]
    assert {key: value for key, value in spec.items() if key in ("minAvailable", "maxUnavailable")} == bound
    assert spec["selector"]["matchLabels"]["truekeep.dev/deployment"] == INTENT.name


def test_no_route_where_no_gateway_is_named() -> None:
    assert httproute(model(PLAIN), RouteIntent(((INTENT.name, 100),))) is None


def test_no_autoscaler_where_none_is_asked_for() -> None:
    assert autoscaler(model(PLAIN), AutoscalerIntent(INTENT.name, 2)) is None


def test_no_monitor_where_nothing_is_captured() -> None:
    assert monitor_cronjob(model(PLAIN), policy(), Watched(1, DIGEST), SETTINGS) is None


def test_a_template_stays_as_it_was_frozen() -> None:
    first = serving_deployment(model(), INTENT, SETTINGS)
    template = json.loads(first["metadata"]["annotations"][ANNOTATION_TEMPLATE])
    newer = Settings(server_image="registry.example/server:2")
    again = serving_deployment(model(PLAIN), INTENT, newer, template)
    assert again["spec"]["template"] == first["spec"]["template"]
    assert again["metadata"]["annotations"] == first["metadata"]["annotations"]


def test_an_autoscaler_keeps_its_replicas() -> None:
    assert "replicas" not in serving_deployment(model(), INTENT, SETTINGS, scaled_by_others=True)["spec"]


def test_a_node_that_takes_a_pod_away_is_no_failure_of_a_rehearsal() -> None:
    disruption, exit_codes = failure_rules("rehearsal")
    assert disruption["action"] == "Ignore"
    assert exit_codes == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "rehearsal", "operator": "In", "values": [3, 137]},
    }


def test_a_training_job_is_one_try_that_says_how_its_pod_ended() -> None:
    job = training_job(model(), run(), SETTINGS, None)
    assert job["spec"]["backoffLimit"] == 0
    assert {rule["action"] for rule in job["spec"]["podFailurePolicy"]["rules"]} == {"FailJob"}


def test_a_further_try_has_a_name_a_number_what_is_left_of_the_time_and_more_memory() -> None:
    job = training_job(model(), run(), SETTINGS, None, Attempt(3, 700, "16Gi"))
    first = training_job(model(), run(), SETTINGS, None)
    assert job["metadata"]["name"] == f"{first['metadata']['name']}-try3"
    assert job["metadata"]["labels"]["truekeep.dev/attempt"] == "3"
    assert job["spec"]["activeDeadlineSeconds"] == 700
    before, after = (each["spec"]["template"]["spec"]["containers"][0]["resources"] for each in (first, job))
    assert after["limits"] == {**before["limits"], "memory": "16Gi"}
    assert quantity(after["requests"]["memory"]) / quantity(before["requests"]["memory"]) == (
        quantity("16Gi") / quantity(before["limits"]["memory"])
    )


def test_a_further_try_has_never_less_memory_than_the_spec_says() -> None:
    job = training_job(model(), run(), SETTINGS, None, Attempt(2, 700, "1Mi"))
    first = training_job(model(), run(), SETTINGS, None)
    resources = [each["spec"]["template"]["spec"]["containers"][0]["resources"] for each in (first, job)]
    assert resources[0] == resources[1]


def test_a_tuning_goes_on_until_too_few_trials_are_left() -> None:
    """8 trials, of which 2 must have a score."""
    spec = BUILT["tuning-job"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 8, 3)
    assert spec["maxFailedIndexes"] == 6
    assert "backoffLimit" not in spec
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "FailJob", "FailIndex"]


def test_a_further_try_of_a_tuning_is_a_job_of_its_own_with_more_memory() -> None:
    tuned = model({**PLAIN, "training": {"recipe": TUNED}})
    job = stage_job("Tune", tuned, run(), SETTINGS, None, Attempt(2, 300, "9Gi"))
    assert job["metadata"]["name"].endswith("-tune-try2")
    assert job["spec"]["activeDeadlineSeconds"] == 300
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "9Gi"
    with pytest.raises(ValueError, match="stage Tune"):
        stage_job("Tune", model(PLAIN), run(), SETTINGS, None, Attempt())


def test_a_pod_of_a_tuning_is_asked_what_the_training_is_asked() -> None:
    request = TrainRequest.model_validate_json(request_of(PODS["tuning-job"]))
    assert request.training.recipe is not None
    assert request.training.recipe.tuning is not None
    assert request.training.recipe.tuning.count == 8
    assert request.evaluation.benchmarks == []  # it reads none, and has no credentials for them


@pytest.mark.parametrize(
    ("wanted", "live", "answer"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {}, False),
        ({"a": 0, "b": [], "c": "", "d": {}}, {}, True),
        ({"a": False}, {}, False),  # a default may be true
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, False),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, True),
        ({"a": "1"}, {"a": 1}, False),
        ({"cpu": "1500m"}, {"cpu": "1.5"}, True),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}, True),
        ({"memory": "1Gi"}, {"memory": "1G"}, False),
        ({"memory": "1Gi"}, {"memory": "much"}, False),
        ({"x": "1Gi"}, {"x": "1024Mi"}, False),
        ({"selector": {"a": "1"}}, {"selector": {"a": "1", "b": "2"}}, False),
    ],
)
def test_what_holds_is_not_applied_again(wanted: object, live: object, answer: bool) -> None:
    assert holds(wanted, live) is answer


def test_several_pods_that_count_a_window_know_which_they_are() -> None:
    for count in (1, 4):
        spec = policy().spec.model_copy(update={"shards": count})
        cronjob = monitor_cronjob(model(FULL), replace(policy(), spec=spec), Watched(3, DIGEST), SETTINGS)
        assert cronjob is not None
        job = cronjob["spec"]["jobTemplate"]["spec"]
        assert job.get("completionMode") == ("Indexed" if count > 1 else None)
        assert (job.get("completions"), job.get("parallelism")) == ((4, 4) if count > 1 else (None, None))
        assert MonitorRequest.model_validate_json(request_of(job["template"]["spec"])).shards == count

"""A team's own server in a serving pod."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.unit.resources.samples import FULL, IMAGE, INTENT, SETTINGS, model
from truekeep.api.image import ImageReference
from truekeep.api.model import ModelSpec
from truekeep.contract.requests import REQUEST_ENV, ServeRequest
from truekeep.domain import fingerprints
from truekeep.domain.fingerprints import serving_key
from truekeep.resources.serving_deployment import serving_deployment

POD: dict[str, Any] = serving_deployment(model(IMAGE), INTENT, SETTINGS)["spec"]["template"]["spec"]
OWN: dict[str, Any] = serving_deployment(model(FULL), INTENT, SETTINGS)["spec"]["template"]["spec"]
(OURS,) = POD["containers"]
FETCH, THEIRS = POD["initContainers"]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container["env"]}


def request(container: dict[str, Any]) -> ServeRequest:
    return ServeRequest.model_validate_json(environment(container)[REQUEST_ENV])


def test_the_team_gets_no_credentials_no_request_and_nothing_to_write_to_but_tmp() -> None:
    assert {mount["mountPath"] for mount in THEIRS["volumeMounts"] if not mount.get("readOnly")} == {"/tmp"}
    assert {mount["mountPath"] for mount in THEIRS["volumeMounts"]} == {"/tmp", "/mnt/models"}
    assert REQUEST_ENV not in environment(THEIRS)
    shared = {mount["name"] for mount in OURS["volumeMounts"]} & {mount["name"] for mount in THEIRS["volumeMounts"]}
    assert shared == {"model"}


def test_only_the_fetching_container_writes_the_artifact_and_only_with_the_stores_credentials() -> None:
    for container in (OURS, THEIRS):
        (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "model")
        assert mount["readOnly"] is True
    assert {mount["mountPath"] for mount in FETCH["volumeMounts"]} == {
        "/tmp", "/mnt/models", "/var/run/truekeep/secrets/lake", "/var/run/truekeep/certificates/store-ca",
    }  # fmt: skip
    assert FETCH["args"] == ["fetch"]
    assert FETCH["image"] == OURS["image"] == SETTINGS.server_image
    assert request(FETCH) == request(OURS)


def test_it_is_told_where_the_model_is_and_where_to_listen_before_its_own_variables() -> None:
    told = environment(THEIRS)
    assert told["TRUEKEEP_MODEL_DIR"] == "/mnt/models"
    assert told["MODEL_NAME"] == "flight-delay"
    assert told["PORT"] == "9001"
    assert told["OMP_NUM_THREADS"] == "3"
    names = [each["name"] for each in THEIRS["env"]]
    assert len(names) == len(set(names))
    assert names.index("PORT") < names.index("MLSERVER_HTTP_PORT")


def test_our_server_knows_how_to_ask_it() -> None:
    backend = request(OURS).backend
    assert backend is not None
    assert (backend.port, backend.timeout_seconds, backend.tolerance) == (9001, 7, 1e-5)
    assert request(OWN["containers"][0]).backend is None


def test_it_starts_before_ours_ends_after_it_and_has_the_resources_of_the_spec() -> None:
    assert THEIRS["restartPolicy"] == "Always"
    assert "restartPolicy" not in FETCH
    assert POD["terminationGracePeriodSeconds"] > OWN["terminationGracePeriodSeconds"]
    assert THEIRS["resources"] == OWN["containers"][0]["resources"]
    assert OURS["resources"]["limits"] == {"cpu": "1", "memory": "512Mi"}


def test_what_fetches_has_the_memory_of_what_loads() -> None:
    assert FETCH["resources"]["limits"]["memory"] == "1Gi"
    serving = {**IMAGE["serving"], "resources": {"limits": {"cpu": "2", "memory": "3Gi"}}}
    made = serving_deployment(model({**IMAGE, "serving": serving}), INTENT, SETTINGS)
    fetch, _ = made["spec"]["template"]["spec"]["initContainers"]
    assert fetch["resources"]["limits"] == {"cpu": "1", "memory": "3Gi"}


def test_all_else_of_our_container_is_as_where_it_answers_itself() -> None:
    same = {"name", "image", "ports", "startupProbe", "readinessProbe", "livenessProbe", "securityContext"}
    assert {name: OURS[name] for name in same} == {name: OWN["containers"][0][name] for name in same}


def test_another_image_or_setting_of_it_is_another_way_of_serving() -> None:
    keys = {serving_key(ModelSpec.model_validate(FULL))}
    base = IMAGE["serving"]["image"]
    for change in ({}, {"reference": "other:1"}, {"port": 9002}, {"tolerance": "0.1"}, {"env": []}):
        spec = {**IMAGE, "serving": {**IMAGE["serving"], "image": {**base, **change}}}
        keys.add(serving_key(ModelSpec.model_validate(spec)))
    assert len(keys) == 6


def test_without_an_image_the_key_is_what_it_was_before_there_was_such_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(fingerprints, "digest_of", lambda value: seen.append(value) or "")
    for spec in (FULL, IMAGE):
        serving_key(ModelSpec.model_validate(spec))
    assert ["image" in value for value in seen] == [False, True]


REFERENCE: TypeAdapter[str] = TypeAdapter(ImageReference)
HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "reference",
    [
        "mlserver:1.7.1",
        "team/ml-server_x:dev-0123",
        f"registry.example:5000/a/b/c@sha256:{HEX}",
        f"ghcr.io/team/m:v1@sha256:{HEX}",
        "10.0.0.1:5000/x:A_b.c-d",
        "localhost/x:1",
        "Registry.example/x:1",
    ],
)
def test_references_that_name_one_image(reference: str) -> None:
    assert REFERENCE.validate_python(reference) == reference


@pytest.mark.parametrize(
    "reference",
    [
        "mlserver",
        "team/mlserver",
        "registry.example:5000/mlserver",
        "mlserver:",
        "mlserver:a b",
        "mlserver@sha256:abc",
        f"mlserver@md5:{HEX}",
        "http://registry/x:1",
        "../x:1",
        "x:1;rm",
        "x:1\n",
        f"{'a' * 600}:1",
        ":1",
        "",
    ],
)
def test_references_that_do_not(reference: str) -> None:
    with pytest.raises(ValidationError):
        REFERENCE.validate_python(reference)


def test_the_pattern_is_one_that_the_api_server_reads_alike() -> None:
    (constraints,) = (each for each in ImageReference.__metadata__ if each.pattern)
    assert not re.search(r"\(\?[^:]", constraints.pattern)  # RE2 has no look-around

"""What pods mount of the places that a Model reads: claims read-only, of DVC the credentials of its remote."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.resources.samples import FULL, SETTINGS, model, policy, run
from truekeep.api.common import S3Location, VolumeLocation
from truekeep.domain.mounts import mounts
from truekeep.domain.observed import ModelView
from truekeep.resources.monitor_cronjob import Watched, monitor_cronjob
from truekeep.resources.mounts import location_volumes
from truekeep.resources.newdata_cronjob import newdata_cronjob
from truekeep.resources.training_job import training_job

CLAIMS = {
    "source": {"pvc": {"claimName": "lake", "path": "rows"}},
    "label": {"column": "late", "source": {"pvc": {"claimName": "labels"}}},
}
DVC = {
    "source": {
        "dvc": {
            "remote": {"uri": "s3://dvc/", "credentialsSecretRef": {"name": "dvc-remote"}},
            "md5": "0" * 32,
            "path": "a.csv",
        }
    }
}


def reading(**data: Any) -> ModelView:
    spec = FULL | {"data": {**FULL["data"], **data, "joins": []}} | {"retraining": {"newData": {"minRows": 100}}}
    return model(spec)


def pod_of(manifest: dict[str, Any] | None) -> dict[str, Any]:
    assert manifest is not None
    spec = manifest["spec"]
    pod: dict[str, Any] = spec.get("jobTemplate", {}).get("spec", spec)["template"]["spec"]
    return pod


def claims(pod: dict[str, Any]) -> dict[str, str]:
    """By claim: where it is mounted. Each is read-only as a volume and as a mount."""
    found = {}
    at = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    for volume in pod["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["readOnly"] is True
            assert at[volume["name"]]["readOnly"] is True
            found[claim["claimName"]] = at[volume["name"]]["mountPath"]
    return found


def pods(view: ModelView) -> dict[str, dict[str, Any]]:
    """Those that read data: training, counting, and monitoring."""
    watched = Watched(3, "sha256:" + "0" * 64)
    return {
        "training": pod_of(training_job(view, run(), SETTINGS, None)),
        "counting": pod_of(newdata_cronjob(view, datetime(2024, 1, 1, tzinfo=UTC), SETTINGS)),
        "monitoring": pod_of(monitor_cronjob(view, policy(), watched, SETTINGS)),
    }


@pytest.mark.parametrize("who", ["training", "counting", "monitoring"])
def test_claims_are_mounted_read_only_where_they_are_read(who: str) -> None:
    both = {name: f"/var/run/truekeep/volumes/{name}" for name in ("lake", "labels")}
    expected = {"labels": both["labels"]} if who == "monitoring" else both
    assert claims(pods(reading(**CLAIMS))[who]) == expected


def test_the_credentials_of_a_dvc_remote_are_mounted() -> None:
    for who in ("training", "counting"):
        pod = pods(reading(**DVC))[who]
        assert "dvc-remote" in {volume.get("secret", {}).get("secretName") for volume in pod["volumes"]}


def test_a_claim_of_two_places_is_mounted_once() -> None:
    places = [VolumeLocation.model_validate({"claimName": "lake", "path": path}) for path in ("a", "b")]
    volumes, mounted = location_volumes([*places, S3Location(uri="s3://x12/")])
    assert [volume["persistentVolumeClaim"]["claimName"] for volume in volumes] == ["lake"]
    assert [mount["mountPath"] for mount in mounted] == ["/var/run/truekeep/volumes/lake"]


def test_what_a_pod_waits_for_is_named() -> None:
    named = mounts(reading(**CLAIMS).spec)
    assert {"PersistentVolumeClaim lake", "PersistentVolumeClaim labels"} < set(named)
    assert "Secret dvc-remote" in mounts(reading(**DVC).spec)


def test_every_pod_takes_the_declared_service_account_and_no_token_of_it() -> None:
    view = reading()
    assert all("serviceAccountName" not in pod for pod in pods(view).values())
    spec = view.spec.model_copy(update={"pods": view.spec.pods.model_copy(update={"service_account_name": "reader"})})
    for pod in pods(replace(view, spec=spec)).values():
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("reader", False)

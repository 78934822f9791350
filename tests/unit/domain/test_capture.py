"""What the capture section means for decisions: rehearsals, messages, and which pods a change replaces."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.domain.world import spec
from truekeep.api.model import ModelSpec
from truekeep.domain.fingerprints import serving_key
from truekeep.domain.rehearsal import wants_rehearsal
from truekeep.domain.run import mounts

CAPTURE = {"s3": {"uri": "s3://lake/captures/"}}
SALT = {"hashKeySecretRef": {"name": "salt"}}


def model(**capture: Any) -> ModelSpec:
    return spec(serving={"capture": {**CAPTURE, **capture}})


@pytest.mark.parametrize(
    ("capture", "wanted"),
    [
        ({}, True),
        ({"hash": ["id"], **SALT}, True),  # requests are sent again without their key
        ({"hash": ["id", "hour"], **SALT}, False),
        ({"drop": ["hour"]}, False),
        ({"fractionPercent": 0}, False),
    ],
)
def test_only_requests_that_were_kept_whole_are_rehearsed(capture: dict[str, Any], wanted: bool) -> None:
    assert wants_rehearsal(model(**capture)) is wanted


def test_a_pod_that_waits_for_the_hash_key_is_explained() -> None:
    assert mounts(model(hash=["id"], **SALT)) == ("Secret lake", "Secret salt")


def test_new_fields_that_are_unset_restart_no_pod() -> None:
    """A digest as it was: whoever changes it restarts every serving pod at the next upgrade, so do it on purpose."""
    assert serving_key(model()) == "sha256:5a26f3c5b5486cfe06f058a526839308aad132d6857a868b730041d4b34a0aee"


def test_a_change_of_what_is_hashed_is_rolled_out() -> None:
    keys = {serving_key(model()), serving_key(model(hash=["id"], **SALT)), serving_key(model(hash=["hour"], **SALT))}
    keys |= {serving_key(model(spoolMebibytes=0))}
    assert len(keys) == 4


def test_how_long_captures_are_kept_is_not_the_pods_affair() -> None:
    assert serving_key(model(retentionDays=9)) == serving_key(model())

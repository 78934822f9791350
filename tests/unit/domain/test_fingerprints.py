"""What asks for training, or for a rollout, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.domain.world import spec
from truekeep.domain.fingerprints import serving_key, training_fingerprint

CAPTURE: dict[str, Any] = {"s3": {"uri": "s3://lake/captures/"}}


def test_a_field_at_its_default_is_as_good_as_unset() -> None:
    """So a field that a later version brings neither trains a model anew nor restarts its pods."""
    plain = spec()
    written = spec(
        data={"rules": [], "joins": []},
        evaluation={"slices": [], "refit": "Never", "holdout": {"latestFraction": "0.2"}},
        serving={"capture": {**CAPTURE, "fractionPercent": 100, "drop": []}, "connectionMaxAgeSeconds": 30},
    )
    assert training_fingerprint(written) == training_fingerprint(plain)
    assert serving_key(written) == serving_key(plain)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"data": {"key": "other"}},
        {"evaluation": {"gates": []}},
        {"evaluation": {"refit": "OnAllRows"}},
        {"data": {"features": [{"name": "hour", "type": "Number", "nulls": "Refuse"}]}},
    ],
)
def test_what_makes_another_model_asks_for_training(change: dict[str, Any]) -> None:
    assert training_fingerprint(spec(**change)) != training_fingerprint(spec())


@pytest.mark.parametrize(
    "change",
    [
        {"serving": {"connectionMaxAgeSeconds": 5}},
        {"serving": {"resources": {"limits": {"memory": "2Gi"}}}},
        {"serving": {"capture": None}},
        {"serving": {"capture": {**CAPTURE, "drop": ["hour"]}}},
        {"serving": {"image": {"reference": "team/server:1"}}},
        {"pods": {"nodeSelector": {"disk": "ssd"}}},
    ],
)
def test_what_makes_other_pods_is_rolled_out(change: dict[str, Any]) -> None:
    assert serving_key(spec(**change)) != serving_key(spec())
    assert training_fingerprint(spec(**change)) == training_fingerprint(spec())


@pytest.mark.parametrize(
    "change",
    [
        {"serving": {"replicas": 5}},
        {"serving": {"rollbackWindowSeconds": 5}},
        {"serving": {"capture": {**CAPTURE, "retentionDays": 7}}},
        {"serving": {"rollout": {"strategy": "BlueGreen"}}},
        {"retraining": {"suspend": "Now"}},
        {"approval": {"mode": "Manual"}},
    ],
)
def test_what_pods_do_not_see_touches_none(change: dict[str, Any]) -> None:
    assert serving_key(spec(**change)) == serving_key(spec())
    assert training_fingerprint(spec(**change)) == training_fingerprint(spec())

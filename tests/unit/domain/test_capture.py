"""What the capture section means for decisions: rehearsals, messages, and which pods a change replaces."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.domain.world import POLICY, SETTINGS, START, spec
from truekeep.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus
from truekeep.api.model import ModelSpec, ModelStatus, ServedRevision
from truekeep.domain.captures import swept
from truekeep.domain.fingerprints import serving_key
from truekeep.domain.model import decide
from truekeep.domain.mounts import mounts
from truekeep.domain.observed import JobView, Meta, ModelObserved, ModelView, PodView, PolicyObserved, PolicyView
from truekeep.domain.policy import decide as decide_policy
from truekeep.domain.rehearsal import wants_rehearsal

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


def job(number: int, said: str, *, failed: str | None = None, done: bool = True) -> JobView:
    made = START + timedelta(days=number)
    pod = PodView(
        f"p{number}", made, "Failed" if failed else "Succeeded", exit_code=1 if failed else 0, exit_message=said
    )
    return JobView(Meta("ns", f"j{number}", f"u{number}", made), done and not failed, failed, "too often", pods=(pod,))


def seen(*sweeps: JobView, **capture: Any) -> ModelObserved:
    view = ModelView(Meta("ns", "m", "uid-m", START), model(**capture), ModelStatus())
    return ModelObserved(model=view, sweeps=sweeps)


def condition(*sweeps: JobView, **capture: Any) -> tuple[str, str, str] | None:
    finding = swept(seen(*sweeps, **capture), START + timedelta(days=9))
    return (finding.status, finding.reason, finding.message) if finding else None


def test_the_status_tells_how_the_last_sweep_went() -> None:
    assert condition() is None
    assert condition(retentionDays=7) == ("Unknown", "NoSweepYet", "the CronJob m-retention sweeps once a day")
    swept_twice = (job(2, "9 files"), job(1, "8 files"))
    assert condition(*swept_twice, retentionDays=7) == ("True", "Swept", "9 files")
    status, reason, message = (
        condition(*swept_twice, job(3, "denied", failed="BackoffLimit"), retentionDays=7) or ("",) * 3
    )
    assert (status, reason) == ("False", "SweepFailed")
    assert message == "denied; captures stay longer than spec.serving.capture.retentionDays until a sweep succeeds"
    running = JobView(Meta("ns", "j4", "u4", START + timedelta(days=4)))
    assert condition(job(1, "8 files"), running, retentionDays=7) == ("True", "Swept", "8 files")
    waiting = PodView("p", START, waiting_reason="ImagePullBackOff", waiting_message="no such image")
    stuck = JobView(Meta("ns", "j5", "u5", START + timedelta(days=5)), pods=(waiting,))
    assert (condition(job(1, "8 files"), stuck, retentionDays=7) or ("", ""))[:2] == ("False", "ImagePullFailed")


def test_a_sweep_that_fails_is_an_event_once() -> None:
    failed = job(3, "denied", failed="BackoffLimit")
    observed = seen(failed, retentionDays=7)
    plan = decide(observed, SETTINGS, START + timedelta(days=9))
    assert ("Warning", "SweepFailed") in [(note.type, note.reason) for note in plan.notes]
    again = replace(observed, model=replace(observed.model, status=plan.status))
    assert not [
        note for note in decide(again, SETTINGS, START + timedelta(days=9)).notes if note.reason == "SweepFailed"
    ]


def watching(window: dict[str, Any], **capture: Any) -> str:
    """What a DriftPolicy on such a Model says."""
    active = ServedRevision(revision=1, run="m-1", artifact_digest="sha256:" + "0" * 64, deployment="m-r1")
    view = ModelView(Meta("ns", "m", "uid-m", START), model(**capture), ModelStatus(active=active))
    policy = DriftPolicySpec.model_validate({**POLICY, "window": window})
    observed = PolicyObserved(PolicyView(Meta("ns", "p", "uid-p", START), policy, DriftPolicyStatus()), view)
    conditions = decide_policy(observed, SETTINGS, START).status.conditions
    return next(each.message for each in conditions if each.type == "Ready")


def test_a_policy_says_what_captures_keep_from_it() -> None:
    assert watching({"hours": 48}) == "revision 1 is watched on schedule * * * * *"
    assert watching({"hours": 48}, drop=["hour"], hash=["id", "carrier"], **SALT).endswith(
        "; not compared, because capture drops or hashes them: carrier, hour"
    )
    assert watching({"hours": 48}, retentionDays=2) == watching({"hours": 48})
    assert "captures are deleted after 2 days, but a window is judged up to 2.5 days after its first row" in watching(
        {"hours": 48, "allowedLatenessSeconds": 43200}, retentionDays=2
    )


def test_a_change_of_what_is_hashed_is_rolled_out() -> None:
    keys = {serving_key(model()), serving_key(model(hash=["id"], **SALT)), serving_key(model(hash=["hour"], **SALT))}
    keys |= {serving_key(model(spoolMebibytes=0))}
    assert len(keys) == 4


def test_how_long_captures_are_kept_is_not_the_pods_affair() -> None:
    assert serving_key(model(retentionDays=9)) == serving_key(model())

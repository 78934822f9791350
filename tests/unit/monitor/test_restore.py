"""The pod that reads a former run from the store: what it hands over, and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import free_port
from truekeep.api.common import S3Location
from truekeep.api.trainingrun import MOST_RESTORED, Restore
from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.contract.decisions import Decision, Page
from truekeep.contract.heritage import heritage
from truekeep.contract.requests import REQUEST_ENV, TERMINATION_LIMIT, TERMINATION_LOG_ENV, RestoreRequest
from truekeep.contract.results import TrainResult
from truekeep.monitor.restore import RestoreError, main, restore
from truekeep.storage.folder import Folder

START = datetime(2026, 3, 1, tzinfo=UTC)
MANIFEST = b"a manifest"
ARTIFACT = sha256(MANIFEST)
OTHER = sha256(b"another")
FINGERPRINT = sha256(b"spec")


def hours(number: int) -> datetime:
    return START + timedelta(hours=number)


def told(kind: str, number: int, at: int, uid: str = "m1", **more: Any) -> Decision:
    digest = {1: ARTIFACT, 2: OTHER}.get(number, sha256(b"%d" % number))
    common = {"run_uid": f"u{number}", "run": f"late-{number}"} if kind == "Revision" else {"deployment": f"d{number}"}
    given = {"artifact_digest": digest, **common, **more}
    return Decision(
        id=f"{kind}/{uid}/{number}/{at}", kind=kind, time=hours(at), model_uid=uid, revision=number, **given
    )  # type: ignore[arg-type]


class Place:
    """A store with one run, u1."""

    def __init__(self, path: Path) -> None:
        self.store = Folder(path)
        self.store.put(layout.artifact_file(ARTIFACT, layout.MANIFEST), MANIFEST)
        self.record = canonical_json(
            {
                "run": {"name": "late-1", "modelGeneration": 3, "author": "eve"},
                "times": {"started": "2026-03-01T00:10:00.5Z", "finished": "2026-03-01T00:20:00Z"},
                "environment": {"image": "trainer:1"},
            }
        )
        self.store.put(layout.record(sha256(self.record)), self.record)
        self.result()

    def result(self, **changes: Any) -> None:
        body = {
            "runUid": "u1",
            "reason": "Succeeded",
            "message": "roc_auc 0.7",
            "trainingFingerprint": FINGERPRINT,
            "metrics": [{"name": "roc_auc", "value": "0.7"}],
            "artifact": {"digest": ARTIFACT, "uri": "s3://models/x", "sizeBytes": 1},
            "record": {"id": sha256(self.record), "uri": "s3://models/r"},
            **changes,
        }
        self.store.put(layout.run_result("shop", "late", "u1"), json.dumps(body).encode())

    def decided(self, *decisions: Decision) -> None:
        page = Page(namespace="shop", model="late", number=1, written=START, decisions=decisions)
        self.store.put(layout.decisions("shop", "late", 1), page.to_bytes())

    def restored(self, **restore_: Any) -> TrainResult:
        return restore(self.store, request(**restore_))


def request(store: S3Location | None = None, **given: Any) -> RestoreRequest:
    return RestoreRequest(
        namespace="shop", model="late", run="late-1", run_uid="new", training_fingerprint=sha256(b"now"),
        store=store or S3Location(uri="s3://models/"),
        restore=Restore.model_validate({"run_uid": "u1", "model_uid": "m1", **given}),
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_run_is_what_it_was(place: Place) -> None:
    place.decided(
        told("Revision", 1, 1, author="eve", image="trainer:1", image_id="trainer@sha256:1"),
        told("Promoted", 1, 2, approver="ann"),
        told("Revision", 2, 3),
        told("Failed", 1, 4, fingerprint=FINGERPRINT, reason="CrashLoopBackOff"),
    )
    found = place.restored(revision=1)
    assert (found.run_uid, found.reason, found.training_fingerprint) == ("new", "Succeeded", FINGERPRINT)
    former = found.former
    assert former is not None
    assert (former.revision, former.author, former.image_id) == (1, "eve", "trainer@sha256:1")
    assert former.started == datetime(2026, 3, 1, 0, 10, tzinfo=UTC)
    assert former.finished == hours(1)  # as the operator knew it
    assert former.model_generation == 3
    facts = former.facts
    assert facts.run_uid == "u1"
    assert [(each.deployment, each.since, each.approver) for each in facts.promotions] == [("d1", hours(2), "ann")]
    assert [(each.fingerprint, each.reason) for each in facts.failures] == [(FINGERPRINT, "CrashLoopBackOff")]
    assert facts.taken_back is None


def test_it_always_fits_into_a_message(place: Place) -> None:
    long = "x" * 500
    place.decided(
        told("Revision", 1, 0, author=long[:255], image=long, image_id=long),
        *(told("Promoted", 1, at, deployment=f"d-{at:059}", approver=long[:250]) for at in range(1, 9)),
        *(told("Failed", 1, at, deployment=f"d-{at:059}", fingerprint=FINGERPRINT, reason=long[:128]) for at in (2, 4)),
        told("Rejected", 1, 9, approver=long[:255], approval=long[:250], reason=long),
    )
    place.result(message="words " * 300, gates=[
        {"name": f"gate-{n}", "metric": "roc_auc", "value": "0.7", "threshold": "0.6", "result": "Passed", "rows": 9}
        for n in range(40)
    ])  # fmt: skip
    message = place.restored().to_message()
    assert len(message.encode()) <= TERMINATION_LIMIT
    former = TrainResult.model_validate_json(message).former
    assert former is not None
    assert 1 <= len(former.facts.promotions) < MOST_RESTORED
    assert former.facts.promotions[0].since == hours(8)
    assert former.facts.word is not None
    assert former.facts.word.decision == "Reject"


def test_it_ends_also_where_nothing_fits(place: Place) -> None:
    uri = "s3://models/" + "x" * 1000
    place.result(record={"id": sha256(place.record), "uri": uri, "report": uri}, message="m" * 2000,
                 artifact={"digest": ARTIFACT, "uri": uri, "sizeBytes": 1},
                 metrics=[{"name": f"m{n}" * 15, "value": "0.123456789"} for n in range(20)])  # fmt: skip
    assert place.restored().to_message()


def test_a_number_is_the_stores_word(place: Place) -> None:
    place.decided(told("Revision", 1, 1), told("Revision", 2, 2))
    assert place.restored().former.revision == 1  # type: ignore[union-attr]
    with pytest.raises(RestoreError, match="was revision 1 by the store, not 2"):
        place.restored(revision=2)
    place.decided(told("Revision", 2, 2))
    assert place.restored(revision=3).former.revision == 3  # type: ignore[union-attr]
    assert place.restored().former.revision is None  # type: ignore[union-attr]
    with pytest.raises(RestoreError, match="knows of 2 as the highest number"):
        place.restored(revision=2)


def test_what_does_not_agree_is_refused(place: Place) -> None:
    place.decided(told("Revision", 1, 1, artifact_digest=OTHER))
    with pytest.raises(RestoreError, match="one of the two was altered"):
        place.restored()
    place.decided(told("Revision", 1, 1))
    place.store.put(layout.record(sha256(place.record)), place.record + b" ")
    with pytest.raises(RestoreError, match="RECORD WAS ALTERED"):
        place.restored()
    place.store.put(layout.record(sha256(place.record)), place.record)
    place.store.put(layout.artifact_file(ARTIFACT, layout.MANIFEST), b"another")
    with pytest.raises(RestoreError, match="ARTIFACT WAS ALTERED"):
        place.restored()
    place.result(runUid="u7")
    with pytest.raises(RestoreError, match="moved or altered"):
        place.restored()
    with pytest.raises(RestoreError, match=r"is spec\.store of the Model where it was"):
        place.restored(run_uid="u9")
    place.store.put(layout.run_result("shop", "late", "u1"), b"{")
    with pytest.raises(RestoreError, match="is no result"):
        place.restored()


def test_a_run_that_made_nothing_is_restored_without_a_number(place: Place) -> None:
    place.result(reason="GatesFailed", artifact=None)
    found = place.restored()
    assert (found.reason, found.former.revision if found.former else 0) == ("GatesFailed", None)
    (place.store.path / layout.record(sha256(place.record))).unlink()  # lost, not altered
    assert place.restored().former.started is None  # type: ignore[union-attr]


def test_what_was_taken_back_and_by_whom() -> None:
    history = [told("Revision", 1, 0), told("Revision", 2, 0), told("Promoted", 1, 1), told("Promoted", 2, 2)]
    assert heritage(history).facts("u2").taken_back is None
    assert heritage(history).champion.revision == 2  # type: ignore[union-attr]
    back = [*history, told("Promoted", 1, 5)]
    assert heritage(back).facts("u2").taken_back == hours(5)
    assert heritage(back).facts("u1").taken_back is None
    failed = [*back, told("Failed", 2, 4, fingerprint=FINGERPRINT, reason="NotReady")]
    assert heritage(failed).facts("u2").taken_back is None  # its failure says it
    again = [*back, told("Promoted", 2, 9)]
    assert heritage(again).facts("u2").taken_back is None
    assert heritage(again).facts("u1").taken_back is None  # a newer one took over: that is no way back


def test_models_of_one_name_are_kept_apart_and_a_restored_one_is_the_same() -> None:
    first = [told("Revision", 1, 1), told("Revision", 2, 2), told("Promoted", 2, 3)]
    other = [told("Revision", 1, 5, "m2", run_uid="x1"), told("Promoted", 1, 6, "m2")]
    assert heritage([*first, *other]).model_uids == {"m2"}
    assert heritage([*first, *other]).latest == 1
    assert heritage([*first, *other], "m1").latest == 2
    restored = [told("Revision", 2, 2, "m3"), told("Promoted", 2, 8, "m3"), told("Revision", 3, 9, "m3")]
    found = heritage([*first, *restored])
    assert found.model_uids == {"m1", "m3"}
    assert (sorted(found.revisions), len(found.facts("u2").promotions)) == ([1, 2, 3], 2)


@pytest.mark.parametrize(("there", "reason", "code"), [(True, "RestoreInvalid", 3), (False, "StoreUnreachable", 4)])
def test_the_pod_says_why_it_can_not(
    there: bool, reason: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from truekeep.monitor import restore as module

    message = tmp_path / "message"
    location = S3Location(uri="s3://models/", endpoint=f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv(REQUEST_ENV, request(location).model_dump_json(by_alias=True, exclude_none=True))
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(message))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    if there:
        monkeypatch.setattr(module.Bucket, "open", lambda *_: Folder(tmp_path))
    assert main() == code
    result = TrainResult.model_validate_json(message.read_text())
    assert (result.run_uid, result.reason) == ("new", reason)
    monkeypatch.setenv(REQUEST_ENV, "{}")
    assert main() == 3

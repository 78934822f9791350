"""Decisions in the store: each once, chained, whoever else writes; what was altered or taken away shows."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import Versitygw, free_port
from truekeep.api.common import S3Location
from truekeep.cli import ledger
from truekeep.contract import layout
from truekeep.contract.decisions import Decision, told
from truekeep.contract.requests import REQUEST_ENV, TERMINATION_LOG_ENV, KeepRequest
from truekeep.contract.results import KeepResult
from truekeep.monitor import keep as module
from truekeep.monitor.keep import keep, main
from truekeep.storage import StoreError
from truekeep.storage.folder import Folder
from truekeep.storage.s3 import Bucket

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def decision(number: int, **more: Any) -> Decision:
    at = NOW + timedelta(hours=number)
    return Decision(id=f"d{number}", kind="Promoted", time=at, model_uid="u", revision=number, **more)


def request(*numbers: int, store: S3Location | None = None) -> KeepRequest:
    location = store or S3Location(uri="s3://models/")
    return KeepRequest(namespace="shop", model="late", store=location, decisions=tuple(map(decision, numbers)))


def test_only_what_is_new_makes_a_page(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    first = keep(store, request(1, 2), NOW)
    assert (first.pages, first.reason, first.told) == (1, "Kept", told(map(decision, (1, 2))))
    again = keep(store, request(2, 1), NOW)
    assert (again.pages, again.head, again.told) == (1, first.head, first.told)
    second = keep(store, request(2, 3), NOW)
    found = ledger.read(store, "shop", "late")
    assert [one.id for one in found.decisions] == ["d1", "d2", "d3"]
    assert (found.pages, found.faults) == ((first.head, second.head), ())
    assert found.against(first.head).faults == found.against(second.head).faults == found.against(None).faults == ()
    assert "newest were taken away" in found.against("sha256:" + "0" * 64).faults[0]
    answered = found.answered_at(NOW + timedelta(hours=2, minutes=30))
    assert answered is not None
    assert answered.revision == 2
    assert found.answered_at(NOW) is None


def test_two_that_write_at_the_same_time_take_two_numbers(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    keep(store, request(1), NOW)

    class Raced(Folder):
        raced = False

        def put(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
            assert only_if_absent
            if not self.raced:
                self.raced = True
                keep(store, request(2), NOW)
            return super().put(key, data, only_if_absent)

    assert keep(Raced(tmp_path), request(3), NOW).pages == 3
    found = ledger.read(store, "shop", "late")
    assert ([one.id for one in found.decisions], found.faults) == (["d1", "d2", "d3"], ())

    class Refusing(Folder):
        def put(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
            return False

    with pytest.raises(StoreError, match="again and again"):
        keep(Refusing(tmp_path), request(4), NOW)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_was_altered_or_taken_away_shows(tmp_path: Path, number: int) -> None:
    store = Folder(tmp_path)
    newest = [keep(store, request(each), NOW).head for each in (1, 2, 3)][-1]
    path = tmp_path / layout.decisions("shop", "late", number)
    whole = path.read_bytes()
    for damage in (whole.replace(b'"u"', b'"v"'), b"{}", whole.replace(b'"number":', b'"number":1')):
        path.write_bytes(damage)
        assert ledger.read(store, "shop", "late").against(newest).faults, damage
    path.unlink()
    assert ledger.read(store, "shop", "late").against(newest).faults
    path.write_bytes(whole)
    assert ledger.read(store, "shop", "late").against(newest).faults == ()


def test_it_goes_on_behind_a_page_that_was_altered(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    keep(store, request(1), NOW)
    (tmp_path / layout.decisions("shop", "late", 1)).write_bytes(b"?")
    assert keep(store, request(1, 2), NOW).pages == 2
    found = ledger.read(store, "shop", "late")
    assert [one.id for one in found.decisions] == ["d1", "d2"]
    assert "is no page of decisions" in found.faults[0]


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(tmp_path / "message"))
    return tmp_path / "message"


def test_the_pod(pod: Path, versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch) -> None:
    location = versitygw.location()
    asked = request(1, 2, store=location)
    monkeypatch.setenv(REQUEST_ENV, asked.model_dump_json(by_alias=True, exclude_none=True))
    assert main(lambda: NOW) == 0
    result = KeepResult.model_validate_json(pod.read_text())
    assert (result.reason, result.pages, result.told) == ("Kept", 1, told(asked.decisions))
    found = ledger.read(Bucket.open(location), "shop", "late")
    assert (len(found.decisions), found.pages) == (2, (result.head,))
    down = location.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    monkeypatch.setenv(REQUEST_ENV, request(1, store=down).model_dump_json(by_alias=True, exclude_none=True))
    assert main(lambda: NOW) == 4
    assert KeepResult.model_validate_json(pod.read_text()).reason == "StoreUnreachable"
    monkeypatch.setenv(REQUEST_ENV, "{}")
    assert main() == 3
    monkeypatch.setenv(REQUEST_ENV, asked.model_dump_json(by_alias=True, exclude_none=True))
    monkeypatch.setattr(module, "keep", lambda *_: os.stat("/nowhere"))
    assert main() == 1

"""Labels that do not lie in S3: the monitor reads them where training does."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.conftest import Versitygw
from truekeep.contract.requests import VOLUMES_DIR_ENV, Labels
from truekeep.monitor import labels
from truekeep.sources.columns import NO_LABEL

ROWS = b"id,late\nk1,1\nk2,0\nk3,\n"
KEYS = pa.array(["k2", "k1", "k3", "other", None])
FOUND = [0, 1, NO_LABEL, NO_LABEL, NO_LABEL]


def where(source: dict[str, Any]) -> Labels:
    return Labels.model_validate({"source": source, "key": "id", "column": "late"})


def test_in_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VOLUMES_DIR_ENV, str(tmp_path))
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "a.csv").write_bytes(ROWS)
    declared = where({"pvc": {"claimName": "claim"}})
    files = labels.files(declared)
    assert labels.read(files, declared, KEYS).labels.tolist() == FOUND
    assert (
        labels.read(files.since(datetime.now(UTC) + timedelta(days=9)), declared, KEYS).labels.tolist()
        == [NO_LABEL] * 5
    )
    state = files.state
    (tmp_path / "claim" / "b.csv").write_bytes(b"id,late\nk3,1\n")
    assert labels.files(declared).state != state
    assert labels.read(labels.files(declared), declared, KEYS).labels.tolist() == [0, 1, 1, NO_LABEL, NO_LABEL]


def test_a_link_out_of_a_volume_is_a_problem_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VOLUMES_DIR_ENV, str(tmp_path))
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "a.csv").symlink_to("/etc/passwd")
    declared = where({"pvc": {"claimName": "claim"}})
    read = labels.read(labels.files(declared), declared, KEYS)
    assert read.labels.tolist() == [NO_LABEL] * 5
    assert "pvc://claim/a.csv is a link that leads out of the volume" in read.problems[0]


def test_of_dvc_and_what_was_altered_is_told(versitygw: Versitygw) -> None:
    location = versitygw.location("store/")
    digest = hashlib.md5(ROWS, usedforsecurity=False).hexdigest()
    key = f"store/files/md5/{digest[:2]}/{digest[2:]}"
    bucket = location.uri.split("/")[2]
    versitygw.client().put_object(Bucket=bucket, Key=key, Body=ROWS)
    declared = where({"dvc": {"remote": location.dump(), "md5": digest, "path": "labels.csv"}})
    files = labels.files(declared).since(datetime.now(UTC) - timedelta(hours=1))
    assert labels.read(files, declared, KEYS).labels.tolist() == FOUND
    versitygw.client().put_object(Bucket=bucket, Key=key, Body=ROWS + b"k9,1\n")
    read = labels.read(labels.files(declared), declared, KEYS)
    assert "labels.csv has not the MD5" in read.problems[0]

"""Files of a mounted volume, and what tries to lead out of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tests.unit.sources.test_read import AMOUNT, AT, EVERYTHING, KEY
from tests.unit.trainer.lake import csv_of, events, parquet
from truekeep.api.common import VolumeLocation
from truekeep.contract.requests import VOLUMES_DIR_ENV
from truekeep.sources import objects
from truekeep.sources.errors import SourceInvalid
from truekeep.sources.places import in_pod
from truekeep.sources.read import read_table
from truekeep.sources.volume import Volume
from truekeep.storage import ObjectMissing, StoreDenied


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The volume of claim `flights`, as the kubelet mounts it."""
    monkeypatch.setenv(VOLUMES_DIR_ENV, str(tmp_path / "volumes"))
    root = tmp_path / "volumes" / "flights"
    (root / "lake" / "day=1").mkdir(parents=True)
    (root / "lake" / "a.csv").write_bytes(csv_of(events(3)))
    (root / "lake" / "day=1" / "b.parquet").write_bytes(parquet(events(4)))
    (root / "lake" / ".hidden").mkdir()
    (root / "lake" / ".hidden" / "c.csv").write_text("x")
    (tmp_path / "secret.csv").write_text("at,id,amount\n2024-01-01,k,1\n")
    return root


def volume(path: str = "lake") -> Volume:
    return Volume.open(VolumeLocation.model_validate({"claimName": "flights", "path": path}))


def test_files_are_read_and_pinned(root: Path) -> None:
    place = VolumeLocation.model_validate({"claimName": "flights", "path": "lake/"})
    table = read_table(in_pod(place), "source", (AT, KEY, AMOUNT), EVERYTHING)
    assert len(table) == 7
    assert [pin.uri for pin in table.pins] == ["pvc://flights/lake/a.csv", "pvc://flights/lake/day=1/b.parquet"]
    content = (root / "lake/a.csv").read_bytes()
    pin = table.pins[0]
    assert (pin.size, pin.sha256) == (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
    assert pin.version_id is None
    assert pin.etag == f"{len(content)}-{(root / 'lake/a.csv').stat().st_mtime_ns}"
    assert table.known["day"] == "partition"


def test_the_whole_volume_is_the_default(root: Path) -> None:
    assert [info.key for info in volume("").list()] == ["lake/a.csv", "lake/day=1/b.parquet"]
    assert volume("").uri("lake/a.csv") == "pvc://flights/lake/a.csv"
    assert [info.key for info in volume("").list("lake/d", "lake/a.csv")] == ["lake/day=1/b.parquet"]


def test_large_files_are_read_piece_by_piece(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SPOOLED_FROM", 10)
    monkeypatch.setattr(objects, "PIECE", 64)
    table = read_table(volume(), "source", (AT, KEY, AMOUNT), EVERYTHING)
    assert len(table) == 7
    np.testing.assert_array_equal(np.asarray(table.columns[AMOUNT])[:3], events(3)["amount"].to_numpy())


def test_links_within_the_volume_are_followed(root: Path) -> None:
    (root / "current").symlink_to("lake")
    (root / "lake" / "z.csv").symlink_to("../lake/a.csv")
    assert [info.key for info in volume("current").list()] == ["a.csv", "day=1/b.parquet", "z.csv"]
    assert volume("current").fetch("z.csv").data == (root / "lake/a.csv").read_bytes()


@pytest.mark.parametrize("target", ["../../../secret.csv", "/etc/passwd", "/proc/self/environ"])
def test_a_file_that_is_a_link_out_of_the_volume_is_refused(root: Path, target: str) -> None:
    (root / "lake" / "z.csv").symlink_to(target)
    with pytest.raises(SourceInvalid, match=r"pvc://flights/lake/z\.csv is a link that leads out of the volume"):
        list(volume().list())
    with pytest.raises(SourceInvalid, match="leads out of the volume"):
        volume().fetch("z.csv")


def test_a_folder_that_is_a_link_out_of_the_volume_is_refused(root: Path) -> None:
    (root / "out").symlink_to(root.parent.parent)
    with pytest.raises(SourceInvalid, match="leads out of the volume"):
        list(volume("out").list())
    with pytest.raises(SourceInvalid, match="leads out of the volume"):
        volume("out").fetch("secret.csv")
    (root / "lake" / "further").symlink_to(root.parent.parent)
    assert [info.key for info in volume().list()] == ["a.csv", "day=1/b.parquet"]  # no link to a folder is walked


def test_a_link_that_is_made_after_the_listing_is_refused(root: Path) -> None:
    listed = list(volume().list())
    (root / "lake/a.csv").unlink()
    (root / "lake/a.csv").symlink_to("../../../secret.csv")
    with pytest.raises(SourceInvalid, match="leads out of the volume"):
        volume().fetch(listed[0].key)


def test_links_in_a_circle_lead_nowhere(root: Path) -> None:
    (root / "lake" / "z.csv").symlink_to("z.csv")
    with pytest.raises(SourceInvalid):
        list(volume().list())


@pytest.mark.parametrize("path", ["..", "../x", "a/../../x", "/etc", "a//b", ".", "a/./b"])
def test_a_path_that_leads_out_is_no_path(path: str) -> None:
    with pytest.raises(ValidationError):
        VolumeLocation.model_validate({"claimName": "flights", "path": path})


def test_a_pipe_is_no_file_and_waits_for_nobody(root: Path) -> None:
    os.mkfifo(root / "lake" / "z.csv")
    assert [info.key for info in volume().list()] == ["a.csv", "day=1/b.parquet"]
    with pytest.raises(SourceInvalid, match="is no file"):
        volume().fetch("z.csv")


def test_what_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(SourceInvalid, match="there is no folder lost in the volume of claim flights; correct path"):
        list(volume("lost").list())
    with pytest.raises(ObjectMissing, match=r"pvc://flights/lake/lost\.csv"):
        volume().fetch("lost.csv")


def test_a_permission_error_tells_the_remedy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied", "a.csv")

    monkeypatch.setattr("truekeep.sources.volume.os.open", denied)
    with pytest.raises(StoreDenied, match=r"a\.csv of claim flights: Permission denied; .*chmod -R a\+rX"):
        volume().fetch("a.csv")

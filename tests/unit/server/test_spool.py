"""Files on a disk: whole or not there, bounded, and found again by the next process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from truekeep.contract.requests import SPOOL_DIR_ENV
from truekeep.server import spool as module
from truekeep.server.spool import BLOCK, Spool, open_spool

KEY = "demo/flight-delay/revision=3/date=2026-01-05/hour=12/1_2_pod-1-0a1b_000000.parquet"


def test_a_file_is_kept_found_again_and_forgotten(tmp_path: Path) -> None:
    first = Spool(tmp_path, 100 * BLOCK)
    assert first.oldest() is None
    assert first.add(KEY, b"abc", 7)
    again = Spool(tmp_path, 100 * BLOCK)
    found = again.oldest()
    assert found is not None
    assert (found.key, found.rows, found.path.read_bytes()) == (KEY, 7, b"abc")
    assert (again.rows, again.size) == (7, BLOCK)
    again.remove(found)
    assert again.oldest() is None
    assert Spool(tmp_path, 100 * BLOCK).oldest() is None


def test_the_oldest_comes_first_also_for_the_next_process(tmp_path: Path) -> None:
    first = Spool(tmp_path, 100 * BLOCK)
    for number, name in enumerate("cab"):
        assert first.add(name, b"x", 1)
        os.utime(tmp_path / f"1~{name}", (number, number))
    for spool in (first, Spool(tmp_path, 100 * BLOCK)):
        order = []
        while file := spool.oldest():
            order.append(file.key)
            spool._files.pop(file.key)
        assert order == ["c", "a", "b"]


def test_what_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 3 * BLOCK)
    assert spool.add("a", b"x" * (BLOCK + 1), 1)
    assert not spool.add("b", b"x" * (BLOCK + 1), 1)
    assert spool.add("c", b"x", 1)
    assert not spool.add("d", b"", 1) or spool.size <= 3 * BLOCK
    assert not spool.add("e", b"x", 1)
    used = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert used <= 3 * BLOCK
    oldest = spool.oldest()
    assert oldest is not None
    spool.remove(oldest)
    assert spool.add("b", b"x" * (BLOCK + 1), 1)


def test_a_file_that_was_not_finished_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "7~half.part").write_bytes(b"PAR1")
    (tmp_path / "not ours").write_bytes(b"x")
    (tmp_path / "lost+found").mkdir()
    spool = Spool(tmp_path, 100 * BLOCK)
    assert spool.oldest() is None
    assert not (tmp_path / "7~half.part").exists()


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stops between the two leaves a part, never a file with a hole."""
    seen: list[list[str]] = []

    def fsync(descriptor: int) -> None:
        seen.append(sorted(path.name for path in tmp_path.iterdir()))

    spool = Spool(tmp_path, 100 * BLOCK)
    monkeypatch.setattr(module.os, "fsync", fsync)
    assert spool.add("a", b"x", 1)
    assert seen == [["1~a.part"], ["1~a"]]


def test_a_disk_that_refuses_is_said_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, 100 * BLOCK)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        assert not spool.add("a", b"x", 1)
        assert not spool.add("b", b"x", 1)
    assert caplog.text.count("the spool can't be written") == 1
    assert (spool.oldest(), list(tmp_path.iterdir())) == (None, [])
    assert spool.add("a", b"x", 1)


def test_there_is_none_where_none_is_wanted_or_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_spool(0, {SPOOL_DIR_ENV: str(tmp_path)}) is None
    assert open_spool(1, {SPOOL_DIR_ENV: str(tmp_path / "nowhere")}) is None
    spool = open_spool(1, {SPOOL_DIR_ENV: str(tmp_path)})
    assert spool is not None
    assert not spool.add("a", b"x" * ((1 << 20) + 1), 1)
    assert spool.add("a", b"x" * (1 << 20), 1)

"""A pid counts as ours only with its boot and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cluster.errors import ClusterError
from tests.cluster.layout import boot_id
from tests.cluster.processes import LOG_KEPT, LOG_LIMIT, Daemon, Daemons, start_time

SLEEP = [sys.executable, "-c", "import time; print('asleep', flush=True); time.sleep(600)"]


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    found = Daemons(tmp_path / "processes", tmp_path / "logs")
    yield found
    found.stop(grace=5)


def test_a_started_daemon_runs_in_its_own_session_and_is_remembered(daemons: Daemons) -> None:
    daemon = daemons.start("sleeper", SLEEP)
    assert daemons.running() == {"sleeper": daemon}
    assert os.getsid(daemon.pid) == daemon.pid
    assert daemon.boot == boot_id()


def test_stop_ends_daemons_and_may_be_repeated(daemons: Daemons) -> None:
    daemon = daemons.start("sleeper", SLEEP)
    daemons.stop(grace=5)
    assert daemons.running() == {}
    assert not daemon.runs()
    daemons.stop(grace=5)


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another boot"}])
def test_a_pid_that_another_process_has_by_now_is_never_signalled(change: dict[str, object]) -> None:
    bystander = subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL)
    try:
        started = start_time(bystander.pid)
        assert started is not None
        ours = Daemon("sleeper", bystander.pid, started, boot_id())
        assert ours.runs()
        stale = replace(ours, **change)  # type: ignore[arg-type]
        assert not stale.runs()
        stale.signal(signal.SIGKILL)
        assert bystander.poll() is None
        ours.signal(signal.SIGKILL)
        assert bystander.wait(timeout=10) == -signal.SIGKILL
        ours.signal(signal.SIGKILL)  # gone: nothing to do
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize(
    ("stat", "started"),
    [
        ("42 (etcd) S 1 42 42 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 9 0 12345 1 1", 12345),
        ("42 (a) b ) S) R 1 42 42 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 9 0 777 1 1", 777),
        ("42 (etcd) Z 1 42 42 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 9 0 12345 0 0", None),
    ],
)
def test_start_time_is_read_past_any_name_and_a_zombie_has_none(tmp_path: Path, stat: str, started: int | None) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "stat").write_text(stat)
    assert start_time(42, tmp_path) == started
    assert start_time(43, tmp_path) is None


def test_half_written_and_stale_records_are_no_running_daemons(daemons: Daemons, tmp_path: Path) -> None:
    records = tmp_path / "processes"
    records.mkdir()
    (records / "half.json").write_text('{"name": "half", "pid"')
    (records / "odd.json").write_text('{"name": "odd"}')
    (records / "stale.json").write_text(f'{{"name": "stale", "pid": {os.getpid()}, "started": 1, "boot": "x"}}')
    assert set(daemons.all()) == {"stale"}
    assert daemons.running() == {}


def test_a_daemon_that_ended_is_reported_with_its_last_words(daemons: Daemons) -> None:
    daemon = daemons.start("talker", ["sleep", "600"])
    daemons.require("talker")
    daemons.log("talker").write_text("starting\nreading flags\nno such flag\n")
    daemon.signal(signal.SIGKILL)
    os.waitpid(daemon.pid, 0)
    with pytest.raises(ClusterError, match=r"talker ended: reading flags \| no such flag \(all of it in "):
        daemons.require("talker")
    with pytest.raises(ClusterError, match="stranger ended: it wrote no log"):
        daemons.require("stranger")


def test_a_program_that_is_not_there_is_named(daemons: Daemons) -> None:
    with pytest.raises(ClusterError, match="the program no-such-containerd is missing"):
        daemons.start("containerd", ["no-such-containerd"])


def test_a_log_grown_too_long_keeps_its_end_and_goes_on(daemons: Daemons, tmp_path: Path) -> None:
    log = daemons.log("etcd")
    log.parent.mkdir()
    with log.open("ab") as writer:
        writer.write(b"x" * LOG_LIMIT)
        writer.write(b"the end\n")
        writer.flush()
        daemons.bound_logs()
        assert log.stat().st_size == LOG_KEPT
        writer.write(b"more\n")
    assert log.read_bytes().endswith(b"the end\nmore\n")
    assert log.stat().st_size == LOG_KEPT + len(b"more\n")

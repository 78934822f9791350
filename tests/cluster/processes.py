"""The cluster's daemons: started apart from whoever calls, remembered by pid and start time.

A pid alone says little: after a reboot, or when pids went round, another program has it. So a process counts as
ours only when boot, pid and the start time that the kernel gives are those that were written down.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.layout import boot_id

LOG_LIMIT = 16 * 2**20  # bytes of one daemon's log, beyond which only its end is kept
LOG_KEPT = 2**20
PROC = Path("/proc")


@dataclass(frozen=True)
class Daemon:
    """One running process, as it was written down."""

    name: str
    pid: int
    started: int  # in clock ticks since boot, field 22 of /proc/PID/stat
    boot: str

    def runs(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Signal this process and never another one that has its pid by now."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.runs():  # asked after the handle was taken: the handle stays with the process that it names
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def start_time(pid: int, proc: Path = PROC) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = (proc / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name in brackets may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


class Daemons:
    """The processes below one state directory."""

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs

    def start(self, name: str, argv: Sequence[str | Path]) -> Daemon:
        """Start a daemon in a session of its own, its output appended to its log."""
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            process = self._spawn(name, argv)
        except FileNotFoundError:
            raise ClusterError(f"the program {argv[0]} is missing") from None
        started = start_time(process.pid)
        if started is None:
            raise ClusterError(f"{name} ended at once: {self.last_words(name)}")
        daemon = Daemon(name, process.pid, started, boot_id())
        temporary = self._records / f"{name}.new"
        temporary.write_text(json.dumps(asdict(daemon)) + "\n")
        temporary.replace(self._records / f"{name}.json")
        return daemon

    def _spawn(self, name: str, argv: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                [str(argument) for argument in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
            )

    def all(self) -> dict[str, Daemon]:
        """What was started, running or not. A record that is not whole is as none: it was being written."""
        found = {}
        for file in sorted(self._records.glob("*.json")):
            try:
                daemon = Daemon(**json.loads(file.read_text()))
            except (ValueError, TypeError):
                continue
            found[daemon.name] = daemon
        return found

    def running(self) -> dict[str, Daemon]:
        return {name: daemon for name, daemon in self.all().items() if daemon.runs()}

    def require(self, name: str) -> None:
        """Raise with the daemon's last words when it has ended."""
        daemon = self.all().get(name)
        if daemon is None or not daemon.runs():
            raise ClusterError(f"{name} ended: {self.last_words(name)} (all of it in {self.log(name)})")

    def end(self, name: str, *, hard: bool = False, grace: float = 5.0) -> None:
        """End one, by SIGKILL at once where `hard`; returns when nothing of it is left. It may have ended already."""
        daemon = self.running().get(name)
        if daemon is None:
            return
        # A process counts as ended in /proc once its first thread is, while others may hold its ports still; the handle
        # tells of the last one's end.
        handle = os.pidfd_open(daemon.pid)
        try:
            daemon.signal(signal.SIGKILL if hard else signal.SIGTERM)
            if not select.select([handle], [], [], grace)[0]:
                daemon.signal(signal.SIGKILL)
                select.select([handle], [], [], grace)
        finally:
            os.close(handle)

    def stop(self, grace: float = 1.0) -> None:
        """Ask all to stop, then insist."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            daemons = self.running().values()
            for daemon in daemons:
                daemon.signal(number)
            deadline = time.monotonic() + grace
            while any(daemon.runs() for daemon in daemons) and time.monotonic() < deadline:
                time.sleep(0.05)

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def last_words(self, name: str) -> str:
        try:
            lines = self.log(name).read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return " | ".join(lines[-2:])[-600:] or "it wrote no log"

    def bound_logs(self) -> None:
        """Cut logs that have grown too long down to their end. The daemons append, so they go on at the new end."""
        for log in self._logs.glob("*.log"):
            if log.stat().st_size > LOG_LIMIT:
                with log.open("r+b") as file:
                    file.seek(-LOG_KEPT, os.SEEK_END)
                    end = file.read()
                    file.seek(0)
                    file.truncate()
                    file.write(end)

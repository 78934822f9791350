"""The operator as a process of its own, and what it did, by its metrics and by the API server's audit log."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

STOP_SECONDS = 30.0
NICE = -15
_SAMPLE = re.compile(r"^(\w+)(\{[^}]*\})? ([-+0-9.eE]+|NaN)$")


class OperatorProcess:
    """`python -m truekeep.operator_main` beside the tests, on a kubeconfig."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._kubeconfig = kubeconfig
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.started = 0.0  # time.monotonic

    def start(self) -> None:
        """A new process."""
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("TRUEKEEP_", "KUBERNETES_"))},
            "KUBECONFIG": str(self._kubeconfig),
            "TRUEKEEP_PORT": str(self.port),
            "POD_NAMESPACE": "default",
            "POD_NAME": "operator-0",
        }
        self.started = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "truekeep.operator_main"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the operator does not run; its log is {self._log}")
        return self._process.pid

    def stop(self) -> None:
        """As a node would: SIGTERM, and SIGKILL where that does not help."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        self._process = None

    def memory(self) -> tuple[float, float]:
        """MiB that it has, and the most that it ever had."""
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.M))
        return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024

    def cpu(self) -> float:
        """Seconds of CPU that it took so far."""
        return cpu_of(self.pid)

    def ready(self) -> bool:
        """Whether it says so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        """Its own metrics, the samples of each name added up; nothing before it serves them."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        found: dict[str, float] = {}
        for line in text.splitlines():
            if sample := _SAMPLE.match(line):
                found[sample[1]] = found.get(sample[1], 0.0) + float(sample[3])
        return found


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Write:
    """One, as the API server saw it. Times in seconds since 1970."""

    ours: bool  # the operator's
    verb: str
    resource: str
    namespace: str
    name: str
    began: float
    ended: float
    code: int


@dataclass
class Audit:
    """The audit log, read on from where it was read last."""

    path: Path
    _offset: int = field(default=0)

    def writes(self) -> list[Write]:
        """What was written since."""
        return list(self._read())

    def _read(self) -> Iterator[Write]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield _write(json.loads(line))


def _write(event: dict[str, Any]) -> Write:
    about = event.get("objectRef") or {}
    agent = str(event.get("userAgent") or "")
    # kubectl and kwok act as the same administrator as the operator; they say who they are.
    administrator = event["user"]["username"] == "truekeep-admin" and "impersonatedUser" not in event
    return Write(
        ours=administrator and not agent.startswith(("kubectl", "kwok")),
        verb=str(event["verb"]),
        resource="/".join(filter(None, (about.get("resource"), about.get("subresource")))),
        namespace=str(about.get("namespace") or ""),
        name=str(about.get("name") or ""),
        began=_seconds(event["requestReceivedTimestamp"]),
        ended=_seconds(event["stageTimestamp"]),
        code=int((event.get("responseStatus") or {}).get("code") or 0),
    )


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def favour(pids: Iterable[int]) -> None:
    """Let processes go before the rest of a machine that is busy with other things. Linux shares CPU between sessions
    first, so that it is the sessions' niceness that counts."""
    for pid in pids:
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        group = Path(f"/proc/{pid}/autogroup")
        if group.exists():
            group.write_text(str(NICE))

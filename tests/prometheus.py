"""A real Prometheus, for tests asking one: Debian's package, unpacked and not installed, so that no service starts."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.layout import cache_directory

Json = dict[str, Any]
START_SECONDS = 60


def program(name: str = "prometheus") -> Path:
    """`prometheus` or `promtool`: the machine's own, else the one of its distribution."""
    installed = shutil.which(name)
    if installed:
        return Path(installed)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.fail("this test needs Prometheus: install it, or run it on Debian or Ubuntu, whose package it unpacks")
    folder = cache_directory() / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / "unpacked/usr/bin" / name
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            download = ["apt-get", "-q", "download", "prometheus"]
            if subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode:
                update = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600", "update"]
                subprocess.run(update, check=True, capture_output=True)
                subprocess.run(download, cwd=folder, check=True, capture_output=True)
            (package,) = folder.glob("*.deb")
            subprocess.run(["dpkg", "-x", str(package), str(folder / "new")], check=True)
            (folder / "new").rename(folder / "unpacked")
            package.unlink()
    return found


@dataclass(frozen=True)
class Running:
    """One that runs on the loopback."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of /api/v1/. AssertionError with Prometheus' words where it refuses."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}{query}", timeout=10) as response:
                body = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters or path}: {error.read().decode()}") from error
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[Json]:
        """The series of an instant vector. AssertionError where the expression gives something else, or is refused."""
        answer = self.ask("query", query=expression)
        assert answer["resultType"] == "vector", (expression, answer["resultType"])
        series: list[Json] = answer["result"]
        return series


@contextmanager
def running(folder: Path, scrape: list[Json], groups: list[Json] | None = None) -> Iterator[Running]:
    """A Prometheus that scrapes each second, with rule groups; the folder is its own."""
    config: Json = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": scrape,
    }
    if groups is not None:
        (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
        config["rule_files"] = ["rules.yaml"]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        str(program()),
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        until(lambda: "Server is ready" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield Running(f"http://{address}")
    finally:
        process.terminate()
        process.wait(20)


def promtool(*arguments: str | Path) -> str:
    """What promtool prints. AssertionError with it where promtool finds a fault."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(
    true: Callable[[], bool], seconds: float = START_SECONDS, otherwise: Callable[[], Mapping[str, Any]] = dict
) -> None:
    """Wait until it is so. AssertionError, with what `otherwise` tells, after so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.1)

"""Kueue itself, as a process beside the cluster: its queues, its scheduler and its hold on Jobs.

Its webhooks are left out, since the API server's connections end at the node: they only refuse bad queues, and suspend
Jobs that name a queue, which ours are from the beginning."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.cluster import binaries, fetch_binary, pki
from tests.cluster.binaries import Builder
from tests.cluster.install import Kubectl
from tests.cluster.plane import free_ports

LOOPBACK = "127.0.0.1"
START_SECONDS = 60


@contextmanager
def kueue(kubectl: Kubectl, kubeconfig: Path, folder: Path) -> Iterator[Path]:
    """Its kinds served and its manager at work; the manager's log. All of it is gone afterwards."""
    program = fetch_binary("kueue")
    kinds = sorted(Builder.here().path(binaries.KUEUE, "kinds").glob("*.yaml"))
    files = [f"--filename={file}" for file in kinds]
    kubectl("apply", "--server-side", "--force-conflicts", *files)
    try:
        kubectl("wait", "--for=condition=Established", "--timeout=60s", *files, timeout=70)
        with _manager(program, kubeconfig, folder) as log:
            yield log
            # Each holds the next back by a finalizer that only the manager takes away.
            for objects in ("workloads", "localqueues", "clusterqueues", "resourceflavors"):
                kubectl("delete", f"{objects}.kueue.x-k8s.io", "--all", "-A", "--timeout=60s", timeout=70)
    finally:
        kubectl("delete", "--ignore-not-found", "--wait=false", *files)


@contextmanager
def _manager(program: Path, kubeconfig: Path, folder: Path) -> Iterator[Path]:
    webhook, health, metrics = free_ports(3)
    certificates = folder / "etc" / "kueue" / "metrics" / "certs"
    pki.of_server(certificates, "tls", LOOPBACK)
    configuration = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta1",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"{LOOPBACK}:{health}"},
        "metrics": {"bindAddress": f"{LOOPBACK}:{metrics}"},
        "webhook": {"host": LOOPBACK, "port": webhook, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
    }
    (folder / "kueue.yaml").write_text(yaml.safe_dump(configuration))
    log = folder / "kueue.log"
    # It takes one certificate from below /etc and nowhere else: its own /etc is this machine's with that laid over it.
    (folder / "work").mkdir()
    over = f"mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/etc,workdir={folder}/work /etc"
    flags = f"--config={folder}/kueue.yaml --feature-gates=VisibilityOnDemand=false"
    command = ["unshare", "--mount", "sh", "-c", f"{over} && exec {program} {flags}"]
    environment = {"KUBECONFIG": str(kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            _wait(process, health, log)
            yield log
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it listens. AssertionError, with its last words, where it ends instead."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"Kueue does not start: {log.read_text()[-2000:]}")

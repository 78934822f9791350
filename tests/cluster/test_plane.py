"""The control plane without a node: it comes up, survives its API server, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import wait_until
from tests.cluster.errors import ClusterError
from tests.cluster.layout import REPOSITORY
from tests.cluster.plane import Plane

pytestmark = pytest.mark.full  # kwok is built first: three minutes, once a machine
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "work", "namespace": "default"},
    "spec": {
        "template": {
            "metadata": {"annotations": {"plane.truekeep.dev/message": '{"verdict": "passed"}'}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "nothing"}]},
        }
    },
}


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    with Plane(nodes=1) as started:
        yield started


def test_what_was_stored_outlives_an_api_server_that_is_killed(plane: Plane) -> None:
    plane.kubectl("create", "namespace", "kept")
    before = plane.pid("kube-apiserver")
    plane.restart_apiserver(hard=True)
    assert plane.pid("kube-apiserver") != before
    assert "kept" in plane.kubectl("get", "namespaces", "--output=name")
    assert "models.truekeep.dev" in plane.kubectl("get", "customresourcedefinitions", "--output=name")


def test_a_job_completes_and_its_pod_says_what_its_annotation_says(plane: Plane) -> None:
    wait_until("the namespace has its account", lambda: _has_account(plane), seconds=20)
    plane.apply([JOB])
    plane.kubectl("wait", "--for=condition=Complete", "--timeout=30s", "job/work")
    path = "jsonpath={.items[0].status.containerStatuses[0].state.terminated.message}"
    said = plane.kubectl("get", "pods", "--selector=batch.kubernetes.io/job-name=work", f"--output={path}")
    assert said == '{"verdict": "passed"}'


def _has_account(plane: Plane) -> bool:
    try:
        return bool(plane.kubectl("get", "serviceaccount", "default"))
    except ClusterError:
        return False


def test_nothing_is_left_after_stop_and_a_second_stop_is_no_error() -> None:
    plane = Plane(controllers=False, crds=None).start()
    root = plane.layout.root
    plane.stop()
    plane.stop()
    assert not root.exists()
    assert _processes_of(root) == []
    with pytest.raises(ClusterError, match="not started"):
        _ = plane.kubeconfig


def test_a_test_that_is_killed_leaves_nothing_behind() -> None:
    script = (
        "from tests.cluster.plane import Plane\n"
        "plane = Plane(controllers=False, crds=None).start()\n"
        "print(plane.layout.root, flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    root = Path(process.stdout.readline().strip())
    assert _processes_of(root)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    wait_until("all is cleared away", lambda: not root.exists() and not _processes_of(root), seconds=30)


def _processes_of(root: Path) -> list[int]:
    """Those whose command line names something below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(f"{root}/" in word for word in words):
                found.append(int(entry.name))
    return found

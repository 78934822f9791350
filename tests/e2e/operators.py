"""The operator of the cluster, as tests take it away, double it, stop it and set its clock; each is undone at the end
of its context, however that ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.cluster.layout import Layout, state_directory
from tests.story.kube import Json, Kube, condition, name_of

NAMESPACE = "truekeep-system"
NAME = "truekeep-operator"
SELECTOR = "app.kubernetes.io/name=truekeep,app.kubernetes.io/component=operator"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{NAME}"
POD_OF_A_TOKEN = "authentication.kubernetes.io/pod-name"
LATE = "truekeep-e2e-late"
AHEAD = "/tmp/ahead"


def pods(kube: Kube) -> list[Json]:
    """Its pods, those that end included."""
    return kube.list(NAMESPACE, "pods", SELECTOR)


def ready(kube: Kube, count: int, seconds: float = 90) -> None:
    """Return when there are so many pods of it, all of them ready."""

    def look() -> bool | None:
        found = pods(kube)
        well = all(condition(pod, "Ready").get("status") == "True" for pod in found)
        return True if well and len(found) == count else None

    kube.wait(f"{count} pods of the operator", seconds, look)


def scale(kube: Kube, replicas: int) -> None:
    """Return when there are so many, ready."""
    kube.kubectl("scale", f"deployment/{NAME}", f"--replicas={replicas}", "-n", NAMESPACE)
    ready(kube, replicas)


@contextmanager
def replicas(kube: Kube, count: int) -> Iterator[None]:
    """So many of it, within this."""
    try:
        scale(kube, count)
        yield
    finally:
        scale(kube, 1)


def lease(kube: Kube) -> Json:
    """Its Lease's spec."""
    spec: Json = json.loads(kube.kubectl("get", "--raw", LEASE))["spec"]
    return spec


@contextmanager
def stopped(pod: Json) -> Iterator[None]:
    """Its process is stopped (SIGSTOP) within this, and goes on afterwards. It is a process of this machine."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _is_operator(entry, pod)]
    assert len(pids) == 1, f"the operator's processes in pod {name_of(pod)}: {pids}"
    handle = os.pidfd_open(pids[0])
    try:
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        yield
    finally:
        signal.pidfd_send_signal(handle, signal.SIGCONT)
        os.close(handle)


def _is_operator(process: Path, pod: Json) -> bool:
    try:
        inside = f"pod{pod['metadata']['uid']}" in (process / "cgroup").read_text()
        return inside and "truekeep.operator_main" in (process / "cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class Clock:
    """The operator's clock of the day."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def move(self, seconds: int) -> None:
        """From now on it is ahead by so many seconds; returns when the operator's Lease tells of it."""
        kube = self._kube
        (pod,) = pods(kube)
        kube.kubectl("exec", name_of(pod), "-n", NAMESPACE, "--", "sh", "-c", f"echo {seconds} > {AHEAD}")

        def told() -> bool | None:
            renewed = datetime.fromisoformat(lease(kube)["renewTime"]).timestamp()
            return abs(renewed - time.time() - seconds) < 60 or None

        kube.wait(f"the operator's clock to be ahead by {seconds} s", 30, told)


@contextmanager
def late(kube: Kube) -> Iterator[Clock]:
    """Within this, the operator's clock can be set. It is the same image, and another start."""
    script = Path(__file__).with_name("late.py")
    about = {"name": LATE, "namespace": NAMESPACE}
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {script.name: script.read_text()}}
    kube.apply(NAMESPACE, [files])
    place = f"/{LATE}"
    mount, volume = {"name": LATE, "mountPath": place}, {"name": LATE, "configMap": {"name": LATE}}
    start = {"command": ["python3", f"{place}/{script.name}"], "env": [{"name": "AHEAD", "value": AHEAD}]}
    gone = {"$patch": "delete"}
    try:
        _patch(kube, {**start, "volumeMounts": [mount]}, [volume])
        yield Clock(kube)
    finally:
        back = {"command": None, "env": [{"name": "AHEAD", **gone}], "volumeMounts": [{**mount, **gone}]}
        _patch(kube, back, [{"name": LATE, **gone}])
        kube.kubectl("delete", "configmap", LATE, "-n", NAMESPACE)


def _patch(kube: Kube, container: Json, volumes: list[Json]) -> None:
    pod = {"containers": [{"name": "operator", **container}], "volumes": volumes}
    patch = json.dumps({"spec": {"template": {"spec": pod}}})
    kube.kubectl("patch", f"deployment/{NAME}", "-n", NAMESPACE, "--type=strategic", f"--patch={patch}")
    kube.kubectl("rollout", "status", f"deployment/{NAME}", "-n", NAMESPACE, "--timeout=90s", timeout=100)
    ready(kube, 1)


def writes(namespace: str, since: float = 0.0) -> list[Json]:
    """What operators wrote in a namespace, Leases left out, by the API server's own log: each with its `verb`, HTTP
    `code`, `resource`, `name`, the `pod` that wrote, and its `time` (seconds since 1970)."""
    found = []
    for file in sorted(Layout(state_directory()).logs.glob("audit*.json")):
        for line in file.read_text().splitlines():
            if f'"namespace":"{namespace}"' not in line or f'"system:serviceaccount:{NAMESPACE}:' not in line:
                continue
            event = json.loads(line)
            moment = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
            if event["user"]["username"] == f"system:serviceaccount:{NAMESPACE}:{NAME}" and moment >= since:
                (pod,) = event["user"]["extra"].get(POD_OF_A_TOKEN, [""])
                about = event["objectRef"]
                found.append(
                    {
                        "verb": event["verb"],
                        "code": event["responseStatus"]["code"],
                        "resource": about["resource"],
                        "name": about.get("name", ""),
                        "pod": pod,
                        "time": moment,
                    }
                )
    return found

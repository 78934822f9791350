"""A control plane without a node, for tests that need a real API server and etcd, and no pod that really runs.

Its processes (etcd, kube-apiserver, kube-controller-manager, and where asked for kube-scheduler and kwok with fake
nodes) listen on free loopback ports, keep all they write in one temporary folder, and know nothing of the cluster that
`python -m tests.cluster up` makes. Ready in about ten seconds:

```python
with Plane() as plane:
    plane.kubectl("get", "models")        # as system:masters; `plane.kubeconfig` is a file for others
    plane.restart_apiserver(hard=True)
```

`stop` ends what `start` started, and nothing else. Where the test's process dies, a small watcher that holds the other
end of a pipe does the same.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.cluster import binaries, components, pki
from tests.cluster.binaries import Builder, GoModule
from tests.cluster.commands import run, wait_until
from tests.cluster.errors import ClusterError
from tests.cluster.layout import REPOSITORY, Layout
from tests.cluster.processes import Daemons
from tests.cluster.progress import Progress

LOOPBACK = "127.0.0.1"
PORTS = range(20000, 32000)  # below those that the kernel gives to clients, so that a restart finds its port free
START_SECONDS = 60.0
GRACE_SECONDS = 5.0  # the API server would wait for every watch to end
CRDS = REPOSITORY / "crds"
STAGES = Path(__file__).resolve().parent / "plane_stages"
# Those that a Model's objects need, and no more: the rest costs memory, CPU and seconds.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "validatingadmissionpolicy-status-controller",
)
MUCH = 1000  # requests a second that the daemons may send: a test waits for what it tests, not for their politeness
Document = dict[str, Any]


class Plane:
    """Starts with `start` or `with`. Each has ports and a folder of its own, so that several may stand side by side.

    `scheduler`: whether pods get a node. `nodes`: how many nodes kwok plays; what happens to their pods is said by the
    Stages in `stages` (files or folders; by default a Job's pod completes and any other is ready at once).
    `controllers`: whether Jobs, Deployments and owners' references work. `audit`: whether every write is kept in
    `audit_log`, a line of JSON each.
    """

    def __init__(
        self,
        *,
        controllers: bool = True,
        scheduler: bool = False,
        nodes: int = 0,
        stages: Sequence[Path] = (STAGES,),
        crds: Path | None = CRDS,
        audit: bool = False,
        seconds: float = START_SECONDS,
    ) -> None:
        self._controllers = controllers
        self._scheduler = scheduler
        self._nodes = nodes
        self._stages = tuple(stages)
        self._crds = crds
        self._audit = audit
        self._seconds = seconds
        self._commands: dict[str, list[str]] = {}
        self._watcher: subprocess.Popen[bytes] | None = None
        self._layout: Layout | None = None
        self.builder = Builder.here()

    # -- where things are ----------------------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """Its files; ClusterError before `start` and after `stop`."""
        if self._layout is None:
            raise ClusterError("this control plane is not started; use it in a `with` statement")
        return self._layout

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.layout.kubeconfig

    @property
    def audit_log(self) -> Path:
        """Every write that others than the control plane did, a line of JSON each, with `audit=True`."""
        return self.layout.logs / "audit.json"

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{LOOPBACK}:{self._api_port}"

    def pid(self, name: str) -> int:
        """Of "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler" or "kwok"."""
        daemon = self._daemons.running().get(name)
        if daemon is None:
            raise ClusterError(f"{name} does not run: {self._daemons.last_words(name)}")
        return daemon.pid

    # -- start and stop ------------------------------------------------------------------------------------------

    def start(self) -> Plane:
        """Return when the API server is ready and the kinds are served. ClusterError, and nothing left, when not."""
        self._build()
        root = Path(tempfile.mkdtemp(prefix="truekeep-plane-"))
        self._layout = layout = Layout(root)
        self._daemons = Daemons(layout.processes, layout.logs)
        self._watcher = _watch(root)
        try:
            self._etcd_port, self._peer_port, self._api_port, self._kwok_port = free_ports(4)
            pki.make(layout.pki, layout.config, layout.kubeconfig, self.server)
            components.write_configs(layout)
            self._commands = self._command_lines()
            for name in self._commands:
                self._start(name)
            if self._crds is not None:
                self.apply_crds(self._crds)
            if self._nodes:
                self._add_nodes()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End its processes and remove its files. May be called again."""
        if self._layout is None:
            return
        root, self._layout = self._layout.root, None
        self._daemons.stop(grace=3.0)
        watcher, self._watcher = self._watcher, None
        shutil.rmtree(root, ignore_errors=True)
        if watcher is not None and watcher.stdin is not None:
            watcher.stdin.close()  # it finds nothing left to end
            with suppress(subprocess.TimeoutExpired):
                watcher.wait(10)

    def __enter__(self) -> Plane:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- what tests do with it -----------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """What kubectl says, as the administrator. ClusterError with its complaint where it fails."""
        program = self.builder.path(binaries.KUBERNETES, "kubectl")
        argv = [program, f"--kubeconfig={self.kubeconfig}", "--request-timeout=15s", *arguments]
        return run(argv, stdin=stdin, timeout=timeout)

    def apply(self, documents: Iterable[Document]) -> None:
        """Server-side apply, as the administrator."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)

    def apply_crds(self, folder: Path) -> None:
        """Install the kinds of a folder, and wait until they are served."""
        files = [f"--filename={file}" for file in sorted(folder.glob("*.yaml")) if file.name != "kustomization.yaml"]
        self.kubectl("apply", "--server-side", "--force-conflicts", *files)
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", *files)

    def restart_apiserver(self, *, hard: bool = False) -> None:
        """End the API server, by SIGKILL where `hard`, and start it again on the same port; returns when it answers."""
        self.restart("kube-apiserver", hard=hard)

    def restart(self, name: str, *, hard: bool = False) -> None:
        """The same for any of its processes."""
        self.end(name, hard=hard)
        self.begin(name)

    def end(self, name: str, *, hard: bool = False) -> None:
        """End one of its processes, for `begin` to start again."""
        self._daemons.end(name, hard=hard, grace=GRACE_SECONDS)

    def begin(self, name: str) -> None:
        """Start again what was ended; returns when it answers."""
        if name not in self._commands:
            raise ClusterError(f"this control plane has no {name!r}; it has {', '.join(self._commands)}")
        self._start(name)

    # -- the processes -------------------------------------------------------------------------------------------

    def _build(self) -> None:
        modules: list[GoModule] = [binaries.KUBERNETES, binaries.ETCD, *([binaries.KWOK] if self._nodes else [])]
        missing = self.builder.missing(modules)
        if missing:
            self.builder.build(missing, Progress([module.step for module in missing]))

    def _start(self, name: str) -> None:
        self._daemons.start(name, self._commands[name])
        if name != "kube-apiserver":
            return

        def ready() -> bool:
            self._daemons.require("etcd")
            self._daemons.require("kube-apiserver")
            try:
                return self.kubectl("get", "--raw=/readyz", timeout=5) == "ok"
            except ClusterError:
                return False

        wait_until("the API server is ready", ready, seconds=self._seconds, every=0.2)

    def _command_lines(self) -> dict[str, list[str]]:
        """In the order in which they start."""
        layout = self.layout
        kubernetes = {name: self.builder.path(binaries.KUBERNETES, name) for name in binaries.KUBERNETES.packages}
        etcd_url, peer_url = f"http://{LOOPBACK}:{self._etcd_port}", f"http://{LOOPBACK}:{self._peer_port}"
        etcd = [
            *components.etcd(self.builder.path(binaries.ETCD, "etcd"), layout),
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=truekeep={peer_url}",
        ]
        api = [
            *components.kube_apiserver(kubernetes["kube-apiserver"], layout),
            f"--etcd-servers={etcd_url}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self._api_port}",
            "--endpoint-reconciler-type=none",  # nobody reaches a loopback address as an endpoint
            "--shutdown-delay-duration=0s",
            "--disable-admission-plugins=TaintNodesByCondition",  # nobody here would take the taint away
        ]
        if self._audit:
            api.append("--audit-log-maxsize=2000")  # one file, so that who reads on loses nothing
        else:
            api = [flag for flag in api if not flag.startswith("--audit-")]
        wanted = {"etcd": _once(etcd), "kube-apiserver": _once(api)}
        if self._controllers:
            wanted["kube-controller-manager"] = [
                *components.kube_controller_manager(kubernetes["kube-controller-manager"], layout),
                f"--controllers={','.join(CONTROLLERS)}",
                f"--kube-api-qps={MUCH}",
                f"--kube-api-burst={2 * MUCH}",
                "--concurrent-deployment-syncs=20",
                "--concurrent-replicaset-syncs=20",
                "--concurrent-job-syncs=20",
                "--concurrent-namespace-syncs=20",
            ]
        if self._scheduler or self._nodes:
            wanted["kube-scheduler"] = [
                *components.kube_scheduler(kubernetes["kube-scheduler"], layout),
                f"--kube-api-qps={MUCH}",
                f"--kube-api-burst={2 * MUCH}",
            ]
        if self._nodes:
            wanted["kwok"] = self._kwok()
        return wanted

    def _kwok(self) -> list[str]:
        module = binaries.KWOK
        folder = self.builder.path(module, "stages")
        files = [folder / "node" / "fast" / "node-initialize.yaml"]
        files += [folder / "pod" / "fast" / f"{name}.yaml" for name in ("pod-ready", "pod-delete")]
        for stages in self._stages:
            files += sorted(stages.glob("*.yaml")) if stages.is_dir() else [stages]
        return [
            str(self.builder.path(module, "kwok")),
            f"--kubeconfig={self.kubeconfig}",
            "--manage-all-nodes=true",
            f"--server-address={LOOPBACK}:{self._kwok_port}",
            "--node-lease-duration-seconds=120",
            "--cidr=127.128.0.0/9",  # who asks such a pod is refused by this machine, and nothing leaves it
            *(f"--config={file}" for file in files),
        ]

    def _add_nodes(self) -> None:
        room = {"cpu": "1000", "memory": "4000Gi", "pods": "10000"}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": f"kwok-{number}",
                    "labels": {"kubernetes.io/hostname": f"kwok-{number}", "kubernetes.io/os": "linux"},
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                },
                "status": {"allocatable": room, "capacity": room},
            }
            for number in range(self._nodes)
        )

        def ready() -> bool:
            self._daemons.require("kwok")
            ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
            return self.kubectl("get", "nodes", f"--output={ready}").split().count("True") == self._nodes

        wait_until("kwok's nodes are ready", ready, seconds=self._seconds)


def _once(argv: list[str]) -> list[str]:
    """Each flag as it was given last: some programs take the first, and some refuse a second."""
    program, *flags = argv
    last = {flag.partition("=")[0]: flag for flag in flags}
    return [program, *last.values()]


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody has."""
    found: dict[int, socket.socket] = {}
    try:
        for port in random.sample(PORTS, 50 * count):
            attempt = socket.socket()
            try:
                attempt.bind((LOOPBACK, port))
            except OSError:
                attempt.close()
                continue
            found[port] = attempt
            if len(found) == count:
                return list(found)
    finally:
        for taken in found.values():
            taken.close()
    raise ClusterError(f"no {count} free ports on {LOOPBACK} between {PORTS.start} and {PORTS.stop}")


def _watch(root: Path) -> subprocess.Popen[bytes]:
    """Start the watcher: a process that clears away when this one is gone, however it went."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.plane", str(root)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _clear_when_alone(root: Path) -> None:
    """Until the other end of stdin is closed; then end what was started below `root`, and remove it."""
    sys.stdin.buffer.read()
    if not root.name.startswith("truekeep-plane-"):
        raise ClusterError(f"{root} is no control plane's folder: it stays as it is")
    layout = Layout(root)
    for _ in range(3):  # one may have been started just before the end
        Daemons(layout.processes, layout.logs).stop(grace=3.0)
        time.sleep(0.2)
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    _clear_when_alone(Path(sys.argv[1]))

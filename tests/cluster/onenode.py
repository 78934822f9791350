"""A real Kubernetes of one node, straight on this machine: up, healthy or not, down."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster import addons, binaries, cgroups, components, containers, network, packages, pki
from tests.cluster.binaries import Builder
from tests.cluster.commands import attempt, run, wait_until
from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import NODE, Layout, Record, boot_id
from tests.cluster.processes import Daemons
from tests.cluster.progress import Progress, Step

ENGINE = "one-node"
SHIM_SOCKETS = Path("/run/containerd/s")
CONTAINER_LOG_LINKS = Path("/var/log/containers")
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
LONGEST_ROOT = 60  # a socket's path may have 107 characters
SPACE_GIB = 5  # images, logs and volumes of the demo, above the kubelet's eviction threshold

PACKAGES = Step("installing {}", 25, "once per machine")
CLEAN = Step("clearing away what is left of the last cluster", 3)
CONTROL_PLANE = Step("starting etcd, containerd and the control plane", 12)
NODE_READY = Step("waiting for the node, CoreDNS and storage", 15)


class OneNode:
    """The cluster below one state directory. All methods may be called again at any time."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._daemons = Daemons(layout.processes, layout.logs)
        self._kubectl = Kubectl(layout)
        self.images = containers.Images(layout.containerd_socket)

    # -- up ------------------------------------------------------------------------------------------------------

    def healthy(self) -> bool:
        """Whether everything that `up` starts runs and says that it is ready."""
        return self._made_here() and not self.stopped() and not self._kubectl.unready()

    def stopped(self) -> list[str]:
        """The daemons that should run and do not."""
        running = self._daemons.running()
        return [name for name in DAEMONS if name not in running]

    def up(self, tool: str) -> None:
        """Bring the cluster up, as far as it is not up already. `tool` is written down as its maker's fingerprint."""
        if self._made_here() and not {"etcd", "containerd"} & set(self.stopped()):
            self._mend()
        else:
            self._make(tool)

    def _made_here(self) -> bool:
        record = Record.read(self._layout)
        return record is not None and record.boot == boot_id() and self._layout.kubectl.exists()

    def _mend(self) -> None:
        """Start again what has ended, while the cluster's data and its pods live on."""
        stopped = self.stopped()
        builder = Builder.here()
        missing = builder.missing(binaries.ONE_NODE_MODULES) if stopped else []
        step = Step(f"starting {', '.join(stopped)} again" if stopped else "waiting for the cluster", 10)
        progress = Progress([*[module.step for module in missing], step])
        builder.build(missing, progress)
        with progress.step():
            for name in stopped:
                self._start(name, builder)
            self._wait_ready()

    def _make(self, tool: str) -> None:
        _require_root()
        self._require_no_other()
        _require_place(self._layout.root)
        cgroups.require()
        wanted = packages.missing_for_node()
        builder = Builder.here()
        missing = builder.missing(binaries.ONE_NODE_MODULES)
        left = bool(self.remains())
        steps = [Step(PACKAGES.title.format(", ".join(wanted)), PACKAGES.usual, PACKAGES.note)] if wanted else []
        steps += [CLEAN] if left else []
        steps += [module.step for module in missing]
        progress = Progress([*steps, CONTROL_PLANE, NODE_READY])
        if wanted:
            with progress.step():
                packages.install(wanted)
        if left:
            with progress.step():
                self.down()
        network.load_modules()
        network.require_free()
        builder.build(missing, progress)
        images = addons.NodeImages.of(builder)
        with progress.step():
            self._start_control_plane(builder, images, tool)
        with progress.step():
            for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"):
                self._start(name, builder)
            self._kubectl.apply(addons.manifests(self._layout, images))
            self._wait_ready()
            self._kubectl("label", "node", NODE, "node-role.kubernetes.io/control-plane=", "--overwrite")

    def _start_control_plane(self, builder: Builder, images: addons.NodeImages, tool: str) -> None:
        layout = self._layout
        cni_bin = packages.cni_directory()
        if cni_bin is None:
            raise ClusterError(f"no CNI plugins in {' or '.join(map(str, packages.CNI_DIRECTORIES))}")
        layout.root.mkdir(parents=True, exist_ok=True)
        layout.root.chmod(0o711)
        sysctls = network.current_sysctls()
        # Written first, so that whatever fails from here on can be cleared away.
        Record(ENGINE, pki.SERVER, "", boot_id(), tool, sysctls).write(layout)
        _copy_kubectl(layout, builder)
        authority = pki.make(layout.pki, layout.config, layout.kubeconfig)
        components.write_configs(layout)
        containers.write_config(
            layout, layout.config / "containerd.toml", pause=images.helper.reference, cni_bin=cni_bin
        )
        network.write_cni(layout.cni_config, layout.root / "cni")
        cgroups.create()
        network.create(str(layout.root))
        for name in ("etcd", "containerd", "kube-apiserver"):
            self._start(name, builder)
        self._wait("containerd", "containerd answers", self.images.answers, seconds=60)
        images.load(self.images)  # while the API server starts
        self._wait("kube-apiserver", "the API server is ready", self._kubectl.ready, seconds=120)
        Record(ENGINE, pki.SERVER, authority, boot_id(), tool, sysctls).write(layout)

    def _start(self, name: str, builder: Builder) -> None:
        daemon = self._daemons.start(name, DAEMONS[name](builder, self._layout))
        cgroups.adopt(daemon.pid)

    def _wait_ready(self) -> None:
        """Until node and addons are ready; what they wait for is in the error when they never are."""
        waiting: list[str] = []

        def ready() -> bool:
            for name in DAEMONS:
                self._daemons.require(name)
            waiting[:] = self._kubectl.unready()
            return not waiting

        try:
            wait_until("node and addons are ready", ready, seconds=180, every=0.5)
        except ClusterError as error:
            raise ClusterError(f"{error}; waiting for {', '.join(waiting)}" if waiting else str(error)) from None

    def _wait(self, daemon: str, what: str, holds: Callable[[], bool], *, seconds: float) -> None:
        def alive_and_holds() -> bool:
            self._daemons.require(daemon)
            return holds()

        wait_until(what, alive_and_holds, seconds=seconds)

    # -- faults --------------------------------------------------------------------------------------------------

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """These daemons are killed, and stay away within this; then they run again, however it ends, and the cluster is
        ready."""
        try:
            for name in names:
                self._daemons.end(name, hard=True)
            yield
        finally:
            self._mend()

    # -- status --------------------------------------------------------------------------------------------------

    def describe(self) -> list[str]:
        running = self._daemons.running()
        lines = [f"{name}: pid {running[name].pid}" if name in running else f"{name}: not running" for name in DAEMONS]
        waiting = self._kubectl.unready()
        lines.append(f"not ready: {', '.join(waiting)}" if waiting else "node, CoreDNS and storage are ready")
        return lines

    def bound_logs(self) -> None:
        self._daemons.bound_logs()

    # -- down ----------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Take away processes, mounts, links, rules, cgroups and files, whatever of them is there."""
        self._require_no_other()
        record = Record.read(self._layout)
        self._daemons.stop()
        cgroups.kill()
        unmount_below(self._layout.root)
        same_boot = record is not None and record.boot == boot_id()
        network.remove(record.sysctls if record is not None and same_boot else {})
        cgroups.remove()
        _remove_strays(self._layout.root)
        remove_tree(self._layout.root)

    def remains(self) -> list[str]:
        """What is still there of the cluster; nothing after `down`."""
        found = [f"process {pid}" for pid in sorted(cgroups.members())]
        found += [f"mount {point}" for point in mounts_below(self._layout.root)]
        found += network.remains()
        found += [str(group) for group in cgroups.remains()]
        found += [str(self._layout.root)] if self._layout.root.exists() else []
        return found

    def _require_no_other(self) -> None:
        """One machine carries one cluster: links, ranges and cgroups have one name each."""
        owner = network.owner()
        if owner not in (None, str(self._layout.root)):
            raise ClusterError(
                f"this machine carries the cluster of {owner}: "
                f"`TRUEKEEP_CLUSTER_DIR={owner} python -m tests.cluster down` takes it away"
            )


DAEMONS: dict[str, Callable[[Builder, Layout], Sequence[str]]] = {
    "etcd": lambda builder, layout: components.etcd(builder.path(binaries.ETCD, "etcd"), layout),
    "containerd": lambda _, layout: components.containerd(layout),
    "kube-apiserver": lambda builder, layout: components.kube_apiserver(
        builder.path(binaries.KUBERNETES, "kube-apiserver"), layout
    ),
    "kube-controller-manager": lambda builder, layout: components.kube_controller_manager(
        builder.path(binaries.KUBERNETES, "kube-controller-manager"), layout
    ),
    "kube-scheduler": lambda builder, layout: components.kube_scheduler(
        builder.path(binaries.KUBERNETES, "kube-scheduler"), layout
    ),
    "kubelet": lambda builder, layout: components.kubelet(builder.path(binaries.KUBERNETES, "kubelet"), layout),
    "kube-proxy": lambda builder, layout: components.kube_proxy(
        builder.path(binaries.KUBERNETES, "kube-proxy"), layout
    ),
}


def mounts_below(root: Path, mountinfo: str | None = None) -> list[str]:
    """Mount points below a directory, the deepest and latest first."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    points = [line.split()[4].encode().decode("unicode_escape") for line in text.splitlines()]
    return [point for point in reversed(points) if point == str(root) or point.startswith(f"{root}/")]


def remove_tree(root: Path) -> None:
    """Remove a state directory; never one that holds a mount or that the tool did not make."""
    if not root.exists():
        return
    if points := mounts_below(root):
        raise ClusterError(f"{points[0]} is still mounted: `umount` it, then run down again")
    known = {"cluster.json", "bin", "pki", "config", "processes", "logs"}
    content = {entry.name for entry in root.iterdir()}
    if content and not content & known:
        raise ClusterError(f"{root} was not made by this tool (it has no cluster.json): it stays as it is")
    shutil.rmtree(root)


def unmount_below(root: Path) -> None:
    """Unmount all that is mounted below a directory, so that removing it removes nothing else."""
    for _ in range(5):  # a mount may have been stacked on another
        points = mounts_below(root)
        if not points:
            return
        for point in points:
            attempt(["umount", "--lazy", point])
    if points := mounts_below(root):
        run(["umount", "--lazy", points[0]])


def _remove_strays(root: Path) -> None:
    """The few files that containerd and the kubelet put elsewhere, whatever they are told."""
    in_use = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()}
    for socket in (*_entries(SHIM_SOCKETS), DEVICE_PLUGINS / "kubelet.sock"):
        if str(socket) not in in_use:
            socket.unlink(missing_ok=True)
    for link in _entries(CONTAINER_LOG_LINKS):
        if link.is_symlink() and str(link.readlink()).startswith(f"{root}/"):
            link.unlink(missing_ok=True)
    for directory in (
        SHIM_SOCKETS,
        SHIM_SOCKETS.parent,
        CONTAINER_LOG_LINKS,
        DEVICE_PLUGINS,
        DEVICE_PLUGINS.parent,
    ):
        with suppress(OSError):  # not there, or somebody else's files are in it
            directory.rmdir()


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _copy_kubectl(layout: Layout, builder: Builder) -> None:
    """`kubectl` for people, in a folder that can go on PATH; a copy, so that it outlives the cache."""
    layout.bin.mkdir(parents=True, exist_ok=True)
    shutil.copy2(builder.path(binaries.KUBERNETES, "kubectl"), layout.kubectl)


def _require_place(root: Path) -> None:
    """Raise when the state directory cannot hold a node's containers and sockets."""
    if len(str(root)) > LONGEST_ROOT:
        raise ClusterError(
            f"{root} is longer than {LONGEST_ROOT} characters, and sockets below it get no name: move it"
        )
    existing = next(place for place in (root, *root.parents) if place.exists())
    if filesystem_of(existing) == "overlay":
        raise ClusterError(
            f"{root} lies on an overlay filesystem, which cannot carry containers' own: "
            "set TRUEKEEP_CLUSTER_DIR to a directory on a disk"
        )
    if (free := shutil.disk_usage(existing).free / 2**30) < SPACE_GIB:
        raise ClusterError(f"{existing} has {free:.1f} GiB free and a node wants {SPACE_GIB}: make room")


def filesystem_of(path: Path, mountinfo: str | None = None) -> str:
    """The type of the filesystem that a path lies on."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    best, kind = Path("/"), ""
    for line in text.splitlines():
        mount, _, rest = line.partition(" - ")
        point = Path(mount.split()[4])
        if path.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, rest.split()[0]
    return kind


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "no Docker engine answers, and the one-node cluster needs root: run as root, or start Docker for kind"
        )

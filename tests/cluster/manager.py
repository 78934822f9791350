"""The cluster as its users know it, whichever engine carries it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import kind, onenode
from tests.cluster.containers import load_all
from tests.cluster.errors import ClusterError
from tests.cluster.kind import Kind
from tests.cluster.layout import PACKAGE, Layout, Record, cache_directory, state_directory
from tests.cluster.onenode import OneNode

ENGINES = (kind.ENGINE, onenode.ENGINE)


def engine() -> str:
    """ "kind" or "one-node": what carries the cluster that is up. Raises ClusterError when none is."""
    return _require_record().engine


def up() -> None:
    """Bring the cluster up and return when it is ready; about a second when it is already."""
    layout = Layout(state_directory())
    with _lock(layout):
        record = Record.read(layout)
        tool = fingerprint()
        if record is not None and _cluster(record.engine, layout).healthy():
            if record.engine == onenode.ENGINE:
                OneNode(layout).bound_logs()
            if record.tool != tool:
                _say("the cluster is up, made by another version of this tool: `make down up` makes it anew")
            else:
                _say(f"the cluster is up ({record.engine}, {record.server})")
            return
        chosen = _choose_engine(record)
        _cluster(chosen, layout).up(tool)
        _say(f"the cluster is up ({chosen}); `eval $(python -m tests.cluster env)` for kubectl")


def down(*, purge: bool = False) -> None:
    """Take the cluster away, wholly. The cache of binaries stays, unless it is to be purged."""
    layout = Layout(state_directory())
    with _lock(layout):
        record = Record.read(layout)
        if record is not None and record.engine == kind.ENGINE:
            Kind(layout).down()
        else:
            node = OneNode(layout)
            if node.remains():
                if os.geteuid() != 0:
                    raise ClusterError("taking the one-node cluster down needs root, as making it did")
                node.down()
                if remains := node.remains():
                    raise ClusterError(f"not everything went away: {', '.join(remains)}")
    cache = cache_directory()
    if purge:
        onenode.unmount_below(cache)  # an image build that was interrupted leaves mounts there
        shutil.rmtree(cache, ignore_errors=True)
    if cache.exists():
        _say(f"the cluster is gone; the binaries stay in {cache} (`python -m tests.cluster down --purge` removes them)")
    else:
        _say("the cluster is gone, and nothing of it is left")


def load_archives(paths: Sequence[Path | str]) -> list[str]:
    """Load OCI or docker archives into the cluster; the images' full names. Loading again replaces."""
    layout = Layout(state_directory())
    record = _require_record()
    archives = [Path(path) for path in paths]
    if record.engine == kind.ENGINE:
        return Kind(layout).load(archives)
    node = OneNode(layout)
    node.bound_logs()
    return load_all(node.images, archives)


def image_names() -> set[str]:
    """Full names of the images that the cluster's node holds. Raises ClusterError when no cluster is up."""
    layout = Layout(state_directory())
    if _require_record().engine == kind.ENGINE:
        return Kind(layout).image_names()
    return OneNode(layout).images.names()


@contextmanager
def without(*daemons: str) -> Iterator[None]:
    """These daemons of the node ("etcd", "kube-apiserver", ...) are killed, and away within this. ClusterError on kind,
    whose node looks after its own."""
    if _require_record().engine == kind.ENGINE:
        raise ClusterError("the daemons of kind's node are not ours to stop")
    with OneNode(Layout(state_directory())).without(*daemons):
        yield


def status() -> tuple[bool, list[str]]:
    """Whether the cluster is well, and lines that say so in detail."""
    layout = Layout(state_directory())
    record = Record.read(layout)
    if record is None:
        return False, [f"no cluster was made here ({layout.root} has none): `make up` makes one"]
    cluster = _cluster(record.engine, layout)
    lines = [f"engine: {record.engine}", f"server: {record.server}", f"kubeconfig: {layout.kubeconfig}"]
    return cluster.healthy(), [*lines, *cluster.describe(), f"cache: {cache_directory()}"]


def environment() -> dict[str, str]:
    """What to set so that kubectl and every client speak to this cluster."""
    layout = Layout(state_directory())
    _require_record()
    return {"KUBECONFIG": str(layout.kubeconfig), "PATH": f"{layout.bin}{os.pathsep}{os.environ.get('PATH', '')}"}


def fingerprint() -> str:
    """Of the tool's sources: a cluster that another version made may differ from what this one would make."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*")):
        if file.suffix in {".py", ".go", ".mod", ".sum", ".yaml"} and not file.name.startswith("test_"):
            digest.update(f"{file.relative_to(PACKAGE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _cluster(name: str, layout: Layout) -> Kind | OneNode:
    return Kind(layout) if name == kind.ENGINE else OneNode(layout)


def _choose_engine(record: Record | None) -> str:
    """What carries the cluster: what carried it before, where it still can."""
    if record is not None and (record.engine == onenode.ENGINE or kind.docker_answers()):
        return record.engine
    if chosen := os.environ.get("TRUEKEEP_ENGINE"):
        if chosen not in ENGINES:
            raise ClusterError(f"TRUEKEEP_ENGINE is {chosen!r}; it may be {' or '.join(ENGINES)}")
        return chosen
    return kind.ENGINE if kind.docker_answers() else onenode.ENGINE


def _require_record() -> Record:
    record = Record.read(Layout(state_directory()))
    if record is None:
        raise ClusterError("no cluster was made here: `make up` makes one")
    return record


@contextmanager
def _lock(layout: Layout) -> Iterator[None]:
    """One up or down at a time. The lock is on the directory that the state directory is in: nothing is left of it."""
    layout.root.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(layout.root.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another up or down is at work; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")

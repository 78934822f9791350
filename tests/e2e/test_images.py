"""The images that the last `python -m images build` made: what is in them, how big they are, and that they run.

Their contents are read out of the archives. Then each runs in a pod of the cluster, under Pod Security `restricted`
and with a read-only root, and imports every module that it may use.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from images import archives
from images.places import IMAGES, Cache
from images.tool import Built, last_built, load
from rich.console import Console

from tests.cluster import environment, require_own_context

pytestmark = pytest.mark.cluster

LIBRARIES = "opt/truekeep/lib"
ROOMS = "opt/truekeep/app/truekeep"
PYTHON = [image.name for image in IMAGES if not image.binaries]
# The tools judge drift as the monitor does, on top of all that they do in a cluster: hence scipy.
MAX_MEGABYTES = {"operator": 300, "trainer": 530, "server": 530, "monitor": 430, "tools": 530, "versitygw": 60}
DATA_SIDE = {"sklearn", "scipy", "numpy", "pandas", "pyarrow", "boto3", "botocore", "skops"}
HAS = {
    "operator": {"kopf", "kubernetes", "pydantic", "prometheus_client"},
    "trainer": {"sklearn", "scipy", "numpy", "pyarrow", "boto3", "skops"},
    "server": {"sklearn", "scipy", "numpy", "pyarrow", "boto3", "skops", "uvicorn", "uvloop"},
    "monitor": {"scipy", "numpy", "pyarrow", "boto3"},
    "tools": {"scipy", "numpy", "pyarrow", "boto3", "typer", "httpx", "kubernetes"},
}
HAS_NOT = {
    "operator": DATA_SIDE,
    "trainer": {"kopf", "kubernetes", "uvicorn", "pandas"},
    "server": {"kopf", "kubernetes", "pandas"},
    "monitor": {"kopf", "kubernetes", "sklearn", "uvicorn", "pandas"},
    "tools": {"kopf", "sklearn", "pandas"},
}
# The files whose imports must all work, below the package.
OWN = {
    "operator": ("*.py", "controller/**/*.py", "cluster/**/*.py", "domain/**/*.py", "resources/**/*.py"),
    "trainer": ("trainer/**/*.py",),
    "server": ("server/**/*.py",),
    "monitor": ("monitor/**/*.py",),
    "tools": ("cli/**/*.py",),
}
# What its own modules reach only inside of a function, where they say which extra is missing: truekeep train, import
# and serve are for laptops.
ELSEWHERE = {"tools": ("truekeep.server.", "truekeep.trainer.", "truekeep.features.", "truekeep.explain.trees")}
DEVELOPERS = {"pip", "setuptools", "wheel", "pytest", "mypy", "hypothesis", "ruff"}
# Compilers, package managers and what they leave behind.
UNWANTED = re.compile(
    r"(usr/)?s?bin/(gcc|cc|c\+\+|g\+\+|clang|ld|make|apt|apt-get|pip3?|perl|curl|wget)[\d.-]*"
    r"|(var/lib/apt|var/cache|root/\.cache|build|mnt|tmp)/.+|etc/apt/.+"
    r"|.*\.(whl|deb|a|o|pyx|pxd)|opt/truekeep/lib/.*/tests/.*|.*/pip-[\d.]+\.dist-info/.*"
)


@cache
def built(name: str) -> Built:
    return last_built([image for image in IMAGES if image.name == name], Cache.default())[0]


@cache
def contents(name: str) -> archives.Contents:
    return archives.read(built(name).archive)


every_image = pytest.mark.parametrize("name", [image.name for image in IMAGES])
every_python_image = pytest.mark.parametrize("name", PYTHON)


@every_image
def test_it_is_no_bigger_than_its_job_allows(name: str) -> None:
    megabytes = contents(name).unpacked_bytes / 1e6
    print(f"{built(name).name}: {megabytes:.1f} MB unpacked")
    assert megabytes < MAX_MEGABYTES[name]
    assert built(name).summary.unpacked_bytes == contents(name).unpacked_bytes


@every_image
def test_its_archive_has_the_one_name_that_pods_use(name: str) -> None:
    (tag,) = contents(name).repo_tags
    assert tag == built(name).name or tag.endswith(f"/{built(name).name}")


@every_image
def test_it_runs_as_nobody_and_nothing_of_building_is_left(name: str) -> None:
    assert contents(name).config["User"] == "65532:65532"
    assert not [path for path in contents(name).files if UNWANTED.fullmatch(path)]


@every_python_image
def test_it_has_its_own_libraries_and_no_others(name: str) -> None:
    packages = contents(name).packages(LIBRARIES)
    assert packages >= HAS[name]
    assert not packages & (HAS_NOT[name] | DEVELOPERS)


@every_python_image
def test_of_amazons_services_only_those_of_an_object_store_are_there(name: str) -> None:
    data = contents(name).packages(f"{LIBRARIES}/botocore/data")
    folders = {entry for entry in data if "." not in entry}
    assert folders == (set() if name == "operator" else {"s3", "sts"})


@every_python_image
def test_every_module_is_compiled(name: str) -> None:
    files = contents(name).files
    sources = [path for path in files if path.startswith("opt/truekeep/") and path.endswith(".py")]
    assert any(path.startswith(ROOMS) for path in sources)
    uncompiled = [path for path in sources if not (compiled(path) & set(files))]
    assert not uncompiled


def compiled(path: str) -> set[str]:
    folder, _, file = path.rpartition("/")
    return {f"{folder}/__pycache__/{file.removesuffix('.py')}.cpython-3{minor}.pyc" for minor in range(11, 15)}


@every_python_image
def test_the_rooms_are_the_last_and_a_small_layer(name: str) -> None:
    _, size = contents(name).layers[-1]
    assert 0 < size < 8e6  # the tools have nearly all rooms, with their bytecode
    assert size == sum(count for path, count in contents(name).files.items() if path.startswith("opt/truekeep/app/"))


def test_images_that_read_the_store_share_its_libraries_as_one_layer() -> None:
    layers = {contents(name).layers[:3] for name in ("trainer", "server", "monitor", "tools")}
    assert len(layers) == 1


# In the cluster.

# Imports all modules of the image's own rooms (the arguments) and whatever they name in an import, wherever in their
# source: a shared room may have a module for one image only, whose libraries the others lack.
PROBE = """
import ast, importlib, importlib.util, json, os, pathlib, pkgutil, shutil, sys, time
import truekeep
home = pathlib.Path(truekeep.__file__).parent
rooms = sorted(m.name for m in pkgutil.iter_modules(truekeep.__path__) if m.ispkg)

def file_of(module):
    path = home.parent.joinpath(*module.split("."))
    return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.exists()), None)

def named(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)

waiting = [
    ".".join(file.relative_to(home.parent).with_suffix("").parts).removesuffix(".__init__")
    for room in sys.argv[1:] for file in sorted(home.glob(room))
]
assert waiting
seen, failed = set(), {}
began = time.perf_counter()
while waiting:
    module = waiting.pop()
    if module in seen or not module.startswith("truekeep") or not (file := file_of(module)):
        continue
    seen.add(module)
    waiting += named(file)
    if not module.endswith("__main__"):
        try:
            importlib.import_module(module)
        except Exception as error:
            failed[module] = repr(error)
seconds = time.perf_counter() - began
loaded = [
    m for m in list(sys.modules.values())
    if (getattr(m, "__file__", None) or "").endswith(".py") and getattr(m.__spec__, "origin", None) != "frozen"
]
try:
    pathlib.Path("/opt/truekeep/written").write_text("")
    writable = True
except OSError:
    writable = False
pathlib.Path("/tmp/written").write_text("")
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "home": os.path.expanduser("~"),
    "rooms": rooms,
    "modules": len(seen),
    "failed": failed,
    "seconds": round(seconds, 2),
    "uncompiled": sorted(m.__name__ for m in loaded if not os.path.exists(getattr(m, "__cached__", None) or "")),
    "writable": writable,
    "path": sys.path,
    "absent": [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None],
    "programs": [name for name in ("gcc", "cc", "apt-get", "perl", "pip") if shutil.which(name)],
}))
"""


STORE_WORK = """
import boto3, botocore.config, io, numpy, pyarrow, pyarrow.compute, pyarrow.csv, pyarrow.parquet
from zoneinfo import ZoneInfo
table = pyarrow.table({"a": pyarrow.array([1.5, None, 3.0]), "b": pyarrow.array(["x", "y", "x"]).dictionary_encode()})
for codec in ("snappy", "zstd", "gzip", "none"):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, compression=codec)
    assert pyarrow.parquet.read_table(io.BytesIO(sink.getvalue())).equals(table)
assert pyarrow.compute.sum(table["a"]).as_py() == 4.5
assert pyarrow.csv.read_csv(io.BytesIO(b"a,b\\n1,2\\n")).num_rows == 1
client = boto3.client("s3", endpoint_url="http://s3.example:7070", region_name="us-east-1",
                      aws_access_key_id="a", aws_secret_access_key="b",
                      config=botocore.config.Config(signature_version="s3v4"))
assert "X-Amz-Signature" in client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
boto3.client("sts", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
assert numpy.linalg.inv(numpy.eye(3)).sum() == 3
ZoneInfo("America/New_York")
"""
MODEL_WORK = """
import importlib, numpy, skops.io
from truekeep.api import estimators
for path in set(estimators.ESTIMATORS) - estimators.ONNX_ONLY:
    module, _, name = path.rpartition(".")
    getattr(importlib.import_module(module), name)
from sklearn.ensemble import HistGradientBoostingClassifier
random = numpy.random.default_rng(7)
x = random.normal(size=(500, 3))
model = HistGradientBoostingClassifier(max_iter=5, random_state=7).fit(x, x[:, 0] > 0)
file = skops.io.dumps(model)
again = skops.io.loads(file, trusted=skops.io.get_untrusted_types(data=file))
assert (again.predict(x) == model.predict(x)).all()
"""
BOOSTERS_WORK = """
import lightgbm, numpy, xgboost
x = numpy.random.default_rng(7).normal(size=(500, 3))
for kind in (lightgbm.LGBMClassifier, xgboost.XGBClassifier):
    assert kind(n_estimators=5, n_jobs=1).fit(x, x[:, 0] > 0).score(x, x[:, 0] > 0) > 0.9
"""
ONNX_WORK = """
import numpy, onnxruntime
from onnx import TensorProto, checker, helper
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", [value("x")], [value("y")])
model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
checker.check_model(model)
session = onnxruntime.InferenceSession(model.SerializeToString())
assert session.run(None, {"x": numpy.ones(1, numpy.float32)})[0] == 2
"""
JUDGE_WORK = """
import scipy.stats, numpy
assert scipy.stats.ks_2samp(numpy.arange(50), numpy.arange(50) + 40).pvalue < 0.01
assert scipy.stats.chi2_contingency([[10, 20], [20, 10]]).pvalue < 0.05
assert scipy.stats.wasserstein_distance([0, 1], [1, 2]) == 1
"""
WORK = {
    "trainer": STORE_WORK + MODEL_WORK + BOOSTERS_WORK + ONNX_WORK + JUDGE_WORK,
    "server": STORE_WORK + MODEL_WORK + "import grpc.aio, httptools, onnxruntime, orjson, uvicorn, uvloop",
    "monitor": STORE_WORK + JUDGE_WORK,
    "tools": STORE_WORK + "import httpx, kubernetes.aio, rich, typer, yaml",
}


class Pods:
    """Pods in a namespace of their own."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._env = {**os.environ, **environment()}

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def run(self, name: str, image: str, **container: Any) -> tuple[int, str]:
        """The exit code of a pod's one container, and what it wrote."""
        security = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        main = {
            "name": "main",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "securityContext": security,
            "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}},  # without, a busy node starves it
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            **container,
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [main],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.kubectl("create", "--filename=-", stdin=json.dumps(pod))
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            status = json.loads(self.kubectl("get", "pod", name, "--output=json"))["status"]
            for each in status.get("containerStatuses", []):
                if terminated := each["state"].get("terminated"):
                    return int(terminated["exitCode"]), self.kubectl("logs", name)
                waiting = each["state"].get("waiting", {}).get("reason", "")
                assert "Image" not in waiting or waiting == "ContainerCreating", each["state"]
            time.sleep(0.5)
        raise AssertionError(self.kubectl("describe", "pod", name))


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    kubeconfig = environment()["KUBECONFIG"]
    require_own_context(kubeconfig)
    load([built(image.name) for image in IMAGES], Console(quiet=True))
    fresh = Pods(f"images-test-{uuid.uuid4().hex[:8]}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fresh.namespace, "labels": labels}}
    fresh.kubectl("create", "--filename=-", stdin=json.dumps(namespace))
    yield fresh
    fresh.kubectl("delete", "namespace", fresh.namespace, "--wait=false")


@every_python_image
def test_in_a_pod_every_module_that_it_may_use_imports(name: str, pods: Pods) -> None:
    code, log = pods.run(name, built(name).name, command=["python3", "-c", PROBE, *OWN[name]])
    assert code == 0, log
    seen = json.loads(log.splitlines()[-1])
    print(f"{name}: imports the {seen['modules']} modules that it may use in {seen['seconds']} s")
    failed = {module: why for module, why in seen["failed"].items() if not module.startswith(ELSEWHERE.get(name, "-"))}
    assert failed == {}
    assert all("ModuleNotFoundError" in why for why in seen["failed"].values())
    assert seen["user"] == [65532, 65532]
    assert seen["home"] == "/tmp"
    assert not seen["writable"]
    assert seen["uncompiled"] == []
    assert seen["absent"] == ["pip", "setuptools"]
    assert seen["programs"] == []
    assert "" not in seen["path"]
    assert ("cli" if name == "tools" else "controller" if name == "operator" else name) in seen["rooms"]


def test_in_a_pod_a_command_for_laptops_says_what_is_missing(pods: Pods) -> None:
    code, log = pods.run("tools-serve", built("tools").name, args=["serve", "folder"])
    assert code == 2, log
    assert "is missing; install truekeep[cli,server]" in log


@pytest.mark.parametrize("name", WORK)
def test_in_a_pod_what_was_left_of_its_libraries_does_the_work(name: str, pods: Pods) -> None:
    code, log = pods.run(f"{name}-work", built(name).name, command=["python3", "-W", "error", "-c", WORK[name]])
    assert code == 0, log


def test_a_loaded_image_is_not_loaded_again(pods: Pods) -> None:
    assert load([built(image.name) for image in IMAGES], Console(quiet=True)) == []


def test_versitygw_runs(pods: Pods) -> None:
    code, log = pods.run("versitygw", built("versitygw").name, args=["--version"])
    assert code == 0, log
    assert "ersion" in log

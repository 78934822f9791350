"""What Truekeep needs of a cluster, asked of the one that is up: `pytest tests/cluster/test_cluster.py`."""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.cluster import environment, fetch_binary, load_archives, require_own_context
from tests.cluster.images import BinaryImage, write_archive

pytestmark = pytest.mark.cluster

NOBODY = 65532
S3_PORT = 7070
RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
NON_ROOT: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": NOBODY,
    "fsGroup": NOBODY,
    "seccompProfile": {"type": "RuntimeDefault"},
}

SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"
POD_KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "pod",
    "clusters": [
        {
            "name": "pod",
            "cluster": {
                "server": "https://kubernetes.default.svc.cluster.local",
                "certificate-authority": f"{SECRETS}/ca.crt",
            },
        }
    ],
    "users": [{"name": "pod", "user": {"tokenFile": f"{SECRETS}/token"}}],
    "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
}


class Namespace:
    """A fresh namespace under Pod Security `restricted`, gone after the tests."""

    def __init__(self, kubectl: Path, kubeconfig: Path) -> None:
        self.name = f"cluster-test-{uuid.uuid4().hex[:8]}"
        self._argv = [str(kubectl), "--kubeconfig", str(kubeconfig), "--namespace", self.name]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [*self._argv, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*self._argv, *arguments], stdout=subprocess.PIPE, text=True)

    def apply(self, *documents: dict[str, Any]) -> None:
        self("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))

    def run_job(self, name: str, image: str, *arguments: str) -> tuple[bool, str]:
        """Whether a Job of one pod completed, and what it wrote."""
        pod = {
            "restartPolicy": "Never",
            "securityContext": NON_ROOT,
            "serviceAccountName": "reader",
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "args": list(arguments),
                    "env": [{"name": "KUBECONFIG", "value": "/config/kubeconfig"}],
                    "securityContext": RESTRICTED,
                    "volumeMounts": [{"name": "config", "mountPath": "/config"}],
                }
            ],
            "volumes": [{"name": "config", "configMap": {"name": "kubeconfig"}}],
        }
        job = {"backoffLimit": 0, "template": {"spec": pod}}
        self.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": job})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = json.loads(self("get", "job", name, "--output=json")).get("status", {})
            if status.get("succeeded") or status.get("failed"):
                return bool(status.get("succeeded")), self("logs", f"job/{name}")
            time.sleep(0.3)
        raise AssertionError(self("describe", "pods", "--selector", f"job-name={name}"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Images of kubectl (a client) and versitygw (a server), by the binary's name."""
    directory = tmp_path_factory.mktemp("images")
    references = {}
    for name in ("kubectl", "versitygw"):
        image = BinaryImage(f"truekeep-cluster-test/{name}:1", fetch_binary(name), f"{NOBODY}:{NOBODY}")
        write_archive(image, directory / name, platform.machine())
        (references[name],) = load_archives([directory / name])
    return references


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    kubeconfig = Path(environment()["KUBECONFIG"])
    require_own_context(kubeconfig)
    fresh = Namespace(fetch_binary("kubectl"), kubeconfig)
    fresh.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": fresh.name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kubeconfig"},
            "data": {"kubeconfig": json.dumps(POD_KUBECONFIG)},
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": fresh.name}],
        },
    )
    try:
        yield fresh
    finally:
        fresh("delete", "namespace", fresh.name, "--wait=false")


@pytest.fixture(scope="module")
def store(namespace: Namespace, images: dict[str, str]) -> str:
    """Two replicas of versitygw on one PersistentVolume behind a Service; its cluster IP."""
    pod = {
        "securityContext": NON_ROOT,
        "containers": [
            {
                "name": "s3",
                "image": images["versitygw"],
                "imagePullPolicy": "Never",
                "args": ["--port", f":{S3_PORT}", "--health", "/health", "posix", "/data"],
                "env": [
                    {"name": "ROOT_ACCESS_KEY", "value": "test"},
                    {"name": "ROOT_SECRET_KEY", "value": "test-secret"},
                ],
                "readinessProbe": {"httpGet": {"path": "/health", "port": S3_PORT}, "periodSeconds": 1},
                "securityContext": RESTRICTED,
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    labels = {"app": "store"}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "store"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "store"},
            "spec": {"selector": labels, "ports": [{"port": S3_PORT}]},
        },
    )
    namespace("rollout", "status", "deployment/store", "--timeout=90s")
    return namespace("get", "service", "store", "--output=jsonpath={.spec.clusterIP}")


def test_a_restricted_job_reaches_the_api_by_its_name(namespace: Namespace, images: dict[str, str]) -> None:
    path = f"/api/v1/namespaces/{namespace.name}/serviceaccounts/reader"
    succeeded, said = namespace.run_job("api", images["kubectl"], "get", f"--raw={path}")
    assert succeeded, said
    assert json.loads(said)["metadata"]["name"] == "reader"


def test_pods_find_services_by_name(namespace: Namespace, images: dict[str, str], store: str) -> None:
    succeeded, said = namespace.run_job(
        "by-name", images["kubectl"], f"--server=http://store:{S3_PORT}", "get", "--raw=/health"
    )
    assert succeeded, said


def test_a_volume_is_bound_and_takes_writes_of_a_user_that_is_not_root(namespace: Namespace, store: str) -> None:
    claim = json.loads(namespace("get", "pvc", "data", "--output=json"))
    assert claim["status"]["phase"] == "Bound"
    assert claim["spec"]["storageClassName"] == "standard"
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{store}:{S3_PORT}",
        aws_access_key_id="test",
        aws_secret_access_key="test-secret",
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 3}),
    )
    client.create_bucket(Bucket="lake")
    client.put_object(Bucket="lake", Key="flights/1", Body=b"42")
    assert client.get_object(Bucket="lake", Key="flights/1")["Body"].read() == b"42"


def test_a_service_goes_on_answering_when_one_of_its_pods_goes(namespace: Namespace, store: str) -> None:
    pods = namespace("get", "pods", "--selector=app=store", "--output=name").split()
    assert len(pods) == 2
    namespace("delete", pods[0], "--wait=false")
    refused_after = 0.0
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < 4:
        try:
            assert get_health(store, S3_PORT)
        except OSError:
            refused_after = elapsed
    # versitygw ends at once when it is told to, so that connections are refused until kube-proxy has heard of it.
    assert refused_after < 2


@pytest.mark.parametrize(
    ("target", "complaint"),
    [("https://198.51.100.1", "refused"), ("https://models.example.org", "no such host")],
)
def test_pods_reach_nothing_outside_and_learn_so_at_once(
    namespace: Namespace, images: dict[str, str], target: str, complaint: str
) -> None:
    from tests.cluster import engine

    if engine() != "one-node":
        pytest.skip("a kind cluster reaches what its Docker engine reaches")
    name = f"outside-{uuid.uuid4().hex[:6]}"
    succeeded, said = namespace.run_job(
        name, images["kubectl"], f"--server={target}", "--request-timeout=20s", "get", "--raw=/"
    )
    assert not succeeded
    assert complaint in said


def test_exec_and_port_forward_reach_a_pod(namespace: Namespace, store: str, unused_port: Callable[[], int]) -> None:
    assert "Version" in namespace("exec", "deployment/store", "--", "/versitygw", "--version")
    port = unused_port()
    forward = namespace.start("port-forward", "service/store", f"{port}:{S3_PORT}")
    try:
        assert forward.stdout is not None
        forward.stdout.readline()
        assert get_health("127.0.0.1", port)
    finally:
        forward.terminate()
        forward.wait()


def get_health(host: str, port: int) -> bool:
    """Whether a fresh connection gets a 200 for /health. Raises OSError when there is none to be had."""
    with closing(socket.create_connection((host, port), timeout=5)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n")
        return connection.recv(64).startswith(b"HTTP/1.1 200")


@pytest.fixture
def unused_port() -> Callable[[], int]:
    def find() -> int:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find

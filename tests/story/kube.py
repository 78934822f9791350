"""The cluster, as the story and the end-to-end tests use it: kubectl to change things, the API to look at them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import yaml
from kubernetes import client, config

Json = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
TRUEKEEP = "/apis/truekeep.dev/v1alpha1"
PATHS = {
    "models": TRUEKEEP,
    "trainingruns": TRUEKEEP,
    "driftpolicies": TRUEKEEP,
    "modelapprovals": TRUEKEEP,
    "pods": "/api/v1",
    "services": "/api/v1",
    "secrets": "/api/v1",
    "events": "/api/v1",
    "resourcequotas": "/api/v1",
    "deployments": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "cronjobs": "/apis/batch/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2",
    "poddisruptionbudgets": "/apis/policy/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
}
POLL_SECONDS = 0.5


class KubectlError(Exception):
    """kubectl did not do what was asked; the text is what it said."""


class NotInTime(Exception):
    """Something that was waited for did not come."""


class Kube:
    """One cluster, by its kubeconfig."""

    def __init__(self, kubeconfig: Path, kubectl: Path) -> None:
        self.program = str(kubectl)
        self._kubectl = [str(kubectl), "--kubeconfig", str(kubeconfig)]
        configuration = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        self._client = client.ApiClient(configuration)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """What kubectl prints. KubectlError with its words where it fails."""
        done = subprocess.run(
            [*self._kubectl, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, namespace: str, documents: Sequence[Json], *options: str) -> str:
        """`kubectl apply` of these objects, in one call."""
        text = yaml.safe_dump_all(documents, sort_keys=False)
        return self.kubectl("apply", "--namespace", namespace, "--filename=-", *options, stdin=text)

    def patch(self, namespace: str, plural: str, name: str, patch: Json) -> None:
        """A JSON merge patch."""
        self.kubectl("patch", plural_of(plural), name, "-n", namespace, "--type=merge", f"--patch={json.dumps(patch)}")

    def get(self, namespace: str, plural: str, name: str) -> Json | None:
        """The object as it is now, None where there is none."""
        return self._ask(f"{PATHS[plural]}/namespaces/{namespace}/{plural}/{quote(name)}")

    def list(self, namespace: str, plural: str, selector: str = "") -> list[Json]:
        """The objects as they are now, the oldest first."""
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        answer = self._ask(f"{PATHS[plural]}/namespaces/{namespace}/{plural}{query}") or {}
        return sorted(answer.get("items", []), key=lambda item: (item["metadata"]["creationTimestamp"], name_of(item)))

    def logs(self, namespace: str, pod: str, lines: int = 20) -> str:
        """The last lines of a pod's log, of its former container where that is all there is."""
        for extra in ((), ("--previous",)):
            with contextlib.suppress(KubectlError, subprocess.TimeoutExpired):
                text = self.kubectl("logs", pod, "-n", namespace, f"--tail={lines}", *extra, timeout=15)
                if text.strip():
                    return text
        return ""

    def wait(
        self, what: str, seconds: float, look: Callable[[], T | None], seen: Callable[[], None] = lambda: None
    ) -> T:
        """The first thing that `look` answers. NotInTime, naming `what`, after so many seconds.

        `seen` is called after each look that came back empty-handed."""
        deadline = time.monotonic() + seconds
        while True:
            found = look()
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise NotInTime(f"{what}: not within {seconds:.0f} s")
            seen()
            time.sleep(POLL_SECONDS)

    def fresh_namespace(self, document: Json, seconds: float = 120) -> None:
        """The namespace of this document, empty: one that is there is deleted first."""
        name = name_of(document)
        self.kubectl(
            "delete", "namespace", name, "--ignore-not-found", f"--timeout={seconds:.0f}s", timeout=seconds + 9
        )
        self.kubectl("create", "--filename=-", stdin=yaml.safe_dump(document))

    @contextlib.contextmanager
    def forward(self, namespace: str, service: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to a Service, as long as the context lasts."""
        command = [*self._kubectl, "port-forward", "-n", namespace, f"service/{service}", f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                if found is None:
                    raise KubectlError(f"kubectl port-forward to {service}: {line.strip()}")
                _await_port(int(found[1]))
                yield int(found[1])
            finally:
                process.terminate()

    def _ask(self, path: str) -> Json | None:
        url = self._client.configuration.host + path
        answer = self._client.call_api("GET", url, {"Accept": "application/json"}, _request_timeout=15)
        answer.read()  # type: ignore[no-untyped-call]
        if answer.status == 404:
            return None
        if answer.status >= 400:
            raise client.ApiException(http_resp=answer)
        item: Json = json.loads(answer.data or b"null")
        return item


def plural_of(plural: str) -> str:
    """As kubectl is told it: `models` alone may be another group's."""
    return f"{plural}.truekeep.dev" if PATHS[plural] == TRUEKEEP else plural


def name_of(item: Mapping[str, Any]) -> str:
    """The object's name."""
    return str(item["metadata"]["name"])


def condition(item: Json | None, kind: str) -> Json:
    """One condition of an object; an empty one where it is not there yet."""
    conditions = (item or {}).get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def holds(item: Json | None, kind: str, status: str = "True") -> bool:
    """Whether the condition has this status, for the object's present generation."""
    found = condition(item, kind)
    generation = (item or {}).get("metadata", {}).get("generation", 0)
    return found.get("status") == status and found.get("observedGeneration", 0) >= generation


def load(path: Path, images: Mapping[str, str] | None = None) -> list[Json]:
    """The documents of a manifest, with images (`truekeep/tools:…`) by their full names."""
    text = path.read_text()
    for name, full in (images or {}).items():
        text = re.sub(rf"\btruekeep/{name}:\S+", full, text)
    return [document for document in yaml.safe_load_all(text) if document]


def load_folder(folder: Path, images: Mapping[str, str] | None = None) -> list[Json]:
    """The documents that a folder's kustomization lists."""
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [document for name in listed for document in load(folder / name, images)]


def image_names() -> dict[str, str]:
    """The images that were built last, by short name, from what `python -m images` wrote; variables of the environment
    (TRUEKEEP_TOOLS_IMAGE and so on) win."""
    path = ROOT / "build" / "images.env"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: `make images` builds the images and writes it")
    names = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    names = {variable: os.environ.get(variable, name) for variable, name in names.items()}
    return {name.removeprefix("TRUEKEEP_").removesuffix("_IMAGE").lower(): full for name, full in names.items()}


def _await_port(port: int) -> None:
    for _ in range(50):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)

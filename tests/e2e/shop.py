"""A namespace with an object store, made-up payments in it, many small Models, and a probe that asks them all.

Everything is small, so that a Model is trained and serves within seconds; several go through their troubles at once."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from tests.story.kube import Json, Kube, condition, holds, image_names, load, load_folder, name_of
from tests.story.narrator import Narrator
from tests.story.stage import EXAMPLES, Stage
from truekeep.cli.examples import fraud, world
from truekeep.cli.examples.upload import make_bucket, upload

BEGINS = datetime(2024, 1, 1, tzinfo=UTC)
DAYS, ROWS_PER_DAY = 40, 100
READY_SECONDS = 240
REQUEST = {
    "hour": ("FP64", 3),
    "amount": ("FP64", 12.5),
    "channel": ("BYTES", "web"),
    "merchant": ("BYTES", "games"),
    "country": ("BYTES", "DE"),
    "card_age_days": ("FP64", 90),
    "distance_km": ("FP64", 40),
}  # payments_24h is not sent: the Models here do without it


def small_model(name: str, **spec: Any) -> Json:
    """The fraud example's Model, made small; `spec` is merged into it."""
    (document,) = load(EXAMPLES / "fraud" / "model.yaml")
    model = copy.deepcopy(document)
    model["metadata"] = {"name": name}
    features = [each for each in model["spec"]["data"]["features"] if each["name"] in REQUEST]
    small = {
        "data": {"features": features, "rules": [{"name": "enough", "minRows": 500}]},
        "training": {
            "recipe": {"parameters": [{"name": "max_iter", "value": "12"}]},
            "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}},
        },
        "evaluation": {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.55"}]},
        "serving": {
            "replicas": 1,
            "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}},
            "rollout": {"steps": [{"weightPercent": 50, "durationSeconds": 4}], "minRequests": 5},
            "capture": None,
        },
    }
    model["spec"] = merged(merged(model["spec"], small), spec)
    return model


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    base = target if isinstance(target, dict) else {}
    kept = {key: value for key, value in base.items() if key not in patch}
    return kept | {key: merged(base.get(key), value) for key, value in patch.items() if value is not None}


def parameters(**values: str) -> Json:
    """A patch of the recipe's parameters: a change that asks for training."""
    return {"training": {"recipe": {"parameters": [{"name": key, "value": value} for key, value in values.items()]}}}


@dataclass
class Shop:
    """The namespace and what is asked about it."""

    kube: Kube
    namespace: str

    def apply(self, *documents: Json) -> None:
        """Server-side apply, so that a value of null in a document is simply not there."""
        self.kube.apply(self.namespace, documents, "--server-side", "--force-conflicts", "--field-manager=e2e")

    def patch(self, name: str, spec: Json) -> None:
        """A merge patch of a Model's spec."""
        self.kube.patch(self.namespace, "models", name, {"spec": spec})

    def model(self, name: str) -> Json:
        return self.kube.get(self.namespace, "models", name) or {}

    def runs(self, model: str) -> list[Json]:
        """The Model's TrainingRuns, the oldest first."""
        return [r for r in self.kube.list(self.namespace, "trainingruns") if r["spec"]["modelRef"]["name"] == model]

    def jobs(self, model: str) -> list[Json]:
        return self.kube.list(self.namespace, "jobs", f"truekeep.dev/model={model},app.kubernetes.io/component=trainer")

    def pods(self, model: str, component: str) -> list[Json]:
        selector = f"truekeep.dev/model={model},app.kubernetes.io/component={component}"
        return self.kube.list(self.namespace, "pods", selector)

    def events(self, kind: str, name: str) -> list[Json]:
        """The Events about one object."""
        events = self.kube.list(self.namespace, "events")
        about = [(event["involvedObject"]["kind"], event["involvedObject"]["name"]) for event in events]
        return [event for event, (of, named) in zip(events, about, strict=True) if (of, named) == (kind, name)]

    def until(self, what: str, seconds: float, true: Callable[[], object]) -> None:
        """Waits until it is so. NotInTime, naming `what`, after so many seconds."""
        self.kube.wait(what, seconds, lambda: True if true() else None)

    def ready(self, name: str, revision: int | None = None, seconds: float = READY_SECONDS) -> Json:
        """The Model, once it is Ready for its present generation, with that revision."""

        def look() -> bool:
            model = self.model(name)
            active = (model.get("status", {}).get("active") or {}).get("revision")
            return holds(model, "Ready") and revision in (None, active)

        self.until(f"Model {name} Ready with revision {revision or 'any'}", seconds, look)
        return self.model(name)

    def reason(self, name: str, reason: str, seconds: float) -> Json:
        """The Model's Ready condition, once it is False for this reason, for its present generation."""

        def look() -> bool:
            model = self.model(name)
            return holds(model, "Ready", "False") and condition(model, "Ready")["reason"] == reason

        try:
            self.until("", seconds, look)
        except Exception as error:
            last = condition(self.model(name), "Ready")
            raise AssertionError(
                f"Model {name} is not Ready=False {reason} within {seconds:.0f} s, but {last}"
            ) from error
        return condition(self.model(name), "Ready")

    def running(self, pod: str) -> bool:
        """Whether a pod runs. AssertionError, with its last words, where it ended."""
        phase = (self.kube.get(self.namespace, "pods", pod) or {}).get("status", {}).get("phase")
        assert phase not in {"Failed", "Succeeded"}, f"pod {pod} ended: {self.kube.logs(self.namespace, pod)}"
        return phase == "Running"

    def probed(self, name: str) -> Json:
        """What the probe says of a Model by now."""
        (pod,) = self.kube.list(self.namespace, "pods", "app.kubernetes.io/name=probe")
        lines = self.kube.logs(self.namespace, name_of(pod), 1).splitlines()
        return json.loads(lines[-1])[name] if lines else {"requests": 0, "failed": 0, "failures": [], "versions": {}}

    def decide(self, name: str, request_id: str) -> tuple[str, float]:
        """Which version of a Model answers, and what."""
        inputs = [{"name": n, "shape": [1], "datatype": kind, "data": [value]} for n, (kind, value) in REQUEST.items()]
        with self.kube.forward(self.namespace, name, 80) as port:
            url = f"http://127.0.0.1:{port}/v2/models/{name}/infer"
            reply = httpx.post(url, json={"id": request_id, "inputs": inputs}, timeout=30)
        assert reply.status_code == 200, reply.text
        body = reply.json()
        return body["model_version"], float(body["outputs"][0]["data"][0])

    @contextmanager
    def unharmed(self, name: str) -> Iterator[None]:
        """Within this, every request to the Model is answered, and there are some, also at the end."""
        before = self.probed(name)
        yield
        now = self.probed(name)
        self.until(f"the probe to ask {name} again", 30, lambda: self.probed(name)["requests"] > now["requests"] + 3)
        after = self.probed(name)
        assert after["failed"] == before["failed"], f"requests to {name} failed: {after['failures']}"


@contextmanager
def open_shop(kube: Kube, namespace: str, models: Mapping[str, Json]) -> Iterator[Shop]:
    """A fresh namespace with these Models, all of them Ready, and the probe at work. Deleted at the end."""
    document = load(EXAMPLES / "namespace.yaml")[0]
    document["metadata"]["name"] = namespace
    kube.fresh_namespace(document)
    shop = Shop(kube, namespace)
    images = image_names()
    kube.apply(namespace, load_folder(EXAMPLES / "s3", images))
    shop.until(
        "the store",
        120,
        lambda: (kube.get(namespace, "deployments", "s3") or {}).get("status", {}).get("readyReplicas"),
    )
    with Stage(kube, namespace, Narrator()) as stage:
        _stock(stage)
    if models:
        shop.apply(*models.values(), *_probe(models, images["tools"]))
    for name in models:
        shop.ready(name, 1)
    shop.until("the probe", 60, lambda: all(shop.probed(name)["requests"] for name in models))
    yield shop
    kube.kubectl("delete", "namespace", namespace, "--wait=false")


def _stock(stage: Stage) -> None:
    """Made-up payments, and the same with one row that no schema would take."""
    stage.open_store()
    for bucket in (world.LAKE, "models"):
        make_bucket(bucket, stage.endpoint, versions=False)
    turns = BEGINS + timedelta(days=3660)
    tables = fraud.tables(BEGINS, DAYS, ROWS_PER_DAY, turns, seed=7)
    payments = tables["payments"]
    broken = payments["amount"].to_numpy().copy()
    broken[-7] = -12.5
    position = payments.column_names.index("amount")
    lake = {
        "fraud/payments/all.parquet": payments,
        "fraud/chargebacks/all.parquet": tables["chargebacks"],
        "broken/payments/all.parquet": payments.set_column(position, "amount", pa.array(broken)),
    }
    with TemporaryDirectory() as folder:
        for key, table in lake.items():
            path = Path(folder) / world.LAKE / key
            path.parent.mkdir(parents=True, exist_ok=True)
            sink = io.BytesIO()
            pq.write_table(table, sink)
            path.write_bytes(sink.getvalue())
        upload(Path(folder), stage.endpoint, lambda done, of: None)


def _probe(models: Mapping[str, Json], image: str) -> list[Json]:
    """A pod that asks all of them, on a new connection each time."""
    inputs = [{"name": n, "shape": [1], "datatype": kind, "data": [value]} for n, (kind, value) in REQUEST.items()]
    files = {"request.json": json.dumps({"inputs": inputs})}
    return script_pod("probe", image, Path(__file__).with_name("probe.py"), {"MODELS": ",".join(models)}, files)


def script_pod(
    name: str, image: str, script: Path, environment: Mapping[str, str], files: Mapping[str, str] | None = None
) -> list[Json]:
    """A pod that runs a script, and the ConfigMap with the script and files that lie beside it."""
    container = {
        "name": name,
        "image": image,
        "command": ["python3", f"/files/{script.name}"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "files", "configMap": {"name": name}}],
        },
    }
    data = {script.name: script.read_text(), **(files or {})}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}, pod]

"""Models with their policies and finished runs, as a team's history would have left them, in a control plane."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from kubernetes.aio import client, config

from tests.unit.controller.fake_cluster import MemoryStore
from truekeep.api.model import ModelSpec
from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, MANAGED_BY
from truekeep.api.trainingrun import TrainingRunStatus
from truekeep.cluster import kinds
from truekeep.cluster.api import Api
from truekeep.cluster.errors import ClusterError
from truekeep.contract.requests import REQUEST_ENV, KeepRequest
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.monitor.keep import keep
from truekeep.storage.artifacts import Store

RUNS = 10
TEAM = 50  # Models in a namespace
AT_ONCE = 24
API_VERSION = kinds.MODEL.api_version
Json = dict[str, Any]
COLUMNS = ("hour", "weekday", "month", "distance", "carrier", "origin", "destination", "aircraft", "seats", "wind")
METRICS = ("roc_auc", "average_precision", "neg_log_loss", "neg_brier_score", "f1", "recall", "precision", "accuracy")


def spec(replicas: int = 2) -> Json:
    """A Model's, of a usual size."""
    return {
        "store": {"s3": {"uri": "s3://models/", "credentialsSecretRef": {"name": "lake"}}},
        "data": {
            "source": {"s3": {"uri": "s3://lake/flights/"}},
            "timeColumn": "at",
            "key": "id",
            "label": {"column": "late", "source": {"s3": {"uri": "s3://lake/arrivals/"}}},
            "features": [{"name": name, "type": "Number"} for name in COLUMNS],
            "rules": [{"name": "enough", "minRows": 1000}, {"name": "nulls", "maxNullFraction": "0.05"}],
        },
        "training": {
            "recipe": {
                "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
                "parameters": [{"name": "max_iter", "value": "120"}],
            }
        },
        "evaluation": {
            "gates": [{"name": metric.replace("_", "-"), "metric": metric, "minimum": "0.5"} for metric in METRICS[:2]]
        },
        "serving": {"replicas": replicas, "rollout": {"steps": [{"weightPercent": 50, "durationSeconds": 10}]}},
    }


def policy(model: str) -> Json:
    """One that looks once a year, so that what is measured is the operator and not a monitor."""
    return {"modelRef": {"name": model}, "schedule": "0 0 1 1 *", "window": {"hours": 24}}


def place(number: int) -> tuple[str, str]:
    """Namespace and name of a Model."""
    return f"team-{number // TEAM:02d}", f"model-{number:04d}"


def run_status(revision: int, run: str, fingerprint: str, ended: datetime) -> Json:
    """What a run that succeeded says, of a usual size: about 3 KB."""
    digest = f"sha256:{hashlib.sha256(run.encode()).hexdigest()}"
    stamp = ended.strftime("%Y-%m-%dT%H:%M:%SZ")
    message = f"revision {revision}: 48213 rows, roc_auc 0.7312, all gates passed"
    words = {
        "Ready": ("True", "Succeeded"),
        "Reconciling": ("False", "Succeeded"),
        "Stalled": ("False", "Succeeded"),
        "Complete": ("True", "Succeeded"),
        "Failed": ("False", "Succeeded"),
        "DataValid": ("True", "Validated"),
    }
    status = {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": kind,
                "status": flag,
                "reason": reason,
                "message": message if flag == "True" else "",
                "observedGeneration": 1,
                "lastTransitionTime": stamp,
            }
            for kind, (flag, reason) in words.items()
        ],
        "revision": revision,
        "modelGeneration": 1,
        "trainingFingerprint": fingerprint,
        "image": "truekeep/trainer:0.1.0",
        "job": run,
        "startTime": stamp,
        "completionTime": stamp,
        "data": {
            "objects": 60,
            "rows": 48213,
            "positives": 9120,
            "unlabelled": 211,
            "windowStart": stamp,
            "windowEnd": stamp,
            "digest": digest,
            "rowsDigest": digest,
            "replayable": "True",
        },
        "metrics": [{"name": name, "value": "0.7312"} for name in METRICS],
        "gates": [
            {
                "name": f"by-origin/{place}",
                "metric": "roc_auc",
                "value": "0.7312",
                "threshold": "0.6",
                "result": "Passed",
                "rows": 812,
            }
            for place in ("JFK", "EWR", "LGA", "BOS", "ORD", "SFO", "LAX", "SEA")
        ],
        "artifact": {"digest": digest, "uri": f"s3://models/{run}", "sizeBytes": 1_200_000},
        "record": {"id": digest, "uri": f"s3://models/{run}/record.json", "report": f"s3://models/{run}/report.html"},
    }
    return TrainingRunStatus.model_validate(status).dump()


async def connected(kubeconfig: Path) -> Api:
    """An administrator who acts as somebody whom the audit log tells from the operator."""
    configuration = client.Configuration(connection_pool_maxsize=AT_ONCE)
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    api_client = client.ApiClient(configuration)
    api_client.set_default_header("Impersonate-User", "somebody")  # type: ignore[no-untyped-call]
    api_client.set_default_header("Impersonate-Group", "system:masters")  # type: ignore[no-untyped-call]
    return Api(api_client)


async def gathered(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """All of them, so many at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Awaitable[Any]) -> Any:
        async with gate:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))


async def populate(api: Api, numbers: range, runs: int = RUNS) -> None:
    """Models that do not exist yet, the history of each before the Model itself: nothing is to be trained."""
    await gathered(_model(api, number, runs) for number in numbers)


async def _model(api: Api, number: int, runs: int) -> None:
    namespace, name = place(number)
    parsed = ModelSpec.model_validate(spec())
    fingerprint, began = training_fingerprint(parsed), datetime.now(UTC) - timedelta(days=10 * runs)
    made = {"apiVersion": API_VERSION, "kind": "TrainingRun"}
    for revision in range(1, runs + 1):
        run = f"{name}-{revision:010x}"
        metadata = {"namespace": namespace, "name": run, "labels": {**MANAGED_BY, LABEL_MODEL: name}}
        body = {"modelRef": {"name": name}, "trigger": {"type": "Spec", "message": "spec.training changed"}}
        there = await api.create(kinds.TRAINING_RUN, {**made, "metadata": metadata, "spec": body})
        status = run_status(revision, run, fingerprint, began + timedelta(days=10 * revision))
        version = there["metadata"]["resourceVersion"]
        await api.apply_status(kinds.TRAINING_RUN, namespace, run, version, status)
    for kind, what in ((kinds.MODEL, spec()), (kinds.DRIFT_POLICY, policy(name))):
        metadata = {"namespace": namespace, "name": name}
        await api.create(kind, {"apiVersion": API_VERSION, "kind": kind.kind, "metadata": metadata, "spec": what})


async def keep_decisions(api: Api) -> None:
    """For ever: what the Jobs do that take decisions to the store, whose end nobody else can write."""
    store, labels = MemoryStore(), {**MANAGED_BY, LABEL_COMPONENT: "decisions"}
    while True:
        pods: list[Json] = []
        with suppress(ClusterError):  # an API server that is busy answers the next time
            pods = await api.list(kinds.POD, None, labels, "status.phase=Running")
        for pod in pods:
            container = pod["spec"]["containers"][0]
            text = next(each["value"] for each in container["env"] if each["name"] == REQUEST_ENV)
            moment = datetime.now(UTC)
            result = keep(cast(Store, store), KeepRequest.model_validate_json(text), moment)
            stamp = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
            ended = {
                "exitCode": 0,
                "reason": "Completed",
                "message": result.model_dump_json(by_alias=True, exclude_none=True),
                "startedAt": stamp,
                "finishedAt": stamp,
            }
            own = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False}
            status = {
                "phase": "Succeeded",
                "containerStatuses": [{**own, "restartCount": 0, "state": {"terminated": ended}}],
            }
            about = pod["metadata"]
            with suppress(ClusterError):  # it went, or changed: the next round sees it
                await api.apply_status(kinds.POD, about["namespace"], about["name"], about["resourceVersion"], status)
        await asyncio.sleep(1)


async def change(api: Api, number: int, replicas: int) -> None:
    """What a person does to a Model: another number of pods."""
    namespace, name = place(number)
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec(replicas),
    }
    await api.apply(kinds.MODEL, manifest, manager="somebody")


async def serving(api: Api) -> list[Json]:
    """The Deployments that serve."""
    return await api.list(kinds.DEPLOYMENT, None, MANAGED_BY)


async def scale(api: Api, deployment: Json, pods: Mapping[int, int]) -> None:
    """A Deployment gets as many pods as the Model of its number shall have: one write."""
    about = deployment["metadata"]
    number = int(about["labels"][LABEL_MODEL].removeprefix("model-"))
    manifest = {
        "apiVersion": kinds.DEPLOYMENT.api_version,
        "kind": kinds.DEPLOYMENT.kind,
        "metadata": {"namespace": about["namespace"], "name": about["name"]},
        "spec": {"replicas": pods[number]},
    }
    await api.apply(kinds.DEPLOYMENT, manifest, manager="somebody")

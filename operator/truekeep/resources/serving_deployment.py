"""The Deployment that serves one revision in one way. Its pod template is frozen at the first apply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from truekeep.api.capture import Capture
from truekeep.api.common import GROUP
from truekeep.api.names import (
    ANNOTATION_ARTIFACT,
    ANNOTATION_SERVING_KEY,
    LABEL_COMPONENT,
    LABEL_DEPLOYMENT,
    LABEL_MODEL,
    LABEL_REVISION,
    LABEL_RUN,
    MANAGED_BY,
    serving_selector,
)
from truekeep.contract.requests import (
    DEFAULT_CACHE_DIR,
    DEFAULT_SPOOL_DIR,
    SERVER_GRPC_PORT,
    SERVER_PORT,
    ServeRequest,
    complete,
)
from truekeep.domain.observed import ModelView
from truekeep.domain.plan import DeploymentIntent, Settings
from truekeep.resources.amounts import SERVER, container_resources
from truekeep.resources.metadata import child_metadata
from truekeep.resources.pods import Scratch, pod_template
from truekeep.resources.serving_image import backend_of, with_backend

COMPONENT = "server"
SPOOL_SPARE = 64  # MiB
ANNOTATION_TEMPLATE = f"{GROUP}/template"  # the pod template as it was first applied, as JSON
TMP_SIZE = "256Mi"
ARTIFACT_COPY = Scratch("artifact", DEFAULT_CACHE_DIR, "1Gi")  # a restarted container comes back without the store
# A pod that leaves tells its clients so from the first second on, and answers who still comes until every proxy has
# forgotten it. So there is no preStop pause, in which a revision that was taken back would go on answering.
LEAVE_SECONDS = 40


def serving_deployment(
    model: ModelView,
    intent: DeploymentIntent,
    settings: Settings,
    template: Mapping[str, Any] | None = None,
    scaled_by_others: bool = False,
) -> dict[str, Any]:
    """The Deployment of an intent.

    `template`: the frozen pod template of a Deployment that exists; without it, a new one is built from the Model as
    it is now. `scaled_by_others`: an autoscaler owns the replicas, so they are left out."""
    labels = {
        LABEL_MODEL: model.meta.name,
        LABEL_DEPLOYMENT: intent.name,
        LABEL_REVISION: str(intent.revision),
        LABEL_RUN: intent.run,
        LABEL_COMPONENT: COMPONENT,
    }
    frozen = dict(template) if template is not None else serving_template(model, intent, settings, labels)
    annotations = {
        ANNOTATION_ARTIFACT: intent.artifact_digest,
        ANNOTATION_SERVING_KEY: intent.serving_key,
        ANNOTATION_TEMPLATE: json.dumps(frozen, sort_keys=True, separators=(",", ":")),
    }
    spec: dict[str, Any] = {
        "minReadySeconds": 0,
        "revisionHistoryLimit": 1,
        "progressDeadlineSeconds": model.spec.serving.rollout.progress_deadline_seconds,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": serving_selector(model.meta.name, intent.name)},
        "template": frozen,
    }
    if not scaled_by_others:
        spec["replicas"] = intent.replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(intent.name, "Model", model.meta, labels, annotations),
        "spec": spec,
    }


def serving_template(
    model: ModelView, intent: DeploymentIntent, settings: Settings, labels: Mapping[str, str]
) -> dict[str, Any]:
    """The pod template of a revision, from the Model and the server image as they are now."""
    spec = model.spec
    store = spec.store.s3
    capture = spec.serving.capture
    if capture is not None:
        # How long captures are kept is not the pods' affair: where it changes, the same pods go on.
        capture = capture.model_copy(update={"s3": complete(capture.s3, store), "retention_days": None})
    request = ServeRequest(
        namespace=model.meta.namespace,
        model=model.meta.name,
        revision=intent.revision,
        run=intent.run,
        artifact_digest=intent.artifact_digest,
        store=store,
        time_column=spec.data.time_column,
        key=spec.data.key,
        capture=capture,
        connection_max_age_seconds=spec.serving.connection_max_age_seconds,
        backend=backend_of(spec.serving.image),
    )
    template = pod_template(
        component=COMPONENT,
        image=settings.server_image,
        pull_secrets=settings.image_pull_secrets,
        request=request,
        resources=container_resources(spec.serving.resources, SERVER),
        pods=spec.pods,
        locations=[store, *([capture.s3] if capture else [])],
        hash_key=capture.hash_key_secret_ref.name if capture and capture.hash_key_secret_ref else None,
        labels={**MANAGED_BY, **labels},
        tmp_size=TMP_SIZE,
        scratch=[
            *([ARTIFACT_COPY] if spec.serving.image is None else []),
            *([spool(capture)] if capture and capture.spool_mebibytes else []),
        ],
        container={
            "ports": [
                {"name": "http", "containerPort": SERVER_PORT, "protocol": "TCP"},
                {"name": "grpc", "containerPort": SERVER_GRPC_PORT, "protocol": "TCP"},
            ],
            # Loading and the self-test may take a while; they fail the pod themselves when they can't succeed.
            "startupProbe": _probe("/v2/health/live", periodSeconds=1, failureThreshold=300, timeoutSeconds=2),
            "readinessProbe": _probe("/v2/health/ready", periodSeconds=2, failureThreshold=3, timeoutSeconds=2),
            "livenessProbe": _probe("/v2/health/live", periodSeconds=10, failureThreshold=6, timeoutSeconds=5),
        },
        spec={
            "terminationGracePeriodSeconds": LEAVE_SECONDS,
            # Apart where that is possible; on one node, or in one zone, the model serves as well.
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": key,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": serving_selector(model.meta.name, intent.name)},
                }
                for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
            ],
        },
    )
    if settings.serving_annotations:
        template["metadata"]["annotations"] = dict(settings.serving_annotations)
    if spec.serving.image is None:
        return template
    return with_backend(template, model.meta.name, spec.serving.image, spec.serving.resources, store)


def spool(capture: Capture) -> Scratch:
    """Room for captures that wait for the store: more than the server takes, because a pod whose folder outgrows its
    limit is evicted."""
    return Scratch("spool", DEFAULT_SPOOL_DIR, f"{capture.spool_mebibytes + SPOOL_SPARE}Mi")


def _probe(path: str, **numbers: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, **numbers}

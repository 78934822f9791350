"""What all our pods have in common: Pod Security `restricted`, no Kubernetes token, a bounded /tmp and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truekeep.api.common import Place, Pods, Schema, Toleration
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import REQUEST_ENV
from truekeep.resources.amounts import threads
from truekeep.resources.mounts import location_volumes

USER = 65532
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Scratch:
    """A folder that lives as long as the pod, and holds at most `size`."""

    name: str
    path: str
    size: str


def pod_template(
    *,
    component: str,
    image: str,
    request: Schema,
    resources: dict[str, Any],
    pods: Pods,
    locations: Iterable[Place],
    hash_key: str | None = None,
    secrets: Mapping[str, Sequence[str]] | None = None,
    labels: Mapping[str, str],
    tmp_size: str,
    pull_secrets: Sequence[str] = (),
    scratch: Iterable[Scratch] = (),
    container: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A pod template with one container, named after its component, that runs the image's own entry point.

    `request` is what the pod is asked to do; `hash_key` the Secret with the key of the hashes, where it needs one;
    `secrets` are further ones, with the keys that are mounted; `pull_secrets` those that the operator's images are
    pulled with, besides the Model's own;
    `scratch` are folders beside /tmp; `container` and `spec` add to the container and to the pod."""
    volumes, mounts = location_volumes(locations, hash_key, secrets)
    volumes = [*({"name": each.name, "emptyDir": {"sizeLimit": each.size}} for each in scratch), *volumes]
    mounts = [*({"name": each.name, "mountPath": each.path} for each in scratch), *mounts]
    body: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": component,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "env": _environment(request, threads(resources)),
                "resources": resources,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108 - in the pod
                **(container or {}),
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": tmp_size}}, *volumes],
        **_placement(pods, pull_secrets),
        **(spec or {}),
    }
    return {"metadata": {"labels": dict(labels)}, "spec": body}


def _environment(request: Schema, thread_count: int) -> list[dict[str, Any]]:
    return [
        {"name": REQUEST_ENV, "value": canonical_json(request.dump()).decode()},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        *({"name": name, "value": str(thread_count)} for name in THREAD_VARIABLES),
    ]


def _placement(pods: Pods, pull_secrets: Sequence[str]) -> dict[str, Any]:
    placement: dict[str, Any] = {}
    names = dict.fromkeys([*(secret.name for secret in pods.image_pull_secrets), *pull_secrets])
    if names:
        placement["imagePullSecrets"] = [{"name": name} for name in names]
    if pods.node_selector:
        placement["nodeSelector"] = dict(sorted(pods.node_selector.items()))
    if pods.tolerations:
        placement["tolerations"] = [_toleration(toleration) for toleration in pods.tolerations]
    if pods.service_account_name:
        placement["serviceAccountName"] = pods.service_account_name
    if pods.priority_class_name:
        placement["priorityClassName"] = pods.priority_class_name
    return placement


def _toleration(toleration: Toleration) -> dict[str, Any]:
    return {key: value for key, value in toleration.dump().items() if value is not None}

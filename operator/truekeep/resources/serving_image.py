"""A team's own server in a serving pod: what our server's container is given beside it.

Our server stays the pod's main container: it takes the traffic, and asks the team's over the loopback. The artifact is
fetched before, by an init container, into a folder that both only read. The team's container is a restartable init
container (a "sidecar" of Kubernetes): it is started before ours, restarted by itself, and ended after ours has drained.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from truekeep.api.common import Resources, S3Location, quantity
from truekeep.api.image import ServingImage
from truekeep.contract.requests import (
    BACKEND_LIVE_PATH,
    DEFAULT_CERTIFICATES_DIR,
    DEFAULT_SECRETS_DIR,
    FETCH,
    MODEL_DIR,
    MODEL_DIR_ENV,
    SERVER_PORT,
    Backend,
)
from truekeep.resources.amounts import PROXY, SERVER, container_resources, threads
from truekeep.resources.pods import THREAD_VARIABLES

BACKEND = "backend"
MODEL_SIZE = "4Gi"  # of an artifact at most
TMP_SIZE = "256Mi"
END_SECONDS = 10  # for the team's server to end, after ours
_MODEL = {"name": "model", "mountPath": MODEL_DIR}
_READ_ONLY = {**_MODEL, "readOnly": True}
_PROBE = {
    # Asked of our server, which alone can reach a port that listens on the loopback, and knows when it hangs.
    "livenessProbe": {
        "httpGet": {"path": BACKEND_LIVE_PATH, "port": SERVER_PORT},
        "periodSeconds": 10,
        "failureThreshold": 3,
        "timeoutSeconds": 5,
    }
}


def backend_of(image: ServingImage | None) -> Backend | None:
    """What our server is to know of it."""
    if image is None:
        return None
    tolerance = None if image.tolerance is None else float(image.tolerance)
    return Backend(port=image.port, timeout_seconds=image.timeout_seconds, tolerance=tolerance)


def with_backend(
    template: Mapping[str, Any], model: str, image: ServingImage, resources: Resources, store: S3Location
) -> dict[str, Any]:
    """The pod template of our own server, with a team's beside it. `resources` are the team's; `store` has the
    artifact."""
    made = copy.deepcopy(dict(template))
    spec = made["spec"]
    (ours,) = spec["containers"]
    ours["resources"] = container_resources(Resources(), PROXY)
    theirs = container_resources(resources, SERVER)
    spec["initContainers"] = [_fetch(ours, store, theirs), {**team_server(ours, model, image, theirs), **_PROBE}]
    ours["volumeMounts"] = [*ours["volumeMounts"], dict(_READ_ONLY)]
    spec["volumes"] = [
        *spec["volumes"],
        {"name": "model", "emptyDir": {"sizeLimit": MODEL_SIZE}},
        {"name": "backend-tmp", "emptyDir": {"sizeLimit": TMP_SIZE}},
    ]
    spec["terminationGracePeriodSeconds"] += END_SECONDS
    return made


def _fetch(ours: Mapping[str, Any], store: S3Location, theirs: dict[str, Any]) -> dict[str, Any]:
    """Puts the artifact there, checked: our image, with the store's credentials and no others. It holds the largest
    file in memory, as the team's server will."""
    kept = ("image", "imagePullPolicy", "env", "securityContext", "terminationMessagePolicy")
    folders = {"/tmp", *credential_folders(store)}  # noqa: S108 - in the pod
    own = container_resources(Resources(), SERVER)
    memory = max(own["limits"]["memory"], theirs["limits"]["memory"], key=quantity)
    mounts = [dict(mount) for mount in ours["volumeMounts"] if mount["mountPath"] in folders]
    return {
        "name": "fetch",
        "args": [FETCH],
        **{name: copy.deepcopy(ours[name]) for name in kept},
        "resources": {**own, "limits": {**own["limits"], "memory": memory}},
        "volumeMounts": [*mounts, dict(_MODEL)],
    }


def credential_folders(store: S3Location) -> set[str]:
    """Where the store's credentials and certificates are mounted."""
    found = set()
    if store.credentials_secret_ref:
        found.add(f"{DEFAULT_SECRETS_DIR}/{store.credentials_secret_ref.name}")
    if store.ca_bundle_ref:
        found.add(f"{DEFAULT_CERTIFICATES_DIR}/{store.ca_bundle_ref.name}")
    return found


def team_server(ours: Mapping[str, Any], model: str, image: ServingImage, resources: dict[str, Any]) -> dict[str, Any]:
    """The team's container: no credentials of anything, nothing to write to but /tmp."""
    given = {each.name for each in image.env}
    first = {MODEL_DIR_ENV: MODEL_DIR, "MODEL_NAME": model, "PORT": str(image.port), "HOME": "/tmp"}  # noqa: S108
    fixed = {**first, **dict.fromkeys(THREAD_VARIABLES, str(threads(resources)))}
    return {
        "name": BACKEND,
        "image": image.reference,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "env": [
            *({"name": name, "value": value} for name, value in fixed.items() if name not in given),
            *({"name": each.name, "value": each.value} for each in image.env),
        ],
        "resources": resources,
        "securityContext": copy.deepcopy(ours["securityContext"]),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "backend-tmp", "mountPath": "/tmp"}, dict(_READ_ONLY)],  # noqa: S108 - in the pod
    }

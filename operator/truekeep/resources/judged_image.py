"""Where a team's image made files that only its server knows, that server runs beside the trainer while it judges: a
container without credentials, as it will be when it serves, asked over the loopback."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from truekeep.api.common import Resources, S3Location
from truekeep.api.image import ServingImage
from truekeep.contract.handed import FETCH
from truekeep.contract.requests import MODEL_DIR
from truekeep.resources.amounts import SERVER, container_resources
from truekeep.resources.serving_image import MODEL_SIZE, TMP_SIZE, credential_folders, team_server


def with_judged_image(
    template: Mapping[str, Any], model: str, image: ServingImage, resources: Resources, store: S3Location
) -> dict[str, Any]:
    """The trainer's pod template, with the server beside it. `resources` are the server's; `store` has the files."""
    made = copy.deepcopy(dict(template))
    spec = made["spec"]
    (ours,) = spec["containers"]
    folders = {"/tmp", *credential_folders(store)}  # noqa: S108 - in the pod
    fetch = copy.deepcopy(ours) | {"name": FETCH, "args": [FETCH]}
    fetch["volumeMounts"] = [
        *(dict(each) for each in ours["volumeMounts"] if each["mountPath"] in folders),
        {"name": "model", "mountPath": MODEL_DIR},
    ]
    theirs = team_server(ours, model, image, container_resources(resources, SERVER))
    spec["initContainers"] = [*spec.get("initContainers", []), fetch, theirs]
    spec["volumes"] = [
        *spec["volumes"],
        {"name": "model", "emptyDir": {"sizeLimit": MODEL_SIZE}},
        {"name": "backend-tmp", "emptyDir": {"sizeLimit": TMP_SIZE}},
    ]
    return made

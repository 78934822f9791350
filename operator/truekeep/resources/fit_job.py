"""The Job of the stage Fit: a team's image between two containers of ours, docs/training-image.md.

`prepare` reads, checks and splits the data and puts the rows before the holdout into /in; the team's container fits on
them, and leaves what it made in /out; `upload` takes that to the store. They share these two folders and nothing else:
Secrets are mounted into ours alone, and no container has a token."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from truekeep.api.common import Resources
from truekeep.api.image import TrainingImage
from truekeep.contract.handed import IN_DIR, IN_DIR_ENV, OUT_DIR, OUT_DIR_ENV, PREPARE, SEED_ENV, UPLOAD
from truekeep.contract.requests import Champion, LastRun
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import FIRST_ATTEMPT, Attempt, Settings
from truekeep.resources.amounts import Defaults, container_resources, threads
from truekeep.resources.pods import THREAD_VARIABLES, Scratch
from truekeep.resources.serving_image import credential_folders
from truekeep.resources.stage_manifest import TMP_SIZE, StageManifest
from truekeep.resources.train_request import train_request, without_benchmarks

FIT = "fit"  # the team's container
UPLOADER = Defaults("50m", "128Mi", "1", "1536Mi")  # it holds the largest file in memory
IN = Scratch("in", IN_DIR, "8Gi")
OUT = Scratch("out", OUT_DIR, "1Gi")
_TMP = "/tmp"  # noqa: S108 - in the pod
_OWN_TMP = {"name": "tmp", "mountPath": _TMP}


def fit_job(
    model: ModelView,
    run: RunView,
    settings: Settings,
    champion: Champion | None = None,
    attempt: Attempt = FIRST_ATTEMPT,
    last: LastRun | None = None,
) -> dict[str, Any]:
    """The Job in which spec.training.image fits. ValueError where the Model has none."""
    image = model.spec.training.image
    if image is None:
        raise ValueError("there is no spec.training.image")
    request = without_benchmarks(train_request(model, run, settings, champion, last))
    stage = StageManifest("Fit", model, run, attempt, image.reference)
    scratch = [IN, OUT, Scratch("fit-tmp", _TMP, TMP_SIZE)]
    template = stage.template(request, settings, component=UPLOAD, scratch=scratch)
    spec = template["spec"]
    (ours,) = spec["containers"]
    own = {_TMP, IN.path, OUT.path}
    secrets = [each for each in ours["volumeMounts"] if each["mountPath"] not in own]  # and volumes with data
    of_store = [each for each in secrets if each["mountPath"] in credential_folders(request.store)]
    spec["initContainers"] = [
        {**_ours(ours, PREPARE), "volumeMounts": [dict(_OWN_TMP), _writable(IN), *copy.deepcopy(secrets)]},
        _theirs(ours, model.meta.name, image, stage.resources),
    ]
    upload = _ours(ours, UPLOAD) | {"resources": container_resources(Resources(), UPLOADER)}
    mounts = [_read_only(IN), _read_only(OUT), *copy.deepcopy(of_store)]
    spec["containers"] = [{**upload, "volumeMounts": [dict(_OWN_TMP), *mounts]}]
    return stage.job({}, template)


def _ours(container: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A container of ours that does one part."""
    made = copy.deepcopy({key: value for key, value in container.items() if key != "volumeMounts"})
    return {**made, "name": part, "args": [part]}


def _theirs(ours: Mapping[str, Any], model: str, image: TrainingImage, resources: dict[str, Any]) -> dict[str, Any]:
    """The team's container: no credentials of anything, nothing to write to but /out and /tmp."""
    given = {each.name for each in image.env}
    first = {IN_DIR_ENV: IN_DIR, OUT_DIR_ENV: OUT_DIR, SEED_ENV: str(image.seed), "MODEL_NAME": model, "HOME": _TMP}
    fixed = {**first, **dict.fromkeys(THREAD_VARIABLES, str(threads(resources)))}
    return {
        "name": FIT,
        "image": image.reference,
        "imagePullPolicy": "IfNotPresent",
        **({"command": list(image.command)} if image.command else {}),
        **({"args": list(image.args)} if image.args else {}),
        "env": [
            *({"name": name, "value": value} for name, value in fixed.items() if name not in given),
            *({"name": each.name, "value": each.value} for each in image.env),
        ],
        "resources": resources,
        "securityContext": copy.deepcopy(ours["securityContext"]),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "fit-tmp", "mountPath": _TMP}, _read_only(IN), _writable(OUT)],
    }


def _writable(folder: Scratch) -> dict[str, Any]:
    return {"name": folder.name, "mountPath": folder.path}


def _read_only(folder: Scratch) -> dict[str, Any]:
    return {"name": folder.name, "mountPath": folder.path, "readOnly": True}

"""Truekeep's parts beside a team's image, each a container of its own, with the credentials that the team's has not.

`prepare`: the rows to fit on, into /in. `upload`: what came of them, from /out to the store. `fetch`: what was
delivered, into the folder of spec.serving.image, which answers for it while it is judged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from truekeep.contract import layout
from truekeep.contract.handed import FETCH, IN_DIR, IN_DIR_ENV, OUT_DIR, OUT_DIR_ENV, PREPARE, UPLOAD
from truekeep.contract.requests import MODEL_DIR, MODEL_DIR_ENV, TrainRequest
from truekeep.contract.results import TrainResult
from truekeep.storage import StoreError, artifacts
from truekeep.storage.artifacts import Store
from truekeep.trainer.faults import InputFault
from truekeep.trainer.handed import delivery as handed
from truekeep.trainer.handed import judge as handed_judge
from truekeep.trainer.handed import upload as handed_upload
from truekeep.trainer.run import World, prepare, without_data

READABLE = 0o444


def do(
    part: str, request: TrainRequest, world: World, environment: Mapping[str, str] = os.environ
) -> TrainResult | None:
    """Do one part. None where that is done, else how the run ended. ValueError for a part that there is not."""

    def folder(name: str, default: str) -> Path:
        return Path(environment.get(name, default))

    if part == PREPARE:
        return prepare(request, world, folder(IN_DIR_ENV, IN_DIR))
    try:
        store = world.opened(request.store)
        if part == UPLOAD:
            given = folder(IN_DIR_ENV, IN_DIR)
            handed_upload.upload(request, store, folder(OUT_DIR_ENV, OUT_DIR), given, world.say)
        elif part == FETCH:
            fetch(request, store, folder(MODEL_DIR_ENV, MODEL_DIR))
        else:
            raise ValueError(f"{part!r:.40} is none of {PREPARE}, {UPLOAD} and {FETCH}")
    except InputFault as fault:
        return without_data(request, fault)
    except StoreError as error:
        return without_data(request, error)
    return None


def fetch(request: TrainRequest, store: Store, folder: Path) -> None:
    """What was delivered, as spec.serving.image will find it when it serves. A delivery that was refused leaves the
    folder as it is: whoever judges says so. InputFault, StoreError."""
    what = handed_judge.fetch(request, store)
    if what is None or what.delivered.problem:
        return
    files = handed_judge.opaque_folder(what, handed.files(request, store, what.delivered))
    for name, content in {**files, layout.MANIFEST: artifacts.manifest_of(files).to_bytes()}.items():
        path = folder / name
        path.unlink(missing_ok=True)  # of a container that was started again
        path.write_bytes(content)
        path.chmod(READABLE)

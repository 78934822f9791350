"""A Model that a team's own image trains, on a laptop: the image's program as a command, without a container.

It gets the rows before the holdout in one folder and leaves what it made in another, as in the cluster, and Truekeep
judges. It runs with the rights of whoever starts it: nothing here keeps it from reading the rest of the data."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from truekeep.api.model import ModelSpec
from truekeep.cli.laptop import InputError

if TYPE_CHECKING:
    from truekeep.contract.requests import TrainRequest
    from truekeep.contract.results import TrainResult
    from truekeep.trainer.run import World


def check_command(name: str, spec: ModelSpec, command: str | None) -> None:
    """InputError where a Model needs a command and there is none, or has no use for it."""
    image = spec.training.image
    if image is None:
        if command is not None:
            raise InputError(f"--command is for a Model with training.image, and {name} has none; leave it out")
        return
    if image.format == "Opaque":
        raise InputError(
            f"Model {name}: what training.image makes (format Opaque) is judged by asking serving.image, which is not "
            "run on a laptop; run it in a cluster"
        )
    if command is None:
        raise InputError(
            f"Model {name} is trained by training.image {image.reference}, which is not run on a laptop; give the "
            "program that is in it with --command, as in --command 'python fit.py', or run it in a cluster"
        )


def fit(request: TrainRequest, world: World, command: str) -> TrainResult | None:
    """Prepare the rows, run the command, take what it made. How the training ended, where it came to no model.

    InputError where the command fails."""
    from truekeep.contract.handed import IN_DIR_ENV, OUT_DIR_ENV, PREPARE, SEED_ENV, UPLOAD
    from truekeep.trainer.handed import main as handed_main

    image = request.training.image
    assert image is not None
    with tempfile.TemporaryDirectory(prefix="truekeep-fit-") as scratch:
        folders = {IN_DIR_ENV: Path(scratch) / "in", OUT_DIR_ENV: Path(scratch) / "out"}
        for folder in folders.values():
            folder.mkdir()
        places = {name: str(folder) for name, folder in folders.items()}
        ended = handed_main.do(PREPARE, request, world, places)
        if ended is not None:
            return ended
        own = {SEED_ENV: str(image.seed), "MODEL_NAME": request.model, **{one.name: one.value for one in image.env}}
        world.say(f"running {command}")
        try:
            done = subprocess.run(shlex.split(command), env={**os.environ, **places, **own}, check=False)
        except (OSError, ValueError) as error:
            raise InputError(f"--command {command}: can't be run ({error}); give a program") from error
        if done.returncode:
            raise InputError(f"--command {command}: ended with code {done.returncode}; its own words are above")
        return handed_main.do(UPLOAD, request, world, places)

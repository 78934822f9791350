"""What a team's image left in /out: plain files of allowed names and bounded size, read without following anything.

Nothing of it is opened here but metrics.json, and that is only shown. What can't be taken is written down, too: the Job
that judges refuses it then, with the record."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from truekeep.api.image import TrainingImage
from truekeep.contract import layout
from truekeep.contract.artifact import ArtifactFile
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.contract.handed import FEATURES_FILE, METRICS_FILE, MOST_FILES, OUT_BYTES, Delivered, Reported
from truekeep.contract.requests import TrainRequest
from truekeep.storage.artifacts import Store
from truekeep.trainer.data.dataset import Say
from truekeep.trainer.faults import DeliveryInvalid
from truekeep.trainer.handed import delivery as handed
from truekeep.trainer.text import counted

METRICS_BYTES = 64 << 10
MOST_METRICS = 100
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")  # of a file of an artifact
# Files that Truekeep adds to an artifact: what bears their names must be Truekeep's.
OURS = frozenset(
    (layout.MANIFEST, layout.SIGNATURE, layout.PROFILE, layout.PERFORMANCE, layout.IMPORT_REPORT)
)  # fmt: skip
ONE_FILE = {"ONNX": layout.ONNX_FILE, "Skops": layout.MODEL_FILE}


def upload(request: TrainRequest, store: Store, out: Path, given: Path, say: Say) -> Delivered:
    """Hand the files in `out` to the store; the list of them last. `given`: the folder that the image was given, by
    whose files it is known when it began. StoreError, OSError."""
    earlier = handed.delivered(request, store)
    if earlier is not None:
        say("this run's files were delivered already")
        return earlier
    image = handed.image_of(request)
    seconds = max(0.0, round(time.time() - (given / FEATURES_FILE).stat().st_mtime, 3))
    made = Delivered(run_uid=request.run_uid, files=[], fit_seconds=seconds)
    try:
        reported, problem = metrics(out)
        made = made.model_copy(update={"reported": tuple(reported), "reported_problem": problem})
        files = []
        for name, content in contents(image, out):
            digest = sha256(content)
            key = layout.fit_file(request.namespace, request.model, request.run_uid, digest)
            store.put(key, content)
            say(f"wrote {counted(len(content), 'byte')} of {name} to {store.uri(key)}")
            files.append(ArtifactFile(path=name, sha256=digest, size=len(content)))
        made = made.model_copy(update={"files": files})
    except DeliveryInvalid as fault:
        say(f"refused: {fault}")
        made = made.model_copy(update={"problem": str(fault)[:1500]})
    key = layout.fit_delivered(request.namespace, request.model, request.run_uid)
    if not store.put(key, canonical_json(made.model_dump(mode="json", by_alias=True)), only_if_absent=True):
        say("another pod of this run was first; its files count")
        return handed.delivered(request, store) or made
    return made


def contents(image: TrainingImage, out: Path) -> Iterator[tuple[str, bytes]]:
    """The model's files, one after the other. DeliveryInvalid where anything else lies there, or too much."""
    names = sorted(entry.name for entry in _entries(out))
    names = [name for name in names if name != METRICS_FILE]
    wanted = ONE_FILE.get(image.format)
    if wanted is not None and wanted not in names:
        there = f"there is {', '.join(_shown(name) for name in names[:5])}" if names else "it left no file there"
        raise DeliveryInvalid(
            f"spec.training.image must leave {wanted} in /out, because its format is {image.format}; {there}"
        )
    if not names:
        raise DeliveryInvalid("spec.training.image left no file in /out; write what serving.image needs there")
    if len(names) > MOST_FILES:
        raise DeliveryInvalid(f"spec.training.image left {len(names):,} files in /out, at most {MOST_FILES} are taken")
    for name in names:
        if wanted is not None and name != wanted:
            raise DeliveryInvalid(
                f"spec.training.image left {_shown(name)} in /out; of format {image.format} only {wanted} and "
                f"{METRICS_FILE} are taken: write other files to /tmp"
            )
        if name in OURS or not NAME.fullmatch(name):
            raise DeliveryInvalid(
                f"spec.training.image left {_shown(name)} in /out; names have lower-case letters, digits, dots, dashes "
                f"and underscores, at most 63, and are none of {', '.join(sorted(OURS))}: rename it"
            )
    left = OUT_BYTES
    for name in names:
        content = _read(out / name, left)
        left -= len(content)
        yield name, content


def metrics(out: Path) -> tuple[list[Reported], str]:
    """What the image says of itself in metrics.json, an object of numbers; else why it was passed over."""
    try:
        found = json.loads(_read(out / METRICS_FILE, METRICS_BYTES), parse_constant=_no_number)
    except FileNotFoundError:
        return [], ""
    except (DeliveryInvalid, OSError, ValueError, RecursionError) as error:
        return [], f"{METRICS_FILE} is not read: {error!s:.200}"
    if not isinstance(found, dict):
        return [], f"{METRICS_FILE} is no JSON object of names and numbers"
    numbers = [
        Reported(name=name, value=float(value))
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and len(name) <= 63 and _finite(value)
    ]
    problem = "" if len(numbers) == len(found) else f"{METRICS_FILE} holds more than names and numbers"
    return numbers[:MOST_METRICS], problem


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _entries(out: Path) -> list[os.DirEntry[str]]:
    """What lies in the folder. DeliveryInvalid for a link, a folder, or whatever is no plain file."""
    with os.scandir(out) as listing:
        entries = list(listing)
    for entry in entries:
        if not entry.is_file(follow_symlinks=False):
            kind = "a link" if entry.is_symlink() else "a folder" if entry.is_dir(follow_symlinks=False) else "no file"
            raise DeliveryInvalid(
                f"spec.training.image left {_shown(entry.name)} in /out, which is {kind}; only plain files are taken, "
                "without folders: write other things to /tmp"
            )
    return entries


def _read(path: Path, most: int) -> bytes:
    """The bytes of a plain file. DeliveryInvalid where it is none, or has more than `most`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait for ever
    with os.fdopen(descriptor, "rb") as file:
        seen = os.fstat(file.fileno())
        if not stat.S_ISREG(seen.st_mode) or seen.st_nlink != 1:
            raise DeliveryInvalid(f"spec.training.image left {_shown(path.name)} in /out, which is no plain file")
        content = file.read(most + 1)
    if len(content) > most:
        raise DeliveryInvalid(
            f"spec.training.image left too much in /out: at {_shown(path.name)} it is more than is taken "
            f"({METRICS_BYTES if path.name == METRICS_FILE else OUT_BYTES:,} bytes); make a smaller model"
        )
    return content


def _shown(name: str) -> str:
    return ascii(name)[:80]

"""Attacks by files: names in an artifact, links of a volume, models that are more than numbers, archives that grow."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skops import io as skops_io

from tests.unit.features.conftest import fitted, rows
from tests.unit.features.test_trust import LOGISTIC, edited
from tests.unit.redteam.attack import Attack, Scene
from truekeep.api.common import VolumeLocation
from truekeep.api.image import TrainingImage
from truekeep.contract import layout
from truekeep.contract.artifact import ArtifactFile, Manifest
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.contract.handed import MOST_FILES
from truekeep.features import trust
from truekeep.server import folder as server_folder
from truekeep.sources.errors import SourceInvalid
from truekeep.sources.volume import Volume
from truekeep.storage import ArtifactInvalid, ObjectMissing, artifacts
from truekeep.storage.s3 import Fetched
from truekeep.trainer.faults import DeliveryInvalid
from truekeep.trainer.handed import upload

TRAVERSAL = "names in an artifact"
LINKS = "links out of volumes and folders"
PICKLE = "pickle and types of skops"
ARCHIVES = "archives and files that grow"


class _LooseFile(ArtifactFile):
    path: str


class _LooseManifest(Manifest):
    files: list[_LooseFile]  # type: ignore[assignment]


class _Memory:
    """A store in which an attacker put an artifact."""

    endpoint = "memory"

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def uri(self, key: str = "") -> str:
        return key

    def fetch(self, key: str, *, limit: int | None = None) -> Fetched:
        if key not in self.objects:
            raise ObjectMissing(key)
        return Fetched(self.objects[key], "", None)


def _written(scene: Scene, path: str, lands: Path) -> bool:
    """Whether fetching an artifact with such a file writes where it should not."""
    content = b"mine"
    file = {"path": path, "sha256": sha256(content), "size": len(content)}
    manifest = canonical_json({"schema": "truekeep.dev/artifact/v1", "files": [file]})
    digest = sha256(manifest)
    store = _Memory(
        {layout.artifact_file(digest, layout.MANIFEST): manifest, layout.artifact_file(digest, path): content}
    )
    (scene.folder / "pod" / "model").mkdir(parents=True, exist_ok=True)
    (scene.folder / "pod" / "other").mkdir(exist_ok=True)
    with contextlib.suppress(ArtifactInvalid, OSError):
        server_folder._write(store, digest, scene.folder / "pod" / "model")  # type: ignore[arg-type]
    return lands.exists()


def _traversals() -> Iterator[Attack]:
    def unguard(scene: Scene) -> None:
        scene.patch.setattr(artifacts, "Manifest", _LooseManifest)

    cases = {
        "one up": ("../escaped", "pod/escaped"),
        "two up": ("../../escaped", "escaped"),
        "into a neighbour": ("../other/escaped", "pod/other/escaped"),
        "by a detour": ("./../model/../escaped", "pod/escaped"),
        "into a folder of its own making": ("../model/../other/../../escaped", "escaped"),
    }
    for name, (path, lands) in cases.items():
        yield Attack(TRAVERSAL, name, lambda s, p=path, to=lands: _written(s, p, s.folder / to), unguard)  # type: ignore[misc]
    yield Attack(
        TRAVERSAL,
        "from the root",
        lambda s: _written(s, str(s.folder / "absolute"), s.folder / "absolute"),
        unguard,
    )


def _read_through(scene: Scene, lay: Callable[[Path, Path], str]) -> bool:
    """Whether what lies outside of a volume is read by way of it."""
    secret, root = scene.folder / "outside", scene.folder / "volumes" / "flights"
    secret.mkdir(exist_ok=True)
    (secret / "token").write_bytes(b"the secret")
    root.mkdir(parents=True, exist_ok=True)
    key = lay(root, secret)
    volume = Volume(root, VolumeLocation(claim_name="flights"))
    try:
        return volume.fetch(key).data == b"the secret"
    except (SourceInvalid, ObjectMissing):
        return False


def _linked(target: str) -> Callable[[Path, Path], str]:
    def lay(root: Path, secret: Path) -> str:
        (root / "rows.csv").symlink_to(target.format(secret=secret))
        return "rows.csv"

    return lay


def _folder(root: Path, secret: Path) -> str:
    (root / "day").symlink_to(secret)
    return "day/token"


def _chain(root: Path, secret: Path) -> str:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to(secret / "token")
    return "a"


def _dotted(root: Path, secret: Path) -> str:
    return "../../outside/token"


def _links() -> Iterator[Attack]:
    def unguard(scene: Scene) -> None:
        scene.patch.setattr(Volume, "_confined", lambda *_: None)

    for name, lay in (
        ("a link to a file", _linked("{secret}/token")),
        ("a link that goes up", _linked("../../outside/token")),
        ("a link to a folder", _folder),
        ("a link to a link", _chain),
        ("a key that goes up", _dotted),
    ):
        yield Attack(LINKS, name, lambda scene, lay=lay: _read_through(scene, lay), unguard)  # type: ignore[misc]


def _taken(scene: Scene, content: bytes) -> bool:
    """Whether a model file that is no plain model was loaded, or ran something."""
    mark = scene.folder / "ran"
    content = content.replace(b"@MARK@", os.fsencode(mark))
    try:
        trust.load_pipeline(content, LOGISTIC)
    except trust.UntrustedModelError:
        return mark.exists()
    return True


class _Runs:
    """Makes a folder when it is built from a pickle."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __reduce__(self) -> Any:
        return os.makedirs, (str(self.at), 0o777, True)


def _naive(scene: Scene) -> None:
    """As one does who trusts what the file says of itself, or its ending."""

    def load(content: bytes, estimator: str) -> Any:
        if content[:2] == b"PK":
            return skops_io.loads(content, trusted=skops_io.get_untrusted_types(data=content))
        return joblib.load(io.BytesIO(content))

    scene.patch.setattr(trust, "load_pipeline", load)


def _skops(step: Any) -> bytes:
    x, y = rows()
    made = Pipeline([("odd", "passthrough"), ("model", LogisticRegression())]).fit(np.nan_to_num(x), y)
    made.steps[0] = ("odd", step)
    content: bytes = skops_io.dumps(made)
    return content


def _hidden(schema: Any) -> None:
    schema["aside"] = [{"deep": {"__loader__": "FunctionNode", "__module__": "os", "__class__": "system"}}]


def _joblib(at: Path) -> bytes:
    target = io.BytesIO()
    joblib.dump({"model": fitted(LOGISTIC), "more": _Runs(at)}, target)
    return target.getvalue()


def _pickles() -> Iterator[Attack]:
    makes: dict[str, Callable[[Scene], bytes]] = {
        "a pickle": lambda scene: pickle.dumps(_Runs(scene.folder / "ran")),
        "a joblib file": lambda scene: _joblib(scene.folder / "ran"),
        "a function that skops trusts": lambda scene: _skops(FunctionTransformer(np.abs)),
        "eval in a partial": lambda scene: _skops(FunctionTransformer(partial(eval))),
        "a method of a model": lambda scene: _skops(fitted(LOGISTIC).predict),
        "a node where skops does not look": lambda scene: edited(skops_io.dumps(fitted(LOGISTIC)), _hidden),
    }
    for name, make in makes.items():
        yield Attack(PICKLE, name, lambda scene, make=make: _taken(scene, make(scene)), _naive)  # type: ignore[misc]


def _zip(entries: int, size: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "{}")
        for number in range(entries):
            archive.writestr(f"{number}.npy", b"\0" * size)
    return target.getvalue()


def _unpacked(content: bytes) -> bool:
    try:
        trust.read_schema(content)
    except trust.UntrustedModelError:
        return False
    return True


def _delivered(scene: Scene, leave: Callable[[Path], None], format_: str = "ONNX") -> bool:
    """Whether what a team's image left in /out is taken."""
    out = scene.folder / "out"
    out.mkdir()
    leave(out)
    image = TrainingImage.model_validate({"reference": "r.example/x:1", "format": format_})
    try:
        return bool(list(upload.contents(image, out)))
    except DeliveryInvalid:
        return False


def _link_out(out: Path) -> None:
    (out / "model.onnx").symlink_to("/etc/hostname")


def _hard_link(out: Path) -> None:
    (out.parent / "elsewhere").write_bytes(b"x")
    os.link(out.parent / "elsewhere", out / "model.onnx")


def _large(out: Path) -> None:
    (out / "model.onnx").write_bytes(b"0" * 4097)


def _many(out: Path) -> None:
    for number in range(MOST_FILES + 1):
        (out / f"part-{number}").write_bytes(b"x")


def _archives() -> Iterator[Attack]:
    def small(scene: Scene) -> None:  # the bounds, in a size that a test can pass
        scene.patch.setattr(trust, "MAX_BYTES", 1 << 20)
        scene.patch.setattr(trust, "MAX_FILES", 100)
        scene.patch.setattr(upload, "OUT_BYTES", 4096)

    def unbounded(scene: Scene) -> None:
        for module, name in ((trust, "MAX_BYTES"), (trust, "MAX_FILES"), (upload, "OUT_BYTES"), (upload, "MOST_FILES")):
            scene.patch.setattr(module, name, 1 << 40)

    def plainly(scene: Scene) -> None:
        scene.patch.setattr(upload, "_entries", lambda out: list(os.scandir(out)))
        scene.patch.setattr(upload, "_read", lambda path, most: path.read_bytes())

    def bounded(attempt: Callable[[Scene], bool]) -> Callable[[Scene], bool]:
        def within(scene: Scene) -> bool:
            if trust.MAX_BYTES < 1 << 40:
                small(scene)
            return attempt(scene)

        return within

    def bomb(scene: Scene) -> bool:
        return _unpacked(_zip(1, 2 << 20))

    def nested(scene: Scene) -> bool:
        return _unpacked(_zip(40, 40 << 10))

    def crowd(scene: Scene) -> bool:
        return _unpacked(_zip(200, 1))

    yield Attack(ARCHIVES, "one entry that grows a thousand times", bounded(bomb), unbounded)
    yield Attack(ARCHIVES, "many entries that grow together", bounded(nested), unbounded)
    yield Attack(ARCHIVES, "more entries than a model has", bounded(crowd), unbounded)
    yield Attack(ARCHIVES, "a file of a team's image that is too large",
                 bounded(lambda scene: _delivered(scene, _large)), unbounded)  # fmt: skip
    yield Attack(ARCHIVES, "too many files of a team's image",
                 lambda scene: _delivered(scene, _many, "Opaque"), unbounded)  # fmt: skip
    yield Attack(ARCHIVES, "a link of a team's image", lambda scene: _delivered(scene, _link_out), plainly)
    yield Attack(ARCHIVES, "a second name of a file elsewhere", lambda scene: _delivered(scene, _hard_link), plainly)


def attacks() -> Iterator[Attack]:
    """All of these."""
    yield from _traversals()
    yield from _links()
    yield from _pickles()
    yield from _archives()

"""An image of a team's own that trains, for `spec.training.image`: the program of docs/training-image.md.

It is written without an image builder: the libraries of our own trainer's image, without our rooms, and one layer on
top with the program, onnxmltools, and a server for what its other program makes."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from importlib import metadata
from pathlib import Path

from tests.frameworks import Team, cache, layer_file, write_image

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/training-image.md"
PACKAGES = ("onnxmltools", "skl2onnx")  # all others that it needs the trainer has, too
ROOMS = "opt/truekeep/app"  # of our own image: the team's has none of it
INSIDE = "opt/team"
LIBRARIES = "/opt/truekeep/lib"


def program() -> str:
    """The docs' example."""
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    return str(found)


def image(base: Path) -> tuple[str, Path]:
    """Name and archive of the image, from the archive of the trainer's (in the format of `docker save`). Made where it
    is missing."""
    with tarfile.open(base) as archive:
        manifest = json.load(layer_file(archive, "manifest.json"))[0]
        config = json.load(layer_file(archive, manifest["Config"]))
        kept = [not _has_rooms(archive, layer) for layer in manifest["Layers"]]
        layers = [layer for layer, keep in zip(manifest["Layers"], kept, strict=True) if keep]
        diffs = [diff for diff, keep in zip(config["rootfs"]["diff_ids"], kept, strict=True) if keep]
        sources = [path.read_text() for path in (Path(__file__), HERE / "entry.py", HERE / "sums.py")]
        versions = [f"{name}=={metadata.version(name)}" for name in PACKAGES]
        recipe = [*versions, *diffs, program(), *sources]
        tag = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]
        name = f"truekeep-test/team:{tag}"
        made = cache() / f"team-{tag}.tar"
        if not made.exists():
            cache().mkdir(parents=True, exist_ok=True)
            environment = {
                "PYTHONPATH": f"/{INSIDE}:/{INSIDE}/lib:{LIBRARIES}",
                "LD_LIBRARY_PATH": f"{LIBRARIES}/scikit_learn.libs",
            }
            team = Team(name, environment, ["python3", f"/{INSIDE}/entry.py"])
            new = made.with_suffix(".new")
            write_image(new, team, config, dict.fromkeys(layers, archive), diffs, _layer(made.with_suffix(".layer")))
            new.replace(made)
            for old in sorted(cache().glob("team-*.tar"), key=lambda path: path.stat().st_mtime)[:-1]:
                old.unlink()
    return name, made


def _has_rooms(archive: tarfile.TarFile, layer: str) -> bool:
    with tarfile.open(fileobj=layer_file(archive, layer)) as inner:
        return any(name.removeprefix("./").startswith(ROOMS) for name in inner.getnames())


def _layer(path: Path) -> Path:
    """The programs and their packages; the same files make the same bytes."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    fit = path.with_suffix(".py")
    fit.write_text(program())
    with tarfile.open(path, "w") as tar:
        for name in PACKAGES:
            for file in metadata.files(name) or []:
                where = Path(str(file.locate()))
                if where.is_file() and ".." not in file.parts and "__pycache__" not in file.parts:
                    tar.add(where, f"{INSIDE}/lib/{file}", filter=plain)
        for name in ("entry.py", "sums.py"):
            tar.add(HERE / name, f"{INSIDE}/{name}", filter=plain)
        tar.add(fit, f"{INSIDE}/fit.py", filter=plain)
    fit.unlink()
    return path

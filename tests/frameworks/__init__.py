"""Servers of other frameworks, for `spec.serving.image`: MLServer from its own package, with a runtime of 30 lines.

`libraries()` installs it into a folder of the cache, apart from our own packages; `command` runs it from there as a
process; `image()` writes it as an image: the operating system of our own server image, and one layer on top. No image
builder is needed, so that it is the same wherever the images were built."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
RUNTIMES = (HERE / "runtime.py", HERE / "broken.py")
PACKAGES = ("mlserver==1.7.1", "onnxruntime>=1.23")
START = ("-c", "from mlserver.cli import main; main()", "start")
OWN = "opt/truekeep"  # what our images add to the operating system lies below
INSIDE = "opt/mlserver"
PYTHON = re.compile(r"(?:\./)?usr/(?:local/)?lib/python3\.(\d+)/os\.py$")
SETTINGS = {  # of MLServer; port and name come from the pod
    "MLSERVER_HOST": "127.0.0.1",
    "MLSERVER_PARALLEL_WORKERS": "0",
    "MLSERVER_MODEL_IMPLEMENTATION": "runtime.Artifact",
}


def cache() -> Path:
    """Beside what the other tools keep."""
    configured = os.environ.get("TRUEKEEP_CACHE")
    root = Path(configured) if configured else Path.home() / ".cache" / "truekeep"
    return root.absolute() / "frameworks"


def libraries(python: str) -> Path:
    """The folder with MLServer's packages for a version of Python ("3.11"), installed where it is missing."""
    key = hashlib.sha256("\n".join((*PACKAGES, python)).encode()).hexdigest()[:12]
    folder = cache() / f"mlserver-{key}"
    if not folder.exists():
        new = folder.with_suffix(f".{os.getpid()}")
        compiled = ["--compile-bytecode"] if python == running() else []
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--target", str(new), "--python-version", python, *compiled,
             "--only-binary", ":all:", *PACKAGES],
            check=True,
        )  # fmt: skip
        try:
            new.rename(folder)
        except OSError:  # another test was faster
            shutil.rmtree(new)
    return folder


def running() -> str:
    """The version of Python that runs this."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def command(name: str, port: int, others: tuple[int, int], model: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of an MLServer process that answers for the artifact in a folder. `others`: ports for
    its gRPC and its metrics."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/tmp",
        "PYTHONPATH": f"{libraries(running())}:{HERE}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRUEKEEP_MODEL_DIR": str(model),
        "MLSERVER_MODEL_NAME": name,
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(others[0]),
        "MLSERVER_METRICS_PORT": str(others[1]),
        "OMP_NUM_THREADS": "1",
        **SETTINGS,
    }
    return [sys.executable, "-S", "-s", *START, str(HERE)], environment


def image(base: Path) -> tuple[str, Path]:
    """Name and archive of an image with MLServer and the runtimes, on the operating system of the image archive
    `base` (in the format of `docker save`). Made where it is missing."""
    with tarfile.open(base) as archive:
        manifest = json.load(layer_file(archive, "manifest.json"))[0]
        config = json.load(layer_file(archive, manifest["Config"]))
        layers, python = _system(archive, manifest["Layers"])
        diffs = config["rootfs"]["diff_ids"][: len(layers)]
        sources = [path.read_text() for path in (Path(__file__), *RUNTIMES)]
        recipe = [*PACKAGES, *diffs, json.dumps(SETTINGS), *sources]
        tag = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]
        name = f"truekeep-test/mlserver:{tag}"
        made = cache() / f"image-{tag}.tar"
        if not made.exists():
            cache().mkdir(parents=True, exist_ok=True)
            new = made.with_suffix(f".{os.getpid()}")
            top = _layer(libraries(python), new.with_suffix(".layer"))
            environment = {"PYTHONPATH": f"/{INSIDE}/lib:/{INSIDE}/model", **SETTINGS}
            entrypoint = ["python3", *START, f"/{INSIDE}/model"]
            write_image(new, Team(name, environment, entrypoint), config, dict.fromkeys(layers, archive), diffs, top)
            new.replace(made)
            for old in sorted(cache().glob("image-*.tar"), key=lambda path: path.stat().st_mtime)[:-2]:
                old.unlink()
    return name, made


def _system(archive: tarfile.TarFile, layers: list[str]) -> tuple[list[str], str]:
    """The layers below the first that is ours, and the version of Python that is in them."""
    system: list[str] = []
    minor = ""
    for layer in layers:
        with tarfile.open(fileobj=layer_file(archive, layer)) as inner:
            names = inner.getnames()
        if any(name.removeprefix("./").startswith(OWN) for name in names):
            break
        system.append(layer)
        minor = next((found[1] for name in names if (found := PYTHON.match(name))), minor)
    assert minor, "there is no Python below our own layers"
    return system, f"3.{minor}"


def _layer(packages: Path, path: Path) -> Path:
    """A layer with the packages and the runtimes; the same files make the same bytes."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(path, "w") as tar:
        tar.add(packages, f"{INSIDE}/lib", filter=plain)
        for runtime in RUNTIMES:
            tar.add(runtime, f"{INSIDE}/model/{runtime.name}", filter=plain)
    return path


@dataclass(frozen=True)
class Team:
    """What an image of a team is called, and starts."""

    name: str
    environment: Mapping[str, str]
    entrypoint: Sequence[str]


def write_image(
    path: Path, team: Team, config: Mapping[str, Any], below: Mapping[str, tarfile.TarFile], diffs: list[str], top: Path
) -> None:
    """An archive in the format of `docker save`: the layers below, of an image with this config, and one more."""
    with top.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **team.environment,
    }
    document = {
        "architecture": config["architecture"],
        "os": config["os"],
        "config": {
            "User": "1000:1000",
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "Entrypoint": list(team.entrypoint),
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [*diffs, f"sha256:{digest}"]},
        "history": [{"created_by": "test"} for _ in range(len(diffs) + 1)],
    }
    content = json.dumps(document).encode()
    told = f"{hashlib.sha256(content).hexdigest()}.json"
    names = [f"{diff.removeprefix('sha256:')}.tar" for diff in (*diffs, f"sha256:{digest}")]
    manifest = [{"Config": told, "RepoTags": [f"docker.io/{team.name}"], "Layers": names}]
    with tarfile.open(path, "w") as tar:
        for (layer, archive), written in zip(below.items(), names, strict=False):
            _copy(tar, written, layer_file(archive, layer))
        with top.open("rb") as file:
            _copy(tar, names[-1], file)
        _copy(tar, told, io.BytesIO(content))
        _copy(tar, "manifest.json", io.BytesIO(json.dumps(manifest).encode()))
    top.unlink()


def _copy(tar: tarfile.TarFile, name: str, source: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = source.seek(0, os.SEEK_END)
    source.seek(0)
    tar.addfile(entry, source)


def layer_file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    member = archive.getmember(name)
    if member.issym():
        member = archive.getmember(os.path.normpath(os.path.join(os.path.dirname(name), member.linkname)))
    found = archive.extractfile(member)
    assert found is not None, name
    return found

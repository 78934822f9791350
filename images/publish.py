"""`python -m images publish --registry HOST/PREFIX`: the images into a registry of one's own, and what installs exactly
these, by digest, under dist/."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from rich.console import Console

from images import manifests
from images.engines import Engine
from images.errors import ImagesError
from images.places import REPOSITORY
from images.progress import step
from images.tool import Built

REGISTRY = re.compile(
    r"(localhost|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"  # as references have it
)
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def checked_registry(text: str) -> str:
    """HOST[:PORT][/PREFIX], without a slash at its end. ImagesError where it is something else."""
    registry = text.rstrip("/")
    host = registry.partition("/")[0]
    if not REGISTRY.fullmatch(registry) or not ("." in host or ":" in host or host == "localhost"):
        example = "Example: registry.example.com/ml"
        raise ImagesError(f"--registry is {text!r}; it must be a host and a prefix, without a scheme. {example}")
    return registry


def on_loopback(registry: str) -> bool:
    """Whether a registry is on this machine: only there plain HTTP is spoken."""
    host = registry.partition("/")[0].rpartition(":")[0] or registry.partition("/")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def publish(
    built: Sequence[Built],
    engine: Engine,
    console: Console,
    registry: str,
    *,
    tag: str = "",
    pull_secret: str = "",
    repository: Path = REPOSITORY,
) -> dict[str, str]:
    """Tag and push the images; write dist/images.env, dist/values.yaml, dist/install and dist/truekeep.yaml.

    The references by digest, by variable. ImagesError where one can't be pushed."""
    registry = checked_registry(registry)
    if tag and not TAG.fullmatch(tag):
        raise ImagesError(f"--tag is {tag!r}; it must be letters, digits, `_`, `.` and `-`, at most 128")
    names: dict[str, str] = {}
    for number, each in enumerate(built, 1):
        target = f"{registry}/{each.image.name}"
        whole = f"{target}:{tag or each.name.rpartition(':')[2]}"
        with step(console, f"[{number}/{len(built)}] {whole}", "pushed") as shown:
            digest = engine.push(each.name, each.archive, whole, shown.line, plain=on_loopback(registry))
        if not DIGEST.fullmatch(digest):
            raise ImagesError(f"{whole} was pushed, but its digest is {digest!r}")
        names[each.image.variable] = f"{target}@{digest}"
    write(names, pull_secret, repository)
    return names


def write(names: Mapping[str, str], pull_secret: str, repository: Path) -> None:
    """What installs these images, for kustomize and for Helm."""
    dist = repository / manifests.DIST
    (dist / "install").mkdir(parents=True, exist_ok=True)
    (dist / "images.env").write_text("".join(f"{variable}={name}\n" for variable, name in names.items()))
    (dist / "install" / "kustomization.yaml").write_text(
        manifests.overlay("../../manifests/default", names, pull_secret)
    )
    images: dict[str, object] = {each.name: names[each.variable] for each in manifests.INSTALLED}
    if pull_secret:
        images["pullSecrets"] = [pull_secret]
    (dist / "values.yaml").write_text(yaml.safe_dump({"images": images}, sort_keys=False))
    manifests.render(repository)

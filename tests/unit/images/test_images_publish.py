"""Into a registry of one's own: which names are taken, what is written, and that a real registry has it then."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import yaml
from images import engines, manifests
from images.archives import Summary
from images.errors import ImagesError
from images.places import REPOSITORY, Cache
from images.publish import checked_registry, on_loopback, publish, write
from images.tool import Built
from rich.console import Console

from tests import registry as loopback
from tests.unit.conftest import free_port
from tests.unit.images.test_images_archives import tar_of

DIGEST = "sha256:" + "ab" * 32
NAMES = {each.variable: f"registry.example.com/ml/{each.name}@{DIGEST}" for each in manifests.INSTALLED}


@pytest.mark.parametrize("registry", ["registry.example.com", "localhost:5000/ml/", "10.0.0.1:5000", "ghcr.io/a/b-c"])
def test_a_registry_is_a_host_and_a_prefix(registry: str) -> None:
    assert checked_registry(registry) == registry.rstrip("/")


@pytest.mark.parametrize(
    "registry", ["https://a.example.com", "ml", "a.example.com/UP", "a.example.com/x y", "", "a.b//c"]
)
def test_what_is_none_is_refused(registry: str) -> None:
    with pytest.raises(ImagesError, match=r"Example: registry\.example\.com/ml"):
        checked_registry(registry)


def test_plain_http_is_for_this_machine_alone() -> None:
    assert all(map(on_loopback, ("localhost:5000/x", "127.0.0.1:5000", "127.8.8.8/x")))
    assert not any(map(on_loopback, ("registry.example.com", "10.0.0.1:5000/x", "localhost.example.com/x")))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout's manifests, to write dist/ beside them."""
    for name in ("manifests", "crds"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    return tmp_path


def installed(text: str) -> dict[str, str]:
    """The images that an installation names, by variable; its pull secrets too."""
    documents = [each for each in yaml.safe_load_all(text) if each]
    (deployment,) = (each for each in documents if each["kind"] == "Deployment")
    (settings,) = (each for each in documents if each["kind"] == "ConfigMap")
    pod = deployment["spec"]["template"]["spec"]
    found: dict[str, str] = {"TRUEKEEP_OPERATOR_IMAGE": pod["containers"][0]["image"], **settings["data"]}
    return found | {"secrets": ",".join(each["name"] for each in pod.get("imagePullSecrets", []))}


def test_what_is_written_installs_these_images_by_digest(checkout: Path) -> None:
    write(NAMES, "", checkout)
    assert installed((checkout / "dist/truekeep.yaml").read_text()) == {**NAMES, "secrets": ""}
    values = yaml.safe_load((checkout / "dist/values.yaml").read_text())["images"]
    assert {f"TRUEKEEP_{name.upper()}_IMAGE": reference for name, reference in values.items()} == NAMES
    read = dict(line.split("=", 1) for line in (checkout / "dist/images.env").read_text().splitlines())
    assert read == NAMES


def test_a_pull_secret_is_the_operators_and_its_pods(checkout: Path) -> None:
    write(NAMES, "mirror", checkout)
    found = installed((checkout / "dist/truekeep.yaml").read_text())
    assert (found["secrets"], found["TRUEKEEP_IMAGE_PULL_SECRETS"]) == ("mirror", "mirror")
    assert yaml.safe_load((checkout / "dist/values.yaml").read_text())["images"]["pullSecrets"] == ["mirror"]


def image_archive(path: Path, content: bytes, name: str) -> Path:
    """As `docker save` writes it: one layer with one file."""
    layer = tar_of({"app": None, "app/room.py": content})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "COPY"}],
    }
    manifest = [{"Config": "c.json", "RepoTags": [name], "Layers": ["0.tar"]}]
    members = {"c.json": json.dumps(config).encode(), "0.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(tar_of(dict(members)))
    return path


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """A registry on loopback."""
    with loopback.registry() as host:
        yield host


@pytest.mark.full  # needs an engine; a registry is built first
def test_a_registry_has_them_by_the_digests_that_are_pinned(registry: str, checkout: Path) -> None:
    cache = Cache.default()
    engine = engines.find(cache)
    engine.prepare(lambda line: None)
    built = []
    for image in manifests.INSTALLED:
        name = f"{image.repository}:{checkout.name.replace('_', '-')}"
        archive = image_archive(checkout / f"{image.name}.tar", name.encode(), name)
        built.append(Built(image, archive, Summary(name, 1, ())))
    names = publish(built, engine, Console(file=StringIO()), f"{registry}/ml", repository=checkout)
    assert installed((checkout / "dist/truekeep.yaml").read_text()) == {**names, "secrets": ""}
    for variable, reference in names.items():
        name, _, digest = reference.partition("@")
        assert name.startswith(f"{registry}/ml/"), variable
        path = name.removeprefix(f"{registry}/")
        accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        request = urllib.request.Request(f"http://{registry}/v2/{path}/manifests/{digest}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["layers"]
    assert len({reference.partition("@")[2] for reference in names.values()}) == 4


@pytest.mark.full
def test_a_registry_that_is_not_there_is_said(checkout: Path) -> None:
    cache = Cache.default()
    engine = engines.find(cache)
    engine.prepare(lambda line: None)
    image = manifests.INSTALLED[0]
    name = f"{image.repository}:{checkout.name.replace('_', '-')}"
    built = [Built(image, image_archive(checkout / "a.tar", b"1", name), Summary(name, 1, ()))]
    with pytest.raises(ImagesError, match="refused"):
        publish(built, engine, Console(file=StringIO()), f"127.0.0.1:{free_port()}", repository=checkout)
    assert not (checkout / "dist").exists()

"""What is in an image, as CycloneDX 1.6 (JSON): `python -m images sbom` writes dist/sbom/NAME.cdx.json for each.

It is read from the finished image, not from what was asked for: Debian's packages from dpkg's own list, Python's from
the metadata that pip left, with the digests that the lock allows for them; and Go's from the go.mod of a binary."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from images import archives, locked
from images.places import REPOSITORY, Image
from images.tool import Built

FOLDER = Path("dist") / "sbom"  # below the repository, and not in Git
DPKG = "var/lib/dpkg/status"
OWN = "truekeep"
_MODULE = re.compile(r"^\s*(?:require\s+)?(?P<path>[a-z0-9.\-]+\.[a-z]+/\S+) (?P<version>v\S+)", re.M)


@dataclass(frozen=True, order=True)
class Package:
    """One package of one kind: deb, pypi or golang. `digests`: sha256 of the files that it may have come from."""

    kind: str
    name: str
    version: str
    digests: tuple[str, ...] = ()

    @property
    def url(self) -> PackageURL:
        """Its package URL. Example: pkg:pypi/kopf@1.45.2."""
        namespace = "debian" if self.kind == "deb" else None
        return PackageURL(type=self.kind, namespace=namespace, name=self.name, version=self.version)


def write(built: list[Built], repository: Path = REPOSITORY) -> list[Path]:
    """One file for each image. ImagesError, OSError or tarfile.TarError where an image can't be read."""
    folder = repository / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for each in built:
        path = folder / f"{each.image.name}.cdx.json"
        when = datetime.fromtimestamp(int(each.archive.stat().st_mtime), UTC)
        path.write_text(document(each.summary.name, sorted(packages(each.image, each.archive, repository)), when))
        written.append(path)
    return written


def packages(image: Image, archive: Path, repository: Path = REPOSITORY) -> Iterator[Package]:
    """What is in the image's topmost view."""
    pins = {
        (pin.name, pin.version): pin.hashes for pin in locked.parse_lock((repository / "requirements.lock").read_text())
    }
    for path, content in _texts(archive).items():
        if path == DPKG:
            yield from _debian(content)
        else:
            about = HeaderParser().parsestr(content.decode("utf-8", "replace"))
            name = re.sub(r"[-_.]+", "-", about["Name"] or "").lower()
            digests = tuple(each.removeprefix("sha256:") for each in pins.get((name, about["Version"]), ()))
            yield Package("pypi", name, about["Version"] or "", digests)
    for binary in image.binaries:
        text = (repository / "tests" / "cluster" / "go" / binary / "go.mod").read_text()
        found = {match["path"]: match["version"] for match in _MODULE.finditer(text)}
        yield from (Package("golang", name, version) for name, version in found.items())


def _debian(content: bytes) -> Iterator[Package]:
    for block in content.decode("utf-8", "replace").split("\n\n"):
        about = HeaderParser().parsestr(block)
        if about["Package"] and str(about["Status"]).endswith(" installed"):
            yield Package("deb", about["Package"], about["Version"] or "")


def _texts(archive: Path) -> Mapping[str, bytes]:
    """The files that tell of packages, as the image's topmost layer leaves them."""
    there = archives.read(archive).files
    found: dict[str, bytes] = {}
    for layer in archives.layers(archive):
        for member in layer:
            path = PurePosixPath(member.name.removeprefix("./").lstrip("/"))
            tells = str(path) == DPKG or (path.name == "METADATA" and path.parent.suffix == ".dist-info")
            if tells and member.isfile() and str(path) in there:
                file = layer.extractfile(member)
                found[str(path)] = file.read() if file else b""
    return found


def document(name: str, found: list[Package], when: datetime) -> str:
    """The document of an image. The same image gives the same text."""
    repository, _, tag = name.rpartition(":")
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, name))
    bom.metadata.timestamp = when
    whole = Component(type=ComponentType.CONTAINER, name=repository, version=tag, bom_ref=name)
    bom.metadata.component = whole
    for each in found:
        bom.components.add(
            Component(
                type=ComponentType.APPLICATION if each.name == OWN else ComponentType.LIBRARY,
                name=each.name,
                version=each.version,
                purl=each.url,
                bom_ref=each.url.to_string(),
                properties=[Property(name="truekeep:lock:sha256", value=digest) for digest in each.digests],
            )
        )
    bom.register_dependency(whole, bom.components)
    text: str = JsonV1Dot6(bom).output_as_string(indent=1)
    return text + "\n"

"""What is in an image, read from the image."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from images import sbom
from images.places import Image

from tests.unit.images.test_images_archives import write_archive

STATUS = b"""Package: libc6
Status: install ok installed
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Version: 1

"""
LOCK = "kopf==1.45.2 \\\n    --hash=sha256:aaaa\n    # via truekeep\n"


def metadata(name: str, version: str) -> bytes:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nA text.\nName: not-this\n".encode()


def checkout(folder: Path) -> Path:
    (folder / "requirements.lock").write_text(LOCK)
    module = folder / "tests" / "cluster" / "go" / "gateway"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module x.dev/gateway\n\nrequire (\n\texample.com/a/b v1.2.3 // indirect\n)\n")
    return folder


def test_the_topmost_view_is_told_with_versions(tmp_path: Path) -> None:
    lib = "opt/truekeep/lib"
    archive = write_archive(
        tmp_path / "x.tar",
        [
            {"var/lib/dpkg/status": b"Package: old\nStatus: install ok installed\nVersion: 0\n"},
            {
                "var/lib/dpkg/status": STATUS,
                f"{lib}/kopf-1.45.2.dist-info/METADATA": metadata("Kopf", "1.45.2"),
                f"{lib}/taken-1.dist-info/METADATA": metadata("taken", "1"),
            },
            {f"{lib}/.wh.taken-1.dist-info": b""},
        ],
    )
    found = list(sbom.packages(Image("x", binaries=("gateway",)), archive, checkout(tmp_path)))
    assert found == [
        sbom.Package("deb", "libc6", "2.36-9"),
        sbom.Package("pypi", "kopf", "1.45.2", ("aaaa",)),
        sbom.Package("golang", "example.com/a/b", "v1.2.3"),
    ]


def test_the_document_is_cyclonedx_and_the_same_each_time() -> None:
    found = [sbom.Package("deb", "libc6", "2.36-9"), sbom.Package("pypi", "kopf", "1.45.2", ("aaaa",))]
    made = sbom.document("truekeep/operator:dev-1", found, datetime(2026, 1, 2, tzinfo=UTC))
    assert made == sbom.document("truekeep/operator:dev-1", found, datetime(2026, 1, 2, tzinfo=UTC))
    document: Any = json.loads(made)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "truekeep/operator"
    urls = {each["purl"] for each in document["components"]}
    assert urls == {"pkg:deb/debian/libc6@2.36-9", "pkg:pypi/kopf@1.45.2"}
    (root,) = [each for each in document["dependencies"] if each["ref"] == "truekeep/operator:dev-1"]
    assert set(root["dependsOn"]) == urls

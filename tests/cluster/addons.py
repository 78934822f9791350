"""What runs as pods from the start: CoreDNS and the provisioner of PersistentVolumes."""

from __future__ import annotations

import platform
import string
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.binaries import Builder
from tests.cluster.containers import Images
from tests.cluster.images import BinaryImage, write_archive
from tests.cluster.layout import DNS_SERVICE_IP, PACKAGE, Layout

MANIFESTS = PACKAGE / "addons"
NOBODY = "65532:65532"
ROOT = "0:0"


@dataclass(frozen=True)
class NodeImages:
    """The node's own images, each of one binary and tagged with the key of its build."""

    helper: BinaryImage
    coredns: BinaryImage
    provisioner: BinaryImage

    @classmethod
    def of(cls, builder: Builder) -> NodeImages:
        def image(module: binaries.GoModule, user: str, *arguments: str) -> BinaryImage:
            (name,) = module.packages
            tag = builder.directory(module).name.rpartition("-")[2]
            return BinaryImage(f"localhost/truekeep-cluster/{name}:{tag}", builder.path(module, name), user, arguments)

        return cls(
            helper=image(binaries.NODE_HELPER, ROOT, "pause"),
            coredns=image(binaries.COREDNS, NOBODY),
            provisioner=image(binaries.LOCAL_PATH_PROVISIONER, NOBODY),
        )

    def load(self, images: Images) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for image in (self.helper, self.coredns, self.provisioner):
                archive = Path(directory) / f"{image.binary.name}.tar"
                write_archive(image, archive, platform.machine())
                images.load(archive)
                archive.unlink()


def manifests(layout: Layout, images: NodeImages) -> str:
    """All addons as one stream of YAML."""
    values = {
        "coredns_image": images.coredns.reference,
        "provisioner_image": images.provisioner.reference,
        "helper_image": images.helper.reference,
        "dns_service_ip": DNS_SERVICE_IP,
        "volumes": str(layout.volumes),
    }
    return "\n---\n".join(
        string.Template(file.read_text()).substitute(values) for file in sorted(MANIFESTS.glob("*.yaml"))
    )

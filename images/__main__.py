"""`python -m images`: build, load, name and measure the container images, and render the manifests that name them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from tests.cluster.errors import ClusterError

from images import engines, manifests, sbom
from images.archives import Summary
from images.errors import ImagesError
from images.manifests import INSTALLED
from images.places import IMAGES, REPOSITORY, Cache
from images.publish import publish
from images.tool import Tool, chosen, environment, last_built, load


def parser() -> argparse.ArgumentParser:
    names = ", ".join(image.name for image in IMAGES)
    top = argparse.ArgumentParser(prog="python -m images", description="Build, load, name and measure the images.")
    commands = top.add_subparsers(dest="command", required=True)
    for command, what in (
        ("build", "build what is missing or changed"),
        ("load", "import into the running cluster what it lacks of the last build"),
        ("tags", "print the names of the last build as lines for an environment, as in build/images.env"),
        ("sizes", "print the sizes, unpacked"),
        ("sbom", "write what is in them to dist/sbom/NAME.cdx.json, as CycloneDX"),
    ):
        each = commands.add_parser(command, help=what)
        each.add_argument("names", nargs="*", metavar="NAME", help=f"of {names}; all when left out")
        if command == "build":
            each.add_argument("--renew-base", action="store_true", help="make the base anew, of today's packages")
    push = commands.add_parser("publish", help="push what was built last into a registry, and pin it under dist/")
    push.add_argument("--registry", required=True, help="HOST[:PORT][/PREFIX]. Example: registry.example.com/ml")
    push.add_argument("--tag", default="", help="in place of that of the build")
    push.add_argument("--pull-secret", default="", help="name of the Secret that the images are pulled with")
    commands.add_parser("render", help="write dist/truekeep.yaml and dist/truekeep-crds.yaml: all, and the kinds alone")
    commands.add_parser("derive", help="write what is derived of the manifests")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        if given.command in {"render", "derive"}:
            for file in manifests.render() if given.command == "render" else manifests.derive():
                print(file.relative_to(REPOSITORY))
            return 0
        cache = Cache.default()
        if given.command == "publish":
            built = last_built(INSTALLED, cache)
            names = publish(
                built, engines.find(cache), console, given.registry, tag=given.tag, pull_secret=given.pull_secret
            )
            print("\n".join(names.values()))
            return 0
        images = chosen(given.names)
        if given.command == "build":
            Tool(cache, engines.find(cache), console).build(images, renew_base=given.renew_base)
        elif given.command == "load":
            load(last_built(images, cache), console)
        elif given.command == "sbom":
            print("\n".join(str(each.relative_to(REPOSITORY)) for each in sbom.write(last_built(images, cache))))
        elif given.command == "tags":
            print(environment(last_built(images, cache)), end="")
        else:
            Console().print(table([each.summary for each in last_built(images, cache)]))
    except (ImagesError, ClusterError) as error:
        console.print(f"images: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def table(summaries: Sequence[Summary]) -> Table:
    """Megabytes (10^6 bytes) of the files in an image, and of its layers: base, libraries, rooms."""
    shown = Table(title="Sizes, unpacked, in MB")
    for title in ("image", "all", "base", "libraries", "rooms"):
        shown.add_column(title, justify="left" if title == "image" else "right")
    for summary in summaries:
        sizes = [size for _, size in summary.layers]
        base, libraries, rooms = (sizes[0], sum(sizes[1:-1]), sizes[-1]) if len(sizes) > 1 else (0, 0, sizes[0])
        shown.add_row(summary.name, *(f"{size / 1e6:.1f}" for size in (summary.unpacked_bytes, base, libraries, rooms)))
    return shown


if __name__ == "__main__":
    sys.exit(main())

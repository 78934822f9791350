"""`python -m tests.cluster up|down|status|load|env|fetch-binary|addon`."""

from __future__ import annotations

import argparse
import shlex
import sys

from tests.cluster import (
    ClusterError,
    add_addon,
    down,
    environment,
    fetch_binary,
    load_archives,
    remove_addon,
    status,
    up,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it did what it should. Errors are one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except ClusterError as error:
        sys.stderr.write(f"cluster: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("cluster: interrupted; the same command again goes on from here\n")
    return 1


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "up":
            up()
        case "down":
            down(purge=options.purge)
        case "status":
            well, lines = status()
            print("\n".join(lines))
            return 0 if well else 1
        case "load":
            print("\n".join(load_archives(options.archives)))
        case "env":
            for name, value in environment().items():
                print(f"export {name}={shlex.quote(value)}")
        case "fetch-binary":
            print(fetch_binary(options.name))
        case "addon":
            (remove_addon if options.remove else add_addon)(options.name)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring the cluster up; a second one changes nothing")
    gone = commands.add_parser("down", help="take away processes, mounts, links, rules and files")
    gone.add_argument("--purge", action="store_true", help="remove the cached binaries as well")
    commands.add_parser("status", help="what runs; exits with 1 unless all of it is well")
    load = commands.add_parser("load", help="load images into the cluster")
    load.add_argument("archives", nargs="+", metavar="IMAGE_ARCHIVE", help="an OCI or docker archive")
    commands.add_parser("env", help="print what the shell should export for kubectl")
    fetch = commands.add_parser("fetch-binary", help="print the path of a binary, built first if need be")
    fetch.add_argument("name", help="versitygw, kubectl, etcd, ...")
    addon = commands.add_parser("addon", help="start what only some suites need, built first if need be")
    addon.add_argument("name", help="metrics-server (autoscaling) or gateway-api (its kinds)")
    addon.add_argument("--remove", action="store_true", help="take it away instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The locked packages of one extra: what a Dockerfile installs, and what an image's tag is made of.

Standard library only: it runs in the builder stages as well (`python3 locked.py server --without storage`), on any
Python from 3.11 on. The lock holds the packages of every extra together; uv writes under each package which others
asked for it, so the closure of one extra follows without asking an index.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?==(?P<version>[^\s;\\]+)\s*(;\s*(?P<marker>[^\\]+?))?\s*\\?$"
)
_HASH = re.compile(r"^\s+--hash=(?P<hash>\S+?)\s*\\?$")
_VIA = re.compile(r"^\s+#(?:\s+via)?\s+(?!via$)(?P<parent>[A-Za-z0-9._-]+)(\s*\(.*\))?$")
_NAME = re.compile(r"^\s*(?P<name>[A-Za-z0-9._-]+)\s*(\[(?P<extras>[^\]]*)\])?")


class LockError(Exception):
    """The project's files do not say what an extra consists of; the message names the file and the remedy."""


@dataclass(frozen=True)
class Pin:
    """One `name==version` of the lock. A package has several where its version depends on the Python."""

    name: str  # canonical: lower case, dashes
    version: str
    marker: str  # "" where the pin holds everywhere
    hashes: tuple[str, ...]
    parents: frozenset[str]  # canonical names of those who asked for it

    def line(self) -> str:
        """As a requirements file has it, hashes included."""
        condition = f" ; {self.marker}" if self.marker else ""
        return " \\\n".join([f"{self.name}=={self.version}{condition}", *(f"    --hash={h}" for h in self.hashes)])


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(text: str) -> list[Pin]:
    """The pins of a file that `uv pip compile --generate-hashes` wrote."""
    pins: list[Pin] = []
    hashes: list[str] = []
    parents: list[str] = []
    head: re.Match[str] | None = None

    def close() -> None:
        if head is not None:
            if not hashes:
                raise LockError(f"requirements.lock: {head['name']} has no hash; re-make the lock with `make lock`")
            marker = head["marker"] or ""
            pins.append(Pin(canonical(head["name"]), head["version"], marker, tuple(hashes), frozenset(parents)))

    for number, line in enumerate(text.splitlines(), 1):
        if found := _PIN.match(line):
            close()
            head, hashes, parents = found, [], []
        elif found := _HASH.match(line):
            hashes.append(found["hash"])
        elif found := _VIA.match(line):
            parents.append(canonical(found["parent"]))
        elif line.strip() and not line.lstrip().startswith("#"):
            raise LockError(f"requirements.lock, line {number}: {line.strip()!r} is no pin, hash or comment")
    close()
    return pins


def direct_requirements(pyproject: dict[str, object], extra: str) -> set[str]:
    """Canonical names that the project itself asks for with this extra, those of the extras it includes with it."""
    project = pyproject["project"]
    assert isinstance(project, dict)
    extras = {canonical(name): entries for name, entries in project.get("optional-dependencies", {}).items()}
    own = canonical(project["name"])
    names: set[str] = set()
    waiting: list[str] = [canonical(extra)]
    seen: set[str] = set()
    lists: list[Iterable[str]] = [project.get("dependencies", [])]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current not in extras:
            raise LockError(f"pyproject.toml: there is no extra {current!r}; it has {', '.join(sorted(extras))}")
        lists.append(extras[current])
        for entry in extras[current]:
            found = _NAME.match(entry)
            if found and canonical(found["name"]) == own:
                waiting += [canonical(name) for name in (found["extras"] or "").split(",") if name.strip()]
    for entries in lists:
        for entry in entries:
            if (found := _NAME.match(entry)) and canonical(found["name"]) != own:
                names.add(canonical(found["name"]))
    return names


def closure(pins: Collection[Pin], roots: Collection[str]) -> list[Pin]:
    """The roots and all that they ask for, in the lock's order."""
    known = {pin.name for pin in pins}
    if missing := sorted(set(roots) - known):
        raise LockError(f"requirements.lock has no {', '.join(missing)}; re-make it with `make lock`")
    chosen = set(roots)
    while True:
        more = {pin.name for pin in pins if pin.name not in chosen and pin.parents & chosen}
        if not more:
            return [pin for pin in pins if pin.name in chosen]
        chosen |= more


def requirements(pyproject: str, lock: str, extra: str, without: str | None = None) -> list[Pin]:
    """The pins of one extra, less those of another that an earlier layer has."""
    project = tomllib.loads(pyproject)
    pins = parse_lock(lock)
    wanted = closure(pins, direct_requirements(project, extra))
    if without is None:
        return wanted
    there = {pin.name for pin in closure(pins, direct_requirements(project, without))}
    return [pin for pin in wanted if pin.name not in there]


def render(pins: Iterable[Pin]) -> str:
    """A requirements file for `pip install --require-hashes --no-deps -r`."""
    return "".join(pin.line() + "\n" for pin in pins)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="locked.py", description="Print the locked requirements of one extra.")
    parser.add_argument("extra")
    parser.add_argument("--without", metavar="EXTRA", help="leave out what this extra has already")
    parser.add_argument("--folder", type=Path, default=Path(), help="of pyproject.toml and requirements.lock")
    given = parser.parse_args(arguments)
    try:
        pins = requirements(
            (given.folder / "pyproject.toml").read_text(),
            (given.folder / "requirements.lock").read_text(),
            given.extra,
            given.without,
        )
    except (LockError, OSError) as error:
        print(f"locked.py: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(render(pins))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a Dockerfile says about its image: the tool keeps no second list of it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

_LOCKED = re.compile(r"locked\.py --folder /build (?P<extra>[a-z-]+)(?: --without (?P<without>[a-z-]+))?")
ROOMS = "operator/truekeep"


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continuation lines joined: `COPY`, and the rest."""

    keyword: str
    value: str

    @property
    def flags(self) -> list[str]:
        return [word for word in self.value.split() if word.startswith("--")]

    @property
    def words(self) -> list[str]:
        """Without flags."""
        return [word for word in shlex.split(self.value) if not word.startswith("--")]


@dataclass(frozen=True)
class Dockerfile:
    """A parsed Dockerfile."""

    text: str
    instructions: tuple[Instruction, ...]

    @property
    def arguments(self) -> dict[str, str]:
        """The build arguments it takes, with their defaults."""
        pairs = (instruction.value.partition("=") for instruction in self._all("ARG"))
        return {name.strip(): shlex.split(default)[0] if default else "" for name, _, default in pairs}

    @property
    def sources(self) -> list[str]:
        """What it copies out of the build context: paths and patterns below the repository."""
        found: list[str] = []
        for instruction in self._all("COPY", "ADD"):
            if not any(flag.startswith("--from=") for flag in instruction.flags):
                found += instruction.words[:-1]
        return found

    @property
    def requirements(self) -> list[tuple[str, str | None]]:
        """Which locked requirements it installs: (extra, the extra that is left out of it)."""
        return [(found["extra"], found["without"]) for found in _LOCKED.finditer(self.text)]

    @property
    def rooms(self) -> set[str]:
        """The rooms that it copies: names of sub-packages; `*` for all."""
        below = [source.removeprefix(f"{ROOMS}/") for source in self.sources if source.startswith(f"{ROOMS}/")]
        names = {name for name in below if not name.endswith(".py")}
        return {"*"} if ROOMS in self.sources else names

    @property
    def stages(self) -> list[str]:
        """The names of the stages, in order; the last one has none, or its name too."""
        named = (re.search(r"\bAS\s+(\S+)$", instruction.value, re.IGNORECASE) for instruction in self._all("FROM"))
        return [found.group(1) for found in named if found]

    def stage(self, name: str) -> list[Instruction]:
        """The instructions of one stage, its FROM first; empty where there is none of that name."""
        inside = False
        found: list[Instruction] = []
        for instruction in self.instructions:
            if instruction.keyword == "FROM":
                inside = instruction.value.endswith(f" AS {name}")
            if inside:
                found.append(instruction)
        return found

    @property
    def final(self) -> list[Instruction]:
        """The instructions that the image consists of: of the last stage and before it of those that it builds on."""
        last = max(index for index, instruction in enumerate(self.instructions) if instruction.keyword == "FROM")
        chain = list(self.instructions[last:])
        while below := self.stage(chain[0].words[0]):
            chain = [*below, *chain]
        return chain

    @property
    def user(self) -> str | None:
        values = [instruction.value for instruction in self.final if instruction.keyword == "USER"]
        return values[-1] if values else None

    @property
    def entrypoint(self) -> list[str] | None:
        """None where there is none, or it is in the shell form."""
        values = [instruction.value for instruction in self.final if instruction.keyword == "ENTRYPOINT"]
        try:
            parsed = json.loads(values[-1]) if values else None
        except ValueError:
            return None
        return [str(word) for word in parsed] if isinstance(parsed, list) else None

    def _all(self, *keywords: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.keyword in keywords]


def parse(text: str) -> Dockerfile:
    """Read the subset that ours are written in: no heredocs, backslash as the escape."""
    instructions: list[Instruction] = []
    pending = ""
    for raw in text.splitlines():
        if raw.lstrip().startswith("#") or (not raw.strip() and not pending):
            continue
        pending += raw
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        keyword, _, value = pending.strip().partition(" ")
        instructions.append(Instruction(keyword.upper(), " ".join(value.split())))
        pending = ""
    return Dockerfile(text, tuple(instructions))

"""`truekeep wait`: until something is so, and with code 1 as soon as it can't get so by itself any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from truekeep.cli.kube import Json, Namespace, person, refuse

PLURALS = {
    "model": "models",
    "trainingrun": "trainingruns",
    "run": "trainingruns",
    "driftpolicy": "driftpolicies",
    "policy": "driftpolicies",
}
POLL_SECONDS = 1.0
EXIT_FAILED = 1
EXIT_TIMEOUT = 3


@dataclass(frozen=True)
class Verdict:
    """How it stands: it is so, it can't get so by itself, or it is on its way."""

    state: Literal["Met", "Failed", "Going"]
    message: str


def wait(
    what: Annotated[
        str, typer.Argument(metavar="KIND/NAME", help="model/NAME, run/NAME or policy/NAME; NAME alone is a Model.")
    ],
    *,
    condition: Annotated[
        str | None, typer.Option("--for", help="Condition to wait for. Default: Ready; of a run, Complete.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, max=604800, help="Seconds.")] = 600.0,
    namespace: Namespace = None,
) -> None:
    """Wait until a Model, run or policy is as its present spec says.

    Codes: 0, it is; 1, it failed, and waiting longer would not help; 2, wrong input; 3, not in time."""
    plural, name = _named(what)
    who = person(namespace)
    wanted = condition or ("Complete" if plural == "trainingruns" else "Ready")
    code = follow(lambda: verdict(who.get(plural, name), wanted), timeout, typer.echo)
    raise typer.Exit(code)


def follow(look: Callable[[], Verdict], seconds: float, say: Callable[[str], object]) -> int:
    """Looks again and again, and says what is new. The exit code."""
    deadline, last = time.monotonic() + seconds, ""
    while True:
        found = look()
        if found.message != last:
            say(found.message)
            last = found.message
        if found.state != "Going":
            return 0 if found.state == "Met" else EXIT_FAILED
        left = deadline - time.monotonic()
        if left <= 0:
            say(f"truekeep: not within {seconds:g} s")
            return EXIT_TIMEOUT
        time.sleep(min(POLL_SECONDS, left))


def verdict(item: Json, wanted: str) -> Verdict:
    """What the object's own conditions say of its present generation."""
    metadata, status = item["metadata"], item.get("status") or {}
    generation = metadata.get("generation", 1)
    if status.get("observedGeneration", 0) != generation:
        return Verdict("Going", "the operator has not seen this generation yet")
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    found = conditions.get(wanted)
    if found is None:
        refuse(f"{metadata['name']} has no condition {wanted}; it has {', '.join(sorted(conditions)) or 'none'}")
    words = f"{wanted} is {found['status']}, {found['reason']}" + _why(found)
    if found["status"] == "True":
        return Verdict("Met", words)
    for kind in ("Failed", "Stalled"):
        stuck = conditions.get(kind)
        if kind != wanted and stuck is not None and stuck["status"] == "True":
            return Verdict("Failed", f"{kind}, {stuck['reason']}{_why(stuck) or _why(found)}")
    return Verdict("Going", words)


def _named(what: str) -> tuple[str, str]:
    kind, slash, name = what.rpartition("/")
    plural = PLURALS.get(kind.lower().removesuffix(".truekeep.dev").removesuffix("s") if slash else "model")
    if plural is None or not name:
        refuse(f"{what!r} names nothing to wait for; write model/NAME, run/NAME or policy/NAME")
    return plural, name


def _why(condition: Json) -> str:
    return f": {condition['message']}" if condition.get("message") else ""

"""`truekeep pause`, `resume` and `rollback`: what a person does in a hurry, without touching a spec that Git owns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from truekeep.api.names import ANNOTATION_PAUSED, ANNOTATION_ROLLBACK
from truekeep.cli.kube import Json, Namespace, Person, person, refuse

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the Model.")]
PREVIOUS = "previous"


def pause(model: Name, *, namespace: Namespace = None) -> None:
    """Hold MODEL as it is: nothing is trained and nothing promoted, serving and monitoring go on.

    A canary goes back to its beginning. A rollback works all the same."""
    who = person(namespace)
    who.annotate("models", model, {ANNOTATION_PAUSED: signed(who)})
    typer.echo(f"{who.namespace}/{model} is paused: serving goes on; truekeep resume {model} ends it")


def resume(model: Name, *, namespace: Namespace = None) -> None:
    """End a pause and a rollback of MODEL: what its spec asks for is trained and rolled out again."""
    who = person(namespace)
    annotations = who.get("models", model)["metadata"].get("annotations") or {}
    held = [name for name in (ANNOTATION_PAUSED, ANNOTATION_ROLLBACK) if name in annotations]
    if not held:
        typer.echo(f"{who.namespace}/{model} is neither paused nor rolled back by hand; nothing to resume")
        return
    who.annotate("models", model, dict.fromkeys(held))
    typer.echo(f"{who.namespace}/{model} goes on as its spec says: {' and '.join(held)} removed")


def rollback(
    model: Name,
    *,
    to: Annotated[
        int | None, typer.Option(min=1, metavar="REVISION", help="Default: the one that answered before.")
    ] = None,
    namespace: Namespace = None,
) -> None:
    """Let another revision of MODEL answer, until its spec changes or truekeep resume.

    Ends with 2 where there is no such revision, or the spec pins one."""
    who = person(namespace)
    found = who.get("models", model)
    pinned = ((found.get("spec") or {}).get("serving") or {}).get("pinnedRevision")
    if pinned is not None:
        refuse(f"spec.serving.pinnedRevision is {pinned}, which goes before a rollback by hand; change it in Git")
    live, target = _live(found), to if to is not None else before(found)
    if target is None:
        refuse(f"no other revision of {who.namespace}/{model} has answered; --to REVISION names one")
    who.revision(model, target)
    if target == live:
        typer.echo(f"revision {target} of {who.namespace}/{model} answers already")
        return
    who.annotate("models", model, {ANNOTATION_ROLLBACK: f"{target}/{signed(who)}"})
    typer.echo(f"{who.namespace}/{model} goes back from revision {live} to revision {target}")
    typer.echo(f"it stays there until the spec changes, or truekeep resume {model}; watch it: truekeep status {model}")


def signed(who: Person) -> str:
    """When, and by whom: in an annotation, so that it says so where anybody looks."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} by {who.user()}"[:100]


def before(model: Json) -> int | None:
    """The revision that answered last besides the live one."""
    status, live = model.get("status") or {}, _live(model)
    former = [status["former"]["revision"]] if status.get("former") else []
    answered = [int(number) for number in [*former, *(one["revision"] for one in status.get("history") or [])]]
    return next((number for number in answered if number != live), None)


def _live(model: Json) -> int | None:
    active = (model.get("status") or {}).get("active")
    return int(active["revision"]) if active else None

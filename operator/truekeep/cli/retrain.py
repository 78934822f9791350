"""`truekeep retrain`: a person asks for a run, by the annotation that also Argo CD's action writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from truekeep.api.names import ANNOTATION_PAUSED, ANNOTATION_RETRAIN, run_name
from truekeep.cli import wait as waiting
from truekeep.cli.hold import signed
from truekeep.cli.kube import Json, Namespace, person, refuse

REASON_LENGTH = 300


def retrain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the Model.")],
    *,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why, for the record.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until the run has ended.")] = False,
    timeout: Annotated[float, typer.Option(min=0, max=604800, help="Seconds to wait.")] = 3600.0,
    namespace: Namespace = None,
) -> None:
    """Train MODEL again as its spec says, whatever cooldown and budget say; prints the run's name.

    Codes: 0, it was asked for (with --wait: the run succeeded); 1, with --wait: the run failed; 2, it can't be, because
    a run is under way or the Model is paused; 3, with --wait: not in time."""
    who = person(namespace)
    found = who.get("models", model)
    if held := obstacle(found, who.runs(model)):
        refuse(f"{who.namespace}/{model} {held}")
    value = asked(signed(who), reason)
    name = run_name(model, found["metadata"]["uid"], "manual", value)
    who.annotate("models", model, {ANNOTATION_RETRAIN: value})
    typer.echo(f"trainingrun/{name}")
    if not wait:
        return

    def look() -> waiting.Verdict:
        there = [run for run in who.runs(model) if run["metadata"]["name"] == name]
        if not there:
            return waiting.Verdict("Going", "the operator has not made the run yet")
        return waiting.verdict(there[0], "Complete")

    raise typer.Exit(waiting.follow(look, timeout, lambda words: typer.echo(words, err=True)))


def asked(by: str, reason: str) -> str:
    """The annotation's value: when, who and why. It is in the run's trigger, and so in its record."""
    why = " ".join(reason.split())[:REASON_LENGTH]
    return f"{by}: {why}" if why else by


def obstacle(model: Json, runs: Sequence[Json]) -> str:
    """Why no run can begin now; "" where one can."""
    annotations = model["metadata"].get("annotations") or {}
    if annotations.get(ANNOTATION_PAUSED, "").lower() not in ("", "false"):
        return f"is paused ({annotations[ANNOTATION_PAUSED]}): truekeep resume {model['metadata']['name']} goes first"
    for run in runs:
        if not run["metadata"].get("deletionTimestamp") and not _ended(run):
            name = run["metadata"]["name"]
            return (
                f"has a run under way, {name}: wait for its end (truekeep wait run/{name}), "
                f"or delete it (kubectl delete trainingrun {name}), and ask again"
            )
    return ""


def _ended(run: Json) -> bool:
    conditions = (run.get("status") or {}).get("conditions") or []
    return any(each["type"] in {"Complete", "Failed"} and each["status"] == "True" for each in conditions)

"""`truekeep status`: how the Models of a namespace stand, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from truekeep.cli.kube import Json, Namespace, person


def status(
    namespace: Namespace = None,
) -> None:
    """Show the Models of a namespace: which revision answers, why it is (not) ready, what was found and what failed."""
    where, models, policies = _read(namespace)
    if not models:
        typer.echo(f"There is no Model in namespace {where}.")
        return
    console = Console()
    for model in models:
        table = Table(title=escape(f"Model {where}/{model['metadata']['name']}"), title_justify="left", box=None)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, text in lines(model, policies):
            table.add_row(name, escape(text))
        console.print(table)
        console.print()


def lines(model: Json, policies: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Pairs of a name and what is to be said under it."""
    found = model.get("status", {})
    yield "ready", _words(found, "Ready")
    active, previous, candidate = (found.get(name) or {} for name in ("active", "previous", "candidate"))
    yield "answers", f"revision {active['revision']}, since {active.get('since', '?')}" if active else "nothing"
    if previous:
        yield "kept warm", f"revision {previous['revision']}, since {previous.get('since', '?')}"
    if candidate:
        yield "on its way", f"revision {candidate['revision']}, {candidate.get('reachedPercent', 0)} % of the traffic"
    for name, kind, unasked in (
        ("gateway", "Routed", "NoGateway"),
        ("pods", "Scaled", "NoAutoscaling"),
        ("retention", "CapturesSwept", "NoSweepYet"),
    ):
        said = next((each for each in found.get("conditions", ()) if each["type"] == kind), {"reason": unasked})
        if said["reason"] != unasked:
            yield name, _words(found, kind)
    if candidate.get("analysis"):
        yield "judged", _judged(candidate["analysis"])
    elif (last := found.get("lastRollout") or {}).get("analysis"):
        yield (
            "judged",
            f"revision {last['revision']}, {last['outcome']}: {_judged(last.get('watch') or last['analysis'])}",
        )
    if found.get("run"):
        yield "in training", str(found["run"])
    if found.get("metric"):
        yield "metric", str(found["metric"])
    if found.get("report"):
        yield "report", str(found["report"])
    for policy in policies:
        if policy["spec"]["modelRef"]["name"] == model["metadata"]["name"]:
            yield "drift", f"{policy['metadata']['name']}: {_words(policy.get('status', {}), 'DriftDetected')}"
    failure = found.get("lastFailure")
    if failure:
        about = f" (revision {failure['revision']})" if failure.get("revision") else ""
        yield "last failure", f"{failure['time']} {failure['reason']}{about}: {failure['message']}"


def _judged(rows: Sequence[Json]) -> str:
    return "; ".join(
        f"{row['name']} {row['verdict']}" + (f" ({row['value']} of {row['threshold']})" if _measured(row) else "")
        for row in rows
    )


def _measured(row: Json) -> bool:
    return row.get("value") is not None and row.get("threshold") is not None


def _words(found: Json, kind: str) -> str:
    condition = next((each for each in found.get("conditions", ()) if each["type"] == kind), None)
    if condition is None:
        return "not known yet: the operator has not looked"
    message = f": {condition['message']}" if condition.get("message") else ""
    return f"{condition['status']}, {condition['reason']}{message}"


def _read(namespace: str | None) -> tuple[str, list[Json], list[Json]]:
    """The namespace, its Models and its DriftPolicies."""
    who = person(namespace)
    return who.namespace, who.list("models"), who.list("driftpolicies")

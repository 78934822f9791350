"""`truekeep status`: how the Models of a namespace stand, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from truekeep.cli.kube import Json, Namespace, of_model, person, refuse
from truekeep.cli.past import past
from truekeep.cli.shown import Output, console, give, short_time

SHOWN_RUNS = 5
# The conditions of a policy that are told, and the reasons for which there is nothing to tell.
TOLD: dict[str, frozenset[str]] = {
    "DriftDetected": frozenset(),
    "PerformanceDecayed": frozenset({"NotWatched"}),
    "DataValid": frozenset({"NoDefect"}),
    "RetrainHeld": frozenset({"NothingToAnswer"}),
    "ServingHealthy": frozenset({"Healthy"}),
    "Notified": frozenset({"NothingToTell", "Delivered"}),
}


def status(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="This Model alone.")] = None,
    *,
    output: Output = "text",
    namespace: Namespace = None,
) -> None:
    """Show the Models of a namespace: which revision answers, why it is (not) ready, its runs and its policies."""
    where, models, policies, runs = _read(namespace)
    if model is not None:
        models = [each for each in models if each["metadata"]["name"] == model]
        if not models:
            refuse(f"there is no Model {model} in namespace {where}")
    if output != "text":
        give([_object(each, policies, runs) for each in models], output)
        return
    if not models:
        typer.echo(f"There is no Model in namespace {where}.")
        return
    out = console()
    for each in models:
        out.print(tree(where, each, policies, runs))
        out.print()


def tree(where: str, model: Json, policies: Sequence[Json], runs: Sequence[Json]) -> Tree:
    """A Model, and under it its runs and its policies."""
    name = model["metadata"]["name"]
    root = Tree(f"[bold]Model {escape(f'{where}/{name}')}[/bold]")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in lines(model, policies):
        table.add_row(title, escape(text))
    root.add(table)
    mine = past(model, of_model(runs, name))
    if mine:
        branch = root.add("[bold]runs[/bold]")
        for row in mine[:SHOWN_RUNS]:
            branch.add(escape(_run(row)))
        if len(mine) > SHOWN_RUNS:
            branch.add(f"{len(mine) - SHOWN_RUNS} more: truekeep history {escape(name)}")
    watching = of_model(policies, name)
    if watching:
        branch = root.add("[bold]policies[/bold]")
        for policy in watching:
            leaf = branch.add(escape(f"{policy['metadata']['name']}: {_words(policy.get('status', {}), 'Ready')}"))
            for kind, quiet in TOLD.items():
                said = _condition(policy.get("status", {}), kind)
                if said is not None and said["status"] != "Unknown" and said["reason"] not in quiet:
                    leaf.add(escape(f"{kind}: {_words(policy['status'], kind)}"))
    return root


def _run(row: Json) -> str:
    number = f"revision {row['revision']}, " if row["revision"] else ""
    when = f", {short_time(row['ended'])}" if row["ended"] else ""
    metric = f", {row['metric']}" if row["metric"] else ""
    why = f": {row['message']}" if row["message"] and not row["revision"] else ""
    return f"{row['run']}: {number}{row['result']}{metric}{when}, for {row['trigger']}{why}"


def _object(model: Json, policies: Sequence[Json], runs: Sequence[Json]) -> dict[str, Any]:
    """The same for programs."""
    name = model["metadata"]["name"]
    return {
        "name": name,
        "status": model.get("status") or {},
        "runs": past(model, of_model(runs, name)),
        "policies": [
            {"name": each["metadata"]["name"], "status": each.get("status") or {}} for each in of_model(policies, name)
        ],
    }


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
        ("paused", "Paused", "NotPaused"),
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
    if problem := (found.get("decisions") or {}).get("problem"):
        yield "decisions", f"not kept in the store yet, it is tried again: {problem}"
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
    condition = _condition(found, kind)
    if condition is None:
        return "not known yet: the operator has not looked"
    message = f": {condition['message']}" if condition.get("message") else ""
    return f"{condition['status']}, {condition['reason']}{message}"


def _condition(found: Json, kind: str) -> Json | None:
    return next((each for each in found.get("conditions", ()) if each["type"] == kind), None)


def _read(namespace: str | None) -> tuple[str, list[Json], list[Json], list[Json]]:
    """The namespace, its Models, its DriftPolicies and its TrainingRuns."""
    who = person(namespace)
    return who.namespace, who.list("models"), who.list("driftpolicies"), who.list("trainingruns")

"""`truekeep history` and `truekeep diff`: the runs of a Model, and two revisions side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from truekeep.cli import archive
from truekeep.cli.kube import Json, Namespace, Person, person
from truekeep.cli.shown import Output, console, give, short_time
from truekeep.cli.stores import ModelEndpoint

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the Model.")]


def history(model: Name, *, output: Output = "text", namespace: Namespace = None) -> None:
    """The runs of MODEL, the newest first: what each was for, what it came to, and when it answered."""
    who = person(namespace)
    found, runs = who.get("models", model), who.runs(model)
    rows = past(found, runs)
    if output != "text":
        give(rows, output)
        return
    if not rows:
        typer.echo(f"{who.namespace}/{model} has no run yet")
        return
    table = Table(box=None, pad_edge=False)
    for title, style in (("REV", "bold"), ("RUN", ""), ("ENDED", ""), ("FOR", ""), ("RESULT", ""), ("ANSWERED", "")):
        table.add_column(title, style=style, overflow="fold", no_wrap=title in {"REV", "ENDED"})
    for row in rows:
        result = f"{row['result']}  {row['metric']}" if row["metric"] else row["result"]
        cells = (row["revision"] or "-", row["run"], short_time(row["ended"]), row["trigger"], result, row["answered"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    console().print(table)
    if numbers := archive.gone(found, runs):
        uri = found["spec"]["store"]["s3"]["uri"]
        said = f"revision {archive.spans(numbers)}: no run any more (pruned or deleted); the store has what it made: "
        typer.echo(f"{said}truekeep lineage {model} --namespace {who.namespace} --store {uri}")


def past(model: Json, runs: Sequence[Json]) -> list[dict[str, Any]]:
    """A row for each run, the newest first."""
    spans: dict[int, list[str]] = {}
    until = "now"
    for one in (model.get("status") or {}).get("history") or []:
        spans.setdefault(int(one["revision"]), []).append(f"{short_time(one['since'])} to {until}")
        until = short_time(one["since"])
    ordered = sorted(runs, key=lambda run: (_born(run), run["metadata"]["name"]))
    return [_row(run, spans) for run in reversed(ordered)]


def _born(run: Json) -> str:
    """When a run was made; one that was restored is as old as it was."""
    status = run.get("status") or {}
    made = str(run["metadata"]["creationTimestamp"])
    return str(status.get("startTime") or made) if status.get("restored") else made


def _row(run: Json, spans: dict[int, list[str]]) -> dict[str, Any]:
    status = run.get("status") or {}
    ready: Json = next((each for each in status.get("conditions") or [] if each["type"] == "Ready"), {})
    metric = next(iter(status.get("metrics") or []), None)
    revision = status.get("revision")
    return {
        "revision": revision,
        "run": run["metadata"]["name"],
        "created": _born(run),
        "ended": status.get("completionTime"),
        "trigger": (run["spec"].get("trigger") or {}).get("type", "ByHand"),
        "why": (run["spec"].get("trigger") or {}).get("message", ""),
        "result": ready.get("reason", "Pending"),
        "message": ready.get("message", ""),
        "metric": f"{metric['name']} {metric['value']}" if metric else "",
        "answered": "; ".join(spans.get(revision, [])) if revision else "",
    }


def diff(
    model: Name,
    first: Annotated[int, typer.Argument(min=1, metavar="REVISION", help="Number of a revision.")],
    second: Annotated[int, typer.Argument(min=1, metavar="REVISION", help="Number of the other one.")],
    *,
    endpoint: ModelEndpoint = None,
    output: Output = "text",
    namespace: Namespace = None,
) -> None:
    """What differs between two revisions of MODEL: data, code, results, gates. Ends with 0, also where nothing does.

    A revision whose run is not in the cluster any more is read from the Model's store, with your own credentials."""
    who = person(namespace)
    rows = list(differences(*(_made(who, model, number, endpoint) for number in (first, second))))
    if output != "text":
        give([{"what": what, str(first): a, str(second): b} for what, a, b in rows], output)
        return
    if not rows:
        typer.echo(f"revisions {first} and {second} of {who.namespace}/{model} do not differ in what the cluster knows")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("", f"REVISION {first}", f"REVISION {second}"):
        table.add_column(title, overflow="fold")
    for what, a, b in rows:
        table.add_row(escape(what), escape(a), escape(b))
    console().print(table)


def _made(who: Person, model: str, number: int, endpoint: str | None) -> Json:
    """The run that made a revision; what the store has of it, where the run is gone."""
    found, runs = who.get("models", model), who.runs(model)
    if number in archive.gone(found, runs):
        return archive.as_run(archive.revision(who.namespace, found, number, endpoint))
    return who.revision(model, number)


def differences(first: Json, second: Json) -> Iterator[tuple[str, str, str]]:
    """What it is, and what it is in the one and the other, as text."""
    a, b = dict(facts(first)), dict(facts(second))
    for what in dict.fromkeys([*a, *b]):
        if a.get(what, "-") != b.get(what, "-"):
            yield what, a.get(what, "-"), b.get(what, "-")


def facts(run: Json) -> Iterator[tuple[str, str]]:
    """What the cluster knows of a revision."""
    status, trigger = run["status"], run["spec"].get("trigger") or {}
    yield "trained for", trigger.get("message") or trigger.get("type", "")
    yield "author", status.get("author") or "-"
    yield "spec generation", str(status.get("modelGeneration", "-"))
    yield "what to train", _digest(status.get("trainingFingerprint"))
    yield "image", status.get("image") or "-"
    data = status.get("data") or {}
    yield "data from", short_time(data.get("windowStart"))
    yield "data to", short_time(data.get("windowEnd"))
    for name in ("rows", "unlabelled", "unripe", "objects"):
        yield f"data: {name}", f"{data[name]:,}" if name in data else "-"
    yield "data digest", _digest(data.get("digest"))
    for metric in status.get("metrics") or []:
        yield metric["name"], metric["value"]
    yield "cut-off", status.get("cutOff") or "-"
    for gate in status.get("gates") or []:
        yield f"gate {gate['name']}", f"{gate['result']} ({gate.get('value', '-')} of {gate.get('threshold', '-')})"
    artifact = status.get("artifact") or {}
    yield "artifact", _digest(artifact.get("digest"))
    yield "artifact bytes", f"{artifact['sizeBytes']:,}" if "sizeBytes" in artifact else "-"
    yield "record", _digest((status.get("record") or {}).get("id"))


def _digest(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "-"

"""`truekeep lineage`: what made each revision of a Model, and which one answered when."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from truekeep.cli.kube import Json, Namespace, person, refuse
from truekeep.cli.laptop import InputError
from truekeep.cli.stores import Endpoint, located, opened

WIDTH, INDENT = 79, 12
EXIT_ALTERED = 1


def lineage(
    model: Annotated[str, typer.Argument(help="Name of the Model.")],
    *,
    revision: Annotated[int | None, typer.Option(min=1, help="This revision alone.")] = None,
    at: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"],
            help="The revision that answered at this time (UTC).",
        ),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
    namespace: Namespace = None,
    store: Annotated[
        str | None,
        typer.Option(help="spec.store.s3.uri: ask the store alone, with your own credentials. Example: s3://models/."),
    ] = None,
    endpoint: Endpoint = None,
) -> None:
    """Show which data, image, gates and people made each revision of MODEL, and from when to when it answered.

    The cluster knows as far back as it keeps runs; the store (--store) all of it, also when Model and cluster are gone.
    Ends with 1 where what the store has was altered or taken away, with 2 where there is no such revision, or nobody
    knows what answered at that time."""
    if output not in {"text", "json"}:
        refuse(f"--output is {output!r}; it must be text or json")
    moment = at.replace(tzinfo=UTC) if at is not None else None
    faults: tuple[str, ...] = ()
    remedy = "" if store is not None else "; --store asks the store, which keeps all of it"
    if store is not None:
        name, entries, live, known, faults = _of_store(model, namespace, store, endpoint, moment)
    else:
        who = person(namespace)
        found = who.get("models", model)
        name = f"{who.namespace}/{model}"
        entries = revisions(found, who.list("trainingruns"), who.list("modelapprovals"))
        live = answered_at(found, moment) if moment else None
        since = [each["since"] for each in _status(found).get("history") or []]
        known = f"the status knows from {since[-1]} on" if since else "nothing has answered yet"
    if moment is not None:
        if live is None:
            refuse(f"nobody knows what answered at {moment:%Y-%m-%d %H:%M} UTC: {known}{remedy}")
        entries = [each for each in entries if each["revision"] == live]
    if revision is not None:
        entries = [each for each in entries if each["revision"] == revision]
    if not entries:
        wanted = f"revision {revision}" if revision else "revision"
        refuse(f"{name} has no {wanted}{' in the cluster' if remedy else ''}{remedy}")
    if output == "json":
        typer.echo(json.dumps(entries, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n\n".join("\n".join(lines(each)) for each in entries))
    for fault in faults:
        typer.echo(f"truekeep: {fault}", err=True)
    if faults:
        raise typer.Exit(EXIT_ALTERED)


def _of_store(
    model: str, namespace: str | None, uri: str, endpoint: str | None, moment: datetime | None
) -> tuple[str, list[dict[str, Any]], int | None, str, tuple[str, ...]]:
    """Name, revisions, which of them answered at the moment, what is known of that, and what does not hold."""
    from truekeep.cli import ledger
    from truekeep.storage import StoreError

    if namespace is None:
        refuse("with --store, --namespace says in which namespace the Model is or was; give it")
    try:
        place = opened(located("--store", uri, endpoint))
        kept = ledger.read(place, namespace, model)
        entries, faults = ledger.entries(place, kept)
    except (InputError, StoreError) as error:
        refuse(str(error))
    live = kept.answered_at(moment) if moment else None
    first = next((one.time for one in kept.decisions if one.kind == "Promoted"), None)
    known = f"the store knows from {first:%Y-%m-%d %H:%M} UTC on" if first else "nothing of it is kept there"
    return f"{namespace}/{model}", entries, live.revision if live else None, known, (*kept.faults, *faults)


def revisions(model: Json, runs: list[Json], approvals: list[Json]) -> list[dict[str, Any]]:
    """What made each revision, the newest first."""
    name = model["metadata"]["name"]
    history = list(_status(model).get("history") or [])
    intervals: dict[int, list[dict[str, Any]]] = {}
    until: str | None = None
    for each in history:
        intervals.setdefault(each["revision"], []).append({"since": each["since"], "until": until})
        until = each["since"]
    found = []
    for run in runs:
        status = _status(run)
        if run["spec"]["modelRef"]["name"] != name or not status.get("revision"):
            continue
        digest = (status.get("artifact") or {}).get("digest")
        found.append(
            {
                "revision": status["revision"],
                "run": run["metadata"]["name"],
                "trigger": run["spec"].get("trigger"),
                "author": status.get("author"),
                "image": status.get("image"),
                "imageId": status.get("imageId"),
                "modelGeneration": status.get("modelGeneration"),
                "trainingFingerprint": status.get("trainingFingerprint"),
                "data": status.get("data"),
                "metrics": status.get("metrics") or [],
                "gates": status.get("gates") or [],
                "cutOff": status.get("cutOff"),
                "champion": status.get("champion"),
                "artifact": status.get("artifact"),
                "record": status.get("record"),
                "decisions": [_decision(each) for each in approvals if _is_about(each, name, digest)],
                "answered": intervals.get(status["revision"], []),
            }
        )
    return sorted(found, key=lambda each: int(each["revision"]), reverse=True)


def answered_at(model: Json, moment: datetime) -> int | None:
    """The revision that was live at a moment; None where the history does not reach back so far."""
    for each in _status(model).get("history") or []:
        if datetime.fromisoformat(each["since"]) <= moment:
            return int(each["revision"])
    return None


def lines(entry: Json) -> Iterator[str]:
    """One revision for a terminal of 80 columns."""
    spans = [
        f"{_short(each['since'])} to {_short(each['until']) if each['until'] else 'now'}" for each in entry["answered"]
    ]
    yield f"revision {entry['revision']}"
    yield from _said("answered", "; ".join(spans) or "never, as far as the status knows")
    yield from _said("why", (entry["trigger"] or {}).get("message") or (entry["trigger"] or {}).get("type", ""))
    yield from _said("author", entry["author"])
    data = entry["data"] or {}
    if data:
        window = f"{_short(data.get('windowStart'))} to {_short(data.get('windowEnd'))}"
        yield from _said(
            "data", f"{data['rows']:,} rows, {window}, from {data['objects']} objects; {data.get('digest')}"
        )
        if data.get("replayable") != "True":
            yield from _said("", "the store keeps no versions of them: they can't be read again for sure")
    yield from _said("image", entry["image"])
    yield from _said("", entry.get("imageId"))
    yield from _said("spec", f"generation {entry['modelGeneration']}, {entry['trainingFingerprint']}")
    gates = [f"{each['name']} {each['value']} ({each['result'].lower()})" for each in entry["gates"]]
    metrics = [f"{each['name']} {each['value']}" for each in entry["metrics"]]
    yield from _said("gates", "; ".join(gates) or "none declared")
    yield from _said("metrics", "; ".join(metrics))
    for each in entry["decisions"]:
        yield from _said(each["decision"].lower(), f"{each['approver']}, {_short(each['time'])}: {each['reason']}")
    yield from _said(
        "artifact", f"{(entry['artifact'] or {}).get('digest')} {(entry['artifact'] or {}).get('uri', '')}"
    )
    record = entry["record"] or {}
    yield from _said("record", f"{record.get('id')} {record.get('uri', '')}")
    yield from _said("report", record.get("report"))
    for each in entry.get("failed") or []:
        yield from _said("failed", f"{_short(each['time'])}: {each['reason']}")


def _said(name: str, text: str | None) -> Iterator[str]:
    if text:
        first = f"  {name}".ljust(INDENT)
        yield from textwrap.wrap(
            text,
            WIDTH,
            initial_indent=first,
            subsequent_indent=" " * INDENT,
            break_on_hyphens=False,
            break_long_words=False,  # a digest is to be copied
        )


def _short(moment: str | None) -> str:
    return moment[:16].replace("T", " ") if moment else "?"


def _decision(approval: Json) -> dict[str, Any]:
    spec = approval["spec"]
    return {
        "decision": spec["decision"],
        "approver": spec["approver"],
        "reason": spec["reason"],
        "time": approval["metadata"]["creationTimestamp"],
        "name": approval["metadata"]["name"],
    }


def _is_about(approval: Json, model: str, digest: str | None) -> bool:
    spec = approval["spec"]
    return bool(spec["modelRef"]["name"] == model and digest and spec["artifactDigest"] == digest)


def _status(item: Json) -> Json:
    found: Json = item.get("status") or {}
    return found

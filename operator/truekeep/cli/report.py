"""`truekeep open`: the report of a run in the browser, read with the person's own credentials."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from truekeep.cli import archive
from truekeep.cli.kube import Json, Namespace, person, refuse
from truekeep.cli.stores import ModelEndpoint


def open_report(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the Model.")],
    revision: Annotated[
        int | None, typer.Argument(min=1, metavar="REVISION", help="Default: the one that answers.")
    ] = None,
    *,
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Of this run, also of one that failed.")] = None,
    to: Annotated[Path | None, typer.Option(help="Write it to this file instead of opening it.")] = None,
    endpoint: ModelEndpoint = None,
    namespace: Namespace = None,
) -> None:
    """Open the report of a revision of MODEL: metrics, slices, calibration, importance, data, what changed.

    Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or where the AWS tools find theirs. Ends with 2
    where there is no report, or the store can't be read. A revision whose run is gone from the cluster opens, too."""
    from truekeep.storage import StoreError
    from truekeep.storage.s3 import Bucket

    who = person(namespace)
    found = who.get("models", model)
    runs = who.runs(model)
    store = archive.location(found, endpoint)
    if run is None and revision in archive.gone(found, runs):
        entry = archive.revision(who.namespace, found, revision or 0, endpoint)
        name, uri = str(entry["run"]), (entry["record"] or {}).get("report")
    else:
        made = chosen(found, runs, revision, run)
        name, uri = made["metadata"]["name"], ((made.get("status") or {}).get("record") or {}).get("report")
    if not uri:
        refuse(f"run {name} has no report (yet); truekeep logs {model} shows what it says")
    folder, _, file = str(uri).rpartition("/")
    try:
        page = Bucket.open(store.model_copy(update={"uri": f"{folder}/"})).get(file)
    except StoreError as error:
        refuse(f"{uri}: {error}")
    if to is not None:
        to.write_bytes(page)
        typer.echo(f"{to}: {len(page):,} bytes")
        return
    with tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".html", delete=False) as kept:
        kept.write(page)
    address = Path(kept.name).as_uri()
    typer.echo(address)
    webbrowser.open(address)


def chosen(model: Json, runs: Sequence[Json], revision: int | None, run: str | None) -> Json:
    """The run that is meant."""
    name = model["metadata"]["name"]
    if run is not None:
        mine = [each for each in runs if each["metadata"]["name"] == run]
        if not mine:
            refuse(
                f"{name} has no run {run} in the cluster; truekeep history {name} names them, and what the store has "
                "besides; a revision's report opens by its number also without its run"
            )
        return mine[0]
    if revision is None:
        active = (model.get("status") or {}).get("active")
        if not active:
            refuse(f"no revision of {name} answers; --run names a run, truekeep history {name} lists them")
        revision = int(active["revision"])
    mine = [each for each in runs if (each.get("status") or {}).get("revision") == revision]
    if not mine:
        refuse(f"{name} has no revision {revision}; truekeep history {name} lists them")
    return mine[0]

"""`truekeep decisions`: what a Model decided, from its captures, as a list for people who have to set things right."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from truekeep.cli.kube import Namespace
from truekeep.cli.laptop import InputError, moment, refuse
from truekeep.cli.stores import CapturesUri, ModelEndpoint, ModelFile, StoreUri

if TYPE_CHECKING:
    from truekeep.cli.captured import Account

EXIT_INCOMPLETE = 1
COLUMNS = (
    "received_at", "request_id", "row", "key", "event_time", "revision", "prediction", "probability", "cut_off",
    "artifact",
)  # fmt: skip


def decisions(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the Model.")],
    *,
    revision: Annotated[int | None, typer.Option(min=1, help="Of this revision alone. Default: of all.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Received then or later (UTC), a time or a day.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Received before this (UTC). Default: until now.")
    ] = None,
    features: Annotated[bool, typer.Option("--features", help="With the features, as they were captured.")] = False,
    file: ModelFile = None,
    store: StoreUri = None,
    captures: CapturesUri = None,
    endpoint: ModelEndpoint = None,
    output: Annotated[
        Literal["csv", "json"], typer.Option("--output", "-o", help="csv, or json: one object a line.")
    ] = "csv",
    namespace: Namespace = None,
) -> None:
    """List what MODEL decided, one row each, hour after hour, with the id of its request and the key of its row.

    The rows come from the captures, read with your own credentials; what is not captured is not in it, and standard
    error says which share that is. Codes: 0, all that was captured; 1, some files could not be read; 2, wrong input, or
    the store does not answer."""
    from truekeep.cli import captured, stores
    from truekeep.cli.why import places
    from truekeep.cli.why.find import Span
    from truekeep.storage import StoreError

    account = captured.Account()
    try:
        span = Span(moment("--from", start), moment("--to", end))
        if span.start and span.end and span.end <= span.start:
            raise InputError(f"--to {end} is not after --from {start}")
        (place,) = places.places(places.Asked(namespace, model, file, store, captures, endpoint))
        if place.captures is None:
            raise places.not_captured(place)
        bucket = stores.opened(place.captures)
        rows = captured.rows(bucket, place.namespace, model, revision, span, features, account)
        _write(rows, output)
    except (InputError, StoreError) as error:
        refuse(error)
    for words in _account(account, f"{place.namespace}/{model}", revision):
        typer.echo(f"truekeep: {words}", err=True)
    raise typer.Exit(EXIT_INCOMPLETE if account.unreadable else 0)


def _write(rows: Iterator[dict[str, Any]], output: str) -> None:
    """Each as soon as it is read: a list may have more rows than there is memory."""
    if output == "json":
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    writer: Any = None
    names: Sequence[str] = COLUMNS
    for row in rows:
        if writer is None or row.keys() - set(names):
            # Revisions may have other features: a new head says where the columns change.
            names = [*COLUMNS, *(name for name in row if name not in COLUMNS)]
            writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    if writer is None:
        csv.DictWriter(sys.stdout, names, lineterminator="\n").writeheader()


def _account(account: Account, whose: str, revision: int | None) -> Iterator[str]:
    """What the list is, and what it lacks."""
    of = f"revision {revision} of {whose}" if revision else whose
    when = ""
    if account.first and account.last:
        when = f", received from {account.first:%Y-%m-%d %H:%M:%S} to {account.last:%Y-%m-%d %H:%M:%S} UTC"
    yield f"{account.rows:,} decisions of {of}{when}, from {account.files:,} files"
    for percent in sorted(account.percents - {100}):
        yield f"{percent} % of the requests are captured, chosen by id: the others are not in the list"
    if account.hashed:
        yield f"kept as hashes: {', '.join(sorted(account.hashed))}"
    if account.erasures:
        yield f"rows were erased, by {account.erasures} receipts below {whose}/erasures/"
    if account.unreadable:
        yield f"{len(account.unreadable)} files could not be read, first: {account.unreadable[0]}"

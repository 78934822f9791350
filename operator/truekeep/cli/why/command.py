"""`truekeep why`: one decision that a model made, and all that stands behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from truekeep.cli.kube import Namespace
from truekeep.cli.laptop import InputError, moment, refuse
from truekeep.cli.stores import CapturesUri, ModelEndpoint, ModelFile, StoreUri

if TYPE_CHECKING:
    from truekeep.cli.ledger import Ledger
    from truekeep.cli.why.behind import Behind
    from truekeep.cli.why.check import Checked
    from truekeep.cli.why.find import Row, Search, Span
    from truekeep.cli.why.places import Place

EXIT_DOUBT = 1
MOST_FILES = 20_000
MOST_ROWS = 20  # that are told, unless --row names one


@dataclass(frozen=True)
class Told:
    """One captured row with all that stands behind it."""

    row: Row
    rows: int  # of its request, that were found
    behind: Behind
    checked: Checked
    ledger: Ledger


def why(
    request_id: Annotated[str, typer.Argument(help="The id that the answer carried.")],
    *,
    model: Annotated[str | None, typer.Option(help="The Model. Default: all of the namespace.")] = None,
    file: ModelFile = None,
    namespace: Namespace = None,
    store: StoreUri = None,
    captures: CapturesUri = None,
    endpoint: ModelEndpoint = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="About when it was asked (UTC), a day or a time: an hour around it is searched."
        ),
    ] = None,
    row: Annotated[
        int | None, typer.Option(min=0, help="Of a request of several rows: this one. The first is 0.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Files to search at most, the newest first.")] = MOST_FILES,
    artifact: Annotated[
        str | None, typer.Option(help="Digest of the artifact, where files older than 0.3 do not say it.")
    ] = None,
    hash_key_file: Annotated[
        list[Path] | None, typer.Option(help="HASH_KEY of the captures' hashes, to recompute with hashed categories.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text, json or html.")] = "text",
) -> None:
    """Show one decision: features as captured, score, cut-off, what each feature added, and the record behind it.

    The score is computed again from the artifact, and must be the captured one. Credentials come from AWS_ACCESS_KEY_ID
    and AWS_SECRET_ACCESS_KEY, or from where AWS's tools look; they need only list and get. Codes: 0, shown, and all of
    it holds; 1, not found, or something does not hold; 2, wrong input, or the store does not answer."""
    if output not in {"text", "json", "html"}:
        refuse(InputError(f"--output is {output!r}; it must be text, json or html"))
    from truekeep.cli.why import page, places, text
    from truekeep.storage.errors import StoreError
    from truekeep.storage.hash_key import HashKeyError, hash_key_of

    try:
        hash_keys = tuple(hash_key_of(path, str(path)) for path in hash_key_file or [])
        span = span_of(at)
        known = places.places(places.Asked(namespace, model, file, store, captures, endpoint))
        told: list[Told] = []
        missed: list[tuple[Place, list[str], Search]] = []
        for place, names, found in _searched(known, request_id, span, limit):
            missed.append((place, names, found))
            told += _explained(place, found, row, artifact, hash_keys)
        if not told:
            for words in _not_found(request_id, row, missed, span):
                typer.echo(f"truekeep: {words}", err=True)
            raise typer.Exit(EXIT_DOUBT)
    except (InputError, HashKeyError, StoreError) as error:
        refuse(error)
    notes = [words for place, _, found in missed for words in _notes(place, found, told)]
    if output == "json":
        typer.echo(json.dumps(text.as_json(told, notes), indent=2, ensure_ascii=False))
    elif output == "html":
        typer.echo(page.page(request_id, told, notes))
    else:
        typer.echo("\n\n".join("\n".join(text.lines(one)) for one in told))
        for words in notes:
            typer.echo(f"\n{words}")
    for words in text.doubts(told):
        typer.echo(f"truekeep: {words}", err=True)
    raise typer.Exit(EXIT_DOUBT if text.doubts(told) else 0)


def span_of(at: str | None) -> Span:
    """When it was received: a day, or an hour on either side of a time. InputError."""
    from truekeep.cli.why.find import Span

    asked = moment("--at", at)
    if at is None or asked is None:
        return Span()
    if re.fullmatch(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}", at):
        return Span(asked, asked + timedelta(days=1))
    return Span(asked - timedelta(hours=1), asked + timedelta(hours=1))


def _searched(known: list[Place], request_id: str, span: Span, limit: int) -> Iterator[tuple[Place, list[str], Search]]:
    """What each place has; of a place that names no Model, for each that captured something."""
    from truekeep.cli import stores
    from truekeep.cli.why import find, places

    for place in known:
        if place.captures is None:
            if len(known) == 1:
                raise places.not_captured(place)
            continue
        captures = stores.opened(place.captures)
        names = [place.model] if place.model else find.models(captures, place.namespace)
        yield (
            place,
            names,
            find.search(
                captures, place.namespace, names, request_id, span=span, most_files=limit,
                say=lambda words: typer.echo(words, err=True),
            ),
        )  # fmt: skip


def _explained(
    place: Place, found: Search, row: int | None, artifact: str | None, hash_keys: tuple[bytes, ...]
) -> list[Told]:
    from truekeep.cli import ledger
    from truekeep.cli.why import places
    from truekeep.cli.why.behind import Archive
    from truekeep.cli.why.check import check

    store = places.store_of(place)
    archive = Archive(store)
    ledgers: dict[str, Ledger] = {}
    told = []
    for rows in found.requests:
        chosen = [one for one in rows if row is None or one.row == row]
        for one in chosen[:MOST_ROWS]:
            if one.model not in ledgers:
                ledgers[one.model] = (
                    ledger.read(store, one.namespace, one.model).against(place.head).with_more(place.decisions)
                )
            behind = archive.behind(one, ledgers[one.model], artifact)
            told.append(Told(one, len(rows), behind, check(one, behind, hash_keys), ledgers[one.model]))
    return told


def _notes(place: Place, found: Search, told: list[Told]) -> Iterator[str]:
    """What else there is to say of a find."""
    from truekeep.cli import stores
    from truekeep.cli.why import find

    if len(found.requests) > 1:
        times = ", ".join(f"{rows[0].received:%Y-%m-%d %H:%M:%S}" for rows in found.requests)
        yield f"{len(found.requests)} requests had this id ({times} UTC): clients may use an id again."
    for rows in found.requests:
        numbers = {one.row for one in rows}
        if gone := sorted(set(range(max(numbers) + 1)) - numbers):
            first = rows[0]
            assert place.captures is not None
            erased = find.receipts_of(stores.opened(place.captures), first)
            by = f"; receipts that name its file: {', '.join(erased)}" if erased else ""
            yield f"Rows {', '.join(map(str, gone))} of the request are not there any more: they were erased{by}."
        if len(rows) > MOST_ROWS and len(told) >= MOST_ROWS:
            yield f"The request has {len(rows)} rows; the first {MOST_ROWS} are shown, --row N shows another."
    if found.unreadable:
        yield f"{len(found.unreadable)} files could not be searched, first: {found.unreadable[0]}"


def _not_found(
    request_id: str, row: int | None, missed: list[tuple[Place, list[str], Search]], span: Span
) -> Iterator[str]:
    """Why there may be nothing, in words, the surest reason first."""
    from truekeep.cli import stores
    from truekeep.cli.why import find
    from truekeep.contract.sampling import sampled

    for place, names, found in missed:
        whose = ", ".join(f"{place.namespace}/{name}" for name in names) or f"namespace {place.namespace}"
        if found.requests and row is not None:
            rows = max(one.row for one in found.requests[0]) + 1
            yield f"--row {row}: the request has {rows} row{'s' if rows > 1 else ''}, numbered from 0"
            continue
        when = ""
        if span.start and span.end:
            when = f", received from {span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M} UTC,"
        searched = f"the {found.files:,} capture files of {whose}{when} that were searched"
        yield f"no row of request {request_id!r} is in {searched}"
        if not found.complete and found.oldest:
            back = f"{found.oldest:%Y-%m-%d %H:%M} UTC"
            yield f"older files than of {back} were not searched: give --at TIME, or a larger --limit"
        if not found.files:
            yield "nothing was captured there, or all of it is older than retentionDays"
        percents = found.percents | ({place.percent} if place.percent is not None else set())
        for percent in sorted(percents - {100}):
            share = f"{percent} % of the requests are captured, chosen by id:"
            if sampled(request_id, percent):
                yield f"{share} this one is among them"
            else:
                yield f"{share} this one is NOT among them, and nothing was kept of it"
        assert place.captures is not None
        for name in names:
            for receipt in find.receipts(stores.opened(place.captures), place.namespace, name)[:5]:
                yield f"rows of {place.namespace}/{name} were erased; its row may be among them: {receipt}"
        if found.unreadable:
            yield f"{len(found.unreadable)} files could not be searched, first: {found.unreadable[0]}"
    yield (
        "rows appear spec.serving.capture.flushSeconds after the answer; rehearsals, and requests that failed, are not "
        "captured"
    )

"""`truekeep erase`: rows of persons who are to be forgotten, out of what was captured."""

from __future__ import annotations

import getpass
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from truekeep.cli import kube
from truekeep.cli.kube import Namespace, refuse
from truekeep.cli.stores import ModelEndpoint, own

if TYPE_CHECKING:
    from truekeep.api.common import S3Location
    from truekeep.cli.erasure import Account, Sought
    from truekeep.storage.s3 import Bucket

EXIT_INCOMPLETE = 1
MOST_KEYS = 1_000_000
SHOWN = 20  # files, in what is printed

NOT_REACHED = (
    "rows that serving pods still hold in memory or on disk: run the command again once spec.serving.capture."
    "flushSeconds have passed and truekeep_server_capture_spooled_rows is 0 in all pods",
    "what the model was trained on, its labels, and other copies of these: erase them at their source",
    "artifacts of revisions that were trained on them: their examples for the self-test are rows of training data "
    "(without the key); start a new run, then delete the old revisions' artifacts",
    "records/sha256/*.background.json in the store: up to 100 rows that judged a model (without the key), for truekeep "
    "why; they may be deleted, it then compares with the artifact's examples",
    "backups, exports and replicas of the bucket: they are somebody else's to erase",
)


def erase(
    model: Annotated[str, typer.Argument(help="Name of the Model.")],
    *,
    key: Annotated[list[str] | None, typer.Option(help="A key whose rows are to go, as clients sent it.")] = None,
    keys_file: Annotated[
        Path | None, typer.Option(help="A file with a key a line; - for standard input.", allow_dash=True)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without, what would be done is shown.")] = False,
    namespace: Namespace = None,
    captures: Annotated[
        str | None,
        typer.Option(help="spec.serving.capture.s3.uri. Default: asked of the cluster. Example: s3://lake/captures/."),
    ] = None,
    endpoint: ModelEndpoint = None,
    hash_key_file: Annotated[
        list[Path] | None,
        typer.Option(help="HASH_KEY of the Secret that the Model names, where it hashes its key; also former ones."),
    ] = None,
    reason: Annotated[str, typer.Option(help="For the receipt. Example: request 2026-17.")] = "",
) -> None:
    """Take the rows of some keys out of all that was captured of MODEL, and leave a receipt beside it.

    Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from where AWS's tools look; they must allow
    to list, get, put and delete. Codes: 0, done, or shown; 1, some files could not be searched or written; 2, wrong
    input, or the store does not answer."""
    from truekeep.cli.erasure import search
    from truekeep.storage.errors import StoreError
    from truekeep.storage.s3 import Bucket

    sought = _sought(key or [], keys_file, hash_key_file or [])
    by, namespace, location = _where(model, namespace, captures, endpoint)
    try:
        bucket = Bucket.open(location)
        begun = datetime.now(UTC)
        account = search(bucket, namespace, model, sought)
        _show(account, sought, f"{namespace}/{model}")
        if not yes:
            typer.echo("Nothing was changed. With --yes these rows are taken out.")
            raise typer.Exit(0 if account.complete else EXIT_INCOMPLETE)
        _carry_out(bucket, account, sought, begun=begun, namespace=namespace, model=model, by=by, reason=reason)
        _tell_the_rest(bucket.keeps_versions())
    except StoreError as error:
        refuse(str(error))
    raise typer.Exit(0 if account.complete else EXIT_INCOMPLETE)


def _carry_out(
    bucket: Bucket,
    account: Account,
    sought: Sought,
    *,
    begun: datetime,
    namespace: str,
    model: str,
    by: str,
    reason: str,
) -> None:
    """Erase, with a receipt that is there from the start, so that an interrupted run leaves a trace, too."""
    from truekeep.cli import erasure
    from truekeep.contract import layout

    salt = erasure.new_salt()
    key = layout.captures(namespace, model) + layout.erasure(begun, salt[:8])

    def record(state: str, ended: datetime | None) -> None:
        captures = bucket.uri(layout.captures(namespace, model))
        content = erasure.receipt(
            account, sought, namespace=namespace, model=model, captures=captures, state=state, begun=begun,
            ended=ended, by=by, reason=reason, salt=salt,
        )  # fmt: skip
        bucket.put(key, content)

    record("Begun", None)
    erasure.erase(bucket, account, sought, typer.echo)
    record("Done" if account.complete else "Incomplete", datetime.now(UTC))
    typer.echo(f"{account.erased} rows were taken out. The receipt: {bucket.uri(key)}")


def _sought(keys: list[str], keys_file: Path | None, hash_key_files: list[Path]) -> Sought:
    from truekeep.cli.erasure import Sought
    from truekeep.storage.hash_key import HashKeyError, hash_key_of

    try:
        if keys_file is not None:
            text = sys.stdin.read() if str(keys_file) == "-" else keys_file.read_text(encoding="utf-8")
            keys = [*keys, *(line for line in text.split("\n") if line.strip())]
        hash_keys = tuple(hash_key_of(path, str(path)) for path in hash_key_files)
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{keys_file}: {error}; give a text file with a key a line")
    except HashKeyError as error:
        refuse(str(error))
    keys = [each.removesuffix("\r") for each in keys]
    if not keys or not all(keys):
        refuse("no key was given, or an empty one; give --key VALUE, or --keys-file FILE with a key a line")
    if len(keys) > MOST_KEYS:
        refuse(f"{len(keys):,} keys were given; at most {MOST_KEYS:,} go at once: split the file")
    return Sought(tuple(dict.fromkeys(keys)), hash_keys)


def _where(
    model: str, namespace: str | None, captures: str | None, endpoint: str | None
) -> tuple[str, str, S3Location]:
    """Who asks, the namespace, and where the captures lie."""
    from pydantic import ValidationError

    from truekeep.api.common import S3Location

    if captures is not None:
        if namespace is None:
            refuse("with --captures, --namespace says in which namespace the Model is; give it")
        try:
            return getpass.getuser(), namespace, S3Location(uri=captures, endpoint=endpoint)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            option = "--captures" if first["loc"][0] == "uri" else "--endpoint"
            refuse(f"{option}: {first['msg']}; examples: s3://lake/captures/, http://127.0.0.1:7070")
    from truekeep.api.model import ModelSpec
    from truekeep.contract.requests import complete

    who = kube.person(namespace)
    spec = ModelSpec.model_validate(who.get("models", model)["spec"])
    if spec.serving.capture is None:
        refuse(f"Model {who.namespace}/{model} has no spec.serving.capture; give --captures with its former uri")
    return who.user(), who.namespace, own(complete(spec.serving.capture.s3, spec.store.s3), endpoint)


def _show(account: Account, sought: Sought, name: str) -> None:
    keys = "1 key" if len(sought.keys) == 1 else f"{len(sought.keys)} keys"
    typer.echo(f"{name}: {account.files} capture files were searched for {keys}; {account.rows} rows were found.")
    revisions = Counter[str]()
    for hit in account.hits:
        revisions[hit.info.key.split("/")[2]] += hit.rows
    for revision, rows in sorted(revisions.items()):
        typer.echo(f"  {revision}: {rows} rows in {sum(f'/{revision}/' in hit.info.key for hit in account.hits)} files")
    for hit in account.hits[:SHOWN]:
        done = "to be rewritten" if hit.kept else "to be deleted, no other row is in it"
        typer.echo(f"  {hit.info.key}: {hit.rows} rows, {done}")
    if len(account.hits) > SHOWN:
        typer.echo(f"  and {len(account.hits) - SHOWN} files more")
    if account.hashed:
        typer.echo(
            f"truekeep: {len(account.hashed)} files have their keys as hashes, and can't be searched without the key "
            "of these: give --hash-key-file (HASH_KEY of the Secret that spec.serving.capture.hashKeySecretRef names)",
            err=True,
        )
    for line in account.unreadable[:SHOWN]:
        typer.echo(f"truekeep: could not be searched: {line}", err=True)
    if len(account.unreadable) > SHOWN:
        typer.echo(f"truekeep: and {len(account.unreadable) - SHOWN} more could not be searched", err=True)


def _tell_the_rest(versions: bool | None) -> None:
    typer.echo("Not reached, and left to you:")
    older = "older versions of these objects, which the bucket keeps: delete the noncurrent versions of the files above"
    untold = "older versions of these objects, if the bucket keeps any (the store does not tell)"
    known = {True: (older,), None: (untold,), False: ()}[versions]
    for text in (*known, *NOT_REACHED):
        typer.echo(f"  - {text}")

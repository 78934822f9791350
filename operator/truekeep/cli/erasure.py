"""Taking the rows of some keys out of a Model's captures.

A file is written anew without the rows and replaces itself in one PUT, which S3 makes all at once: whoever reads finds
the file before or after it, and a run that was interrupted is simply begun again. A file that has no row left is
deleted. Files are read in batches of rows and of a few megabytes, whatever their size.
"""

from __future__ import annotations

import hmac
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json
from truekeep.contract.hashing import hashed
from truekeep.storage import ObjectMissing, StoreError
from truekeep.storage.s3 import Bucket, Fetched, ObjectInfo

KEY = "truekeep.key"
ARROW_SCHEMA = b"ARROW:schema"
BATCH_ROWS = 65_536
PIECE = 8 << 20  # bytes that are fetched, or held in memory, at a time
THREADS = 8
SCHEMA = "truekeep.dev/erasure-receipt/v1"


class Ranged(Protocol):
    """Where a capture file lies: a bucket, or a folder."""

    def fetch(self, key: str, *, span: tuple[int, int] | None = None) -> Fetched:
        """So many bytes (length) from so many on (offset). ObjectMissing."""


class NoHashKeyError(Exception):
    """A file has its keys as hashes, and no key of the hashes was given."""


@dataclass(frozen=True)
class Sought:
    """What is to be erased: the keys as clients sent them, and the keys of the hashes, old ones included."""

    keys: tuple[str, ...]
    hash_keys: tuple[bytes, ...] = ()

    def texts(self, column: str | None) -> pa.Array[Any]:
        """Under which texts the keys are stored in a file that hashes them as this column; None: that does not.
        NoHashKeyError."""
        if column is None:
            return pa.array(self.keys, pa.string())
        if not self.hash_keys:
            raise NoHashKeyError
        return pa.array([hashed(key, column, value) for key in self.hash_keys for value in self.keys], pa.string())


@dataclass(frozen=True)
class Hit:
    """A file with rows to take out."""

    info: ObjectInfo
    rows: int  # to take out
    kept: int


@dataclass
class Account:
    """What was found, and what was done about it."""

    files: int = 0  # that were looked into
    hits: list[Hit] = field(default_factory=list)
    hashed: list[str] = field(default_factory=list)  # could not be searched without the key of the hashes
    unreadable: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # "key: why"; still have the rows
    rewritten: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    erased: int = 0  # rows

    @property
    def rows(self) -> int:
        """Rows that were found."""
        return sum(hit.rows for hit in self.hits)

    @property
    def complete(self) -> bool:
        """Whether every file could be searched, and rewritten where it had to be."""
        return not (self.hashed or self.unreadable or self.failed)


def search(bucket: Bucket, namespace: str, model: str, sought: Sought) -> Account:
    """Find the rows, in all revisions and hours. StoreError where the store does not answer."""
    account = Account()
    listed = bucket.list(layout.captures(namespace, model))
    files = (info for info in listed if layout.parse_capture_file(info.key) is not None)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="search") as pool:
        while group := list(islice(files, 10 * THREADS)):
            for info, found in zip(group, pool.map(lambda info: _look(bucket, info, sought), group), strict=True):
                account.files += 1
                if isinstance(found, NoHashKeyError):
                    account.hashed.append(info.key)
                elif isinstance(found, Exception):
                    account.unreadable.append(f"{info.key}: {' '.join(str(found).split())[:200]}")
                elif found is not None:
                    account.hits.append(found)
    return account


def erase(bucket: Bucket, account: Account, sought: Sought, say: Callable[[str], None]) -> None:
    """Take out what was found. A file that can't be written is noted, and the others are gone on with."""
    for hit in account.hits:
        key = hit.info.key
        try:
            if hit.kept:
                with opened(bucket, hit.info) as file, tempfile.TemporaryFile() as written:
                    erased = _copy(file, written, sought)
                    bucket.put(key, written)
                account.rewritten.append(key)
            else:
                bucket.delete(key)
                erased = hit.rows
                account.deleted.append(key)
        except (StoreError, pa.ArrowException, OSError, NoHashKeyError) as error:
            account.failed.append(f"{key}: {' '.join(str(error).split())[:200]}")
            say(f"failed   {account.failed[-1]}")
            continue
        account.erased += erased
        say(f"{'rewrote' if hit.kept else 'deleted'}  {key}: {erased} rows")


def receipt(
    account: Account,
    sought: Sought,
    *,
    namespace: str,
    model: str,
    captures: str,
    state: str,
    begun: datetime,
    ended: datetime | None,
    by: str,
    reason: str,
    salt: str,
) -> bytes:
    """The record of an erasure, as canonical JSON. No key is in it but as HMAC-SHA256 of salt and key, with the key of
    the hashes where one was given: whoever knows a key can tell that it was among them. (Without a key of the hashes,
    short keys can be guessed from it.)"""
    return canonical_json(
        {
            "schema": SCHEMA,
            "namespace": namespace,
            "model": model,
            "captures": captures,
            "state": state,
            "begun": f"{begun:%Y-%m-%dT%H:%M:%SZ}",
            **({"ended": f"{ended:%Y-%m-%dT%H:%M:%SZ}"} if ended else {}),
            "by": by,
            "reason": reason,
            "keys": {"salt": salt, "hmacSha256": sorted(_digest(salt, sought, key) for key in sought.keys)},
            "filesSearched": account.files,
            "rowsFound": account.rows,
            "rowsErased": account.erased,
            "rewritten": account.rewritten,
            "deleted": account.deleted,
            "failed": account.failed,
            "unreadable": account.unreadable,
            "hashedWithoutKey": account.hashed,
        }
    )


def new_salt() -> str:
    """For a receipt."""
    return secrets.token_hex(16)


def _digest(salt: str, sought: Sought, key: str) -> str:
    secret = sought.hash_keys[0] if sought.hash_keys else b""
    return hmac.digest(secret, f"{salt}={key}".encode("utf-8", "surrogatepass"), "sha256").hex()


def _look(bucket: Bucket, info: ObjectInfo, sought: Sought) -> Hit | Exception | None:
    """What is to be taken out of a file; None: nothing. An error that is about this file alone is the answer; a store
    that does not answer is none."""
    try:
        with opened(bucket, info) as file:
            found = rows = 0
            for batch in _batches(file, [KEY]):
                rows += batch.num_rows
                found += batch.num_rows - _kept(batch, _texts(file, sought)).num_rows
    except ObjectMissing:  # retention was quicker
        return None
    except (NoHashKeyError, pa.ArrowException, ValueError, KeyError, OSError) as error:
        return error
    return Hit(info, found, rows - found) if found else None


def _copy(file: pq.ParquetFile, written: IO[bytes], sought: Sought) -> int:
    """Write the file without the rows; how many these were."""
    texts, erased = _texts(file, sought), 0
    schema = file.schema_arrow
    said: Any = {name: value for name, value in (file.metadata.metadata or {}).items() if name != ARROW_SCHEMA}
    stored = ARROW_SCHEMA in (file.metadata.metadata or {})
    names: Any = [each.name for each in schema if pa.types.is_string(each.type)]
    with pq.ParquetWriter(written, schema, compression="zstd", use_dictionary=names, store_schema=stored) as writer:
        for batch in _batches(file, schema.names):
            kept = _kept(batch, texts)
            erased += batch.num_rows - kept.num_rows
            if kept.num_rows:
                writer.write_batch(kept)
        if said and not stored:  # else Arrow writes it with the schema
            writer.add_key_value_metadata(said)
    return erased


def _texts(file: pq.ParquetFile, sought: Sought) -> pa.Array[Any]:
    """What to look for in a file. It says itself whether its keys are hashes, and under which column's name: a name
    that it has no column of, because the key's is always `truekeep.key`."""
    said = (file.metadata.metadata or {}).get(layout.HASHED_COLUMNS.encode(), b"").decode("utf-8", "replace")
    columns = set(said.split(",")) - {"", *file.schema_arrow.names}
    return sought.texts(next(iter(columns), None))


def _kept(batch: pa.RecordBatch, texts: pa.Array[Any]) -> pa.RecordBatch:
    """The rows whose key is not among the texts."""
    keys = batch.column(KEY)
    if not pa.types.is_string(keys.type):
        keys = keys.cast(pa.string())
    return batch.filter(pc.invert(pc.is_in(keys, value_set=texts)))


def _batches(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    if KEY not in file.schema_arrow.names:
        raise ValueError(f"has no column {KEY}")
    yield from file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns), use_threads=False)


@contextmanager
def opened(bucket: Ranged, info: ObjectInfo) -> Iterator[pq.ParquetFile]:
    """The object as a Parquet file; a large one by way of a file on disk that has no name."""
    with tempfile.SpooledTemporaryFile(max_size=PIECE) as content:
        etag = ""
        for offset in range(0, info.size, PIECE):
            part = bucket.fetch(info.key, span=(offset, min(PIECE, info.size - offset)))
            if etag not in ("", part.etag):
                raise ValueError("it was changed while it was read; run the command again")
            etag = part.etag
            content.write(part.data)
        content.seek(0)
        with pq.ParquetFile(content, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file

"""Objects of a source as bytes: listed within bounds, fetched ahead, and pinned by what names exactly what was read.

A small object is held in memory, a large one in a file of /tmp, which is fetched piece by piece; so that memory does
not depend on how large an object is.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from truekeep.sources.errors import Changed, SourceInvalid, TooLarge
from truekeep.storage.errors import StoreUnreachable
from truekeep.storage.s3 import Fetched, ObjectInfo

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.zst")
MOST_FILES = 100_000  # of data in one source
MOST_LISTED = 1_000_000  # of any kind
AHEAD = 8  # objects that are fetched while others are decoded
AHEAD_BYTES = 256 << 20
SPOOLED_FROM = 64 << 20  # bytes: from here an object goes to a file
PIECE = 16 << 20
LARGEST = 3 << 30  # bytes of one object; a pod's /tmp holds 4 GiB
GIB = 1 << 30
SHA256, MD5 = "sha256:", "md5:"
MD5_OR_LF = "md5-or-lf:"  # the MD5 of the bytes, or of these with every CRLF as LF


class Objects(Protocol):
    """Where objects come from: a bucket, a volume, or anything else that lists and fetches."""

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]: ...
    def fetch(
        self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None
    ) -> Fetched: ...  # `span`: offset and length
    def uri(self, key: str = "") -> str: ...


@dataclass(frozen=True)
class Content:
    """One object: its bytes, or the file that holds them, and what names exactly this content."""

    held: bytes | Path
    size: int
    etag: str
    version_id: str | None
    sha256: str

    def open(self) -> Any:
        """A file of Arrow's, to read from its start."""
        return pa.BufferReader(self.held) if isinstance(self.held, bytes) else pa.OSFile(str(self.held), "rb")

    def drop(self) -> None:
        """Give the room back."""
        if isinstance(self.held, Path):
            self.held.unlink(missing_ok=True)


def is_data(key: str) -> bool:
    """Data by suffix; names that begin with a dot or an underscore are marks of other tools."""
    return key.endswith(SUFFIXES) and not key.rsplit("/", 1)[-1].startswith((".", "_"))


def data_files(objects: Objects) -> list[ObjectInfo]:
    """All of its files of data, by key. TooLarge where there are too many to be read one by one, or to be listed."""
    found: list[ObjectInfo] = []
    for number, info in enumerate(objects.list(), 1):
        if is_data(info.key):
            found.append(info)
            if info.size > LARGEST:
                raise TooLarge(
                    f"{objects.uri(info.key)} has {info.size / GIB:.1f} GiB, at most {LARGEST // GIB} GiB are read as "
                    "one file; write it as several"
                )
        if len(found) > MOST_FILES or number > MOST_LISTED:
            what = f"{MOST_FILES:,} files of data" if len(found) > MOST_FILES else f"{MOST_LISTED:,} objects"
            raise TooLarge(
                f"more than {what} lie below {objects.uri()}; bring them together into larger files, or name a "
                "narrower prefix"
            )
    return found


def contents(objects: Objects, infos: Iterator[ObjectInfo]) -> Iterator[tuple[ObjectInfo, Content]]:
    """The objects in the given order, some fetched ahead. Each one's room is given back when the next is asked for."""
    waiting: deque[tuple[ObjectInfo, Future[Content]]] = deque()
    held = 0
    upcoming = next(infos, None)
    with tempfile.TemporaryDirectory(prefix="truekeep-read-") as folder, _pool() as pool:
        spool = Path(folder)
        try:
            while waiting or upcoming:
                while upcoming and len(waiting) < AHEAD and (not held or held + upcoming.size <= AHEAD_BYTES):
                    waiting.append((upcoming, pool.submit(_checked, objects, upcoming, spool)))
                    held += upcoming.size
                    upcoming = next(infos, None)
                info, future = waiting.popleft()
                content = future.result()
                yield info, content
                content.drop()
                held -= info.size
        finally:
            for _, future in waiting:
                future.cancel()


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")


def _checked(objects: Objects, info: ObjectInfo, spool: Path) -> Content:
    content = _content(objects, info, spool)
    if info.must is None or _is(content, info.must):
        return content
    content.drop()
    if info.must.startswith(SHA256):
        raise Changed(f"{objects.uri(info.key)} was pinned with {info.must}, now it has {content.sha256}")
    wanted = info.must.rpartition(":")[2]
    raise SourceInvalid(
        f"{objects.uri(info.key)} has not the MD5 {wanted} that was declared: what lies there was altered or damaged; "
        "write it again (dvc push), or declare the right MD5"
    )


def _is(content: Content, must: str) -> bool:
    """Whether the bytes are those that a digest names."""
    if must.startswith(SHA256):
        return content.sha256 == must
    kind, _, wanted = must.rpartition(":")
    plain, lines = (hashlib.md5(usedforsecurity=False) for _ in range(2))
    with content.open() as file:
        carried = b""
        while block := bytes(file.read(PIECE)):
            plain.update(block)
            text = carried + block
            carried = b"\r" if text.endswith(b"\r") else b""
            lines.update(text.removesuffix(carried).replace(b"\r\n", b"\n"))
        lines.update(carried)
    return wanted in ([plain.hexdigest(), lines.hexdigest()] if kind + ":" == MD5_OR_LF else [plain.hexdigest()])


def _content(objects: Objects, info: ObjectInfo, spool: Path) -> Content:
    if info.size > SPOOLED_FROM:
        return _spooled(objects, info, spool)
    fetched = objects.fetch(info.key)
    digest = f"sha256:{hashlib.sha256(fetched.data).hexdigest()}"
    return Content(fetched.data, len(fetched.data), fetched.etag, fetched.version_id, digest)


def _spooled(objects: Objects, info: ObjectInfo, spool: Path) -> Content:
    """The object in a file. StoreUnreachable, so that it is tried again, where it is replaced meanwhile."""
    digest, size = hashlib.sha256(), 0
    first: Fetched | None = None
    descriptor, name = tempfile.mkstemp(dir=spool)
    with open(descriptor, "wb") as file:
        for offset in range(0, info.size, PIECE):
            span = offset, min(PIECE, info.size - offset)
            piece = objects.fetch(info.key, first.version_id if first else None, span=span)
            first = first or Fetched(b"", piece.etag, piece.version_id)
            size += len(piece.data)
            if piece.etag != first.etag or size != offset + span[1]:
                raise StoreUnreachable(f"{objects.uri(info.key)} was replaced while it was read; it is tried again")
            digest.update(piece.data)
            file.write(piece.data)
    assert first is not None
    return Content(Path(name), size, first.etag, first.version_id, f"sha256:{digest.hexdigest()}")

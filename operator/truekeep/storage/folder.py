"""A folder of this machine, read and written by keys as a bucket is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from truekeep.storage.errors import ObjectMissing, ObjectTooLarge, StoreUnreachable
from truekeep.storage.s3 import Fetched, ObjectInfo


class Folder:
    """What lies below a folder. Keys are relative to it, with slashes."""

    endpoint = "this machine"

    def __init__(self, path: Path) -> None:
        self.path = path

    def uri(self, key: str = "") -> str:
        """The key's path."""
        return str(self.path / key)

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Files below `prefix`, in the order of their keys. StoreUnreachable where the folder can't be read."""
        try:
            below = self.path / prefix.rpartition("/")[0]
            paths = {path.relative_to(self.path).as_posix(): path for path in below.rglob("*") if path.is_file()}
            for key in sorted(paths):
                if key.startswith(prefix) and (start_after is None or key > start_after):
                    seen = paths[key].stat()
                    changed = datetime.fromtimestamp(seen.st_mtime, UTC)
                    yield ObjectInfo(key, seen.st_size, f"{seen.st_size}-{seen.st_mtime_ns}", None, changed)
        except OSError as error:
            raise StoreUnreachable(f"could not list {self.path}: {error.strerror or error}") from error

    def get(self, key: str, version_id: str | None = None) -> bytes:
        """The file's bytes. ObjectMissing where there is none."""
        return self.fetch(key).data

    def fetch(
        self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None, limit: int | None = None
    ) -> Fetched:
        """The file's bytes; only `span` (offset, length) of them where it is given. ObjectMissing where there is none,
        ObjectTooLarge where it has more than `limit` bytes, StoreUnreachable where it can't be read."""
        try:
            with (self.path / key).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if limit is not None and size > limit:
                    raise ObjectTooLarge(f"{self.uri(key)} has {size} bytes, at most {limit} are allowed")
                offset, length = span or (0, size)
                file.seek(offset)
                return Fetched(file.read(length), etag="", version_id=None)
        except FileNotFoundError as error:
            raise ObjectMissing(f"{self.uri(key)}: there is no such file") from error
        except OSError as error:
            raise StoreUnreachable(f"could not get {self.uri(key)}: {error.strerror or error}") from error

    def put(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        """Write the file; whoever reads it meanwhile finds all of it or nothing. With `only_if_absent`: False, and
        nothing is written, where there is one already. StoreUnreachable where writing fails."""
        path = self.path / key
        if only_if_absent and path.exists():
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                os.replace(name, path)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreUnreachable(f"could not put {self.uri(key)}: {error.strerror or error}") from error
        return True

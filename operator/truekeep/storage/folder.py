"""A folder of this machine, read and written by keys as a bucket is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from truekeep.storage.errors import ObjectMissing, ObjectTooLarge, StoreUnreachable
from truekeep.storage.s3 import Fetched


class Folder:
    """What lies below a folder. Keys are relative to it, with slashes."""

    endpoint = "this machine"

    def __init__(self, path: Path) -> None:
        self.path = path

    def uri(self, key: str = "") -> str:
        """The key's path."""
        return str(self.path / key)

    def fetch(self, key: str, *, limit: int | None = None) -> Fetched:
        """The file's bytes. ObjectMissing where there is none, ObjectTooLarge where it has more than `limit` bytes,
        StoreUnreachable where it can't be read."""
        try:
            with (self.path / key).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if limit is not None and size > limit:
                    raise ObjectTooLarge(f"{self.uri(key)} has {size} bytes, at most {limit} are allowed")
                return Fetched(file.read(size), etag="", version_id=None)
        except FileNotFoundError as error:
            raise ObjectMissing(f"{self.uri(key)}: there is no such file") from error
        except OSError as error:
            raise StoreUnreachable(f"could not get {self.uri(key)}: {error.strerror or error}") from error

    def put(self, key: str, data: bytes) -> None:
        """Write the file; whoever reads it meanwhile finds all of it or nothing. StoreUnreachable where that fails."""
        path = self.path / key
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

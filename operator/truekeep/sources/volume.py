"""Files of a PersistentVolumeClaim that is mounted read-only. Nothing outside of the volume is ever opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from truekeep.api.common import VolumeLocation
from truekeep.contract.requests import DEFAULT_VOLUMES_DIR, VOLUMES_DIR_ENV
from truekeep.sources.errors import SourceInvalid
from truekeep.storage.errors import ObjectMissing, StoreDenied, StoreUnreachable
from truekeep.storage.s3 import Fetched, ObjectInfo


class Volume:
    """What lies below a folder of a volume. A file's ETag is its size and time of change.

    A symbolic link that stays within the volume is followed, one to a folder only where it is the location's own path;
    one that leads out of it is refused with SourceInvalid."""

    def __init__(self, root: Path, location: VolumeLocation) -> None:
        self._root = root.resolve()
        self._location = location
        self._path = root / location.path

    @classmethod
    def open(cls, location: VolumeLocation) -> Volume:
        """The volume, where the kubelet mounts it. Nothing is read yet."""
        return cls(Path(os.environ.get(VOLUMES_DIR_ENV, DEFAULT_VOLUMES_DIR)) / location.claim_name, location)

    def uri(self, key: str = "") -> str:
        """Example: pvc://flights/2013/a.parquet."""
        return self._location.uri + key

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Files below `prefix`, in the order of their keys. StoreDenied or StoreUnreachable where it can't be read,
        SourceInvalid where there is no such folder, or a link leads out of the volume."""
        self._confined(self._path, "")
        if not self._path.is_dir():
            raise SourceInvalid(
                f"there is no folder {self._location.path or '.'} in the volume of claim {self._location.claim_name}; "
                "correct path, or write it first"
            )
        found: list[tuple[str, str]] = []
        for folder, folders, files in os.walk(self._path, onerror=self._failed):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inner = Path(folder).relative_to(self._path)
            found += [((inner / name).as_posix(), os.path.join(folder, name)) for name in files]
        for key, path in sorted(found):
            if key.startswith(prefix) and (start_after is None or key > start_after):
                self._confined(Path(path), key)
                try:
                    seen = os.stat(path)
                except OSError as error:
                    raise self._fault(key, error) from error
                if stat.S_ISREG(seen.st_mode):
                    changed = datetime.fromtimestamp(seen.st_mtime, UTC)
                    yield ObjectInfo(key, seen.st_size, _etag(seen), None, changed)

    def fetch(self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None) -> Fetched:
        """The file's bytes; only `span` (offset, length) of them where it is given. ObjectMissing, StoreDenied,
        StoreUnreachable; SourceInvalid where it is not in the volume."""
        try:
            # Without waiting, lest somebody put a pipe there that nobody writes to.
            descriptor = os.open(self._path / key, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                seen = os.fstat(descriptor)
                # What was opened, not what its name says by now.
                self._confined(Path(f"/proc/self/fd/{descriptor}"), key)
                if not stat.S_ISREG(seen.st_mode):
                    raise SourceInvalid(f"{self.uri(key)} is no file; move it away")
                offset, length = span or (0, seen.st_size)
                file.seek(offset)
                return Fetched(file.read(length), _etag(seen), None)
        except OSError as error:
            raise self._fault(key, error) from error

    def _confined(self, path: Path, key: str) -> None:
        try:
            real = path.resolve()
        except (OSError, RuntimeError) as error:
            raise SourceInvalid(f"{self.uri(key)} is a link that leads nowhere: {error}; remove it") from error
        if real != self._root and self._root not in real.parents:
            raise SourceInvalid(
                f"{self.uri(key)} is a link that leads out of the volume; put the file itself there, or remove the link"
            )

    def _failed(self, error: OSError) -> None:
        raise self._fault("", error)

    def _fault(self, key: str, error: OSError) -> Exception:
        path = error.filename or self.uri(key)
        said = f"could not read {path} of claim {self._location.claim_name}: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            return ObjectMissing(f"{self.uri(key)}: there is no such file")
        if isinstance(error, PermissionError):
            return StoreDenied(f"{said}; a volume is mounted as it is: let user {os.getuid()} read it (chmod -R a+rX)")
        return StoreUnreachable(f"{said}; is the volume well?")


def _etag(seen: os.stat_result) -> str:
    return f"{seen.st_size}-{seen.st_mtime_ns}"

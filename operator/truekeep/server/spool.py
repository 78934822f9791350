"""Files that wait for the store, on a disk that survives a restart of the container: bounded, and never half a file.

A file is written beside its place, forced to the disk, and renamed; so what bears its final name is whole, whatever
ended the process. Its name says its key in the store and how many rows it has, so that a process that finds it later
uploads it under the same key, which overwrites what an earlier, unanswered try may have left there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from truekeep.contract.requests import DEFAULT_SPOOL_DIR, SPOOL_DIR_ENV
from truekeep.server.logs import fields, log

BLOCK = 4096  # bytes; a file takes whole blocks
_PART = ".part"


@dataclass(frozen=True)
class Spooled:
    """A file that waits. `size`: bytes that it takes on the disk."""

    key: str
    rows: int
    size: int
    path: Path


class Spool:
    """The files that wait, the oldest first. One process has one; its methods may be called from any thread."""

    def __init__(self, folder: Path, limit: int) -> None:
        """OSError where the folder can't be read or written."""
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._files: dict[str, Spooled] = {}
        self._broken = False
        found = []
        for path in folder.iterdir():
            if path.suffix == _PART:
                path.unlink()  # the process ended while it wrote; it was never counted as kept
            elif spooled := _spooled(path):
                found.append((path.stat().st_mtime_ns, spooled))
        for _, spooled in sorted(found, key=lambda each: (each[0], each[1].key)):
            self._files[spooled.key] = spooled
        _force(folder)

    @property
    def rows(self) -> int:
        """Rows that wait."""
        with self._lock:
            return sum(each.rows for each in self._files.values())

    @property
    def size(self) -> int:
        """Bytes that the files take."""
        with self._lock:
            return sum(each.size for each in self._files.values())

    def add(self, key: str, content: bytes, rows: int) -> bool:
        """Keep a file. False where there is no room for it, or the disk refuses it: then nothing is kept."""
        path = self._folder / f"{rows}~{quote(key, safe='')}"
        size = -(-len(content) // BLOCK) * BLOCK
        if self.size + size > self._limit:
            return False
        part = path.with_name(path.name + _PART)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            _force(self._folder)
        except OSError as error:
            self._complain(error)
            with suppress(OSError):
                part.unlink(missing_ok=True)
            return False
        self._broken = False
        with self._lock:
            self._files[key] = Spooled(key, rows, size, path)
        return True

    def oldest(self) -> Spooled | None:
        """The file that has waited longest; None where none does."""
        with self._lock:
            return next(iter(self._files.values()), None)

    def remove(self, spooled: Spooled) -> None:
        """Forget a file that is in the store now."""
        with self._lock:
            self._files.pop(spooled.key, None)
        try:
            spooled.path.unlink(missing_ok=True)
        except OSError as error:  # it is uploaded once more after a restart, over itself
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            log.warning("the spool can't be written", extra=fields(folder=str(self._folder), reason=str(error)))


def open_spool(mebibytes: int, environment: Mapping[str, str] = os.environ) -> Spool | None:
    """The spool, with what an earlier process left in it. None where none is wanted, or there is no folder for it."""
    folder = Path(environment.get(SPOOL_DIR_ENV, DEFAULT_SPOOL_DIR))
    if mebibytes == 0 or not folder.is_dir():
        return None
    try:
        return Spool(folder, mebibytes << 20)
    except OSError as error:
        log.warning("there is no spool", extra=fields(folder=str(folder), reason=str(error)))
        return None


def _spooled(path: Path) -> Spooled | None:
    rows, mark, key = path.name.partition("~")
    if not mark or not rows.isdecimal() or not path.is_file():
        return None
    size = -(-path.stat().st_size // BLOCK) * BLOCK
    return Spooled(unquote(key), int(rows), size, path)


def _force(folder: Path) -> None:
    """Have the names in a folder written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

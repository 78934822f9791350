from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from truekeep.cli.examples import flights, world
from truekeep.storage.errors import ObjectMissing
from truekeep.storage.s3 import ObjectInfo

EXTRACT = Path(__file__).parent / "extract"
BEGINS = datetime(2013, 3, 1, tzinfo=UTC)


class FolderBucket:
    """A bucket that is a folder: what the replay needs of one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writes: list[str] = []

    def get(self, key: str) -> bytes:
        path = self.folder / key
        if not path.is_file():
            raise ObjectMissing(key)
        return path.read_bytes()

    def put(self, key: str, data: bytes) -> bool:
        self.writes.append(key)
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        now = datetime.now(UTC)
        for path in sorted(self.folder.rglob("*.parquet")):
            key = path.relative_to(self.folder).as_posix()
            if key.startswith(prefix):
                yield ObjectInfo(key, path.stat().st_size, "", None, now)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The extract (26 February to 3 March 2013), made ready as the real set is."""
    world.write(world.FLIGHT_DELAY, flights.tables(EXTRACT), tmp_path, BEGINS)
    return tmp_path


@pytest.fixture
def buckets(prepared: Path) -> tuple[FolderBucket, FolderBucket]:
    """The future, and the lake."""
    return FolderBucket(prepared / world.FUTURE), FolderBucket(prepared / world.LAKE)

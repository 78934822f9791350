"""A window that is more than one pod can count: each pod of an Indexed Job counts its share of the files, and whoever
finds all parts there puts them together. Counts add up, so the result is that of one pod.

A pod writes its part before it looks for the others', so that the last one to write finds all. Two that are last at
once both judge, and the first report holds, as ever. Parts of one window must have seen the same files: where a file
came in between, the parts do not fit, and the next look counts anew.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from truekeep.api.common import Schema
from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json, digest_of
from truekeep.monitor.captures import CaptureFile, Skipped
from truekeep.profiling.build import WindowSketch
from truekeep.profiling.schema import Profile
from truekeep.storage import ObjectMissing
from truekeep.storage.s3 import Bucket

INDEX_ENV = "JOB_COMPLETION_INDEX"  # Kubernetes sets it in the pods of an Indexed Job


@dataclass(frozen=True)
class Shard:
    """Which share of the files this pod counts."""

    index: int
    of: int

    def mine(self, files: Sequence[CaptureFile]) -> list[CaptureFile]:
        """Those of the files; each belongs to one shard, by its name alone."""
        return [file for file in files if zlib.crc32(file.key.encode()) % self.of == self.index]


class Part(Schema):
    """What one pod counted of a window."""

    schema_: Literal["truekeep.dev/window-part/v1"] = Field(default="truekeep.dev/window-part/v1", alias="schema")
    files: str  # digest of all files of the window, this pod's and others'
    profile: Profile
    skipped: tuple[str, ...] = ()
    skipped_files: tuple[str, ...] = ()


def shard_of(shards: int) -> Shard | None:
    """This pod's, as Kubernetes says; None where there is one pod only."""
    return Shard(int(os.environ.get(INDEX_ENV, "0")), shards) if shards > 1 else None


def write(
    store: Bucket, report: str, shard: Shard, files: Sequence[CaptureFile], profile: Profile, skipped: Skipped
) -> None:
    """This pod's part of the window whose report has the key `report`. `files`: all of the window's."""
    part = Part(
        files=_digest(files), profile=profile, skipped=tuple(skipped.reasons), skipped_files=tuple(sorted(skipped.keys))
    )
    store.put(_key(report, shard.index, shard.of), canonical_json(part.dump()))


def gather(
    store: Bucket, report: str, of: int, files: Sequence[CaptureFile], reference: Profile, *, together: bool
) -> tuple[Profile, Skipped] | None:
    """The whole window, and the files that nobody could read; None while a part is missing or saw other files."""
    parts = [_read(store, _key(report, index, of)) for index in range(of)]
    wanted = _digest(files)
    whole = WindowSketch(reference, together=together)
    skipped = Skipped()
    for part in parts:
        if part is None or part.files != wanted:
            return None
        whole.merge(WindowSketch.of(part.profile, whole))
        skipped.keys |= set(part.skipped_files)
        skipped.reasons += part.skipped
    return whole.profile(), skipped


def clean(store: Bucket, report: str, of: int) -> None:
    """The parts are no longer needed."""
    for index in range(of):
        store.delete(_key(report, index, of))


def _key(report: str, index: int, of: int) -> str:
    return layout.beside(report, f".part-{index}-of-{of}.json")


def _digest(files: Sequence[CaptureFile]) -> str:
    return digest_of([[file.key, file.size] for file in files])


def _read(store: Bucket, key: str) -> Part | None:
    try:
        return Part.model_validate_json(store.get(key))
    except (ObjectMissing, ValidationError):
        return None

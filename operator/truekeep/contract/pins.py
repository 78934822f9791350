"""Pins as they are written down, so that all pods of a run read the same objects."""

from __future__ import annotations

from truekeep.api.common import Schema


class PinnedObject(Schema):
    """One object as the first pod of a run read it."""

    source: str
    uri: str
    version_id: str | None = None
    etag: str
    size: int
    sha256: str
    rows: int

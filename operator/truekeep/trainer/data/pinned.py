"""Reading again exactly what was read before: the objects that were pinned, and no others.

A run of several pods reads its data more than once, while others write to the prefix: what came since is not seen, and
an object that is another one now is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from truekeep.contract.pins import PinnedObject
from truekeep.sources.places import Opened
from truekeep.sources.read import Objects, Pin
from truekeep.storage.errors import ObjectMissing
from truekeep.storage.s3 import Fetched, ObjectInfo
from truekeep.trainer.faults import DataChanged
from truekeep.trainer.text import EPOCH

REMEDY = "put it back, or let the model be trained again; a bucket with versions keeps what was there"


def pinned(opened: Opened, pins: Sequence[Pin]) -> Opened:
    """`opened`, where only these objects are seen, each in the version and with the bytes that its pin says.

    Reading raises DataChanged for an object that is gone, or another one."""
    by_uri = {pin.uri: pin for pin in pins}
    return lambda location: _Pinned(opened(location), by_uri)


def written(pins: Sequence[Pin]) -> list[PinnedObject]:
    """Pins as they are written down for other pods of the run."""
    return [PinnedObject(**asdict(pin)) for pin in pins]


def read_back(objects: Sequence[PinnedObject]) -> tuple[Pin, ...]:
    """And back."""
    return tuple(Pin(**one.model_dump()) for one in objects)


class _Pinned:
    def __init__(self, inner: Objects, pins: Mapping[str, Pin]) -> None:
        self._inner = inner
        self._pins = pins

    def uri(self, key: str = "") -> str:
        return self._inner.uri(key)

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        root = f"{self.uri().rstrip('/')}/"
        keys = sorted(uri.removeprefix(root) for uri in self._pins if uri.startswith(root))
        for key in keys:
            if key.startswith(prefix) and (start_after is None or key > start_after):
                pin = self._pins[self.uri(key)]
                yield ObjectInfo(key, pin.size, pin.etag, pin.version_id, EPOCH, pin.sha256)

    def fetch(self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None) -> Fetched:
        pin = self._pins[self.uri(key)]
        try:
            fetched = self._inner.fetch(key, pin.version_id, span=span)
        except ObjectMissing as error:
            raise DataChanged(f"{pin.uri} was read when the run began, and is gone now; {REMEDY}") from error
        if span is not None:  # whoever reads it piece by piece compares the sha256 of the listing
            return fetched
        found = f"sha256:{hashlib.sha256(fetched.data).hexdigest()}"
        if found != pin.sha256:
            raise DataChanged(f"{pin.uri} was read with {pin.sha256} when the run began, now it has {found}; {REMEDY}")
        return fetched

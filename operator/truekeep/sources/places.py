"""Opening a place where rows lie, in a pod: a prefix of a bucket, a mounted volume, or an output of DVC in a bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, overload

from truekeep.api.common import DvcOutput, Place, S3Location, VolumeLocation
from truekeep.sources.dvc import Dvc
from truekeep.sources.objects import Objects
from truekeep.sources.volume import Volume
from truekeep.storage.artifacts import Store
from truekeep.storage.s3 import Bucket

Opened = Callable[[Place], Objects]


class Opener(Protocol):
    """Opens a place to read rows, and a location in S3 as a store too."""

    @overload
    def __call__(self, place: S3Location) -> Store: ...
    @overload
    def __call__(self, place: Place) -> Objects: ...


def opener(bucket: Callable[[S3Location], Store], volume: Callable[[VolumeLocation], Objects] = Volume.open) -> Opener:
    """An opener of places, where a location in S3 is opened by `bucket`."""

    def opened(place: Place) -> Any:
        if isinstance(place, VolumeLocation):
            return volume(place)
        if isinstance(place, DvcOutput):
            return Dvc(bucket(place.remote), place)
        return bucket(place)

    return opened


in_pod: Opener = opener(Bucket.open)

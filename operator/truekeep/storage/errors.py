"""What can go wrong with the store. Every text names endpoint, bucket, key where there is one, and a remedy."""

# ruff: noqa: N818  the names say what happened

from __future__ import annotations


class StoreError(Exception):
    """The store did not do what was asked."""


class StoreUnreachable(StoreError):
    """No answer, or one that says to come back later."""


class StoreDenied(StoreError):
    """Credentials are missing or wrong, or may not do this."""


class ObjectMissing(StoreError):
    """There is no such object."""


class ObjectTooLarge(StoreError):
    """The object has more bytes than the reader allows."""


class ArtifactInvalid(Exception):
    """What lies in the store is not the artifact that its digest names. A second try can't help."""

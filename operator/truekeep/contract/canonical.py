"""Digests: sha256 over bytes, or over a value's canonical JSON (RFC 8785), so that equal things have equal names."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def canonical_json(value: Any) -> bytes:
    """The one way to write a JSON value (RFC 8785). TypeError or ValueError where it is no JSON value."""
    return rfc8785.dumps(value)


def sha256(content: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_of(value: Any) -> str:
    """The digest of a JSON value's canonical form."""
    return sha256(canonical_json(value))


def short(digest: str, length: int = 8) -> str:
    """The first digits of a digest, for names of objects."""
    return digest.removeprefix("sha256:")[:length]

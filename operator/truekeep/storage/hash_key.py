"""The key of the hashes in captures: a file that the kubelet mounts from a Secret."""

from __future__ import annotations

import os
from pathlib import Path

from truekeep.contract.hashing import HASH_KEY, key_problem
from truekeep.contract.requests import DEFAULT_SECRETS_DIR, SECRETS_DIR_ENV


class HashKeyError(Exception):
    """The key can't be used; the text names the Secret, why, and what to do. A second try can't help."""


def read_hash_key(secret: str) -> bytes:
    """The key in this mounted Secret, without the white space around it. HashKeyError."""
    path = Path(os.environ.get(SECRETS_DIR_ENV, DEFAULT_SECRETS_DIR)) / secret / HASH_KEY
    return hash_key_of(path, f"Secret {secret}, key {HASH_KEY}")


def hash_key_of(path: Path, what: str) -> bytes:
    """The key in a file, called `what` in messages. HashKeyError."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise HashKeyError(f"{what}: can't be read ({error}); make it, with 16 bytes or more") from error
    if problem := key_problem(key):
        raise HashKeyError(f"{what}: {problem}")
    return key

"""Keyed hashes, which stand in captures for values that must not be stored: equal values stay equal, for those who hold
the key only.

A hash is the first 16 bytes, as 32 hexadecimal digits, of HMAC-SHA256 (RFC 2104) over `COLUMN=VALUE` in UTF-8. The
column is part of it, so that the same value in two columns does not look the same. With openssl:

```
printf %s 'flight_id=4711' | openssl dgst -sha256 -hmac "$HASH_KEY" -r | cut -c 1-32
```
"""

from __future__ import annotations

import hmac
import math

HASH_KEY = "HASH_KEY"  # the Secret's key
MIN_KEY_BYTES = 16
HASH_BYTES = 16


def hashed(key: bytes, column: str, value: str) -> str:
    """The hash of a value of a column: 32 hexadecimal digits."""
    message = f"{column}={value}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, message, "sha256")[:HASH_BYTES].hex()


def number_text(value: float) -> str | None:
    """The text of a number that is hashed: whole numbers in plain digits, else the shortest that reads the same; None
    for NaN, which stands for a missing value. Examples: 7, 7.5, -0.001, 1e+22."""
    if math.isnan(value):
        return None
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)


def key_problem(key: bytes) -> str | None:
    """Why a key can't be used, None where it can."""
    if len(key) < MIN_KEY_BYTES:
        return f"has {len(key)} bytes, at least {MIN_KEY_BYTES} are needed; make one with: openssl rand -hex 32"
    return None

"""Which requests are captured where not all are."""

from __future__ import annotations

import hashlib


def sampled(request_id: str, percent: int) -> bool:
    """Whether a request belongs to the sample; the same id gives the same answer everywhere."""
    if percent >= 100:
        return True
    digest = hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest) % 100 < percent

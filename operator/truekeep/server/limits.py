"""What one server accepts at most: of one request, and of all together.

The defaults fit a pod of 1 CPU and 1 GiB. TRUEKEEP_SERVER_LIMITS, a JSON object, changes single ones.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

LIMITS_ENV = "TRUEKEEP_SERVER_LIMITS"
SMALL_BODY = 16 << 10  # bytes; larger ones are counted against the budget for bodies


@dataclass(frozen=True)
class Limits:
    """Bounds. Sizes in bytes, times in seconds. After SIGTERM all of it ends within drain_seconds +
    capture_close_seconds + 3, which must be less than the pod's grace period."""

    body_bytes: int = 4 << 20
    rows: int = 10_000
    inputs: int = 300
    id_characters: int = 256
    header_bytes: int = 32 << 10
    header_seconds: float = 10  # from the first byte of a request to the end of its header
    body_seconds: float = 20  # from there to its last byte
    first_byte_seconds: float = 30  # on a new connection
    idle_seconds: float = 30  # after an answer, for connections that are past their age
    write_seconds: float = 30  # for a client to take its answer
    connections: int = 4_000
    in_flight: int = 512  # infer requests whose body has arrived
    grpc_calls: int = 100  # at once; each may hold a whole body before anything can be asked about it
    grpc_age_seconds: float = 3  # of a connection; serving.connectionMaxAgeSeconds where that is less
    held_bytes: int = 32 << 20  # bodies that came in several parts, until they are answered, together
    queue_seconds: float = 5  # estimated work that waits for the model
    inline_seconds: float = 0.01  # longest estimated work that may hold up the event loop
    drain_linger_seconds: float = 10  # after SIGTERM: new connections are still answered that long
    drain_quiet_seconds: float = 0.5  # after the last client left
    drain_idle_seconds: float = 1.5  # after SIGTERM: from then on connections are closed that were idle for a second
    drain_seconds: float = 25  # after SIGTERM: the end of it, whatever is still open
    capture_rows: int = 50_000  # rows that wait to be captured
    capture_bytes: int = 32 << 20  # and the bytes of the requests that they came with
    capture_flush_rows: int = 20_000  # rows of one Parquet file, about
    capture_close_seconds: float = 5  # for the last flush
    backend_requests: int = 4  # to a team's own server at once
    backend_rows: int = 1_000  # of one of them, unless one client sent more
    backend_silent_seconds: float = 30  # without any sign of life: it may be killed
    load_seconds: float = 120  # how long an unreachable store is tried


def from_environment(environment: Mapping[str, str] = os.environ) -> Limits:
    """The defaults with the changes of TRUEKEEP_SERVER_LIMITS. ValueError, naming the limit, where one is not valid."""
    text = environment.get(LIMITS_ENV)
    if not text:
        return Limits()
    try:
        changes = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{LIMITS_ENV} is not valid JSON: {error}") from error
    known = {field.name: field.type for field in dataclasses.fields(Limits)}
    if not isinstance(changes, dict) or not changes.keys() <= known.keys():
        unknown = ", ".join(sorted(changes.keys() - known.keys())) if isinstance(changes, dict) else "no JSON object"
        raise ValueError(f"{LIMITS_ENV} may change only {', '.join(sorted(known))}; it holds: {unknown}")
    for name, value in changes.items():
        whole = known[name] == "int"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value < 0:
            raise ValueError(f"{LIMITS_ENV}: {name} must be a number of at least 0{', whole' if whole else ''}")
    return dataclasses.replace(Limits(), **changes)


class Budget:
    """An amount that may be taken and is given back; more than there is cannot be taken."""

    __slots__ = ("limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def take(self, amount: int) -> bool:
        """Whether the amount was free, and now is taken. One taker always gets what is within the whole limit."""
        if self.taken + amount > self.limit:
            return False
        self.taken += amount
        return True

    def give_back(self, amount: int) -> None:
        """Return what was taken."""
        self.taken -= amount

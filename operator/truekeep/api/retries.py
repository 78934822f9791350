"""How often a stage of a run is tried again, and with what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import Quantity, Schema

MOST_RETRIES = 10


class MoreMemory(Schema):
    """After a pod ran out of memory, its stage is tried again with more."""

    limit: Quantity = Field(description="The most that a pod may get as its limit. Example: 8Gi.")
    factor: Annotated[
        str, StringConstraints(pattern=r"^(1\.[1-9][0-9]?|[2-8](\.[0-9]{1,2})?)$", min_length=1, max_length=4)
    ] = Field(
        default="2",
        description="Each try has so many times the memory of the one before, request and limit alike, from 1.1 to "
        "8.99. Default: 2. Example: 1.5.",
    )


class Retries(Schema):
    """How often a stage of a run is tried again, and with what.

    What is lost with its node (evicted, preempted) or waits for the store is tried again, with growing pauses, for as
    long as timeoutSeconds lasts. Bad data, bad parameters and a model that was judged are never tried again."""

    limit: Annotated[int, Field(ge=0, le=MOST_RETRIES)] = Field(
        default=2,
        description="How often a stage is tried again whose pod crashed; or, where that is allowed below, ran out of "
        "memory or of time. Default: 2.",
    )
    memory: MoreMemory | None = Field(
        default=None,
        description="Try again with more memory after a pod ran out of it. Default: such a run fails, because the same "
        "memory would be too little again.",
    )
    on_deadline: Literal["Fail", "Retry"] = Field(
        default="Fail",
        description="Retry: after timeoutSeconds the stage that ran is tried again, with as many seconds once more. "
        "Default: Fail.",
    )

"""A part of the rows, where all of them would not fit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from truekeep.api.common import Fraction, Schema


class Sample(Schema):
    """Which part of the window's rows is used: whole keys, by a hash of the key, so that it is the same each time."""

    CEL = (
        (
            "has(self.maxRows) != has(self.fraction)",
            "a sample has exactly one of maxRows and fraction; remove one",
        ),
        (
            "!has(self.fraction) || double(self.fraction) > 0.0",
            "a sample's fraction must be greater than 0; remove the sample to use all rows",
        ),
    )

    max_rows: Annotated[int, Field(ge=100, le=1000000000)] | None = Field(
        default=None, description="Most rows that are used; those with the smallest hashes. Example: 2000000."
    )
    fraction: Fraction | None = Field(
        default=None, description="Fraction of the keys whose rows are used, 0 to 1. Example: 0.1."
    )
    seed: Annotated[int, Field(ge=0, le=2147483647)] = Field(
        default=0, description="Another seed is another sample. Default: 0."
    )

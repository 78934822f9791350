"""What is kept of the predictions that a model made."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from truekeep.api.common import SET, Column, S3Location, Schema


class Capture(Schema):
    """Where predictions are kept for monitoring, as Parquet."""

    s3: S3Location = Field(description="Prefix for captured predictions. Example: uri s3://lake/captures/.")
    fraction_percent: Annotated[int, Field(ge=0, le=100)] = Field(
        default=100,
        description="Share of the requests to capture, in percent, chosen by request id. Default: 100.",
    )
    drop: list[Column] = Field(
        default=[],
        max_length=250,
        description="Features that must not be stored. Default: none. Example: [postcode].",
        json_schema_extra=SET,
    )
    flush_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30, description="Seconds after which captured rows are written at the latest. Default: 30."
    )

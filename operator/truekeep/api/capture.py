"""What is kept of the predictions that a model made."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from truekeep.api.common import SET, Column, LocalObjectReference, S3Location, Schema


class Capture(Schema):
    """Where predictions are kept for monitoring, as Parquet."""

    CEL = (
        (
            "!has(self.hash) || size(self.hash) == 0 || has(self.hashKeySecretRef)",
            "capture.hash needs a key: make a Secret with the key HASH_KEY and name it in capture.hashKeySecretRef",
        ),
        (
            "!has(self.hashKeySecretRef) || (has(self.hash) && size(self.hash) > 0)",
            "capture.hashKeySecretRef is for capture.hash; name columns there, or remove the reference",
        ),
        (
            "!has(self.hash) || !has(self.drop) || self.hash.all(h, !self.drop.exists(d, d == h))",
            "a column is either in capture.drop or in capture.hash; remove it from one of them",
        ),
    )

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
    hash: list[Column] = Field(
        default=[],
        max_length=100,
        description="Features, or data.key, whose values are stored as keyed hashes (32 hexadecimal digits, numbers "
        "too) and not as they are. Hashed features are not watched for drift, and a Model that hashes features has "
        "no rehearsals. Default: none. Example: [flight_id, postcode].",
        json_schema_extra=SET,
    )
    hash_key_secret_ref: LocalObjectReference | None = Field(
        default=None,
        description="Secret whose key HASH_KEY holds the key of the hashes, 16 bytes or more. Only pods read it. "
        "With another key, values hashed before no longer match. Required with hash. Example: name capture-hash.",
    )
    retention_days: Annotated[int, Field(ge=1, le=36500)] | None = Field(
        default=None,
        description="Days after which captured rows are deleted, by a CronJob once a day, counted from when they were "
        "received. Default: never deleted. Example: 90.",
    )
    spool_mebibytes: Annotated[int, Field(ge=0, le=65536)] = Field(
        default=256,
        description="Disk of each serving pod for captured rows that wait for the store, in MiB; they outlast a "
        "restart of the container, not the end of the pod. 0: none, they wait in memory alone. Default: 256.",
    )
    flush_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30, description="Seconds after which captured rows are written at the latest. Default: 30."
    )

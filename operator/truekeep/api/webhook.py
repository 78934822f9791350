"""Who is told of what a policy found, and what became of telling."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import ObjectKey, Schema, SecretName, Text

Told = Literal["DriftDetected", "PerformanceDecayed", "DataValid", "ServingHealthy", "Stalled"]


class SecretKeyReference(Schema):
    """One key of a Secret in the same namespace. Only pods read it."""

    name: SecretName = Field(description="Name of the Secret, in the same namespace. Example: pager.")
    key: ObjectKey = Field(default="token", description="Key in the Secret that holds the value. Default: token.")


class Webhook(Schema):
    """An address to which what was found is sent, as a CloudEvent."""

    url: Annotated[
        str,
        StringConstraints(
            # No user and password: they would lie in Git.
            pattern=r"^https?://[A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[!-~]*)?$",
            max_length=1024,
        ),
    ] = Field(
        description="Where to send, by POST. Addresses that only a machine has for itself (loopback, link-local and "
        "cloud metadata) are refused, and no redirect is followed. Example: https://alerts.example.com/truekeep."
    )
    token_secret_ref: SecretKeyReference | None = Field(
        default=None,
        description="Secret with a token, sent as `Authorization: Bearer`. Default: none. Example: name pager.",
    )


class Notice(Schema):
    """What was told last of one condition."""

    condition: Told = Field(description="The condition.")
    status: Literal["True", "False"] = Field(description="Its status, as it was told.")
    since: datetime = Field(description="When the condition turned to it.")
    result: Literal["Delivered", "NotDelivered"] = Field(description="Whether the receiver took it.")
    job: Annotated[str, StringConstraints(max_length=63)] = Field(description="The Job that sent it.")
    message: Text = Field(default="", description="Why it was not taken.")

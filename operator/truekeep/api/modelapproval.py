"""`ModelApproval`: one person's decision on one artifact, which can't be changed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import Digest, ModelReference, Schema, Text


class ModelApprovalSpec(Schema):
    """One decision. It can't be changed: a mind that changed is another ModelApproval."""

    CEL = (("self == oldSelf", "a ModelApproval can't be changed; create another one"),)

    model_ref: ModelReference = Field(description="The Model that the artifact is for.")
    artifact_digest: Digest = Field(
        description="sha256 of the artifact's manifest that this decides on, as in status.awaiting of the Model."
    )
    decision: Literal["Approve", "Reject"] = Field(
        description="Approve: it may serve. Reject: it may not, whatever others say."
    )
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="Why, in words, for the record. Example: reviewed with risk, ticket 4711."
    )
    approver: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        description="Who decides: the name with which you are logged in to the cluster; another one is refused. "
        "Example: maria@example.com."
    )
    expires_at: datetime | None = Field(
        default=None,
        description="Until when the rollout must have begun. Default: no end. Example: 2027-01-31T00:00:00Z.",
    )


class ModelApproval(Schema):
    """One person's decision on one artifact of a Model whose spec.approval.mode is Manual."""

    spec: ModelApprovalSpec = Field(description="The decision.")


class GivenApproval(Schema):
    """The approval that let a revision serve."""

    name: Annotated[str, StringConstraints(max_length=253)] = Field(description="The ModelApproval.")
    approver: Text = Field(description="Who approved.")
    time: datetime = Field(description="When.")

"""What was decided on a Model's revisions, as it is kept in the store: which there are, who approved or rejected them,
which answered from when on, and which way of serving failed.

`NAMESPACE/MODEL/decisions/NUMBER.json`, from 1 on, each written once and naming the digest of the one before: what was
changed or taken out from between breaks the chain. That the newest were taken away shows against the head in the
Model's status, for as long as there is a Model.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import Digest, Schema
from truekeep.contract.canonical import canonical_json, digest_of

MOST_BYTES = 60_000  # of decisions that are handed over at once: a variable of a pod takes 128 KiB


class Decision(Schema):
    """One fact. `id` is the same however often it is told.

    Revision: a run succeeded, and its artifact got this number. Approved, Rejected: a person's word on an artifact.
    Promoted: a revision answers from `time` on, until the next one does. Failed: a way of serving was rolled back or
    never got so far, and is not tried again."""

    id: Annotated[str, StringConstraints(max_length=300)]
    kind: Literal["Revision", "Approved", "Rejected", "Promoted", "Failed"]
    time: datetime
    model_uid: Annotated[str, StringConstraints(max_length=64)]
    artifact_digest: Digest | None = None
    revision: int | None = None
    run: str | None = None
    run_uid: str | None = None
    record: Digest | None = None
    author: str | None = None  # of the change that was trained
    trigger: str | None = None
    image: str | None = None
    image_id: str | None = None  # by digest, as the node named it
    approver: str | None = None
    approval: str | None = None  # the ModelApproval's name
    reason: str | None = None
    expires_at: datetime | None = None
    deployment: str | None = None
    server_image: str | None = None  # that its pods were made with
    fingerprint: Digest | None = None  # of the way of serving that failed
    captures: str | None = None  # where requests are captured from then on


class Page(Schema):
    """One object of the store."""

    schema_: Literal["truekeep.dev/decisions/v1"] = Field(default="truekeep.dev/decisions/v1", alias="schema")
    namespace: str
    model: str
    number: int = Field(ge=1)
    previous: Digest | None = None  # sha256 of the page before
    written: datetime
    decisions: tuple[Decision, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.dump())


def promoted_id(model_uid: str, deployment: str, since: datetime) -> str:
    """Of a Promoted."""
    return f"promoted/{model_uid}/{deployment}/{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def revision_id(model_uid: str, revision: int) -> str:
    """Of a Revision."""
    return f"revision/{model_uid}/{revision}"


def told(decisions: Iterable[Decision]) -> str:
    """The digest of a list of decisions, in whatever order."""
    return digest_of(sorted((one.dump() for one in decisions), key=lambda one: str(one["id"])))

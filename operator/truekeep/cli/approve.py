"""`truekeep approve` and `truekeep reject`: a person's decision on a revision that waits for one."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any

import typer

from truekeep.api.common import GROUP, VERSION
from truekeep.cli.kube import Json, Namespace, Person, person, refuse

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why, for the record.", prompt="Why (for the record)")]
Revision = Annotated[
    int | None, typer.Option("--revision", min=1, help="Decide on this revision. Default: the one that waits.")
]


def approve(
    model: Annotated[str, typer.Argument(help="Name of the Model.")],
    *,
    reason: Reason,
    revision: Revision = None,
    expires: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"], help="UTC; the rollout must have begun by then."),
    ] = None,
    namespace: Namespace = None,
) -> None:
    """Let the revision of MODEL that waits for a decision serve."""
    _decide(person(namespace), model, revision, {"decision": "Approve", "reason": reason}, expires)


def reject(
    model: Annotated[str, typer.Argument(help="Name of the Model.")],
    *,
    reason: Reason,
    revision: Revision = None,
    namespace: Namespace = None,
) -> None:
    """Keep the revision of MODEL that waits for a decision from serving, whoever else approves it."""
    _decide(person(namespace), model, revision, {"decision": "Reject", "reason": reason}, None)


def _decide(who: Person, model: str, revision: int | None, decided: Json, expires: datetime | None) -> None:
    number, digest = _artifact(who, model, revision)
    manifest = approval(model, number, digest, {**decided, "approver": who.user()}, expires)
    made = who.create("modelapprovals", manifest)
    verb = "approved" if decided["decision"] == "Approve" else "rejected"
    typer.echo(f"{manifest['spec']['approver']} {verb} revision {number} of {who.namespace}/{model}, {digest}")
    typer.echo(f"on record as modelapproval/{made['metadata']['name']}")


def _artifact(who: Person, model: str, revision: int | None) -> tuple[int, str]:
    """Number and artifact digest of the revision to decide on."""
    if revision is None:
        awaiting = (who.get("models", model).get("status") or {}).get("awaiting")
        if not awaiting:
            refuse(f"no revision of {who.namespace}/{model} waits for a decision; --revision N names another one")
        return int(awaiting["revision"]), str(awaiting["artifactDigest"])
    return revision, str(who.revision(model, revision)["status"]["artifact"]["digest"])


def approval(model: str, revision: int, digest: str, decided: Json, expires: datetime | None) -> dict[str, Any]:
    """The ModelApproval: its name follows from model, artifact, person and decision, so that it is made once."""
    cause = "\n".join((digest, decided["approver"], decided["decision"], str(expires)))
    name = f"{model}-r{revision}-{decided['decision'].lower()}-{hashlib.sha256(cause.encode()).hexdigest()[:8]}"
    spec: dict[str, Any] = {"modelRef": {"name": model}, "artifactDigest": digest, **decided}
    if expires is not None:
        spec["expiresAt"] = f"{expires:%Y-%m-%dT%H:%M:%SZ}"
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "ModelApproval",
        "metadata": {"name": name},
        "spec": spec,
    }

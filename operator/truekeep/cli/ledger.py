"""What was decided on a Model's revisions: as the store has it, and as the cluster has it where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from truekeep.contract import layout
from truekeep.contract.canonical import sha256
from truekeep.contract.decisions import Decision, promoted_id, revision_id
from truekeep.storage import ObjectMissing
from truekeep.storage import decisions as stored
from truekeep.storage.artifacts import Store

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Ledger:
    """All decisions, the oldest first. `faults`: why the chain of the store's pages can't be trusted, in words."""

    decisions: tuple[Decision, ...] = ()
    pages: tuple[str, ...] = ()  # their digests, the oldest first
    faults: tuple[str, ...] = ()

    def about(self, artifact: str | None) -> list[Decision]:
        """Those on one artifact."""
        return [one for one in self.decisions if artifact and one.artifact_digest == artifact]

    def revisions(self) -> dict[int, Decision]:
        """What was registered under each number; of a Model that was made anew, the newest."""
        return {one.revision: one for one in self.decisions if one.kind == "Revision" and one.revision is not None}

    def intervals(self) -> list[tuple[Decision, datetime | None]]:
        """What answered, and until when, the oldest first. None: until now, as far as is known."""
        promoted = [one for one in self.decisions if one.kind == "Promoted"]
        ends: list[datetime | None] = [one.time for one in promoted[1:]]
        return list(zip(promoted, [*ends, None], strict=False))

    def answered_at(self, moment: datetime) -> Decision | None:
        """What answered at a moment; None where that is not known."""
        earlier = [one for one in self.decisions if one.kind == "Promoted" and one.time <= moment]
        return earlier[-1] if earlier else None

    def with_more(self, others: Iterable[Decision]) -> Ledger:
        """With what is not in it yet, as the cluster knows it."""
        known = {one.id for one in self.decisions}
        merged = [*self.decisions, *(one for one in others if one.id not in known)]
        return replace(self, decisions=_sorted(merged))

    def against(self, head: str | None) -> Ledger:
        """Held against the newest page that the Model's status knows."""
        if head is None or head in self.pages:
            return self
        words = f"the Model's status knows a page {head} that the store has not: the newest were taken away, or altered"
        return replace(self, faults=(*self.faults, words))


def read(store: Store, namespace: str, model: str) -> Ledger:
    """The store's pages, each checked against the one before. StoreError where the store does not answer."""
    pages = stored.read(store, namespace, model)
    return Ledger(_sorted(pages.decisions), pages.digests, pages.faults)


def entries(store: Store, kept: Ledger, only: int | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """What made each revision, or one of them, the newest first, with what its record says; and what does not hold. As
    `lineage.revisions` tells of the objects of a cluster."""
    faults: list[str] = []
    found = []
    for number, one in sorted(kept.revisions().items(), reverse=True):
        if only not in (None, number):
            continue
        record = _record(store, one.record, faults) if one.record else {}
        about = kept.about(one.artifact_digest)
        run = record.get("run") or {}
        uri = store.uri(layout.record(one.record)) if one.record else ""
        report = layout.beside_record(one.record, layout.REPORT) if one.record else ""
        found.append(
            {
                "revision": number,
                "run": one.run,
                "trigger": run.get("trigger") or {"type": one.trigger},
                "author": one.author,
                "image": (record.get("environment") or {}).get("image") or one.image,
                "imageId": one.image_id,
                "modelGeneration": run.get("modelGeneration"),
                "trainingFingerprint": run.get("trainingFingerprint"),
                "data": _data(record.get("data")),
                "metrics": (record.get("evaluation") or {}).get("metrics") or [],
                "gates": (record.get("evaluation") or {}).get("gates") or [],
                "cutOff": (record.get("evaluation") or {}).get("cutOff"),
                "champion": (record.get("evaluation") or {}).get("champion"),
                "artifact": record.get("artifact") or {"digest": one.artifact_digest},
                "record": {"id": one.record, "uri": uri, "report": store.uri(report)} if report else None,
                "decisions": [_word(each) for each in about if each.kind in {"Approved", "Rejected"}],
                "failed": [{"time": _iso(each.time), "reason": each.reason} for each in about if each.kind == "Failed"],
                "answered": [
                    {"since": _iso(each.time), "until": _iso(until)}
                    for each, until in reversed(kept.intervals())
                    if each.revision == number and each.artifact_digest == one.artifact_digest
                ],
            }
        )
    return found, faults


def _record(store: Store, identifier: str, faults: list[str]) -> Mapping[str, Any]:
    key = layout.record(identifier)
    try:
        content = store.get(key)
    except ObjectMissing:
        faults.append(f"{store.uri(key)} is missing: the record was taken away or lost")
        return {}
    if sha256(content) != identifier:
        faults.append(f"{store.uri(key)}: THE RECORD WAS ALTERED, do not trust it")
        return {}
    record: Mapping[str, Any] = json.loads(content)
    return record


def _data(data: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Of a record, with the number of its objects as in a status."""
    objects = (data or {}).get("objects")
    return {**(data or {}), **({"objects": len(objects)} if isinstance(objects, list) else {})}


def _word(each: Decision) -> dict[str, Any]:
    decision = "Approve" if each.kind == "Approved" else "Reject"
    named = {"approver": each.approver, "reason": each.reason, "name": each.approval}
    return {"decision": decision, "time": _iso(each.time), **named}


def _iso(time: datetime | None) -> str | None:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if time else None


def of_cluster(model: Json, runs: Iterable[Json], approvals: Iterable[Json]) -> list[Decision]:
    """What the objects in the cluster tell of the same."""
    name, uid = model["metadata"]["name"], str(model["metadata"].get("uid", ""))
    found: list[Decision] = []
    digests = set()
    told: set[tuple[str, str]] = set()  # by the Model of a cluster that was lost: they are in its store
    for run in runs:
        status = run.get("status") or {}
        if run["spec"]["modelRef"]["name"] != name or not status.get("revision"):
            continue
        artifact, record = (status.get("artifact") or {}).get("digest"), (status.get("record") or {}).get("id")
        digests.add(artifact)
        restored = status.get("restored") or {}
        told |= {(one["deployment"], one["since"]) for one in restored.get("promotions") or []}
        found.append(
            Decision(
                id=revision_id(uid, status["revision"]), kind="Revision", model_uid=uid, artifact_digest=artifact,
                time=status.get("completionTime") or run["metadata"]["creationTimestamp"],
                revision=status["revision"], run=run["metadata"]["name"],
                run_uid=restored.get("runUid") or run["metadata"].get("uid"),
                record=record, author=status.get("author"), image=status.get("image"), image_id=status.get("imageId"),
                trigger=(run["spec"].get("trigger") or {}).get("type"),
            )
        )  # fmt: skip
    for each in approvals:
        spec, meta = each["spec"], each["metadata"]
        if spec["modelRef"]["name"] == name and spec["artifactDigest"] in digests:
            found.append(
                Decision(
                    id=f"approval/{meta.get('uid', meta['name'])}", model_uid=uid, time=meta["creationTimestamp"],
                    kind="Approved" if spec["decision"] == "Approve" else "Rejected",
                    artifact_digest=spec["artifactDigest"], approver=spec["approver"], approval=meta["name"],
                    reason=spec["reason"], expires_at=spec.get("expiresAt"),
                )
            )  # fmt: skip
    for each in (model.get("status") or {}).get("history") or []:
        if (each["deployment"], each["since"]) in told:
            continue
        since = datetime.fromisoformat(each["since"])
        found.append(
            Decision(
                id=promoted_id(uid, each["deployment"], since), kind="Promoted", time=since, model_uid=uid,
                artifact_digest=each["artifactDigest"], revision=each["revision"], run=each["run"],
                deployment=each["deployment"], approver=each.get("approver"),
            )
        )  # fmt: skip
    return found


def _sorted(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    order = {"Revision": 0, "Approved": 1, "Rejected": 1, "Promoted": 2, "Failed": 3}
    return tuple(sorted(decisions, key=lambda one: (one.time, order[one.kind], one.id)))

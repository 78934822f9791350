"""Decisions on revisions go to the store, each once and chained, and nothing waits for it."""

from __future__ import annotations

import copy
from datetime import datetime
from typing import Any

import pytest

from tests.unit.controller.test_reconcilers import RETRAINED, served
from tests.unit.controller.world import NAMESPACE, SPEC, World
from truekeep.cli import ledger
from truekeep.cluster import kinds

MANUAL = copy.deepcopy(SPEC) | {"approval": {"mode": "Manual"}}


def kept(world: World) -> ledger.Ledger:
    """What the store has; its chain must hold."""
    found = ledger.read(world.nodes.store, NAMESPACE, "m")
    assert found.faults == ()
    assert found.pages[-1:] == tuple(filter(None, [(world.status().get("decisions") or {}).get("head")]))
    return found


def told(found: ledger.Ledger) -> list[tuple[str, int | None]]:
    return [(one.kind, one.revision) for one in found.decisions]


def keepers(world: World) -> list[dict[str, Any]]:
    jobs = world.api.all(kinds.JOB)
    return [job for job in jobs if job["metadata"]["labels"]["app.kubernetes.io/component"] == "decisions"]


async def test_what_was_decided_is_kept_page_after_page() -> None:
    world = await served()
    first = kept(world)
    assert told(first) == [("Revision", 1), ("Promoted", 1)]
    assert len(first.pages) == len(keepers(world)) == 1
    run = world.api.one(kinds.TRAINING_RUN)
    assert (first.decisions[0].run, first.decisions[0].run_uid) == (run["metadata"]["name"], run["metadata"]["uid"])
    active = world.status()["active"]
    assert (first.decisions[1].deployment, first.decisions[1].artifact_digest) == (
        active["deployment"], active["artifactDigest"],
    )  # fmt: skip
    world.apply(kinds.MODEL, "m", RETRAINED)
    await world.rounds(25)
    assert told(kept(world)) == [("Revision", 1), ("Promoted", 1), ("Revision", 2), ("Promoted", 2)]
    before = list(world.api.writes)
    await world.rounds(5)
    assert world.api.writes == before


async def test_a_persons_word_is_kept_also_where_it_is_a_no() -> None:
    world = World()
    world.apply(kinds.MODEL, "m", MANUAL)
    await world.rounds(8)
    assert told(kept(world)) == [("Revision", 1)]  # it waits for a person; that it exists is kept meanwhile
    digest = world.status()["awaiting"]["artifactDigest"]
    spec = {
        "modelRef": {"name": "m"},
        "artifactDigest": digest,
        "decision": "Reject",
        "approver": "maria",
        "reason": "no",
    }
    world.api.put(kinds.MODEL_APPROVAL, {"metadata": {"name": "a", "namespace": NAMESPACE}, "spec": spec})
    world.resync()
    await world.rounds(5)
    rejected = kept(world).decisions[1]
    assert (rejected.kind, rejected.revision, rejected.approver, rejected.reason) == ("Rejected", 1, "maria", "no")
    assert rejected.artifact_digest == digest


async def test_a_rollout_that_failed_is_kept() -> None:
    world = await served()
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "boom"}}, "restartCount": 9}
    crashed = {**waiting, "lastState": {"terminated": {"exitCode": 3, "message": "the self-test failed"}}}
    world.nodes.broken = lambda pod: crashed if pod["metadata"]["labels"]["truekeep.dev/revision"] == "2" else None
    world.apply(kinds.MODEL, "m", RETRAINED)
    await world.rounds(25)
    failed = [one for one in kept(world).decisions if one.kind == "Failed"]
    assert [(one.revision, bool(one.fingerprint), bool(one.artifact_digest)) for one in failed] == [(2, True, True)]
    assert failed[0].reason == world.status()["rejected"][0]["reason"]


async def test_a_job_that_failed_is_told_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from truekeep.storage import StoreUnreachable

    world = World()

    put = world.nodes.store.put

    def refuse(key: str, *rest: Any, **more: Any) -> bool:
        if "/decisions/" in key:
            raise StoreUnreachable("it is down")
        return put(key, *rest, **more)

    def result(request: str, *, right: Any = world.nodes._result) -> str:
        try:
            return str(right(request))
        except StoreUnreachable:
            return "decisions could not be kept"

    monkeypatch.setattr(world.nodes, "_result", result)
    monkeypatch.setattr(world.nodes.store, "put", refuse)
    world.apply(kinds.MODEL, "m", SPEC)
    await world.rounds(8)
    status = world.status()
    assert status["active"]["revision"] == 1  # nothing waits for it
    assert "decisions could not be kept" in status["decisions"]["problem"]
    (job,) = keepers(world)
    monkeypatch.setattr(world.nodes.store, "put", put)
    await world.rounds(2, seconds=10)
    assert [one["metadata"]["uid"] for one in keepers(world)] == [job["metadata"]["uid"]]  # not at once
    await world.rounds(10, seconds=100)
    assert told(kept(world)) == [("Revision", 1), ("Promoted", 1)]
    assert "problem" not in world.status()["decisions"] or not world.status()["decisions"]["problem"]


async def test_while_a_rollout_is_under_way_it_is_waited_for() -> None:
    world = await served()
    world.apply(kinds.MODEL, "m", RETRAINED)
    for _ in range(25):
        await world.rounds(1)
        under_way = bool(world.status().get("candidate") or world.status().get("run"))
        pages = [job for job in keepers(world) if job["metadata"]["creationTimestamp"]]
        if under_way:
            assert len(pages) == 1
    assert len(keepers(world)) == 2
    assert all(isinstance(one.time, datetime) for one in kept(world).decisions)

"""Old TrainingRuns go from the cluster, one at a look, wherever the operator is killed; the store has them all."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.controller.fake_cluster import copied
from tests.unit.controller.test_restore import Somebody, answer, somebody
from tests.unit.controller.world import NAMESPACE, SPEC, World
from truekeep.cli import ledger
from truekeep.cluster import kinds

__all__ = ["somebody"]  # a fixture
LAST, OLD = 15, (2, 3, 4, 5)  # 1 is the newest that a change of the spec made
KEPT = [0, 1, *range(6, LAST + 1)]
DAYS_5 = 5 * 86400
RETRAIN = "truekeep.dev/retrain"
SHORT = copy.deepcopy(SPEC)
SHORT["serving"]["rollout"]["steps"] = []
FEW = {**SHORT, "retraining": {"keepRuns": 10}}
_SAVED: dict[str, Any] = {}


async def history() -> World:
    """Fifteen revisions, one every five days; of those that answered, the status says the newest two."""
    if not _SAVED:
        world = World()
        world.apply(kinds.MODEL, "m", SHORT)
        await world.rounds(6)
        for number in range(2, LAST + 1):
            world.clock.pass_(DAYS_5)
            world.apply(kinds.MODEL, "m", SHORT, {RETRAIN: f"no {number}"})
            await world.rounds(9)
            assert world.status()["active"]["revision"] == number
        world.clock.pass_(DAYS_5)
        await world.rounds(9)
        status = world.status()
        world.api.put(kinds.MODEL, {**world.model(), "status": {**status, "history": status["history"][:2]}})
        await world.rounds(6)  # there is less to tell: it is told
        world.api.put(kinds.TRAINING_RUN, by_hand())
        await world.rounds(6)
        _SAVED.update(api=world.api.objects, version=world.api._version)
        _SAVED.update(store=world.nodes.store.objects, at=world.clock())
    world = World()
    world.api.objects, world.api._version = copied(_SAVED["api"]), _SAVED["version"]
    world.nodes.store.objects, world.clock.moment = copied(_SAVED["store"]), _SAVED["at"]
    return world


def by_hand() -> dict[str, Any]:
    """A run that a pipeline made long ago, and that never became anything."""
    ended = {"type": "Failed", "status": "True", "reason": "GatesFailed", "message": "",
             "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    return {
        "metadata": {"name": "nightly", "namespace": NAMESPACE, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"modelRef": {"name": "m"}},
        "status": {"completionTime": "2026-01-01T00:00:00Z", "conditions": [ended]},
    }


def numbers(world: World) -> list[int]:
    return sorted(run["status"].get("revision", 0) for run in world.api.all(kinds.TRAINING_RUN))


def facts(world: World) -> dict[str, Any]:
    status = world.status()
    return {
        "runs": numbers(world),
        "active": status["active"],
        "latest": status["latestRevision"],
        "conditions": {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]},
        "told": status["decisions"]["told"],
        "deployments": [each["metadata"]["name"] for each in world.api.all(kinds.DEPLOYMENT)],
    }


async def pruned(kill_at: int | None = None, kill_after: bool = False) -> World:
    world = await history()
    world.api.kill_at, world.api.kill_after = kill_at, kill_after
    world.apply(kinds.MODEL, "m", FEW)
    await world.rounds(8)
    return world


async def test_the_oldest_go_and_nothing_else_changes() -> None:
    before = facts(await history())
    world = await pruned()
    after = facts(world)
    assert before["runs"] == [0, *range(1, LAST + 1)]
    assert after["runs"] == KEPT, "what a pipeline made is its own"
    for each in ("active", "latest", "conditions", "deployments"):
        assert after[each] == before[each], each
    deletions = [write for write in world.api.writes if write.startswith("delete TrainingRun")]
    assert len(deletions) == len(OLD)
    assert not [write for write in world.api.writes if "create Job" in write or "create TrainingRun" in write]
    count = len(world.api.writes)
    await world.rounds(5)
    assert len(world.api.writes) == count, "at rest"


async def test_killed_at_any_write_the_end_is_the_same() -> None:
    undisturbed = await pruned()
    wanted = facts(undisturbed)
    assert len(undisturbed.api.writes) >= 3 * len(OLD)
    for number in range(len(undisturbed.api.writes)):
        for after in (False, True):
            world = await pruned(number, after)
            assert facts(world) == wanted, f"killed {'after' if after else 'before'} write {number}"
            assert not [write for write in world.api.writes if "create TrainingRun" in write]


async def test_the_next_revision_has_the_next_number() -> None:
    world = await pruned()
    world.apply(kinds.MODEL, "m", FEW, {RETRAIN: "another"})
    await world.rounds(9)
    assert world.status()["active"]["revision"] == LAST + 1
    world.apply(kinds.MODEL, "m", {**FEW, "retraining": {"keepRuns": 50}})
    await world.rounds(5)
    assert len([each for each in world.api.writes if "create TrainingRun" in each]) == 1, "no cause is answered twice"


async def test_the_store_answers_for_what_went_and_restore_brings_it_back(somebody: type[Somebody]) -> None:
    world = await pruned()
    kept = ledger.read(world.nodes.store, NAMESPACE, "m")
    entries, faults = ledger.entries(world.nodes.store, kept)  # what truekeep lineage --store and why go by
    assert [each["revision"] for each in entries] == list(range(LAST, 0, -1))
    assert not faults
    assert not kept.faults
    somebody.world = world
    before = facts(world)
    told = answer()
    assert [row["what"] for row in told["runs"]].count("is restored") == len(OLD)
    assert told["ended"] == []
    await world.rounds(12)
    after = facts(world)
    assert after["runs"] == [0, *range(1, LAST + 1)], "with their numbers, and they stay: somebody wanted them"
    assert (after["active"], after["latest"]) == (before["active"], before["latest"])


async def test_one_that_is_asked_for_comes_back_alone_and_may_answer(somebody: type[Somebody]) -> None:
    world = await pruned()
    somebody.world = world
    told = answer("--revision", "3")
    assert [(row["revision"], row["what"]) for row in told["runs"]] == [(3, "is restored")]
    await world.rounds(12)
    assert numbers(world) == sorted([*KEPT, 3])
    assert world.status()["active"]["revision"] == LAST
    world.apply(kinds.MODEL, "m", FEW, {"truekeep.dev/rollback": "3/by hand"})
    await world.rounds(12)
    assert world.status()["active"]["revision"] == 3
    assert numbers(world) == sorted([*KEPT, 3]), "it stays"


async def test_a_rollback_to_what_went_says_how_to_bring_it_back() -> None:
    world = await pruned()
    world.apply(kinds.MODEL, "m", FEW, {"truekeep.dev/rollback": "3/by hand"})
    await world.rounds(3)
    assert world.status()["active"]["revision"] == LAST
    (ready,) = (each for each in world.status()["conditions"] if each["type"] == "Ready")
    assert ready["reason"] == "NothingToRollBackTo"
    assert "truekeep restore m --revision 3 --store s3://" in ready["message"]


@pytest.mark.parametrize("manager", ["argocd-controller", "kustomize-controller", "kubectl-client-side-apply"])
async def test_a_run_that_somebody_else_applied_stays(manager: str) -> None:
    """Git would bring it back, to be trained and pruned for ever."""
    world = await history()
    for run in world.api.all(kinds.TRAINING_RUN):
        fields = [{"manager": "truekeep", "operation": "Update"}]
        if run["status"].get("revision") == 4:
            fields.append({"manager": manager, "operation": "Apply"})
        fields.append({"manager": manager, "operation": "Update", "subresource": "status"})
        run["metadata"]["managedFields"] = fields
        world.api.put(kinds.TRAINING_RUN, run)
    world.apply(kinds.MODEL, "m", FEW)
    await world.rounds(12)
    # It is none of the ten that are counted.
    assert numbers(world) == sorted([*KEPT, 4])


@pytest.mark.parametrize("revision", [2, 4])
async def test_a_pinned_revision_stays_and_answers(revision: int) -> None:
    world = await history()
    world.apply(kinds.MODEL, "m", {**FEW, "serving": {**FEW["serving"], "pinnedRevision": revision}})
    await world.rounds(20)
    assert world.status()["active"]["revision"] == revision
    assert revision in numbers(world)
    assert len(numbers(world)) == len(KEPT) + 1


async def test_what_the_api_server_refuses_to_delete_stays_and_hurts_nobody() -> None:
    world = await history()
    before = facts(world)
    world.api.refuse = lambda verb, kind, manifest: "no" if (verb, kind.kind) == ("delete", "TrainingRun") else None
    world.apply(kinds.MODEL, "m", FEW)
    await world.rounds(3)
    assert facts(world) == before
    assert [write for write in world.api.writes if not write.startswith("status")] == [], "neither Job nor Event"
    world.api.refuse = lambda verb, kind, manifest: None
    await world.rounds(12)
    assert numbers(world) == KEPT

"""A cluster is lost, the store is not: what `truekeep restore` brings back, in whatever order, however often."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.unit.controller.fake_cluster import Json, copied
from tests.unit.controller.test_reconcilers import RETRAINED, served, trainings
from tests.unit.controller.world import NAMESPACE, SPEC, World
from truekeep.cli import ledger
from truekeep.cli import restore as command
from truekeep.cli.kube import Person
from truekeep.cli.main import app
from truekeep.cluster import kinds
from truekeep.contract import layout

AGAIN = copy.deepcopy(SPEC)
AGAIN["training"]["recipe"]["seed"] = 4
PLURALS = {"models": kinds.MODEL, "trainingruns": kinds.TRAINING_RUN}


class StopError(Exception):
    """The command was interrupted."""


class Somebody(Person):
    """Who restores, in the cluster in memory."""

    world: World
    stop_after: int | None = None

    def list(self, plural: str) -> list[Any]:
        return self.world.api.all(PLURALS[plural])

    def create(self, plural: str, manifest: Any) -> Any:
        if self.stop_after == 0:
            raise StopError
        if self.stop_after is not None:
            type(self).stop_after = self.stop_after - 1
        assert (PLURALS[plural].kind, NAMESPACE, manifest["metadata"]["name"]) not in self.world.api.objects
        return self.world.api.put(PLURALS[plural], dict(manifest))

    def delete(self, plural: str, name: str) -> None:
        self.world.api.remove(PLURALS[plural], NAMESPACE, name)


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> type[Somebody]:
    monkeypatch.setattr(command, "person", lambda namespace: Somebody(NAMESPACE))
    monkeypatch.setattr(command, "opened", lambda location: Somebody.world.nodes.store)
    monkeypatch.setattr(Somebody, "stop_after", None)
    return Somebody


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["restore", "--store", "s3://models/", "-n", NAMESPACE, *words])


def answer(*words: str) -> Json:
    done = run("m", "-o", "json", *words)
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)
    return dict(told)


def lose(world: World) -> None:
    """All objects are gone; the store is not."""
    world.api.objects.clear()
    world.start()


_SAVED: dict[str, Any] = {}


async def history() -> World:
    """What `_made` made, each time anew."""
    if not _SAVED:
        made = await _made()
        _SAVED.update(api=made.api.objects, version=made.api._version, store=made.nodes.store.objects, at=made.clock())
    world = World()
    world.api.objects, world.api._version = copied(_SAVED["api"]), _SAVED["version"]
    world.nodes.store.objects, world.clock.moment = copied(_SAVED["store"]), _SAVED["at"]
    return world


async def _made() -> World:
    """Revision 1 answers; 2 failed in its rollout; a run failed its gates; 3 answered, and a person went back to 1."""
    world = await served()
    crashed = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "boom"}}, "restartCount": 9,
               "lastState": {"terminated": {"exitCode": 3, "message": "the self-test failed"}}}  # fmt: skip
    world.nodes.broken = lambda pod: crashed if pod["metadata"]["labels"]["truekeep.dev/revision"] == "2" else None
    world.apply(kinds.MODEL, "m", RETRAINED)
    await world.rounds(25)
    assert world.status()["active"]["revision"] == 1
    world.nodes.reason = "GatesFailed"
    world.apply(kinds.MODEL, "m", RETRAINED, {"truekeep.dev/retrain": "once"})
    await world.rounds(25)
    world.nodes.reason = "Succeeded"
    world.apply(kinds.MODEL, "m", AGAIN)
    await world.rounds(30)
    assert world.status()["active"]["revision"] == 3
    world.apply(kinds.MODEL, "m", AGAIN, {"truekeep.dev/rollback": "1"})
    await world.rounds(30, seconds=5)
    assert world.status()["active"]["revision"] == 1
    return world


def rows(world: World) -> dict[str, tuple[Any, ...]]:
    """What is known of each run, but for what the cluster gives it."""
    found = {}
    for each in world.api.all(kinds.TRAINING_RUN):
        status = each["status"]
        (ready,) = (one for one in status["conditions"] if one["type"] == "Ready")
        kept = ("revision", "artifact", "record", "metrics", "data", "trainingFingerprint", "image", "completionTime")
        found[each["metadata"]["name"]] = (
            ready["reason"], each["spec"]["trigger"]["type"], *(status.get(name) for name in kept)
        )  # fmt: skip
    return found


async def test_what_was_there_is_there_again_and_nothing_is_trained(somebody: type[Somebody]) -> None:
    world = await history()
    somebody.world = world
    before, was = rows(world), world.status()
    kept = ledger.read(world.nodes.store, NAMESPACE, "m")
    lose(world)
    told = answer()
    assert (told["latestRevision"], told["answeredLast"], told["applied"]) == (3, 1, False)
    assert [row["what"] for row in told["runs"]] == ["is restored"] * 4
    await world.rounds(2)
    assert trainings(world) == []  # there is no Model yet
    world.apply(kinds.MODEL, "m", AGAIN)
    await world.rounds(25)
    status = world.status()
    assert rows(world) == before
    assert {name for name, row in before.items() if row[0] == "GatesFailed"}
    assert (status["active"]["revision"], status["latestRevision"]) == (1, 3)
    assert status["active"]["artifactDigest"] == was["active"]["artifactDigest"]
    assert [one["revision"] for one in status["history"]][1:] == [one["revision"] for one in was["history"]]
    assert {(one["revision"], one["reason"]) for one in status["rejected"]} >= {(3, "TakenBack")}
    assert {one["fingerprint"] for one in was["rejected"]} <= {one["fingerprint"] for one in status["rejected"]}
    assert world.condition(world.model(), "Ready")["reason"] == "RolledBack"
    # Nobody trained: every Job read the store, and they are gone again.
    after = ledger.read(world.nodes.store, NAMESPACE, "m")
    assert after.faults == ()
    fresh = [one for one in after.decisions if one.id not in {each.id for each in kept.decisions}]
    assert sorted((one.kind, one.revision) for one in fresh) == [
        ("Promoted", 1), ("Revision", 1), ("Revision", 2), ("Revision", 3),
    ]  # fmt: skip
    uids = {one.revision: one.run_uid for one in kept.decisions if one.kind == "Revision"}
    assert {one.revision: one.run_uid for one in fresh if one.kind == "Revision"} == uids
    writes = list(world.api.writes)
    await world.rounds(5)
    assert world.api.writes == writes
    # The next revision has the next number; and what is told of the past is told once.
    world.apply(kinds.MODEL, "m", {**AGAIN, "training": {"recipe": {**SPEC["training"]["recipe"], "seed": 9}}})
    await world.rounds(30)
    assert world.status()["active"]["revision"] == 4


async def test_twice_writes_once_and_a_dry_run_nothing(somebody: type[Somebody]) -> None:
    world = await history()
    somebody.world = world
    assert {row["what"] for row in answer()["runs"]} == {"there already"}  # nothing was lost yet
    lose(world)
    writes = list(world.api.objects)
    assert {row["what"] for row in answer("--dry-run")["runs"]} == {"to be restored"}
    assert list(world.api.objects) == writes
    answer()
    assert {row["what"] for row in answer()["runs"]} == {"there already"}
    text = run("m").stdout
    assert "revision 1 answered last" in text
    assert "once the Model is applied" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("written", [0, 1, 3])
async def test_interrupted_and_done_again_it_converges(somebody: type[Somebody], written: int) -> None:
    world = await history()
    somebody.world = world
    before = rows(world)
    lose(world)
    somebody.stop_after = written
    assert isinstance(run("m").exception, StopError)
    world.apply(kinds.MODEL, "m", AGAIN)  # by Git, between the two
    await world.rounds(1)
    somebody.stop_after = None
    answer()
    await world.rounds(25)
    assert before.items() <= rows(world).items()
    assert world.status()["active"]["revision"] == 1
    assert world.status()["latestRevision"] == 3


@pytest.mark.parametrize("number", [2, 11, *(pytest.param(n, marks=pytest.mark.full) for n in range(3, 50, 2))])
async def test_the_operator_is_killed_at_any_write(somebody: type[Somebody], number: int) -> None:
    world = await history()
    somebody.world = world
    before = rows(world)
    lose(world)
    answer()
    world.api.kill_at, world.api.kill_after = len(world.api.writes) + number, bool(number % 4 == 1)
    world.apply(kinds.MODEL, "m", AGAIN)
    await world.rounds(25)
    assert rows(world) == before
    assert world.status()["active"]["revision"] == 1


async def test_the_model_may_be_there_first_and_its_first_training_is_ended(somebody: type[Somebody]) -> None:
    world = await history()
    somebody.world = world
    before = rows(world)
    lose(world)
    world.apply(kinds.MODEL, "m", AGAIN)
    world.resync()
    await world.work()
    (begun,) = world.api.all(kinds.TRAINING_RUN)
    told = answer("--dry-run")
    assert told["ended"] == [begun["metadata"]["name"]]
    assert answer()["ended"] == told["ended"]
    await world.rounds(25)
    assert rows(world) == before
    assert world.status()["active"]["revision"] == 1


async def test_a_paused_model_serves_what_answered_last_and_trains_nothing(somebody: type[Somebody]) -> None:
    world = await history()
    somebody.world = world
    before = rows(world)
    lose(world)
    answer()
    changed = {**AGAIN, "training": {"recipe": {**SPEC["training"]["recipe"], "seed": 9}}}
    world.apply(kinds.MODEL, "m", changed, {"truekeep.dev/paused": "drill"})
    await world.rounds(30)
    assert world.status()["active"]["revision"] == 1
    assert rows(world) == before


async def test_restored_twice_over_it_is_still_the_same_model(somebody: type[Somebody]) -> None:
    world = await history()
    somebody.world = world
    before = rows(world)
    for _ in range(2):
        lose(world)
        told = answer()
        assert (told["latestRevision"], told["answeredLast"], told["otherModels"]) == (3, 1, [])
        world.apply(kinds.MODEL, "m", AGAIN)
        await world.rounds(25)
        assert rows(world) == before
        assert world.status()["active"]["revision"] == 1
    found = ledger.read(world.nodes.store, NAMESPACE, "m")
    (entry,) = [each for each in ledger.entries(world.nodes.store, found)[0] if each["revision"] == 1]
    assert len(entry["answered"]) == 4  # first, after 3, and after each loss
    assert len(ledger.of_cluster(world.model(), world.api.all(kinds.TRAINING_RUN), [])) == 4


async def test_a_number_that_was_not_written_down_is_the_next_one(somebody: type[Somebody]) -> None:
    world = await served()
    somebody.world = world
    page = layout.decisions(NAMESPACE, "m", 2)
    put = world.nodes.store.put
    world.apply(kinds.MODEL, "m", RETRAINED)
    world.nodes.store.put = lambda key, *rest, **more: key == page or put(key, *rest, **more)  # type: ignore[method-assign]
    await world.rounds(25)
    assert world.status()["active"]["revision"] == 2
    before = rows(world)
    lose(world)
    world.nodes.store.put = put  # type: ignore[method-assign]
    told = answer()
    assert (told["latestRevision"], told["answeredLast"]) == (2, 1)
    assert "becomes revision 2" in told["notes"][0]
    world.apply(kinds.MODEL, "m", RETRAINED)
    await world.rounds(25)
    found = {name: row[:4] for name, row in rows(world).items()}
    assert found == {name: row[:4] for name, row in before.items()}
    assert world.status()["active"]["revision"] == 2  # 1 first, and then what the spec asks for, by a rollout


async def test_numbers_are_never_given_twice_though_a_result_is_gone(somebody: type[Somebody]) -> None:
    world = await history()
    somebody.world = world
    told = ledger.read(world.nodes.store, NAMESPACE, "m")
    newest = told.revisions()[3]
    digest = str(newest.artifact_digest)
    manifest = layout.artifact_file(digest, layout.MANIFEST)
    kept = world.nodes.store.objects.pop(manifest)
    lose(world)
    name = next(row["run"] for row in answer()["runs"] if row["revision"] == 3)
    world.apply(kinds.MODEL, "m", AGAIN)
    await world.rounds(25)
    runs = {each["metadata"]["name"]: each for each in world.api.all(kinds.TRAINING_RUN)}
    assert world.condition(runs[name], "Ready")["reason"] == "RestoreInvalid"
    assert "the artifact was deleted" in world.condition(runs[name], "Ready")["message"]
    # The spec that it was trained for is trained anew: as revision 4.
    assert world.status()["active"]["revision"] == 4
    world.nodes.store.put(manifest, kept)
    (again,) = [row for row in answer()["runs"] if row["what"] != "there already"]
    assert (again["run"], again["what"]) == (name, "is restored again")
    await world.rounds(10)
    runs = {each["metadata"]["name"]: each for each in world.api.all(kinds.TRAINING_RUN)}
    assert runs[name]["status"]["revision"] == 3
    assert world.status()["active"]["revision"] == 4


async def test_what_was_altered_is_said_and_nothing_written(somebody: type[Somebody]) -> None:
    world = await history()
    somebody.world = world
    lose(world)
    page = layout.decisions(NAMESPACE, "m", 1)
    world.nodes.store.objects[page] = world.nodes.store.objects[page].replace(b'"revision":1', b'"revision":7')
    done = run("m")
    assert done.exit_code == 1
    assert "one of the two was altered" in done.output
    assert "--despite-faults" in done.output
    assert world.api.all(kinds.TRAINING_RUN) == []
    assert run("m", "--despite-faults").exit_code == 1
    assert world.api.all(kinds.TRAINING_RUN)


async def test_a_conflict_is_refused_before_anything_is_written(somebody: type[Somebody]) -> None:
    world = await history()
    somebody.world = world
    lose(world)
    world.apply(kinds.MODEL, "m", AGAIN)
    await world.rounds(10)  # it trained anew: its own revision 1
    count = len(world.api.all(kinds.TRAINING_RUN))
    told = answer()
    assert [row["what"] for row in told["runs"]] == ["there already"]
    (before,) = told["otherModels"]
    done = run("m", "--model-uid", before)
    assert done.exit_code == 2
    assert "revision 1 is run" in done.output
    assert len(world.api.all(kinds.TRAINING_RUN)) == count
    assert run("nobody").exit_code == 2


async def test_a_rejection_holds_and_who_answered_needs_no_new_approval(somebody: type[Somebody]) -> None:
    manual = copy.deepcopy(SPEC) | {"approval": {"mode": "Manual"}}
    world = World()
    somebody.world = world
    world.apply(kinds.MODEL, "m", manual)
    await world.rounds(8)

    async def word(decision: str) -> None:
        digest = world.status()["awaiting"]["artifactDigest"]
        spec = {"modelRef": {"name": "m"}, "artifactDigest": digest, "decision": decision, "approver": "maria",
                "reason": "seen"}  # fmt: skip
        world.api.put(kinds.MODEL_APPROVAL, {
            "metadata": {"name": f"a-{digest[7:14]}", "namespace": NAMESPACE}, "spec": spec})  # fmt: skip
        await world.rounds(25)

    await word("Approve")
    manual["training"]["recipe"]["seed"] = 5
    world.apply(kinds.MODEL, "m", manual)
    await world.rounds(10)
    await word("Reject")
    assert world.status()["active"]["revision"] == 1
    lose(world)
    answer()
    world.apply(kinds.MODEL, "m", manual)
    await world.rounds(25)
    status = world.status()
    assert status["active"]["revision"] == 1
    assert status["active"]["approval"]["approver"] == "maria"
    assert "awaiting" not in status
    approved = world.condition(world.model(), "Approved")
    assert (approved["status"], approved["reason"]) == ("False", "Rejected")
    assert "before it was restored: seen" in approved["message"]

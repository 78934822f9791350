"""At most so many runs train at once, namespaces take turns, and what Kueue admits is Kueue's to count."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.controller.world import SPEC, World
from truekeep.cluster import kinds
from truekeep.domain.plan import Settings


def world_of(limit: int, teams: dict[str, int], **training: Any) -> World:
    """So many new Models in each namespace."""
    world = World(settings=Settings(max_training_runs=limit))
    spec = copy.deepcopy(SPEC)
    spec["training"] |= training
    for namespace, count in teams.items():
        for number in range(count):
            metadata = {"name": f"m{number}", "namespace": namespace}
            world.api.put(kinds.MODEL, {"metadata": metadata, "spec": copy.deepcopy(spec)})
    return world


def training(world: World) -> list[tuple[str, str]]:
    """Namespace and run of each training Job that is under way."""
    return [
        (job["metadata"]["namespace"], job["metadata"]["labels"]["truekeep.dev/run"])
        for job in world.api.all(kinds.JOB)
        if job["metadata"]["labels"]["app.kubernetes.io/component"] == "trainer"
        and not (job.get("status") or {}).get("conditions")
    ]


def reasons(world: World) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in world.api.all(kinds.TRAINING_RUN):
        ready = next(each for each in run["status"]["conditions"] if each["type"] == "Ready")
        found[ready["reason"]] = found.get(ready["reason"], 0) + 1
    return found


async def test_no_more_train_at_once_than_may_and_all_of_them_come_to_their_turn() -> None:
    world = world_of(2, {"big": 4, "small": 1})
    most, first = 0, None
    for _ in range(30):
        await world.rounds(1)
        now = training(world)
        most = max(most, len(now))
        first = first or (sorted(namespace for namespace, _ in now) if len(now) == 2 else None)
    assert most == 2
    assert reasons(world) == {"Succeeded": 5}
    assert len([job for job in world.api.all(kinds.JOB) if "truekeep.dev/run" in job["metadata"]["labels"]]) == 5


async def test_a_crowd_in_one_namespace_does_not_hold_up_another() -> None:
    world = world_of(2, {"big": 6})
    await world.rounds(1)
    assert len(training(world)) == 2
    assert reasons(world)["AwaitsTurn"] == 4
    world.api.put(kinds.MODEL, {"metadata": {"name": "late", "namespace": "small"}, "spec": copy.deepcopy(SPEC)})
    turn: list[str] = []
    for _ in range(40):
        before = set(training(world))
        await world.rounds(1)
        turn += [namespace for namespace, _ in sorted(set(training(world)) - before)]
        if "small" in turn:
            break
    assert turn.index("small") <= 1, turn


async def test_a_run_that_waits_says_so_and_writes_nothing_more() -> None:
    world = world_of(1, {"a": 3})
    world.nodes._job = lambda job: None  # type: ignore[method-assign]
    await world.rounds(3)
    assert len(training(world)) == 1
    waits = [run for run in world.api.all(kinds.TRAINING_RUN) if not run["status"].get("startTime")]
    messages = {each["message"] for run in waits for each in run["status"]["conditions"] if each["type"] == "Ready"}
    assert messages == {"waits for its turn: at most 1 runs train at once, and namespaces take turns"}
    writes = len(world.api.writes)
    await world.rounds(5)
    assert world.api.writes[writes:] == []


@pytest.mark.parametrize("kill", [1, 2, 3, 4, 5, 6])
async def test_a_restart_in_the_middle_begins_no_run_too_many(kill: int) -> None:
    world = world_of(1, {"a": 2, "b": 2})
    await world.rounds(1)
    for _ in range(25):
        world.api.kill_at = len(world.api.writes) + kill
        await world.rounds(1)
        assert len(training(world)) <= 1
    world.api.kill_at = None
    await world.rounds(10)
    assert reasons(world) == {"Succeeded": 4}


async def test_with_a_queue_the_job_is_kueues_and_takes_no_slot() -> None:
    world = world_of(1, {"a": 3}, queueName="gpu")
    await world.rounds(1)
    jobs = [job for job in world.api.all(kinds.JOB) if "truekeep.dev/run" in job["metadata"]["labels"]]
    assert len(jobs) == 3, "Kueue says how many run"
    assert {job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] for job in jobs} == {"gpu"}
    assert all(job["spec"]["suspend"] is True for job in jobs)


async def test_without_a_queue_no_job_says_anything_of_suspending() -> None:
    world = world_of(0, {"a": 2})
    await world.rounds(1)
    jobs = [job for job in world.api.all(kinds.JOB) if "truekeep.dev/run" in job["metadata"]["labels"]]
    assert len(jobs) == 2
    assert all("suspend" not in job["spec"] for job in jobs)
    assert not any("kueue.x-k8s.io/queue-name" in job["metadata"]["labels"] for job in jobs)


async def test_a_queue_that_is_taken_away_lets_a_job_that_never_began_be_made_anew() -> None:
    world = world_of(0, {"a": 1}, queueName="gone")
    world.nodes._job = lambda job: None  # type: ignore[method-assign]
    await world.rounds(2)
    (run,) = world.api.all(kinds.TRAINING_RUN)
    assert reasons(world) == {"Suspended": 1}
    assert "startTime" not in run["status"], "the wait does not count in timeoutSeconds"
    (model,) = world.api.all(kinds.MODEL)
    world.api.put(kinds.MODEL, {**model, "spec": copy.deepcopy(SPEC)})
    await world.rounds(4)
    (job,) = [each for each in world.api.all(kinds.JOB) if "truekeep.dev/run" in each["metadata"]["labels"]]
    assert "suspend" not in job["spec"]

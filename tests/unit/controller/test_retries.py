"""Tries of a run through the whole operator, on a cluster in memory: killed at any write, none is lost or doubled."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from tests.unit.controller.fake_cluster import FakeApi, Nodes
from tests.unit.controller.world import SPEC, World
from truekeep.api.names import LABEL_COMPONENT
from truekeep.cluster import kinds

Json = dict[str, Any]
RETRYING = copy.deepcopy(SPEC)
RETRYING["training"]["resources"] = {"limits": {"memory": "1Gi"}}
RETRYING["training"]["retries"] = {"limit": 3, "memory": {"limit": "8Gi"}}

KILLED = {"exitCode": 137, "reason": "OOMKilled", "message": "fold 3 of 5"}
CRASHED = {"exitCode": 1, "reason": "Error", "message": "Traceback\nKeyError: 'x'"}
ENDED = {"exitCode": 143, "reason": "Error"}
DISRUPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "by hand"}]


@dataclass
class FailingNodes(Nodes):
    """The pods of a run's tries end as `script` says, one after the other; what comes after succeeds."""

    script: tuple[tuple[Json, list[Json], bool], ...] = ()  # the container's end, conditions, whether the pod is gone
    ended: dict[str, int] = field(default_factory=dict)

    def _job(self, job: Json) -> None:
        labels, about = job["metadata"]["labels"], job["metadata"]
        number = int(labels.get("truekeep.dev/attempt", "0"))
        pods = self._pods_of(about["uid"])
        if not 1 <= number <= len(self.script) or not pods or (job.get("status") or {}).get("conditions"):
            super()._job(job)
            return
        end, conditions, gone = self.script[number - 1]
        (pod,) = pods
        if pod["status"]["phase"] == "Pending":  # it is seen while it goes, and the Job fails a moment later
            state = {"state": {"terminated": end}}
            self._set_status(
                kinds.POD, pod, {"phase": "Failed", "conditions": conditions, "containerStatuses": [state]}
            )
            return
        if gone:
            self.api.remove(kinds.POD, about["namespace"], pod["metadata"]["name"])
        stamp = self.api.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "lastTransitionTime": stamp}
        self._set_status(kinds.JOB, job, {"conditions": [failed]})


THREE = ((KILLED, [], False), (ENDED, DISRUPTED, True), (CRASHED, [], False))


def world(*script: tuple[Json, list[Json], bool], kill_at: int | None = None, after: bool = False) -> World:
    made = World()
    made.nodes = FailingNodes(made.api, script=script)
    made.api.kill_at, made.api.kill_after = kill_at, after
    made.apply(kinds.MODEL, "m", RETRYING)
    return made


async def story(kill_at: int | None = None, after: bool = False) -> World:
    """Three tries fail, each in its own way, and the fourth is a revision."""
    made = world(*THREE, kill_at=kill_at, after=after)
    for _ in range(60):
        await made.rounds(1, seconds=10)
        runs = made.api.all(kinds.TRAINING_RUN)
        if any((run.get("status") or {}).get("revision") == 1 for run in runs):
            return made
    raise AssertionError(f"there is no revision: {made.api.writes[-10:]}")


def jobs_of_runs(api: FakeApi) -> list[Json]:
    return [job for job in api.all(kinds.JOB) if job["metadata"]["labels"][LABEL_COMPONENT] == "trainer"]


def name_of(item: Json) -> str:
    return str(item["metadata"]["name"])


def memory(api: FakeApi, job: str) -> str:
    (found,) = (each for each in api.all(kinds.JOB) if each["metadata"]["name"] == job)
    return str(found["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"])


async def test_each_try_is_a_job_and_the_status_tells_them() -> None:
    made = await story()
    (run,) = made.api.all(kinds.TRAINING_RUN)
    name = name_of(run)
    told = [(each["number"], each["reason"], each["memory"]) for each in run["status"]["attempts"]]
    assert told == [(1, "OutOfMemory", "1Gi"), (2, "Evicted", "2Gi"), (3, "TrainerCrashed", "2Gi")]
    jobs = [f"{name}", *(f"{name}-try{number}" for number in (2, 3, 4))]
    assert sorted(each["metadata"]["name"] for each in jobs_of_runs(made.api)) == jobs
    assert [memory(made.api, job) for job in jobs] == ["1Gi", "2Gi", "2Gi", "2Gi"]
    assert run["status"]["job"] == jobs[-1]
    events = [
        e for e in made.api.all(kinds.EVENT) if e["regarding"]["kind"] == "TrainingRun" and e["type"] == "Warning"
    ]
    assert {event["reason"] for event in events} == {"OutOfMemory", "Evicted", "TrainerCrashed"}
    crash = next(event for event in events if event["reason"] == "TrainerCrashed")
    assert "KeyError: 'x'" in crash["note"]
    assert "try 4 begins" in crash["note"]


async def test_killed_at_any_write_no_try_is_lost_or_doubled() -> None:
    undisturbed = await story()
    (wanted,) = undisturbed.api.all(kinds.TRAINING_RUN)
    tries = [(each["number"], each["reason"], each.get("memory")) for each in wanted["status"]["attempts"]]
    lost = 0
    for number in range(len(undisturbed.api.writes)):
        for after in (False, True):
            made = await story(number, after)
            where = f"killed {'after' if after else 'before'} write {number}, {undisturbed.api.writes[number]}"
            (run,) = made.api.all(kinds.TRAINING_RUN)
            seen = [(each["number"], each["reason"], each.get("memory")) for each in run["status"]["attempts"]]
            # Killed before it could write down why the pod went: then that is not known any more.
            assert [(n, "Evicted" if reason == "PodLost" else reason, m) for n, reason, m in seen] == tries, where
            creations = [write for write in made.api.writes if write.startswith(f"create Job {name_of(run)}")]
            assert len(creations) == len(set(creations)) == 4, where
            assert run["status"]["revision"] == 1, where
            lost += any(reason == "PodLost" for _, reason, _ in seen)
    assert lost <= 2, "only where the operator was killed just then"


async def test_the_jobs_of_all_tries_go_in_the_end() -> None:
    made = await story()
    await made.rounds(3, seconds=700)
    assert jobs_of_runs(made.api) == []
    assert len(made.api.one(kinds.TRAINING_RUN)["status"]["attempts"]) == 3


async def test_a_run_that_may_not_be_tried_again_ends_with_its_last_lines() -> None:
    made = World()
    made.nodes = FailingNodes(made.api, script=((KILLED, [], False),))
    made.apply(kinds.MODEL, "m", SPEC)
    await made.rounds(6, seconds=10)
    (run,) = made.api.all(kinds.TRAINING_RUN)
    ready = made.condition(run, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "OutOfMemory")
    assert "its last lines: fold 3 of 5" in ready["message"]
    assert made.condition(made.model(), "Ready")["reason"] == "OutOfMemory"
    assert len(jobs_of_runs(made.api)) == 1


async def test_a_pod_that_was_gone_before_anybody_looked_is_known_by_what_it_left_behind() -> None:
    made = world()
    await made.rounds(2, seconds=1)
    (job,) = jobs_of_runs(made.api)
    for pod in made.nodes._pods_of(job["metadata"]["uid"]):
        made.api.remove(kinds.POD, "demo", name_of(pod))
    pod = f"{name_of(job)}-x"
    said = f"Pod demo/{pod} has condition DisruptionTarget matching FailJob rule at index 0"
    failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": said}
    made.api.put(kinds.JOB, {**job, "status": {"conditions": [failed]}})
    regarding = {"kind": "Pod", "name": pod, "namespace": "demo"}
    event = {"metadata": {"name": "e", "namespace": "demo"}, "reason": "Preempted", "regarding": regarding}
    made.api.put(kinds.EVENT, {**event, "type": "Normal"})
    made.resync()
    await made.work()
    (run,) = made.api.all(kinds.TRAINING_RUN)
    assert [each["reason"] for each in run["status"]["attempts"]] == ["Preempted"]

"""A team's training image through the whole operator, on a cluster in memory: Fit, then the judge; who is believed."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.controller.fake_cluster import Nodes
from tests.unit.controller.world import SPEC, World
from truekeep.cluster import kinds
from truekeep.contract.results import TrainResult

Json = dict[str, Any]
IDENTITY = "registry.example/team/fit@sha256:" + "5c" * 32
IMAGE: Json = copy.deepcopy(SPEC)
IMAGE["training"] = {"image": {"reference": "registry.example/team/fit:1", "format": "ONNX"}, "retries": {"limit": 0}}
WORDS = "Traceback: no licence"


def result(job: Json, reason: str) -> str:
    """What our own container would hand over."""
    (upload,) = job["spec"]["template"]["spec"]["containers"]
    request = json.loads(next(one["value"] for one in upload["env"] if one["name"] == "TRUEKEEP_REQUEST"))
    made = {"runUid": request["runUid"], "reason": reason, "message": "made up",
            "trainingFingerprint": request["trainingFingerprint"]}  # fmt: skip
    return TrainResult.model_validate(made).to_message()


@dataclass
class FittingNodes(Nodes):
    """Pods of the stage Fit end with this container's failure, or all goes well."""

    fails: str | None = None  # prepare, fit or upload
    code: int = 7
    says: str = WORDS  # a reason of TrainResult: the whole of one

    def _job(self, job: Json) -> None:
        labels = job["metadata"]["labels"]
        pods = self._pods_of(job["metadata"]["uid"])
        if labels.get("truekeep.dev/stage") != "Fit" or not pods or (job.get("status") or {}).get("conditions"):
            super()._job(job)
            return
        stamp = self.api.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        order = ["prepare", "fit", "upload"]
        last = order.index(self.fails) if self.fails else len(order)
        says = result(job, self.says) if self.says[:1].isupper() and " " not in self.says else self.says
        bad = {"exitCode": self.code, "reason": "Error", "message": says, "finishedAt": stamp}
        good = {"exitCode": 0, "reason": "Completed", "finishedAt": stamp}
        ended = [
            {"name": name, "imageID": IDENTITY, "state": {"terminated": bad if name == self.fails else good}}
            if place <= last
            else {"name": name, "state": {"waiting": {"reason": "PodInitializing"}}}
            for place, name in enumerate(order)
        ]
        phase = "Failed" if self.fails else "Succeeded"
        status = {"phase": phase, "initContainerStatuses": ended[:2], "containerStatuses": ended[2:]}
        self._set_status(kinds.POD, pods[0], status)
        kind = "Failed" if self.fails else "Complete"
        end = {"type": kind, "status": "True", "lastTransitionTime": stamp}
        reason = {"reason": "PodFailurePolicy"} if self.fails else {}
        self._set_status(kinds.JOB, job, {"conditions": [{**end, **reason}]})


async def told(**fails: Any) -> tuple[World, Json]:
    """The world at rest, and its one run."""
    world = World()
    world.nodes = FittingNodes(world.api, **fails)
    world.apply(kinds.MODEL, "m", IMAGE)
    await world.rounds(12, seconds=10)
    (run,) = world.api.all(kinds.TRAINING_RUN)
    return world, run


def jobs(world: World) -> dict[str, Json]:
    found = [job for job in world.api.all(kinds.JOB) if "truekeep.dev/stage" in job["metadata"]["labels"]]
    return {job["metadata"]["labels"]["truekeep.dev/stage"]: job for job in found}


async def test_fit_then_the_judge_who_knows_what_fitted() -> None:
    world, run = await told()
    assert run["status"]["revision"] == 1
    assert world.condition(run, "Complete")["status"] == "True"
    made = jobs(world)
    assert set(made) == {"Fit", "Train"}
    assert made["Fit"]["metadata"]["name"] == f"{run['metadata']['name']}-fit"
    assert made["Train"]["metadata"]["name"] == run["metadata"]["name"]
    (trainer,) = made["Train"]["spec"]["template"]["spec"]["containers"]
    request = json.loads(next(one["value"] for one in trainer["env"] if one["name"] == "TRUEKEEP_REQUEST"))
    assert request["fitImageId"] == IDENTITY


async def test_a_team_s_crash_is_told_in_its_words_and_nothing_is_judged() -> None:
    world, run = await told(fails="fit")
    ready = world.condition(run, "Ready")
    assert ready["reason"] == "ImageCrashed"
    assert f"spec.training.image in pod {run['metadata']['name']}-fit-x" in ready["message"]
    assert "ended with code 7" in ready["message"]
    assert WORDS in ready["message"]
    assert list(jobs(world)) == ["Fit"]


@pytest.mark.parametrize("reason", ["Succeeded", "ChampionKept", "DataInvalid"])
async def test_a_team_s_words_are_never_a_result(reason: str) -> None:
    """Also where they look like one, to the run's UID."""
    _, run = await told(fails="fit", says=reason, code=3)
    assert "revision" not in run["status"]
    (ready,) = [one for one in run["status"]["conditions"] if one["type"] == "Ready"]
    assert ready["reason"] == "ImageCrashed"


async def test_bad_data_found_by_what_prepares_ends_the_run_as_ever() -> None:
    world, run = await told(fails="prepare", says="DataInvalid", code=3)
    assert world.condition(run, "Ready")["reason"] == "DataInvalid"
    assert list(jobs(world)) == ["Fit"]


async def test_a_crash_of_our_own_parts_is_not_the_image_s() -> None:
    world, run = await told(fails="upload", code=1)
    assert world.condition(run, "Ready")["reason"] == "TrainerCrashed"

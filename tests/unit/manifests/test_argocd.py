"""How our kinds stand in Argo CD, and what its actions do: by its own Lua engine, on statuses that decisions wrote."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import fetch_binary
from tests.unit.domain.test_approval import waiting
from tests.unit.domain.test_loop import live, retrain, served, to_canary
from tests.unit.domain.test_overrides import drifted, pause, roll_back
from tests.unit.domain.test_rollback import BLUE_GREEN, two
from tests.unit.domain.world import World, spec

pytestmark = pytest.mark.full  # Argo CD's engine is built first: five minutes, once a machine
FILE = Path(__file__).resolve().parents[3] / "manifests" / "argocd" / "argocd-cm.yaml"
ANNOTATIONS = {"paused": "truekeep.dev/paused", "rollback": "truekeep.dev/rollback", "retrain": "truekeep.dev/retrain"}
Json = dict[str, Any]


@lru_cache
def data() -> Mapping[str, str]:
    loaded: Json = yaml.safe_load(FILE.read_text())
    found: Mapping[str, str] = loaded["data"]
    return found


@lru_cache
def actions() -> Json:
    loaded: Json = yaml.safe_load(data()["resource.customizations.actions.truekeep.dev_Model"])
    return loaded


def ask(**question: Any) -> Any:
    done = subprocess.run(
        [fetch_binary("argocd-lua")], input=json.dumps([question]), capture_output=True, text=True, check=True
    )
    (answer,) = json.loads(done.stdout)
    assert "error" not in answer, answer["error"]
    return answer["answer"]


def health(kind: str, item: Json) -> tuple[str, str]:
    found = ask(ask="health", script=data()[f"resource.customizations.health.truekeep.dev_{kind}"], object=item)
    return found["status"], found.get("message", "")


def model(world: World) -> Json:
    """The Model as the API server would give it."""
    metadata = {"name": "m", "namespace": "ns", "generation": world.generation, "annotations": dict(world.annotations)}
    return {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "Model",
        "metadata": metadata,
        "spec": world.spec.dump(),
        "status": world.status.dump(),
    }


def run(world: World, number: int) -> Json:
    view = list(world.runs.values())[number]
    return {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": view.meta.name, "namespace": "ns", "generation": 1},
        "spec": view.spec.dump(),
        "status": view.status.dump(),
    }


def policy(world: World) -> Json:
    assert world.policy is not None
    return {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "DriftPolicy",
        "metadata": {"name": "p", "namespace": "ns", "generation": 1},
        "spec": world.policy.spec.dump(),
        "status": world.policy.status.dump(),
    }


def in_training() -> World:
    world = World()
    world.reconcile()
    return world


def refused() -> World:
    world = World()
    world.calm(train="GatesFailed")
    return world


def no_better() -> World:
    """A retrain whose model is not better than the live one."""
    world = live()
    retrain(world)
    world.calm(train="ChampionKept")
    return world


def retrain_failed() -> World:
    world = live()
    retrain(world)
    world.calm(train="DataInvalid")
    return world


def change_failed() -> World:
    world = live()
    world.change(spec(seed=5))
    world.calm(train="DataInvalid")
    return world


def in_canary() -> World:
    world = live()
    to_canary(world)
    return world


def by_hand() -> World:
    world = two()
    roll_back(world)
    world.calm()
    return world


def paused() -> World:
    world = live()
    pause(world)
    world.calm()
    return world


def found_drift() -> World:
    world = drifted(live())
    world.reconcile()
    return world


@pytest.mark.parametrize(
    ("made", "status", "words"),
    [
        (live, "Healthy", "revision 1 answers"),
        (in_training, "Progressing", ""),
        (in_canary, "Healthy", "revision 1 answers"),
        (refused, "Degraded", "GatesFailed"),
        (no_better, "Healthy", "revision 1 answers"),
        (retrain_failed, "Healthy", "revision 1 answers"),
        (change_failed, "Degraded", "DataInvalid"),
        (waiting, "Suspended", "truekeep approve m"),
        (paused, "Suspended", "truekeep resume"),
        (by_hand, "Suspended", "truekeep resume"),
        (found_drift, "Healthy", "revision 1 answers"),
    ],
)
def test_a_model_stands_as_it_does(made: Callable[[], World], status: str, words: str) -> None:
    found = health("Model", model(made()))
    assert found[0] == status, found
    assert words in found[1]


def test_an_application_stands_as_it_says_so_that_waves_wait_for_it() -> None:
    script = data()["resource.customizations.health.argoproj.io_Application"]
    for said, status in (({}, "Progressing"), ({"health": {"status": "Degraded", "message": "why"}}, "Degraded")):
        assert ask(ask="health", script=script, object={"status": said})["status"] == status
    assert ask(ask="health", script=script, object={"kind": "Application"})["status"] == "Progressing"


def test_what_the_operator_has_not_seen_is_progressing_and_never_what_it_was() -> None:
    world = live()
    world.change(spec(seed=2))
    assert health("Model", model(world))[0] == "Progressing"
    new = model(world)
    del new["status"]
    assert health("Model", new)[0] == "Progressing"
    assert health("DriftPolicy", {"metadata": {"generation": 1}, "spec": {}})[0] == "Progressing"
    assert health("TrainingRun", {"metadata": {"generation": 1}, "spec": {}})[0] == "Progressing"


@pytest.mark.parametrize(
    ("made", "number", "status"),
    [(live, 0, "Healthy"), (in_training, 0, "Progressing"), (no_better, 1, "Healthy"), (retrain_failed, 1, "Degraded")],
)
def test_a_run_stands_as_it_does(made: Callable[[], World], number: int, status: str) -> None:
    world = made()
    world.reconcile()
    assert health("TrainingRun", run(world, number))[0] == status


def test_drift_does_not_make_a_policy_degraded() -> None:
    assert health("DriftPolicy", policy(found_drift()))[0] == "Healthy"


def test_a_policy_without_its_model_is_degraded_and_a_suspended_one_suspended() -> None:
    world = World(spec=spec(serving={"capture": None}))
    world.watch()
    world.calm()
    status, message = health("DriftPolicy", policy(world))
    assert status == "Degraded"
    assert "spec.serving.capture" in message
    world = live()
    world.watch(suspend="Now")
    world.calm()
    assert health("DriftPolicy", policy(world))[0] == "Suspended"


def test_an_approval_says_who() -> None:
    item = {"metadata": {"name": "a"}, "spec": {"decision": "Approve", "approver": "ann"}}
    assert health("ModelApproval", item) == ("Healthy", "Approve by ann")


def offered(world: World) -> dict[str, bool]:
    """The actions, and whether each can be done now."""
    found = ask(ask="discovery", script=actions()["discovery.lua"], object=model(world))
    return {one["name"]: not one.get("disabled", False) for one in found}


def act(world: World, name: str) -> None:
    """What Argo CD does to the object: the difference may be in the annotations alone."""
    (script,) = [one["action.lua"] for one in actions()["definitions"] if one["name"] == name]
    before = model(world)
    (changed,) = ask(ask="action", script=script, object=before)
    assert changed["operation"] == "patch"
    after = changed["object"]
    world.annotations = after["metadata"].get("annotations") or {}
    for item in (before, after):
        item["metadata"].pop("annotations", None)
    assert after == before


def test_what_is_offered_can_be_done() -> None:
    assert offered(live()) == {"retrain": True, "pause": True, "resume": False, "rollback": False}
    assert offered(two()) == {"retrain": True, "pause": True, "resume": False, "rollback": True}
    assert offered(paused()) == {"retrain": False, "pause": False, "resume": True, "rollback": False}
    assert offered(by_hand())["resume"]
    pinned = two()
    pinned.change(spec(seed=2, serving={**BLUE_GREEN, "pinnedRevision": 2}))
    assert not offered(pinned)["rollback"]


def test_the_actions_do_what_they_say() -> None:
    world = live()
    act(world, "retrain")
    world.calm()
    assert served(world) == 2
    act(world, "rollback")
    world.calm()
    assert served(world) == 1
    act(world, "pause")
    world.calm()
    assert health("Model", model(world))[0] == "Suspended"
    act(world, "resume")
    world.calm()
    assert served(world) == 2
    assert not set(world.annotations) & {ANNOTATIONS["paused"], ANNOTATIONS["rollback"]}
    assert health("Model", model(world))[0] == "Healthy"


def test_an_approval_is_no_action() -> None:
    assert {one["name"] for one in actions()["definitions"]} == {"retrain", "pause", "resume", "rollback"}
    assert not [key for key in data() if "actions" in key and not key.endswith("_Model")]

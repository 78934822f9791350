"""`truekeep retrain`: one annotation, whose run's name is known before there is one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from tests.unit.domain.world import World
from truekeep.api.names import ANNOTATION_PAUSED, ANNOTATION_RETRAIN
from truekeep.cli import retrain
from truekeep.cli import wait as waiting
from truekeep.cli.kube import Person
from truekeep.cli.main import app

MODEL: dict[str, Any] = {"metadata": {"name": "late", "uid": "uid-1", "annotations": {"team": "fraud"}}}


def run(name: str, reason: str = "Complete", of: str = "late", generation: int = 1) -> dict[str, Any]:
    """A run with one condition that is True; the others are not."""
    conditions = [
        {"type": kind, "status": "True" if kind == reason else "False", "reason": reason, "message": f"it is {reason}"}
        for kind in ("Complete", "Failed")
    ]
    return {
        "metadata": {"name": name, "generation": generation},
        "spec": {"modelRef": {"name": of}},
        "status": {"observedGeneration": generation, "conditions": conditions},
    }


class Cluster(Person):
    """A Model, its runs, and what was asked."""

    model: ClassVar[dict[str, Any]] = MODEL
    known: ClassVar[list[dict[str, Any]]] = []
    later: ClassVar[list[str]] = []  # how the run that is asked for stands, look after look
    told: ClassVar[dict[str, str | None]] = {}

    def get(self, plural: str, name: str) -> Any:
        assert (plural, name) == ("models", "late")
        return self.model

    def list(self, plural: str) -> Any:
        assert plural == "trainingruns"
        if self.told and self.later:
            stands = self.later.pop(0)
            return [*self.known, *([run(asked_for(self.told), stands)] if stands else [])]
        return self.known

    def user(self) -> str:
        return "ann"

    def annotate(self, plural: str, name: str, annotations: Mapping[str, str | None]) -> Any:
        self.told.update(annotations)
        return {}


def asked_for(annotations: Mapping[str, str | None]) -> str:
    return retrain.run_name("late", "uid-1", "manual", str(annotations[ANNOTATION_RETRAIN]))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Cluster]:
    monkeypatch.setattr(retrain, "person", lambda namespace: Cluster(namespace or "shop"))
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(Cluster, "told", {})
    monkeypatch.setattr(Cluster, "later", [])
    monkeypatch.setattr(Cluster, "known", [run("late-1"), run("late-2", "Failed"), run("other-1", "", of="other")])
    monkeypatch.setattr(Cluster, "model", copy.deepcopy(MODEL))
    return Cluster


def say(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["retrain", *words])
    return done.exit_code, done.stdout, done.stderr


def test_who_and_why_are_asked_and_the_run_is_named(cluster: type[Cluster]) -> None:
    code, out, _ = say("late", "--reason", "labels  were\nback-filled")
    assert code == 0
    value = cluster.told[ANNOTATION_RETRAIN]
    assert value is not None
    assert value.endswith("Z by ann: labels were back-filled")
    assert out == f"trainingrun/{asked_for(cluster.told)}\n"
    assert list(cluster.told) == [ANNOTATION_RETRAIN]


def test_the_operator_makes_the_run_of_that_name_and_its_trigger_says_who_asked() -> None:
    """What the command computes is what the domain makes of the annotation."""
    world = World()
    world.calm()
    value = retrain.asked("2026-11-23T12:00:00Z by ann", "x" * 999)
    world.annotations = {ANNOTATION_RETRAIN: value}
    world.calm()
    made = list(world.runs.values())[-1]
    meta = world.observed().model.meta
    assert made.meta.name == retrain.run_name(meta.name, meta.uid, "manual", value)
    assert made.spec.trigger.value == value
    assert made.spec.trigger.message.endswith(f"by ann: {'x' * retrain.REASON_LENGTH}")


@pytest.mark.parametrize(
    ("annotations", "runs", "words"),
    [
        ({ANNOTATION_PAUSED: "2026 by bob"}, [], "is paused (2026 by bob): truekeep resume late goes first"),
        ({}, [run("late-9", "")], "has a run under way, late-9: wait for its end (truekeep wait run/late-9)"),
    ],
)
def test_what_can_not_begin_now_is_refused(
    cluster: type[Cluster], annotations: dict[str, str], runs: list[dict[str, Any]], words: str
) -> None:
    cluster.model["metadata"]["annotations"] |= annotations
    cluster.known += runs
    code, out, err = say("late", "-n", "shop")
    assert (code, out) == (2, "")
    assert f"truekeep: shop/late {words}" in err
    assert not cluster.told


def test_a_run_that_is_being_deleted_is_in_nobodys_way(cluster: type[Cluster]) -> None:
    going = run("late-9", "")
    going["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    cluster.known.append(going)
    assert say("late")[0] == 0


@pytest.mark.parametrize(("ends", "expected"), [("Complete", 0), ("Failed", 1)])
def test_waiting_ends_with_the_run(cluster: type[Cluster], ends: str, expected: int) -> None:
    cluster.later.extend(["", "None yet", ends])
    code, out, err = say("late", "--wait")
    assert (code, out) == (expected, f"trainingrun/{asked_for(cluster.told)}\n")
    assert "the operator has not made the run yet" in err
    assert f"it is {ends}" in err


def test_waiting_ends_in_time(cluster: type[Cluster]) -> None:
    assert say("late", "--wait", "--timeout", "0")[0] == waiting.EXIT_TIMEOUT

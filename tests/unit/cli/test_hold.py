"""Pause, resume and rollback: an annotation each, and nothing else of the object."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from truekeep.cli import hold
from truekeep.cli.kube import Person
from truekeep.cli.main import app

ROLLBACK, PAUSED = "truekeep.dev/rollback", "truekeep.dev/paused"
MODEL: dict[str, Any] = {
    "metadata": {"name": "late", "annotations": {"team": "fraud"}},
    "spec": {"serving": {}},
    "status": {
        "active": {"revision": 3},
        "former": {"revision": 2},
        "history": [{"revision": 3}, {"revision": 2}, {"revision": 1}],
    },
}


class Cluster(Person):
    """A Model with three revisions."""

    model: ClassVar[dict[str, Any]] = MODEL
    told: ClassVar[list[tuple[str, dict[str, str | None]]]] = []

    def get(self, plural: str, name: str) -> Any:
        assert (plural, name) == ("models", "late")
        return self.model

    def list(self, plural: str) -> Any:
        assert plural == "trainingruns"
        made = [{"spec": {"modelRef": {"name": "late"}}, "status": {"revision": n}} for n in (1, 2, 3)]
        return [*made, {"spec": {"modelRef": {"name": "late"}}}, {"spec": {"modelRef": {"name": "other"}}}]

    def user(self) -> str:
        return "ann"

    def annotate(self, plural: str, name: str, annotations: Mapping[str, str | None]) -> Any:
        self.told.append((name, dict(annotations)))
        return {}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Cluster]:
    monkeypatch.setattr(hold, "person", lambda namespace: Cluster(namespace or "shop"))
    monkeypatch.setattr(Cluster, "told", [])
    monkeypatch.setattr(Cluster, "model", copy.deepcopy(MODEL))
    return Cluster


def say(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.output


def test_a_pause_says_who_and_when(cluster: type[Cluster]) -> None:
    code, words = say("pause", "late")
    assert code == 0
    assert "truekeep resume late" in words
    ((name, annotations),) = cluster.told
    assert name == "late"
    assert list(annotations) == [PAUSED]
    assert str(annotations[PAUSED]).endswith(" by ann")


@pytest.mark.parametrize(("options", "revision"), [((), 2), (("--to", "1"), 1)])
def test_a_rollback_names_a_revision(cluster: type[Cluster], options: tuple[str, ...], revision: int) -> None:
    code, words = say("rollback", "late", *options)
    assert code == 0, words
    assert f"from revision 3 to revision {revision}" in words
    ((_, annotations),) = cluster.told
    assert str(annotations[ROLLBACK]).startswith(f"{revision}/2")


def test_a_rollback_to_what_is_not_there_is_refused(cluster: type[Cluster]) -> None:
    code, words = say("rollback", "late", "--to", "9")
    assert code == 2
    assert "has no revision 9; there are 1, 2, 3" in words
    assert not cluster.told


def test_a_pin_in_the_spec_goes_before(cluster: type[Cluster]) -> None:
    cluster.model["spec"]["serving"]["pinnedRevision"] = 3
    code, words = say("rollback", "late")
    assert code == 2
    assert "change it in Git" in words
    assert not cluster.told


def test_the_first_revision_has_none_before_it(cluster: type[Cluster]) -> None:
    cluster.model["status"] = {"active": {"revision": 1}, "history": [{"revision": 1}]}
    code, words = say("rollback", "late")
    assert code == 2
    assert "no other revision of shop/late has answered" in words


def test_what_answers_already_is_left_alone(cluster: type[Cluster]) -> None:
    code, words = say("rollback", "late", "--to", "3")
    assert code == 0
    assert "answers already" in words
    assert not cluster.told


def test_resume_removes_what_holds_and_nothing_else(cluster: type[Cluster]) -> None:
    cluster.model["metadata"]["annotations"] |= {PAUSED: "x", ROLLBACK: "2"}
    assert say("resume", "late")[0] == 0
    assert cluster.told == [("late", {PAUSED: None, ROLLBACK: None})]


def test_resume_of_what_is_not_held_writes_nothing(cluster: type[Cluster]) -> None:
    code, words = say("resume", "late")
    assert code == 0
    assert "nothing to resume" in words
    assert not cluster.told

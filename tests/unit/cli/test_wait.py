"""Waiting ends when it is so, and at once when it can't get so any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from truekeep.cli import wait
from truekeep.cli.kube import Person
from truekeep.cli.main import app


def condition(kind: str, status: str, reason: str = "Because", message: str = "why") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def item(*conditions: dict[str, str], generation: int = 2, seen: int = 2) -> dict[str, Any]:
    status = {"observedGeneration": seen, "conditions": list(conditions)}
    return {"metadata": {"name": "late", "generation": generation}, "status": status}


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (item(condition("Ready", "True")), "Met"),
        (item(condition("Ready", "True"), seen=1), "Going"),
        (item(condition("Ready", "False"), condition("Stalled", "False")), "Going"),
        (item(condition("Ready", "False"), condition("Stalled", "True")), "Failed"),
        (item(condition("Ready", "Unknown"), condition("Failed", "True")), "Failed"),
        ({"metadata": {"name": "late", "generation": 1}}, "Going"),
    ],
)
def test_verdicts(seen: dict[str, Any], state: str) -> None:
    assert wait.verdict(seen, "Ready").state == state


def test_waiting_for_a_failure_is_met_by_it() -> None:
    assert wait.verdict(item(condition("Failed", "True")), "Failed").state == "Met"


class Cluster(Person):
    """An object that changes with each look."""

    looks: Iterator[dict[str, Any]]

    def get(self, plural: str, name: str) -> Any:
        assert (plural, name) in (("models", "late"), ("trainingruns", "late"))
        return next(self.looks)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Cluster]:
    monkeypatch.setattr(wait, "person", lambda namespace: Cluster(namespace or "shop"))
    monkeypatch.setattr(wait, "POLL_SECONDS", 0.0)
    return Cluster


def say(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.output


def test_it_says_what_is_new_and_ends_well(cluster: type[Cluster]) -> None:
    going = item(condition("Ready", "False", "Training", "run a"))
    cluster.looks = iter([going, going, item(condition("Ready", "True", "Serving", "revision 2 answers"))])
    code, words = say("wait", "late")
    assert code == 0
    assert words.splitlines() == [
        "Ready is False, Training: run a",
        "Ready is True, Serving: revision 2 answers",
    ]


def test_it_ends_with_1_on_failure(cluster: type[Cluster]) -> None:
    stuck = condition("Stalled", "True", "GatesFailed", "auc: 0.5 is below 0.6")
    cluster.looks = iter([item(condition("Ready", "False"), stuck)])
    code, words = say("wait", "model/late")
    assert code == 1
    assert "GatesFailed: auc: 0.5 is below 0.6" in words


def test_a_run_is_waited_for_until_it_is_complete(cluster: type[Cluster]) -> None:
    cluster.looks = iter([item(condition("Complete", "True"))])
    assert say("wait", "trainingruns.truekeep.dev/late")[0] == 0


def test_time_that_is_over_is_3(cluster: type[Cluster]) -> None:
    cluster.looks = iter([item(condition("Ready", "False"))])
    code, words = say("wait", "late", "--timeout", "0")
    assert code == 3
    assert "not within 0 s" in words


@pytest.mark.parametrize("what", ["pod/late", "model/"])
def test_what_names_nothing_is_refused(what: str) -> None:
    code, words = say("wait", what)
    assert code == 2
    assert "write model/NAME, run/NAME or policy/NAME" in words


def test_a_condition_that_there_is_not_is_refused(cluster: type[Cluster]) -> None:
    cluster.looks = iter([item(condition("Ready", "True"))])
    code, words = say("wait", "late", "--for", "Readdy")
    assert code == 2
    assert "it has Ready" in words

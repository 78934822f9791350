"""The runs of a Model, and what differs between two revisions."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.cli.test_lineage import model, run
from truekeep.cli import past
from truekeep.cli.kube import Person
from truekeep.cli.main import app


def ended(revision: int | None, name: str, created: str, reason: str = "Succeeded") -> dict[str, Any]:
    made = copy.deepcopy(run(revision))
    made["metadata"] = {"name": name, "creationTimestamp": created}
    made["status"] |= {
        "completionTime": created,
        "conditions": [{"type": "Ready", "status": "True", "reason": reason, "message": f"it was {reason}"}],
    }
    return made


RUNS = [
    ended(1, "late-a", "2026-01-01T09:00:00Z"),
    ended(2, "late-b", "2026-02-01T09:00:00Z"),
    ended(None, "late-c", "2026-03-01T09:00:00Z", "GatesFailed"),
]


class Cluster(Person):
    def get(self, plural: str, name: str) -> Any:
        return model()

    def list(self, plural: str) -> Any:
        return [*RUNS, run(1, model="other")]


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "person", lambda namespace: Cluster(namespace or "shop"))


def say(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.output


def test_history_has_every_run_and_when_it_answered() -> None:
    code, text = say("history", "late", "-o", "json")
    assert code == 0
    rows = json.loads(text)
    assert [(row["run"], row["revision"], row["result"]) for row in rows] == [
        ("late-c", None, "GatesFailed"),
        ("late-b", 2, "Succeeded"),
        ("late-a", 1, "Succeeded"),
    ]
    assert rows[2]["answered"] == "2026-03-01 10:00 to now; 2026-01-01 10:00 to 2026-02-01 10:00"
    assert rows[0]["answered"] == ""


def test_history_fits_a_terminal() -> None:
    code, text = say("history", "late")
    assert code == 0
    assert "late-c" in text
    assert "GatesFailed" in text
    assert max(map(len, text.splitlines())) <= 80


def test_diff_shows_what_differs_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = copy.deepcopy(RUNS)
    changed[1]["status"]["data"]["rows"] = 52000
    changed[1]["status"]["metrics"] = [{"name": "roc_auc", "value": "0.74"}]
    monkeypatch.setattr(Cluster, "list", lambda self, plural: changed)
    code, text = say("diff", "late", "1", "2", "-o", "json")
    assert code == 0
    assert json.loads(text) == [
        {"what": "data: rows", "1": "48,910", "2": "52,000"},
        {"what": "roc_auc", "1": "0.71", "2": "0.74"},
    ]
    code, text = say("diff", "late", "1", "2")
    assert "REVISION 1" in text
    assert max(map(len, text.splitlines())) <= 80


def test_revisions_that_are_the_same_are_said_to_be() -> None:
    assert "do not differ" in say("diff", "late", "1", "2")[1]


def test_a_revision_that_is_not_there_is_refused() -> None:
    code, text = say("diff", "late", "1", "7")
    assert code == 2
    assert "has no revision 7; there are 1, 2" in text

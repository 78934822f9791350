"""What made a revision, and which one answered when."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.cli.test_why import Scene
from truekeep.cli import lineage
from truekeep.cli.kube import Person
from truekeep.cli.main import app
from truekeep.contract import layout

DIGEST = "sha256:" + "ab" * 32


def model() -> dict[str, Any]:
    def answered(revision: int, since: str) -> dict[str, Any]:
        return {"revision": revision, "since": since, "run": "r", "artifactDigest": DIGEST, "deployment": "d"}

    history = [
        answered(1, "2026-03-01T10:00:00Z"),
        answered(2, "2026-02-01T10:00:00Z"),
        answered(1, "2026-01-01T10:00:00Z"),
    ]
    return {"metadata": {"name": "late"}, "status": {"history": history}}


def run(revision: int | None, model: str = "late") -> dict[str, Any]:
    status = {
        "revision": revision,
        "author": "bob",
        "image": "truekeep/trainer@sha256:12",
        "modelGeneration": 4,
        "trainingFingerprint": "sha256:34",
        "data": {
            "rows": 48910,
            "objects": 12,
            "digest": "sha256:56",
            "replayable": "True",
            "windowStart": "2013-01-01T00:00:00Z",
            "windowEnd": "2013-03-01T00:00:00Z",
        },
        "metrics": [{"name": "roc_auc", "value": "0.71"}],
        "gates": [{"name": "auc", "value": "0.71", "result": "Passed"}],
        "artifact": {"digest": DIGEST, "uri": "s3://models/artifacts/"},
        "record": {"id": "sha256:78", "uri": "s3://models/records/78.json"},
    }
    return {
        "metadata": {"name": f"late-{revision}"},
        "spec": {"modelRef": {"name": model}, "trigger": {"type": "Spec", "message": "the Model is new"}},
        "status": status,
    }


def approval(digest: str = DIGEST) -> dict[str, Any]:
    return {
        "metadata": {"name": "late-r1-approve", "creationTimestamp": "2026-01-01T09:00:00Z"},
        "spec": {
            "modelRef": {"name": "late"},
            "artifactDigest": digest,
            "decision": "Approve",
            "approver": "ann",
            "reason": "reviewed",
        },
    }


def test_a_revision_says_what_made_it_and_when_it_answered() -> None:
    two, one = lineage.revisions(model(), [run(1), run(2), run(None), run(9, "other")], [approval(), approval("x")])
    assert (one["revision"], two["revision"]) == (1, 2)
    assert one["answered"] == [
        {"since": "2026-03-01T10:00:00Z", "until": None},
        {"since": "2026-01-01T10:00:00Z", "until": "2026-02-01T10:00:00Z"},
    ]
    assert two["answered"] == [{"since": "2026-02-01T10:00:00Z", "until": "2026-03-01T10:00:00Z"}]
    text = "\n".join(lineage.lines(one))
    for words in (
        "48,910 rows",
        "12 objects",
        "trainer@sha256:12",
        "bob",
        "ann, 2026-01-01 09:00: reviewed",
        "sha256:78",
    ):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= 80 or "sha256" in text


@pytest.mark.parametrize(
    ("moment", "revision"),
    [
        (datetime(2026, 1, 1, 10, 0, tzinfo=UTC), 1),
        (datetime(2026, 2, 15, tzinfo=UTC), 2),
        (datetime(2027, 1, 1, tzinfo=UTC), 1),
        (datetime(2025, 12, 31, tzinfo=UTC), None),
    ],
)
def test_which_one_answered(moment: datetime, revision: int | None) -> None:
    assert lineage.answered_at(model(), moment) == revision


class Cluster(Person):
    def get(self, plural: str, name: str) -> dict[str, Any]:
        return model()

    def list(self, plural: str) -> list[dict[str, Any]]:
        return {"trainingruns": [run(1), run(2)], "modelapprovals": [approval()]}[plural]


def ask(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(lineage, "person", lambda namespace: Cluster(namespace or "shop"))
    done = CliRunner().invoke(app, ["lineage", "late", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_answers_in_text_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = ask(monkeypatch)
    assert code == 0
    assert out.index("revision 2") < out.index("revision 1")
    code, out, _ = ask(monkeypatch, "--at", "2026-02-15", "-o", "json")
    assert [each["revision"] for each in json.loads(out)] == [2]
    code, out, _ = ask(monkeypatch, "--revision", "1")
    assert "revision 2" not in out


def test_what_nobody_knows_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = ask(monkeypatch, "--at", "2025-01-01")
    assert code == 2
    assert "the status knows from 2026-01-01T10:00:00Z on" in err
    code, _, err = ask(monkeypatch, "--revision", "7")
    assert code == 2
    assert "shop/late has no revision 7" in err


def test_the_store_knows_it_when_the_cluster_is_gone(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.decisions(scene.told())
    fixed = ["lineage", "late", "--store", str(scene.store.path), "-n", "shop"]
    done = CliRunner().invoke(app, fixed)
    assert (done.exit_code, done.stderr) == (0, "")
    for words in (
        "revision 1", "2026-11-02 03:30 to now", "2,400 rows", "truekeep/trainer@sha256:abc",
        "maria, 2026-11-01 12:30: reviewed", scene.artifact, scene.record, ".html",
    ):  # fmt: skip
        assert words in done.stdout
    (one,) = json.loads(CliRunner().invoke(app, [*fixed, "--at", "2026-11-02T04:00:00Z", "-o", "json"]).stdout)
    assert (one["revision"], one["decisions"][0]["approver"], one["data"]["objects"]) == (1, "maria", 1)
    done = CliRunner().invoke(app, [*fixed, "--at", "2026-11-01"])
    assert done.exit_code == 2
    assert "the store knows from 2026-11-02 03:30 UTC on" in done.stderr
    assert CliRunner().invoke(app, [*fixed, "--revision", "2"]).exit_code == 2
    assert "--namespace says" in CliRunner().invoke(app, fixed[:-2]).stderr
    path = scene.store.path / layout.record(scene.record)
    path.write_bytes(path.read_bytes().replace(b"2024", b"2023"))
    done = CliRunner().invoke(app, fixed)
    assert done.exit_code == 1
    assert "THE RECORD WAS ALTERED" in done.stderr

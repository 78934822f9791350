"""Revisions whose runs are gone from the cluster: every command works from the store, or says what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.cli.test_lineage import model, run
from truekeep.cli import archive, hold, kube, lineage, past, report, reproduce, stores
from truekeep.cli.main import app
from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.contract.decisions import Decision, Page
from truekeep.storage.folder import Folder

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUN = "late-0123456789"
STORE = {"s3": {"uri": "s3://models/", "endpoint": "http://s3.shop:7070", "credentialsSecretRef": {"name": "lake"}}}


def record() -> dict[str, Any]:
    """What the store has of revision 1: as of revision 2, but for its rows and one metric."""
    status = run(1)["status"]
    return {
        "run": {"trigger": run(1)["spec"]["trigger"], "modelGeneration": 4, "trainingFingerprint": "sha256:34"},
        "data": {**status["data"], "rows": 11, "objects": [{}] * 12},
        "evaluation": {"metrics": [{"name": "roc_auc", "value": "0.6"}], "gates": status["gates"], "cutOff": "0.4"},
        "artifact": status["artifact"],
        "environment": {"image": status["image"]},
    }


class Cluster(kube.Person):
    """A Model of three revisions, of which the first has no run any more."""

    def get(self, plural: str, name: str) -> Any:
        assert (plural, name) == ("models", "late")
        return {**model(), "spec": {"store": STORE}, "status": {**model()["status"], "latestRevision": 3}}

    def find(self, plural: str, name: str) -> Any:
        return next((one for one in self.list(plural) if one["metadata"]["name"] == name), None)

    def list(self, plural: str) -> Any:
        if plural == "models":
            return [{"metadata": {"name": "la"}}, self.get("models", "late")]
        runs = [run(2), run(3)] if plural == "trainingruns" else []
        return [{**one, "metadata": {**one["metadata"], "creationTimestamp": "2026-03-01T09:00:00Z"}} for one in runs]

    def user(self) -> str:
        return "ann"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    place = Folder(tmp_path)
    content = canonical_json(record())
    place.put(layout.record(sha256(content)), content)
    place.put(layout.beside_record(sha256(content), layout.REPORT), b"<html>old</html>")
    made = Decision(
        id="revision/u/1", kind="Revision", time=NOON, model_uid="u", revision=1, run=RUN, author="bob",
        artifact_digest="sha256:" + "ab" * 32, record=sha256(content),
    )  # fmt: skip
    page = Page(namespace="shop", model="late", number=1, previous=None, written=NOON, decisions=(made,))
    place.put(layout.decisions("shop", "late", 1), page.to_bytes())

    def opened(location: Any) -> Any:
        assert location.credentials_secret_ref is None, "the credentials are the person's own"
        return _Bucket(tmp_path, location.uri)

    monkeypatch.setattr(stores, "opened", opened)
    monkeypatch.setattr("truekeep.storage.s3.Bucket.open", opened)
    for command in (past, hold, lineage, report, reproduce):
        monkeypatch.setattr(command, "person", lambda namespace: Cluster(namespace or "shop"))
    return place


class _Bucket(Folder):
    """The folder, called by the addresses of a bucket; a report is asked for from below its own folder."""

    def __init__(self, path: Path, uri: str) -> None:
        super().__init__(path / uri.removeprefix("s3://models/"))
        self._uri = uri

    def uri(self, key: str = "") -> str:
        return self._uri + key


def say(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, " ".join(done.output.split())


def test_history_says_which_revisions_are_in_the_store_alone(store: Folder) -> None:
    code, text = say("history", "late")
    assert code == 0
    assert "revision 1: no run any more" in text
    assert "truekeep lineage late --namespace shop --store s3://models/" in text
    code, text = say("history", "late", "-o", "json")
    assert [row["revision"] for row in json.loads(text)] == [3, 2]


def test_diff_reads_the_store(store: Folder) -> None:
    code, text = say("diff", "late", "1", "2", "-o", "json")
    assert code == 0, text
    differs = {row["what"]: (row["1"], row["2"]) for row in json.loads(text)}
    assert differs["roc_auc"] == ("0.6", "0.71")
    assert differs["data: rows"] == ("11", "48,910")
    assert differs["cut-off"] == ("0.4", "-")
    assert set(differs) == {"roc_auc", "data: rows", "cut-off", "record"}, "as the cluster tells of the other one"


def test_the_report_opens_without_its_run(store: Folder, tmp_path: Path) -> None:
    code, text = say("open", "late", "1", "--to", str(tmp_path / "page.html"))
    assert code == 0, text
    assert (tmp_path / "page.html").read_bytes() == b"<html>old</html>"


def test_a_rollback_says_how_to_bring_it_back(store: Folder) -> None:
    code, text = say("rollback", "late", "--to", "1")
    assert code == 2
    assert "the run of revision 1 of shop/late is not in the cluster any more" in text
    assert "truekeep restore late --revision 1 --store s3://models/ --namespace shop" in text


def test_lineage_names_the_store(store: Folder) -> None:
    code, text = say("lineage", "late", "--revision", "1")
    assert code == 2
    assert "shop/late has no revision 1 in the cluster; --store asks the store" in text


def test_reproduce_finds_the_record_of_a_run_that_is_gone(store: Folder) -> None:
    found = archive.record_of_run("shop", Cluster("shop").list("models"), RUN, None)
    assert found is not None
    assert found[1] == sha256(canonical_json(record()))
    code, text = say("reproduce", "late-9999999999")
    assert code == 2
    assert "there is no run shop/late-9999999999" in text
    assert "truekeep lineage MODEL --store URI" in text


def test_an_altered_record_is_not_told_as_if_it_held(store: Folder) -> None:
    key = layout.record(sha256(canonical_json(record())))
    (store.path / key).write_bytes(canonical_json({**record(), "run": {}}))
    code, text = say("diff", "late", "1", "2")
    assert code == 2
    assert "THE RECORD WAS ALTERED" in text


def test_what_neither_has_is_refused(store: Folder) -> None:
    for found in store.path.rglob("*.json"):
        if "decisions" in str(found):
            found.unlink()
    code, text = say("open", "late", "1")
    assert code == 2
    assert "has no revision 1, neither in the cluster nor in s3://models/" in text
    assert say("open", "late", "9")[1] == "truekeep: late has no revision 9; truekeep history late lists them"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [((), ""), ((4,), "4"), ((1, 2, 3), "1 to 3"), ((1, 3, 4, 9), "1, 3 to 4, 9")],
)
def test_numbers_are_told_as_spans(numbers: tuple[int, ...], words: str) -> None:
    assert archive.spans(numbers) == words

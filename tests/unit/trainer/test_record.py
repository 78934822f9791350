"""What a record, and what lies beside it, must say for governance: item by item."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.lake import START, events
from tests.unit.trainer.test_report import GATES, Laptop
from truekeep.api.documentation import Documentation
from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.contract.decisions import Decision
from truekeep.contract.requests import Champion

DOCUMENTS = {
    "purpose": "for the desk that rebooks", "riskAssessment": "https://wiki.example/risk", "technical": "https://git.example",
    "instructions": "https://wiki.example/use", "oversight": "desk@example.com", "monitoringPlan": "https://wiki.example/plan",
}  # fmt: skip
EVALUATION = {
    **GATES,
    "fairness": [{"name": "equal", "column": "kind", "metric": "demographic_parity_difference", "maximum": "0.9"}],
    "champion": {"metric": "roc_auc", "rule": "NotWorse"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Laptop, Any, Any]:
    """The second run of a model, which was compared with the first."""
    place = Laptop(tmp_path_factory.mktemp("run"), events())
    first = place.run(run_uid="first")
    assert first.artifact is not None
    second = place.run(
        run_uid="second",
        evaluation=EVALUATION,
        author="ann",
        commit="8c0ffee",
        documentation=Documentation.model_validate(DOCUMENTS),
        champion=Champion(revision=1, artifact_digest=first.artifact.digest, trained_until=START),
    )
    assert second.record is not None
    return place, second, json.loads(place.store.get(layout.record(second.record.id)))


def gates(record: Any, name: str) -> Any:
    return next(gate for gate in record["evaluation"]["gates"] if gate["name"].startswith(name))


ITEMS: dict[str, Callable[[Any], Any]] = {
    "trigger": lambda r: r["run"]["trigger"]["type"] == "Spec",
    "author of the change": lambda r: r["run"]["author"] == "ann",
    "git commit": lambda r: r["run"]["commit"] == "8c0ffee",
    "data objects": lambda r: r["data"]["objects"][0]["uri"].startswith("/"),
    "their version": lambda r: {"versionId", "etag"} <= set(r["data"]["objects"][0]),
    "their sha256": lambda r: len(r["data"]["objects"][0]["sha256"]) >= 64,
    "their rows": lambda r: r["data"]["objects"][0]["rows"] == 2400,
    "schema digest": lambda r: r["data"]["schemaDigest"].startswith("sha256:"),
    "time window": lambda r: r["data"]["windowStart"] < r["data"]["windowEnd"],
    "feature references": lambda r: [one["name"] for one in r["data"]["declared"]["features"]] == ["amount", "kind"],
    "image digest": lambda r: "@sha256:" in r["environment"]["image"],
    "lock digest": lambda r: "lockDigest" in r["environment"],
    "versions": lambda r: r["environment"]["libraries"]["scikit-learn"] and r["environment"]["packagesDigest"],
    "parameters": lambda r: r["training"]["declared"]["recipe"]["estimator"],
    "seed": lambda r: r["training"]["seed"] == 7,
    "threads": lambda r: r["training"]["threads"]["trees"] == 1,
    "artifact sha256": lambda r: r["artifact"]["digest"].startswith("sha256:"),
    "artifact format": lambda r: "skops" in r["artifact"]["format"],
    "artifact signature": lambda r: any(one["path"] == layout.SIGNATURE for one in r["artifact"]["files"]),
    "challenger and champion": lambda r: float(r["evaluation"]["champion"]["champion"]) > 0.5,
    "supersedes": lambda r: r["previous"]["revision"] == 1,
    "slices": lambda r: gates(r, "by-kind"),
    "fairness, bias (10)": lambda r: gates(r, "equal"),
    "thresholds": lambda r: gates(r, "auc")["threshold"] == "0.6",
    "declared accuracy (15)": lambda r: any(one["name"] == "roc_auc" for one in r["evaluation"]["metrics"]),
    "cut-off": lambda r: float(r["evaluation"]["cutOff"]) > 0,
    "risk reference (9)": lambda r: r["documentation"]["riskAssessment"] == DOCUMENTS["riskAssessment"],
    "technical documentation (11)": lambda r: r["documentation"]["technical"],
    "instructions (13)": lambda r: r["documentation"]["instructions"],
    "oversight (14)": lambda r: r["documentation"]["oversight"],
    "monitoring plan (72)": lambda r: r["documentation"]["monitoringPlan"],
    "retained for six months (19, 26)": lambda r: (
        datetime.fromisoformat(r["retention"]["retainUntil"]) - datetime.fromisoformat(r["times"]["finished"])
        > timedelta(days=183)
    ),
}


@pytest.mark.parametrize("item", ITEMS)
def test_a_record_says(item: str, place: tuple[Laptop, Any, Any]) -> None:
    assert ITEMS[item](place[2]), item


def test_its_id_is_the_digest_of_its_canonical_json(place: tuple[Laptop, Any, Any]) -> None:
    _, result, record = place
    assert result.record.id == sha256(canonical_json(record))


def test_beside_it_lie_provenance_events_report_and_background(place: tuple[Laptop, Any, Any]) -> None:
    laptop, result, record = place
    statement = json.loads(laptop.beside(result, layout.PROVENANCE))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert "sha256:" + statement["subject"][0]["digest"]["sha256"] == record["artifact"]["digest"]
    events = [json.loads(line)["eventType"] for line in laptop.beside(result, layout.EVENTS).splitlines()]
    assert events == ["START", "COMPLETE"]
    page = laptop.beside(result, layout.REPORT)
    for words in DOCUMENTS.values():
        assert words in page
    rows = json.loads(laptop.beside(result, layout.BACKGROUND))["rows"]
    assert len(rows) == 100
    assert set(rows[0]) == {"amount", "kind"}


def test_what_comes_after_the_record_is_kept_in_the_decisions() -> None:
    """Approvals, deployed and retired times, failed rollouts: none of it is known when the record is written."""
    assert {"approver", "reason", "time", "expires_at"} <= set(Decision.model_fields)  # approvals
    assert {"revision", "deployment", "artifact_digest"} <= set(
        Decision.model_fields
    )  # Promoted: deployed; the next: retired
    assert "fingerprint" in Decision.model_fields  # Failed


def test_a_record_without_any_of_that_is_one_too(tmp_path: Path) -> None:
    result = Laptop(tmp_path).run()
    assert result.record is not None
    record = json.loads(Laptop(tmp_path).store.get(layout.record(result.record.id)))
    assert (record["documentation"], record["run"]["author"], record["run"]["commit"]) == (None, None, None)

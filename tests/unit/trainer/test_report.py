"""A run's report as a page, and what it is made from."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tests.unit.monitor.test_page import Tags
from tests.unit.trainer.lake import START, data_of, events, parquet, replaced, request_of, with_value
from truekeep.api.common import S3Location
from truekeep.api.evaluation import Evaluation
from truekeep.contract import layout
from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.results import TrainResult
from truekeep.scores.metrics import Scored
from truekeep.storage import StoreUnreachable
from truekeep.storage.folder import Folder
from truekeep.trainer.record import beside, evidence, report
from truekeep.trainer.record.evidence import Importance, Judged, decided, groups, importance, wilson
from truekeep.trainer.run import World, run

NASTY = "</style><script>alert(1)</script>\"'\u202e`" + "x" * 100
GATES = {
    "gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.6"}],
    "slices": [{"name": "by-kind", "column": "kind", "metric": "roc_auc", "minimum": "0.5", "minRows": 10}],
    "decision": {"rule": "RecallAtFalsePositiveRate", "value": "0.1"},
}


class Laptop:
    """A folder with the lake and the store in it."""

    def __init__(self, path: Path, table: Any = None) -> None:
        self.all, self.store = Folder(path), Folder(path / "models")
        self.said: list[str] = []
        self.all.put("lake/rows/a.parquet", parquet(events() if table is None else table))

    def opened(self, location: S3Location) -> Folder:
        return Folder(self.all.path / location.uri.removeprefix("s3://bucket/"))

    def run(self, **changes: Any) -> TrainResult:
        request = request_of(S3Location(uri="s3://bucket/models/"), **{"evaluation": GATES, **changes})
        return run(request, World(self.opened, lambda: START, self.said.append, 1))

    def beside(self, result: TrainResult, suffix: str) -> str:
        assert result.record is not None
        return self.store.get(layout.beside_record(result.record.id, suffix)).decode()

    def page(self, **changes: Any) -> str:
        return self.beside(self.run(**changes), layout.REPORT)


def section(page: str, title: str) -> str:
    """From one heading to the next."""
    return page.partition(f"<h2>{title}")[2].partition("<h2>")[0]


def test_a_run_that_passed_is_told_whole(tmp_path: Path) -> None:
    place = Laptop(tmp_path)
    result = place.run(evaluation={**GATES, "refit": "OnAllRows"})
    page = place.beside(result, layout.REPORT)
    found = Tags(page)
    assert found.open == []
    assert "Passed: this model may serve" in page
    titles = [re.sub("<.*?>", "", one) for one in re.findall("<h2>(.*?)</h2>", page)]
    assert titles == [
        "Metrics", "Gates: none failed", "Slices: none failed", "What changed since the champion", "Decision",
        "Calibration", "Importance of the features", "Data", "Model card", "Environment and identity",
    ]  # fmt: skip
    assert result.record is not None
    assert result.record.report == place.store.uri(layout.beside_record(result.record.id, layout.REPORT))
    assert result.artifact is not None
    for one in (result.record.id, result.artifact.digest, "truekeep/trainer@sha256:abc", "scikit-learn"):
        assert one in page
    for metric in result.metrics:
        assert re.search(rf"<td>{metric.name}</td><td>{re.escape(metric.value)}</td><td>-?0\.\d+ … -?0\.\d+</td>", page)
    assert section(page, "Calibration").count("<circle") == 10
    first, *_ = re.findall(r'class="name"[^>]*>(.*?)<', section(page, "Importance"))
    assert first == "amount", "what the label follows from most"
    assert "2,400" in section(page, "Data")
    card = section(page, "Model card")
    assert "the probability that late is 1" in card
    assert "fitted again on all 2,400 rows" in card
    assert "fairness (evaluation.fairness), missing columns" in card
    assert re.search(r"<td>amount</td><td>Number</td><td>any</td><td>allowed</td><td>-3\.\d+ … 3\.\d+</td>", card)
    assert "<td>a, b, c</td>" in card


def test_what_failed_comes_first_and_says_so(tmp_path: Path) -> None:
    strict = {**GATES, "gates": [{"name": "fine", "metric": "accuracy", "minimum": "0.1"},
                                 {"name": "hard", "metric": "roc_auc", "minimum": "0.999"}]}  # fmt: skip
    place = Laptop(tmp_path)
    result = place.run(evaluation=strict)
    page = place.beside(result, layout.REPORT)
    assert "A gate failed: this model does not serve" in page
    gates = section(page, "Gates")
    assert "1 failed" in gates
    assert gates.index("<td>hard</td>") < gates.index("<td>fine</td>")
    assert '<tr class="Failed"><td>hard</td><td>Failed</td>' in gates
    assert "<circle" in section(page, "Calibration")
    assert "<h2>Slices" in page
    with pytest.raises(Exception, match="no such file"):
        place.beside(result, layout.PROVENANCE)


def test_data_that_was_refused_is_told_too(tmp_path: Path) -> None:
    features = [{"name": "amount", "type": "Number", "minimum": "0"}, {"name": "kind", "type": "Category"}]
    page = Laptop(tmp_path, with_value(events(), "amount", 3, None)).page(data=data_of(features=features))
    assert "The data is not as declared: nothing was trained" in page
    wrong = section(page, "What is wrong with the data")
    assert "<td>amount</td>" in wrong
    assert "<h2>Metrics" not in page
    assert "<h2>Calibration" not in page
    assert Tags(page).open == []


def test_the_champion_is_told_with_what_changed(tmp_path: Path) -> None:
    place = Laptop(tmp_path)
    first = place.run(data=data_of(features=[{"name": "amount", "type": "Number"}]), evaluation={})
    assert first.artifact is not None
    live = {"revision": 4, "artifactDigest": first.artifact.digest, "trainedUntil": START}
    compared = {**GATES, "champion": {"metric": "roc_auc"}}
    page = place.page(run_uid="second", champion=live, evaluation=compared)
    changed = section(page, "What changed since the champion")
    assert "Revision 4 serves" in changed
    assert re.search(r"<dt>roc_auc</dt><dd>0\.\d+, the champion&#x27;s is 0\.\d+</dd>", changed)
    assert "<dt>new inputs</dt><dd>kind</dd>" in changed
    assert "<dt>estimator</dt><dd>sklearn.linear_model.LogisticRegression, as before</dd>" in changed
    assert re.search(r"<dt>cut-off</dt><dd>0\.500000 → 0\.\d{6}</dd>", changed)
    lost = {**live, "artifactDigest": "sha256:" + "0" * 64}
    page = place.page(run_uid="third", champion=lost, evaluation=compared)
    assert "Its files could not be read" in section(page, "What changed since the champion")


def harmless(page: str) -> None:
    """Nothing in it runs, loads, or leaves its own style."""
    found = Tags(page)
    assert found.open == []
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "form", "base", "a"}
    attributes = {name for _, given in found.tags for name in given}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "style")}
    assert page.count("<style>") == 1
    assert "\u202e" not in page
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [given["content"] for tag, given in found.tags if "http-equiv" in given and tag == "meta"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_hostile_values_and_columns_of_the_data_stay_text(tmp_path: Path) -> None:
    kinds = {"a": NASTY, "b": "<img src=x onerror=y>", "c": "c"}
    table = events()
    table = replaced(table, "kind", [kinds[one] for one in table["kind"].to_pylist()])
    table = table.append_column(f"{NASTY} column", table["amount"])
    page = Laptop(tmp_path / "one", table).page()
    harmless(page)
    assert "&lt;script&gt;" in section(page, "Slices")
    assert "&lt;img src=x onerror=y&gt;" in section(page, "Model card")
    features = [{"name": "amount", "type": "Number"}, {"name": "absent", "type": "Number"}]
    page = Laptop(tmp_path / "two", table).page(data=data_of(features=features), evaluation={})
    harmless(page)
    assert "&lt;script&gt;" in section(page, "What is wrong with the data"), "the columns that there are"


def test_no_text_of_a_record_is_taken_for_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text in it, and every name that comes from data, replaced by markup."""
    told: list[report.Told] = []
    monkeypatch.setattr(beside.report, "page", lambda one: told.append(one) or "")
    place = Laptop(tmp_path)
    first = place.run(evaluation={})
    assert first.artifact is not None
    live = {"revision": 1, "artifactDigest": first.artifact.digest, "trainedUntil": START}
    place.run(
        run_uid="second", champion=live, evaluation={**GATES, "champion": {"metric": "roc_auc"}, "refit": "OnAllRows"}
    )
    place.run(run_uid="third", parameters={"depth": "1"})
    place.run(run_uid="fourth", data=data_of(rules=[{"name": "enough", "minRows": 99999}]))
    monkeypatch.undo()

    def mangled(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: mangled(one, key) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [mangled(one, name) for one in value]
        return f"{NASTY}{value}" if isinstance(value, str) and name != "bound" else value

    for one in told:
        evidence = one.evidence
        if evidence:
            features = [feature.model_copy(update={"name": NASTY + feature.name}) for feature in evidence.features]
            losses = tuple(loss._replace(name=NASTY + loss.name) for loss in evidence.importance.losses)
            found = evidence.importance._replace(losses=losses)
            evidence = evidence._replace(features=features, importance=found)
        page = report.page(one._replace(record=mangled(one.record), evidence=evidence))
        harmless(page)
        assert page.count("&lt;script&gt;") > 30


def test_a_report_that_cannot_be_made_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise ZeroDivisionError("no page today")

    monkeypatch.setattr(beside.report, "page", broken)
    place = Laptop(tmp_path)
    result = place.run()
    assert result.reason == "Succeeded"
    assert any("could not make" in one and "ZeroDivisionError: no page today" in one for one in place.said)
    assert place.beside(result, layout.PROVENANCE)
    with pytest.raises(Exception, match="no such file"):
        place.beside(result, layout.REPORT)


def test_a_store_that_refuses_the_report_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Folder.put

    def refuses(self: Folder, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        if key.endswith(".html"):
            raise StoreUnreachable(f"could not put {key}")
        return put(self, key, data, only_if_absent)

    monkeypatch.setattr(Folder, "put", refuses)
    place = Laptop(tmp_path)
    assert place.run().reason == "Succeeded"
    assert any("StoreUnreachable" in one for one in place.said)


def test_the_record_and_the_artifact_are_the_same_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Laptop(tmp_path / "one").run()
    monkeypatch.setattr(beside, "write", lambda *_: frozenset())
    bare = Laptop(tmp_path / "two").run()
    assert kept.artifact is not None
    assert bare.artifact is not None
    assert kept.artifact.digest == bare.artifact.digest


@pytest.fixture
def judged() -> Judged:
    random = np.random.default_rng(3)
    matrix = random.normal(size=(800, 3))
    labels = (random.random(800) < 1 / (1 + np.exp(-3 * matrix[:, 0] - matrix[:, 1]))).astype(np.int8)
    model = LogisticRegression().fit(matrix, labels)
    features = [SignatureFeature(name=name, type="Number") for name in ("strong", "weak", "none")]

    def predict(rows: Any) -> Any:
        return model.predict_proba(rows)[:, 1]

    return Judged(Scored(labels, predict(matrix), 0.5), features, matrix, predict)


def test_importance_is_that_of_scikit_learn(judged: Judged) -> None:
    def score(_: Any, rows: Any, labels: Any) -> float:
        return float(roc_auc_score(labels, judged.predict(rows)))

    theirs = permutation_importance(
        LogisticRegression(), judged.matrix, judged.scored.labels, scoring=score, n_repeats=30, random_state=0
    ).importances_mean
    before = judged.matrix.copy()
    found = importance(judged, "roc_auc")
    assert np.array_equal(before, judged.matrix), "the judged rows are left alone"
    assert [one.name for one in found.losses] == ["strong", "weak", "none"]
    assert [one.mean for one in found.losses] == pytest.approx(theirs.tolist(), abs=0.02)
    assert found == importance(judged, "roc_auc")
    assert found.unmeasured == ()


def test_importance_ends_when_the_time_is_up(judged: Judged) -> None:
    seconds = itertools.count()
    found = importance(judged, "roc_auc", seconds=2, clock=lambda: float(next(seconds)))
    assert [(one.name, math.isnan(one.spread)) for one in found.losses] == [("strong", True)]
    assert found.unmeasured == ("weak", "none")
    assert importance(judged, "roc_auc", most=100).rows == 100


def test_importance_takes_a_share_of_what_fitting_took(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def measured(judged: Judged, metric: Any, *, seconds: float) -> Importance:
        given.append(seconds)
        return Importance(metric, 0, 0.0, (), ())

    monkeypatch.setattr(evidence, "importance", measured)
    for fit_seconds in (None, 0.0, 0.1, 50.0, 1000.0):
        evidence.gather(judged, Evaluation.model_validate({}), fit_seconds=fit_seconds)
    assert given == [3.0, 3.0, 0.25, 0.5, 3.0]


def test_groups_are_scikit_learns_calibration_curve(judged: Judged) -> None:
    labels, probabilities = judged.scored.labels, judged.scored.probabilities
    seen, predicted = calibration_curve(labels, probabilities, n_bins=10, strategy="quantile")
    found = groups(judged.scored)
    assert [one.seen for one in found] == pytest.approx(seen.tolist())
    assert [one.predicted for one in found] == pytest.approx(predicted.tolist())
    assert sum(one.rows for one in found) == 800
    assert all(one.low <= one.seen <= one.high for one in found)


def test_wilson_as_published() -> None:
    # Newcombe, Statistics in Medicine 1998, table I, method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_decided_counts_rows_by_truth_and_decision() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 0], dtype=np.int8)
    scored = Scored(labels, np.array([0.9, 0.5, 0.1, 0.6, 0.5, 0.2, 0.1]), 0.5)
    assert decided(scored) == (2, 1, 2, 2)

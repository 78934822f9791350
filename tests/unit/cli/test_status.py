from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from truekeep.cli import status
from truekeep.cli.main import app

POLICY = {
    "metadata": {"name": "weekly"},
    "spec": {"modelRef": {"name": "flights"}},
    "status": {
        "conditions": [{"type": "DriftDetected", "status": "True", "reason": "Breach", "message": "`temp` moved"}]
    },
}
OTHER = {"metadata": {"name": "other"}, "spec": {"modelRef": {"name": "fraud"}}}
MODEL = {
    "metadata": {"name": "flights"},
    "status": {
        "conditions": [{"type": "Ready", "status": "False", "reason": "RolledBack", "message": "revision 3 failed"}],
        "active": {"revision": 2, "since": "2026-01-01T00:00:00Z"},
        "candidate": {"revision": 4, "reachedPercent": 33},
        "metric": "roc_auc 0.74",
        "report": "s3://models/records/sha256/ab.html",
        "lastFailure": {"time": "2026-01-02T00:00:00Z", "reason": "ServerOutOfMemory", "revision": 3, "message": "why"},
    },
}

RUN = {
    "metadata": {"name": "flights-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"modelRef": {"name": "flights"}, "trigger": {"type": "Spec", "message": "the Model is new"}},
    "status": {
        "revision": 2,
        "completionTime": "2026-01-01T00:00:30Z",
        "metrics": [{"name": "roc_auc", "value": "0.74"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "revision 2: good"}],
    },
}


def test_it_says_what_answers_what_comes_what_was_found_and_what_failed() -> None:
    assert dict(status.lines(MODEL, [POLICY, OTHER])) == {
        "ready": "False, RolledBack: revision 3 failed",
        "answers": "revision 2, since 2026-01-01T00:00:00Z",
        "on its way": "revision 4, 33 % of the traffic",
        "metric": "roc_auc 0.74",
        "report": "s3://models/records/sha256/ab.html",
        "last failure": "2026-01-02T00:00:00Z ServerOutOfMemory (revision 3): why",
    }


def test_it_says_how_gateway_and_autoscaler_stand_where_there_are_any() -> None:
    routed = {"type": "Routed", "status": "True", "reason": "Accepted", "message": "100 % to revision 2"}
    scaled = {"type": "Scaled", "status": "Unknown", "reason": "NoAutoscaling", "message": "by hand"}
    model = {**MODEL, "status": {**MODEL["status"], "conditions": [routed, scaled]}}
    said = dict(status.lines(model, []))
    assert said["gateway"] == "True, Accepted: 100 % to revision 2"
    assert "pods" not in said


def test_it_says_how_the_last_sweep_of_captures_went() -> None:
    failed = {"type": "CapturesSwept", "status": "False", "reason": "SweepFailed", "message": "denied"}
    model = {**MODEL, "status": {**MODEL["status"], "conditions": [failed]}}
    assert dict(status.lines(model, []))["retention"] == "False, SweepFailed: denied"
    waiting = {**failed, "status": "Unknown", "reason": "NoSweepYet"}
    assert "retention" not in dict(status.lines({**model, "status": {"conditions": [waiting]}}, []))


def test_it_says_what_live_traffic_showed() -> None:
    rows = [
        {"name": "ErrorRate", "verdict": "Failed", "value": "0.2000", "threshold": "0.0100"},
        {"name": "PredictionShift", "verdict": "NotJudged", "value": "0.02"},
    ]
    model = {**MODEL, "status": {**MODEL["status"], "candidate": {"revision": 4, "analysis": rows}}}
    words = "ErrorRate Failed (0.2000 of 0.0100); PredictionShift NotJudged"
    assert dict(status.lines(model, []))["judged"] == words
    last = {"revision": 4, "outcome": "RolledBack", "analysis": rows}
    model = {**MODEL, "status": {**MODEL["status"], "candidate": None, "lastRollout": last}}
    assert dict(status.lines(model, []))["judged"] == f"revision 4, RolledBack: {words}"


def test_decisions_that_could_not_be_kept_are_told() -> None:
    model = {**MODEL, "status": {**MODEL["status"], "decisions": {"pages": 3, "problem": "the store denied it"}}}
    said = dict(status.lines(model, []))["decisions"]
    assert said == "not kept in the store yet, it is tried again: the store denied it"
    model = {**MODEL, "status": {**MODEL["status"], "decisions": {"pages": 3, "problem": ""}}}
    assert "decisions" not in dict(status.lines(model, []))


def test_a_model_that_nobody_looked_at_yet() -> None:
    said = dict(status.lines({"metadata": {"name": "new"}}, []))
    assert said == {"ready": "not known yet: the operator has not looked", "answers": "nothing"}


def test_it_prints_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_read", lambda namespace: ("demo", [MODEL], [POLICY, OTHER], [RUN]))
    result = CliRunner().invoke(app, ["status", "-n", "demo"])
    assert result.exit_code == 0
    assert "Model demo/flights" in result.output
    assert "RolledBack" in result.output
    assert "DriftDetected: True, Breach: `temp` moved" in result.output
    assert "flights-1: revision 2, Succeeded, roc_auc 0.74" in result.output
    assert "other" not in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_one_model_alone_and_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_read", lambda namespace: ("demo", [MODEL], [POLICY, OTHER], [RUN]))
    result = CliRunner().invoke(app, ["status", "flights", "-o", "json"])
    (found,) = json.loads(result.output)
    assert found["status"]["active"]["revision"] == 2
    assert [run["run"] for run in found["runs"]] == ["flights-1"]
    assert [policy["name"] for policy in found["policies"]] == ["weekly"]
    assert yaml.safe_load(CliRunner().invoke(app, ["status", "-o", "yaml"]).output) == [found]
    refused = CliRunner().invoke(app, ["status", "nobody"])
    assert refused.exit_code == 2
    assert "there is no Model nobody in namespace demo" in refused.output


def test_without_models_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_read", lambda namespace: ("demo", [], [], []))
    assert CliRunner().invoke(app, ["status"]).output == "There is no Model in namespace demo.\n"


def test_a_cluster_that_does_not_answer_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr("kubernetes.config.load_kube_config", fail)
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 2
    assert "refused; is KUBECONFIG right" in result.output

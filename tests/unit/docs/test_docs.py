"""The docs speak of what is there: reasons, paths, targets of make, YAML."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from truekeep.api.driftpolicy import DriftPolicy
from truekeep.api.model import Model
from truekeep.api.modelapproval import ModelApproval
from truekeep.api.trainingrun import TrainingRun
from truekeep.cli.main import app

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
KINDS = {"Model": Model, "TrainingRun": TrainingRun, "DriftPolicy": DriftPolicy, "ModelApproval": ModelApproval}
REASON = re.compile(r"^[A-Z][a-z]+([A-Z][a-z]+)*$")
# CamelCase words in domain/ that are no reasons: conditions, states, enum values of the API, exit reasons of pods.
OTHER_WORDS = {
    "Act", "Alert", "Allow", "Approve", "Awaited", "BlueGreen", "Canary", "Category", "Complete", "ConfigMap",
    "Counted", "CreateContainerConfigError", "CreateContainerError", "Data", "DataDrift", "Deadline", "Declined",
    "DeletionByTaintManager", "Drift", "DriftPolicy", "EmptyDir", "ErrImageNeverPull", "ErrImagePull", "Error",
    "Fail", "Failed", "FailedIndexes", "False", "Fit", "Gates", "Gi", "Given", "ImagePullBackOff", "InvalidImageName",
    "Kept", "KolmogorovSmirnov", "Manual", "MaxFailedIndexesExceeded", "Memory", "Mi", "Minimum", "Model",
    "MustNotApprove", "Never", "NewData", "NodeShutdown", "Normal", "Now", "Outside", "Pending", "Performance",
    "PredictionDrift", "Preempting", "PreemptionByScheduler", "Promote", "Ready", "Reconciling", "Refused", "Reject",
    "Retrain", "Retry", "Revision", "Rollback", "Rollout", "Routed", "RunContainerError", "Running", "Scaled",
    "Schedule", "Secret", "Shadow", "Shutdown", "Spec", "Stale", "Stalled", "Stuck", "Succeeded", "Target",
    "Terminated", "TerminationByKubelet", "Train", "Training", "True", "Tune", "Unanswered", "Unknown", "Waiting",
    "Warning", "Wasserstein", "Wish", "Working",
}  # fmt: skip


def reasons() -> set[str]:
    """The words that decisions may answer as a reason."""
    found = set()
    for source in (ROOT / "operator/truekeep/domain").glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and REASON.match(node.value):
                found.add(node.value)
    return found - OTHER_WORDS


def test_every_reason_is_explained() -> None:
    explained = set(re.findall(r"`([A-Z][A-Za-z]+)`", (ROOT / "docs/reference.md").read_text()))
    assert len(reasons()) > 30
    assert reasons() - explained == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_targets_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets | {"nothing"}
    for path in re.findall(r"`((?:operator|crds|manifests|images|tests|docs)/[^`*\s]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}, which is not there"
    assert "@@" not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_is_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
        for document in yaml.safe_load_all(block):
            kind = KINDS[document["kind"]]
            parsed = kind.model_validate(document)
            for field, value in document["spec"].items():
                assert field in parsed.dump()["spec"], f"{page.name}: unknown field spec.{field}"
                assert value is not None


def test_commands_of_the_command_line_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    names = set(re.findall(r"^\$ truekeep ([a-z]+)", text, re.M)) | set(re.findall(r"`truekeep ([a-z]+)`", text))
    assert len(names) >= 3
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names <= known

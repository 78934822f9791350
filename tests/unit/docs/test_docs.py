"""The docs speak of what is there: reasons, paths, targets of make, YAML."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from truekeep.api import fields
from truekeep.api.crd import KINDS as KINDS_OF_THE_API
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
    "Fail", "Failed", "FailedIndexes", "False", "Fit", "Follow", "Gates", "Gi", "Given", "ImagePullBackOff",
    "InvalidImageName", "Kept", "KolmogorovSmirnov", "Manual", "MaxFailedIndexesExceeded", "Memory", "Mi", "Minimum",
    "Model", "MustNotApprove", "Never", "NewData", "NodeShutdown", "Normal", "Now", "Outside", "Pending", "Performance",
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
    assert set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", text, re.M)) <= targets | {"nothing"}
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


def test_the_fields_are_those_of_the_schemas() -> None:
    assert (ROOT / "docs/fields.md").read_text() == fields.render(), "run `make crds`"


def test_every_required_field_is_told() -> None:
    text = (ROOT / "docs/fields.md").read_text()
    for kind, *_ in KINDS_OF_THE_API:
        assert f"## {kind.__name__} (" in text
    assert "**`spec.data.features[].name`**" in text
    assert "broken data never retrains" in text  # a rule, with its message


def command_lines() -> list[tuple[str, list[str]]]:
    """Every line of the docs that calls `truekeep`: the page, and the words after it."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.S):
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            calls = [line[2:].split("truekeep ", 1)[1] for line in lines if re.match(r"\$ (kubectl )?truekeep ", line)]
            found += [(page.name, shlex.split(call, comments=True)) for call in calls]
    return found


@pytest.mark.parametrize(("page", "words"), command_lines())
def test_options_of_the_command_line_exist(page: str, words: list[str]) -> None:
    end = next((index for index, word in enumerate(words) if word in {"|", ">", "&"}), len(words))
    name, *rest = words[:end]
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, [], resilient_parsing=True)
    context.resilient_parsing = False
    _, too_many, _ = command.make_parser(context).parse_args(rest)  # an unknown option is an error
    assert not too_many, page


def test_commands_of_the_command_line_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    names = set(re.findall(r"^\$ truekeep ([a-z]+)", text, re.M)) | set(re.findall(r"`truekeep ([a-z]+)`", text))
    assert len(names) >= 3
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names <= known

"""Every kubectl command and every YAML of the docs is taken by a real cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import environment, require_own_context

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMESPACE = "truekeep-e2e-docs"
MODEL = ROOT / "manifests/examples/flight-delay/model.yaml"


def blocks(language: str) -> list[str]:
    """The fenced blocks of that language, of all pages."""
    return [block for page in PAGES for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)]


def commands() -> list[str]:
    """The kubectl commands of the docs: lines of console blocks, and whole commands in running text."""
    found = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ kubectl")]
    for page in PAGES:
        found += re.findall(r"`(kubectl (?:explain|annotate) [^`]+)`", page.read_text())
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A namespace with the example's Model in it, and a kubeconfig whose default it is."""
    env = {**os.environ, **environment()}
    require_own_context(env["KUBECONFIG"])
    config = yaml.safe_load(Path(env["KUBECONFIG"]).read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = NAMESPACE
    folder = tmp_path_factory.mktemp("docs")
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    mine = {**env, "KUBECONFIG": str(folder / "kubeconfig")}
    model = yaml.safe_load(MODEL.read_text())
    model["metadata"].pop("namespace", None)
    run("kubectl create namespace " + NAMESPACE, mine)
    try:
        run("kubectl apply -f -", mine, yaml.safe_dump(model))
        yield mine
    finally:
        run(f"kubectl delete namespace {NAMESPACE} --wait=false", mine)


def run(command: str, env: dict[str, str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], env=env, input=text, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def documents() -> list[object]:
    """Every object of a kind of ours that the docs show."""
    found = [
        (page.name, yaml.safe_load(document))
        for page in PAGES
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)
        for document in block.split("\n---\n")
    ]
    return [pytest.param(each, id=f"{page}-{number}") for number, (page, each) in enumerate(found)]


@pytest.mark.parametrize("document", documents())
def test_the_api_server_takes_it(document: dict[str, Any], workplace: dict[str, str]) -> None:
    approver = document["spec"].get("approver")  # who alone may write it
    who = f" --as={approver} --as-group=system:masters" if approver else ""
    done = run(f"kubectl create --dry-run=server -f -{who}", workplace, json.dumps(named(document)))
    assert done.returncode == 0, done.stderr


def named(document: dict[str, Any]) -> dict[str, Any]:
    """The object under a name that is free."""
    return {**document, "metadata": {"name": "of-the-docs"}}


def test_there_are_commands_to_run() -> None:
    assert len(commands()) >= 7


@pytest.mark.parametrize("command", commands())
def test_a_command_works(command: str, workplace: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "my-model.yaml").write_text(blocks("yaml")[0])
    command = command.replace("my-model.yaml", str(tmp_path / "my-model.yaml"))
    command = command.replace("--namespace shop", f"--namespace {NAMESPACE}")  # the page's, which is the reader's own
    if "apply" in command:
        command += " --dry-run=server"  # the installation of this checkout stays as it is
    if "--server-side" in command:
        command += " --force-conflicts"  # it was made by the installer, under its own name
    if "wait" in command:
        command = re.sub(r"--timeout=\S+", "--timeout=1s", command)  # its store is not there: it is never Ready
    done = run(command, workplace)
    if "wait" in command:
        assert "timed out waiting for the condition" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout

"""Pipelines call the scripts with what these take, and the scripts' first step works without a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "docs/recipes"
PIPELINES = ["github-actions.yaml", "gitlab-ci.yaml", "Jenkinsfile"]
EXAMPLES = ROOT / "manifests/examples"


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_runs_all_three_scripts(name: str) -> None:
    text = (RECIPES / name).read_text()
    called = re.findall(r"ci/([a-z]+\.sh) ([^\n'|>]*)", text)
    assert {script for script, _ in called} == {"validate.sh", "diff.sh", "deploy.sh"}
    counts = {"validate.sh": 1, "diff.sh": 2, "deploy.sh": 3}
    for script, arguments in called:
        assert len(arguments.split()) == counts[script], f"{name}: {script} {arguments}"
    if name.endswith(".yaml"):
        assert yaml.safe_load(text)


def validate(folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [RECIPES / "validate.sh", folder], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_validate_passes_what_is_right(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text((EXAMPLES / "flight-delay/model.yaml").read_text())
    done = validate(tmp_path)
    assert done.returncode == 0, done.stderr


def test_validate_ends_with_2_and_names_the_field(tmp_path: Path) -> None:
    text = (EXAMPLES / "flight-delay/model.yaml").read_text().replace("timeColumn:", "timeColum:")
    (tmp_path / "model.yaml").write_text(text)
    done = validate(tmp_path)
    assert done.returncode == 2
    assert "timeColumn" in done.stderr


def test_a_script_without_its_argument_says_what_is_missing() -> None:
    done = subprocess.run([RECIPES / "deploy.sh"], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode != 0
    assert "name the folder with the Models" in done.stderr

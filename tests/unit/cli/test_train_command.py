"""`truekeep train --command`: the program of a team's image on a laptop, judged as in the cluster."""

from __future__ import annotations

import copy
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.unit.cli.test_train import MODEL, data
from tests.unit.trainer.teams import REFERENCE, example
from truekeep.cli.main import app

__all__ = ["data"]


def train(folder: Path, source: Path, program: str | None, gate: str = "0.6", **image: Any) -> tuple[int, str]:
    """Exit code and what was said."""
    model = copy.deepcopy(MODEL)
    model["spec"]["training"] = {"image": {"reference": REFERENCE, "format": "ONNX", "seed": 7, **image}}
    model["spec"]["evaluation"]["gates"][0]["minimum"] = gate
    if image.get("format") == "Opaque":
        model["spec"]["serving"] = {"image": {"reference": REFERENCE}}
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(model))
    asked = ["train", "-f", str(path), "--data", str(source), "--out", str(folder / "out")]
    if program is not None:
        (folder / "fit.py").write_text(program)
        asked += ["--command", shlex.join([sys.executable, str(folder / "fit.py")])]
    done = CliRunner().invoke(app, asked)
    return done.exit_code, done.stdout + done.stderr


def test_the_docs_program_is_judged_as_in_the_cluster(tmp_path: Path, data: Path) -> None:
    code, said = train(tmp_path, data, example())
    assert code == 0, said
    assert "handed over 1,920 rows until" in said
    out = tmp_path / "out"
    assert {"manifest.json", "model.onnx", "record.json", "report.html"} <= {path.name for path in out.iterdir()}
    told = json.loads((out / "record.json").read_text())["evaluation"]
    assert (told["image"]["reference"], told["holdout"]["rows"]) == (REFERENCE, 480)


def test_a_gate_that_fails_is_code_1(tmp_path: Path, data: Path) -> None:
    assert train(tmp_path, data, example(), gate="0.999")[0] == 1


def test_it_says_what_is_missing(tmp_path: Path, data: Path) -> None:
    code, said = train(tmp_path, data, None)
    assert code == 2
    assert "which is not run on a laptop; give the program that is in it with --command" in said
    code, said = train(tmp_path, data, "", format="Opaque")
    assert code == 2
    assert "run it in a cluster" in said


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("raise SystemExit(7)", "ended with code 7"),
        ("pass", "must leave model.onnx in /out"),
    ],
)
def test_a_program_that_fails_is_code_2(tmp_path: Path, data: Path, program: str, words: str) -> None:
    code, said = train(tmp_path, data, program)
    assert code == 2
    assert words in said
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_recipe_has_no_use_for_a_command(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(MODEL))
    asked = ["train", "-f", str(path), "--data", str(data), "--out", str(tmp_path / "out"), "--command", "true"]
    done = CliRunner().invoke(app, asked)
    assert (done.exit_code, "leave it out" in done.stderr) == (2, True)

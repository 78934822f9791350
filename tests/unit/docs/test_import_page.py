"""docs/import.md, followed to the letter: its script, its commands, what it says that they print."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.unit.conftest import Versitygw, free_port
from truekeep.storage import artifacts
from truekeep.storage.s3 import Bucket

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/import.md").read_text()
BIN = Path(sys.executable).parent


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)[0]


def command(start: str, number: int = 0) -> list[str]:
    """A command of the page, as a shell would take it apart."""
    return shlex.split(re.findall(rf"^\$ ({start}.*)$", PAGE, re.M)[number])


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "operator"), **environment}
    return subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script was run, and the model packaged."""
    place = tmp_path_factory.mktemp("page")
    (place / "train.py").write_text(block("python"))
    for each in (command("python"), command("truekeep import")):
        done = run(each, place)
        assert done.returncode == 0, done.stderr
        (place / "said").write_text(done.stdout)
    return place


def test_the_output_is_as_the_page_shows_it(folder: Path) -> None:
    shown = block("console").splitlines()
    said = (folder / "said").read_text().splitlines()
    expected = [line for line in shown if not line.startswith("$")][:4]
    assert said[:4] == expected
    assert any(line.startswith("served as ONNX") for line in said)


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    port = str(free_port())
    arguments = [port if part == "8080" else part for part in command("truekeep serve")]
    log = folder / "serve.log"
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "operator")}
    with log.open("wb") as sink:
        process = subprocess.Popen(arguments, cwd=folder, env=env, stdout=sink, stderr=sink)
    yield process, log
    process.kill()
    process.wait()


def test_the_curl_line_that_it_prints_is_answered(served: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, log = served
    deadline = time.monotonic() + 60
    while "curl" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (line,) = [one for one in log.read_text().splitlines() if one.startswith("curl")]
    answer = json.loads(subprocess.run(shlex.split(line), capture_output=True, check=True).stdout)
    assert answer["model_name"] == "fraud"
    assert [one["name"] for one in answer["outputs"]] == ["probability", "prediction"]


def test_it_is_pushed_to_where_the_yaml_takes_it_from(folder: Path, versitygw: Versitygw) -> None:
    bucket = versitygw.location("")
    places = {"s3://imports/": bucket.uri, "http://s3.example:7070": bucket.endpoint or ""}
    arguments = [places.get(part, part) for part in command("truekeep import", 1)]
    keys = {"AWS_ACCESS_KEY_ID": versitygw.access, "AWS_SECRET_ACCESS_KEY": versitygw.secret}
    done = run(arguments, folder, **keys)
    assert done.returncode == 0, done.stderr
    printed = yaml.safe_load(done.stdout[done.stdout.index("training:") :])["training"]["import"]
    shown = yaml.safe_load(block("yaml"))["spec"]["training"]["import"]
    assert printed.keys() == shown.keys()
    assert "signature.json" in artifacts.read(Bucket.open(bucket), printed["digest"])

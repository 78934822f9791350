"""A team's image without its container: programs that find the rows in one folder and leave a model in another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.unit.conftest import Versitygw
from tests.unit.trainer.lake import START
from tests.unit.trainer.test_run import Place
from truekeep.api.training import Training
from truekeep.contract import layout
from truekeep.contract.handed import Delivered, Prepared
from truekeep.contract.requests import TrainRequest
from truekeep.contract.results import TrainResult
from truekeep.storage.s3 import Bucket
from truekeep.trainer.handed import main as handed_main
from truekeep.trainer.run import World, run

PAGE = Path(__file__).parents[3] / "docs/training-image.md"
REFERENCE = "registry.example/team/fit@sha256:" + "5c" * 32
Fit = Callable[[Path, Path], None]


def example() -> str:
    """The program of the docs."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    return program


def script(program: str) -> Fit:
    """A program of Python as it would run in its image."""

    def fit(given: Path, out: Path) -> None:
        env = {"PATH": os.environ["PATH"], "TRUEKEEP_IN": str(given), "TRUEKEEP_OUT": str(out), "TRUEKEEP_SEED": "7",
               "OMP_NUM_THREADS": "1"}  # fmt: skip
        subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True)

    return fit


@dataclass
class Team:
    """A store, a lake, and the folders between the containers of one run."""

    place: Place
    folder: Path
    image: dict[str, Any] = field(default_factory=lambda: {"reference": REFERENCE, "format": "ONNX", "seed": 7})

    @classmethod
    def at(cls, versitygw: Versitygw, folder: Path, **image: Any) -> Team:
        team = cls(Place(versitygw), folder)
        team.image |= image
        return team

    @property
    def given(self) -> Path:
        return self.folder / "in"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def request(self, **changes: Any) -> TrainRequest:
        return self.place.request(training=Training.model_validate({"image": self.image}), **changes)

    def world(self) -> World:
        return World(Bucket.open, lambda: START + timedelta(days=30), self.place.said.append, 1)

    def part(self, name: str, request: TrainRequest) -> TrainResult | None:
        env = {"TRUEKEEP_IN": str(self.given), "TRUEKEEP_OUT": str(self.out),
               "TRUEKEEP_MODEL_DIR": str(self.folder / "model")}  # fmt: skip
        return handed_main.do(name, request, self.world(), env)

    def fitted(self, fit: Fit, request: TrainRequest) -> TrainResult | None:
        """The stage Fit: how the run ended, where it did."""
        for each in (self.given, self.out):
            each.mkdir(exist_ok=True)
            for old in each.iterdir():
                old.unlink()
        ended = self.part("prepare", request)
        if ended is None:
            fit(self.given, self.out)
            ended = self.part("upload", request)
        return ended

    def run(self, fit: Fit, request: TrainRequest | None = None, **changes: Any) -> TrainResult:
        """Both stages."""
        request = request or self.request(**changes)
        return self.fitted(fit, request) or run(request, self.world())

    def judge(self, request: TrainRequest | None = None, **changes: Any) -> TrainResult:
        return run(request or self.request(**changes), self.world())

    def prepared(self) -> Prepared:
        return Prepared.model_validate_json(self.place.bucket.get(layout.fit_prepared("shop", "late", "run-uid")))

    def delivered(self) -> Delivered:
        return Delivered.model_validate_json(self.place.bucket.get(layout.fit_delivered("shop", "late", "run-uid")))


def leaving(**files: bytes) -> Fit:
    """A program that leaves these files, `model_onnx` as model.onnx."""
    named: Mapping[str, bytes] = {name.replace("_", ".", 1): content for name, content in files.items()}

    def fit(given: Path, out: Path) -> None:
        for name, content in named.items():
            (out / name).write_bytes(content)

    return fit

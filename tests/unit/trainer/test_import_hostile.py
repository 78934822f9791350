"""Damaged and hostile files: they are refused with a sentence, or answer as before; nothing else happens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

from tests.unit.trainer.elsewhere import fitted, frame
from truekeep.trainer.faults import ImportInvalid
from truekeep.trainer.imported.features import Wishes
from truekeep.trainer.imported.package import Options, package

COLUMNS = ["amount", "month"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "rows.parquet"
    frame(rows=60).to_parquet(path)
    return path


def skops_file() -> bytes:
    content: bytes = skops.io.dumps(fitted(GradientBoostingClassifier(n_estimators=2, max_depth=2)))
    return content


def onnx_file() -> bytes:
    rows = frame()
    data = rows[COLUMNS].to_numpy(dtype=np.float32)
    model = GradientBoostingClassifier(n_estimators=2, max_depth=2).fit(data, rows["late"])
    content: bytes = to_onnx(model, data[:1]).SerializeToString()
    return content


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, a piece taken out, or an end cut off."""
    made = bytearray(content)
    kind = chance.randrange(3)
    if kind == 0:
        for _ in range(chance.randrange(1, 6)):
            made[chance.randrange(len(made))] = chance.randrange(256)
    elif kind == 1:
        start = chance.randrange(len(made))
        del made[start : start + chance.randrange(1, 40)]
    else:
        del made[chance.randrange(len(made)) :]
    return bytes(made)


@pytest.mark.parametrize(
    ("name", "make", "wishes"),
    [("model.skops", skops_file, {}), ("model.onnx", onnx_file, {"columns": tuple(COLUMNS)})],
    ids=["skops", "onnx"],
)
def test_a_damaged_file_is_refused_or_answers(name: str, make: Any, wishes: Any, sample: Path, tmp_path: Path) -> None:
    content, chance, refused = make(), random.Random(7), 0
    path = tmp_path / name
    options = Options(wishes=Wishes(label="late", **wishes))
    path.write_bytes(content)
    assert package(path, sample, options).agrees
    for _ in range(150):
        path.write_bytes(mutated(content, chance))
        try:
            package(path, sample, options)
        except ImportInvalid:
            refused += 1
    assert refused > 60

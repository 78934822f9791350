"""The same model has the same bytes: in another process, at another time, with other hashes and threads."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from skops import io as skops_io

from tests.unit.trainer.test_pipeline import FEATURES, LOGISTIC, recipe, rows
from truekeep.api.estimators import ESTIMATORS, ONNX_ONLY
from truekeep.features.trust import load_pipeline
from truekeep.trainer.recipe import canonical_skops
from truekeep.trainer.recipe.pipeline import fit, probabilities

PROGRAM = """
import hashlib, json
from tests.unit.trainer.test_pipeline import FEATURES, recipe, rows
from truekeep.api.estimators import ESTIMATORS, ONNX_ONLY
from truekeep.trainer import threads
from truekeep.trainer.recipe import canonical_skops
from truekeep.trainer.recipe.pipeline import fit
count = threads.fix()
matrix, labels = rows()
digests = {}
for estimator in set(ESTIMATORS) - ONNX_ONLY:
    fitted = fit(recipe(estimator), FEATURES, matrix, labels, count)
    digests[estimator] = hashlib.sha256(canonical_skops.dumps(fitted.pipeline)).hexdigest()
print(json.dumps(digests))
"""


def digests(hash_seed: str, threads: str) -> dict[str, str]:
    """Of every estimator, fitted in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads, "PYTHONPATH": "operator:."}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_two_processes_make_the_same_digests() -> None:
    first, second = digests("1", "1"), digests("2", "3")
    assert set(first) == set(ESTIMATORS) - ONNX_ONLY
    assert first == second
    matrix, labels = rows()
    here = fit(recipe(LOGISTIC), FEATURES, matrix, labels, threads=1)
    assert hashlib.sha256(canonical_skops.dumps(here.pipeline)).hexdigest() == first[LOGISTIC]


@pytest.mark.parametrize("estimator", sorted(set(ESTIMATORS) - ONNX_ONLY))
def test_what_is_canonical_loads_and_predicts_the_same(estimator: str) -> None:
    matrix, labels = rows()
    fitted = fit(recipe(estimator), FEATURES, matrix, labels, threads=1)
    content = canonical_skops.dumps(fitted.pipeline)
    loaded = load_pipeline(content, estimator)
    np.testing.assert_array_equal(probabilities(loaded, matrix), fitted.probabilities(matrix))
    assert canonical_skops.canonical(content) == content, "canonical of canonical is the same"
    assert canonical_skops.dumps(loaded) == content, "and so is what was loaded, written again"
    raw = [skops_io.dumps(fitted.pipeline) for _ in range(2)]
    assert canonical_skops.canonical(raw[0]) == canonical_skops.canonical(raw[1]) == content


def test_the_archive_carries_no_time_and_no_addresses() -> None:
    matrix, labels = rows()
    content = canonical_skops.dumps(fit(recipe(LOGISTIC), FEATURES, matrix, labels, threads=1).pipeline)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        schema = json.loads(archive.read("schema.json"))
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    ids = _ids(schema)
    assert max(ids) <= len(ids)
    assert all(entry.filename == "schema.json" or entry.filename[:6].isdecimal() for entry in entries)


def _ids(value: object) -> list[int]:
    if isinstance(value, list):
        return [one for item in value for one in _ids(item)]
    if isinstance(value, dict):
        mine = [value["__id__"]] if isinstance(value.get("__id__"), int) else []
        return mine + [one for item in value.values() for one in _ids(item)]
    return []


def test_what_lies_between_the_fields_of_a_structure_is_cleared() -> None:
    dtype = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 8], "itemsize": 24})
    dirty, clean = (np.frombuffer(bytes([fill]) * 72, dtype=np.uint8).copy().view(dtype) for fill in (255, 0))
    for array in (dirty, clean):
        array["a"], array["b"] = [1, 2, 3], [0.5, 1.5, np.nan]
    assert dirty.tobytes() != clean.tobytes()
    assert canonical_skops._member("x.npy", _npy(dirty)) == canonical_skops._member("x.npy", _npy(clean))
    back = np.load(io.BytesIO(canonical_skops._member("x.npy", _npy(dirty))))
    assert back.dtype == dtype
    assert back["a"].tolist() == [1, 2, 3]


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_shared_arrays_stay_shared() -> None:
    array = np.arange(3.0)
    content = canonical_skops.dumps({"x": array, "y": array, "z": array.copy()})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
    names = {key: schema["content"][key]["file"] for key in "xyz"}
    assert names["x"] == names["y"] != names["z"]
    assert schema["content"]["x"]["__id__"] == schema["content"]["y"]["__id__"]


def test_what_is_no_skops_file_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("other.json", "{}")
    with pytest.raises(ValueError, match=r"no schema\.json"):
        canonical_skops.canonical(buffer.getvalue())

"""Our server in front of MLServer, from its own package: the numbers are the pipeline's for every row."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from tests import frameworks
from tests.unit.conftest import free_port
from tests.unit.server.conftest import FEATURES, MODEL, NAMES, Published, Start, body, files_of, signature_of
from truekeep.contract.requests import MODEL_DIR_ENV, Backend
from truekeep.features.encode import Encoder
from truekeep.server import folder
from truekeep.server.limits import Limits

Publish = Callable[[dict[str, bytes]], Published]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    monkeypatch.setenv(MODEL_DIR_ENV, str(path))
    return path


@pytest.fixture
def published(publish: Publish, pipeline: Pipeline) -> Published:
    return publish(files_of(pipeline, signature_of(pipeline), onnx=True))


@pytest.fixture
def mlserver(published: Published, place: Path, tmp_path: Path) -> Iterator[int]:
    """MLServer with the artifact that was fetched; its port."""
    assert folder.fetch(published.request(), Limits()) == 0
    port = free_port()
    arguments, environment = frameworks.command(MODEL, port, (free_port(), free_port()), place)
    with (tmp_path / "mlserver.log").open("wb") as sink:
        process = subprocess.Popen(arguments, env=environment, cwd=tmp_path, stdout=sink, stderr=subprocess.STDOUT)
    yield port
    process.kill()
    process.wait(10)


def many(rows: int) -> dict[str, list[Any]]:
    """Numbers and categories, nulls and what training never saw among them."""
    random = np.random.default_rng(3)
    hours = [None if one < 2 else one for one in random.uniform(0, 24, rows).tolist()]
    texts = {
        "carrier": ["AA", "B6", "UA", None, "new"],
        "gate": ["1", "10", "2", None, "77"],
    }
    return {
        "hour": hours,
        "distance": random.uniform(0, 3000, rows).tolist(),
        **{name: [known[code] for code in random.integers(0, 5, rows)] for name, known in texts.items()},
    }


def test_every_row_is_answered_as_the_pipeline_answers_it(
    start: Start, published: Published, mlserver: int, pipeline: Pipeline
) -> None:
    running = start(published.request(backend=Backend(port=mlserver), capture=published.capture())).listen()
    running.until(lambda: running.logged("ready"), 90)
    assert running.metric("truekeep_server_self_test_difference") < 1e-9
    rows = many(2000)
    expected = pipeline.predict_proba(Encoder(FEATURES).encode(rows, 2000))[:, 1]
    with running.client() as client:
        for size in (1, 7, 500):
            got: list[float] = []
            for first in range(0, 30 * size if size < 500 else 2000, size):
                part = {name: rows[name][first : first + size] for name in NAMES}
                answer = client.post(f"/v2/models/{MODEL}/infer", json=body(part))
                assert answer.status_code == 200
                got += answer.json()["outputs"][0]["data"]
            np.testing.assert_allclose(got, expected[: len(got)], rtol=0, atol=1e-9)
    sent = running.metric("truekeep_server_rows_total")
    assert sent == 30 + 210 + 2000
    running.until(lambda: running.metric("truekeep_server_capture_rows_total") == sent)
    running.terminate()
    assert running.exit_code() == 0

"""A container that is restarted comes back without the store, and never with anything but what its digest names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.pipeline import Pipeline

from tests.unit.conftest import free_port
from tests.unit.server.conftest import MODEL, Published, Start, body, files_of, signature_of
from truekeep.contract.layout import MANIFEST, ONNX_FILE, SIGNATURE, artifact_file
from truekeep.contract.requests import CACHE_DIR_ENV, ServeRequest
from truekeep.contract.results import EXIT_OUTSIDE
from truekeep.server import local_copy
from truekeep.server.load import fetch, load
from truekeep.storage import StoreError

INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv(CACHE_DIR_ENV, str(folder))
    return folder


def without_a_store(published: Published) -> ServeRequest:
    nowhere = published.location.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    return published.request(store=nowhere)


def test_a_restarted_server_answers_while_the_store_is_down(published: Published, start: Start, cache: Path) -> None:
    more = {CACHE_DIR_ENV: str(cache)}
    first = start(published.request(), more=more).ready()
    with first.client() as client:
        before = client.post(INFER, json=body()).json()["outputs"]
    first.process.kill()
    second = start(without_a_store(published), more=more, limits={"load_seconds": 0}).ready()
    with second.client() as client:
        assert client.post(INFER, json=body()).json()["outputs"] == before
    assert second.logged("the model comes from the pod's own copy")
    third = start(without_a_store(published), limits={"load_seconds": 0}, more={CACHE_DIR_ENV: str(cache / "none")})
    assert third.exit_code() == EXIT_OUTSIDE


def test_only_what_was_read_is_kept_and_the_other_file_follows(
    publish: Callable[[dict[str, bytes]], Published], pipeline: Pipeline, cache: Path
) -> None:
    published = publish(files_of(pipeline, signature_of(pipeline), onnx=True))
    fetch(published.request(), seconds=5)
    kept = cache / artifact_file(published.digest, "")
    assert sorted(path.name for path in kept.iterdir()) == sorted([MANIFEST, SIGNATURE, ONNX_FILE])
    assert sorted(fetch(without_a_store(published), seconds=0)) == sorted([SIGNATURE, ONNX_FILE])
    with pytest.raises(StoreError):
        fetch(without_a_store(published), seconds=0, onnx=False)
    fetch(published.request(), seconds=5, onnx=False)
    assert load(fetch(without_a_store(published), seconds=0, onnx=False)).format == "skops"


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
@pytest.mark.parametrize("change", [lambda data: data.replace(b"0", b"1", 1), lambda data: data[:-1], lambda data: b""])
def test_a_copy_that_was_altered_is_not_served_but_fetched_again(
    published: Published, cache: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    good = fetch(published.request(), seconds=5)
    path = cache / artifact_file(published.digest, name)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StoreError):
        fetch(without_a_store(published), seconds=0)
    assert fetch(published.request(), seconds=5) == good
    assert fetch(without_a_store(published), seconds=0) == good, "and the copy is whole again"


def test_another_artifact_s_copy_is_not_taken(published: Published, cache: Path) -> None:
    fetch(published.request(), seconds=5)
    other = "sha256:" + "0" * 64
    (cache / artifact_file(published.digest, "")).rename(cache / artifact_file(other, ""))
    with pytest.raises(StoreError):
        fetch(without_a_store(published).model_copy(update={"artifact_digest": other}), seconds=0)


def test_what_cannot_be_kept_is_served_all_the_same(
    published: Published, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "artifacts").write_text("in the way")
    assert fetch(published.request(), seconds=5)
    (cache / "artifacts").unlink()
    monkeypatch.setattr(local_copy, "MAX_BYTES", 10)
    assert fetch(published.request(), seconds=5)
    assert list(cache.rglob("*")) == []

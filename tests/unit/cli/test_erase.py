"""`truekeep erase` on a real store, with files as the server writes them."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from tests.unit.conftest import Versitygw, free_port
from tests.unit.server.test_capture import KEY, SOURCE, served
from truekeep.api import capture as api
from truekeep.cli import erasure
from truekeep.cli.erasure import Sought, search
from truekeep.cli.main import app
from truekeep.contract import layout
from truekeep.server.capture import Capture
from truekeep.server.limits import Limits
from truekeep.server.metrics import Metrics
from truekeep.storage.errors import StoreUnreachable
from truekeep.storage.s3 import Bucket


class Scene:
    """Captures of demo/flight-delay, and a person with credentials."""

    def __init__(self, store: Versitygw, **options: Any) -> None:
        self.location = store.location("captures/", **options)
        self.bucket = Bucket.open(self.location)
        self.store = store

    def capture(self, requests: list[list[str | None] | None], revision: int = 3, **settings: Any) -> None:
        """One file with requests of five rows, each with its keys."""
        spec = api.Capture(s3=self.location, flush_seconds=3600, **settings)
        source = dataclasses.replace(SOURCE, revision=revision)
        capture = Capture(spec, source, Limits(), Metrics(), hash_key=KEY if settings.get("hash") else None)
        capture.start()
        for number, keys in enumerate(requests):
            capture.offer(**served(f"r{revision}-{number}", keys=keys))
        capture.close(30)

    def run(self, *arguments: str, text: str | None = None) -> Result:
        fixed = ["erase", "flight-delay", "--namespace", "demo", "--captures", self.location.uri]
        fixed += ["--endpoint", self.location.endpoint or ""]
        return CliRunner().invoke(app, [*fixed, *arguments], input=text)

    def files(self) -> dict[str, pa.Table]:
        return {
            info.key: pq.read_table(io.BytesIO(self.bucket.get(info.key)))
            for info in self.bucket.list()
            if info.key.endswith(".parquet")
        }

    def stored(self) -> list[str]:
        """All keys that are stored, in order; None is left out."""
        found = [key for table in self.files().values() for key in table["truekeep.key"].to_pylist()]
        return sorted(key for key in found if key is not None)

    def receipts(self) -> list[tuple[str, dict[str, Any]]]:
        listed = self.bucket.list("demo/flight-delay/erasures/")
        return [(info.key, json.loads(self.bucket.get(info.key))) for info in listed]


@pytest.fixture
def scene(versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", versitygw.access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", versitygw.secret)
    return Scene(versitygw)


MANY: list[list[str | None] | None] = [["a", "b", None, "a", "c"], None, ["d"] * 5]


def test_what_would_be_done_is_shown_first_and_nothing_is_done(scene: Scene) -> None:
    scene.capture(MANY)
    before = scene.files()
    shown = scene.run("--key", "a", "--key", "nobody")
    assert shown.exit_code == 0
    assert "1 capture files were searched for 2 keys; 2 rows were found." in shown.output
    assert "revision=3: 2 rows in 1 files" in shown.output
    assert "Nothing was changed. With --yes" in shown.output
    assert scene.files() == before
    assert scene.receipts() == []


def test_the_rows_go_and_all_else_stays_as_it_was(scene: Scene) -> None:
    for revision in (3, 12):
        scene.capture(MANY, revision)
    before = scene.files()
    done = scene.run("--key", "a", "--key", "c", "--yes", "--reason", "request 17")
    assert done.exit_code == 0, done.output
    after = scene.files()
    assert after.keys() == before.keys()
    for key, table in before.items():
        gone = pa.array([value in ("a", "c") for value in table["truekeep.key"].to_pylist()])
        kept = table.filter(pa.compute.invert(gone))
        assert after[key].equals(kept)
        assert after[key].schema.equals(table.schema, check_metadata=True)
        assert kept.num_rows == 12
    ((name, receipt),) = scene.receipts()
    assert (receipt["state"], receipt["rowsErased"], receipt["filesSearched"]) == ("Done", 6, 2)
    assert receipt["rewritten"] == sorted(before)
    assert receipt["reason"] == "request 17"
    assert name in done.output
    again = scene.run("--key", "a", "--key", "c", "--yes")
    assert again.exit_code == 0
    assert "0 rows were found" in again.output
    assert scene.files() == after


def test_a_file_without_a_row_left_is_deleted(scene: Scene) -> None:
    scene.capture([["d"] * 5])
    scene.capture([["e"] * 5])
    assert scene.run("--key", "d", "--yes").exit_code == 0
    assert scene.stored() == ["e"] * 5
    assert len(scene.files()) == 1
    ((_, receipt),) = scene.receipts()
    assert (len(receipt["deleted"]), receipt["rewritten"]) == (1, [])


def test_hashed_keys_are_found_with_the_key_of_the_hashes_old_ones_included(scene: Scene, tmp_path: Path) -> None:
    """Captured before the Model hashed its key, and after: one command takes both."""
    scene.capture(MANY)
    scene.capture(MANY, hash=["flight_id", "carrier"])
    without = scene.run("--key", "a", "--yes")
    assert without.exit_code == 1
    assert "1 files have their keys as hashes" in without.output
    assert scene.receipts()[0][1]["state"] == "Incomplete"
    assert len(scene.stored()) == 16  # of the plain file the two rows are gone
    (tmp_path / "old").write_bytes(b"another key of 16+ bytes\n")
    (tmp_path / "now").write_bytes(KEY + b"\n")
    files = ("--hash-key-file", str(tmp_path / "old"), "--hash-key-file", str(tmp_path / "now"))
    assert scene.run("--key", "a", *files, "--yes").exit_code == 0
    assert len(scene.stored()) == 14
    assert search(scene.bucket, "demo", "flight-delay", Sought(("a",), (KEY,))).rows == 0


def test_no_key_is_in_the_receipt_and_who_knows_one_can_find_it(scene: Scene, tmp_path: Path) -> None:
    import hashlib
    import hmac

    scene.capture([["passenger-4711", "x", None, "x", "x"]])
    (tmp_path / "key").write_bytes(KEY)
    assert scene.run("--key", "passenger-4711", "--yes", "--hash-key-file", str(tmp_path / "key")).exit_code == 0
    ((name, receipt),) = scene.receipts()
    assert "4711" not in scene.bucket.get(name).decode()
    said = hmac.new(KEY, f"{receipt['keys']['salt']}=passenger-4711".encode(), hashlib.sha256).hexdigest()
    assert receipt["keys"]["hmacSha256"] == [said]


def test_keys_come_from_a_file_or_from_standard_input(scene: Scene, tmp_path: Path) -> None:
    scene.capture(MANY)
    (tmp_path / "keys").write_text("a\r\n\nb\n")
    assert "3 rows were found" in scene.run("--keys-file", str(tmp_path / "keys")).output
    assert "4 rows were found" in scene.run("--keys-file", "-", "--key", "c", text="a\nb").output


def test_an_interrupted_run_leaves_a_trace_and_is_simply_begun_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for revision in (1, 2, 3):
        scene.capture(MANY, revision)
    plain, written = Bucket.put, []

    def dies(self: Bucket, key: str, data: Any, only_if_absent: bool = False) -> bool:
        if key.endswith(".parquet"):
            written.append(key)
            if len(written) == 2:
                raise KeyboardInterrupt
        return plain(self, key, data, only_if_absent)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put", dies)
        assert scene.run("--key", "a", "--yes").exit_code != 0
    assert len(scene.stored()) == 3 * 9 - 2
    assert [receipt["state"] for _, receipt in scene.receipts()] == ["Begun"]
    assert scene.run("--key", "a", "--yes").exit_code == 0
    assert len(scene.stored()) == 3 * 9 - 6
    assert sorted(receipt["state"] for _, receipt in scene.receipts()) == ["Begun", "Done"]


def test_what_can_not_be_searched_or_written_is_said_and_the_rest_is_done(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.capture(MANY, 1)
    scene.capture(MANY, 2)
    broken = layout.capture_file(1, datetime(2026, 1, 1, tzinfo=UTC), layout.CaptureName(1, 2, "pod", 1))
    scene.bucket.put(f"demo/flight-delay/{broken}", b"PAR1 no more")
    plain = Bucket.put

    def refuses(self: Bucket, key: str, data: Any, only_if_absent: bool = False) -> bool:
        if "revision=2" in key:
            raise StoreUnreachable("away")
        return plain(self, key, data, only_if_absent)

    monkeypatch.setattr(Bucket, "put", refuses)
    done = scene.run("--key", "a", "--yes")
    assert done.exit_code == 1
    assert "could not be searched: demo/flight-delay/revision=1/date=2026-01-01" in done.output
    ((_, receipt),) = scene.receipts()
    assert (receipt["state"], receipt["rowsFound"], receipt["rowsErased"]) == ("Incomplete", 4, 2)
    assert [line.split(":")[0].split("/")[2] for line in receipt["failed"]] == ["revision=2"]
    assert len(receipt["unreadable"]) == 1


def test_a_large_file_is_done_in_pieces(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger than what is held at a time; many row groups, of which one has the key."""
    monkeypatch.setattr(erasure, "PIECE", 64 << 10)
    monkeypatch.setattr(erasure, "BATCH_ROWS", 1000)
    rows = 40_000
    rng = np.random.default_rng(0)
    table = pa.table(
        {"truekeep.key": [f"k{number}" for number in range(rows)], "x": rng.normal(size=rows), "n": pa.nulls(rows)},
        metadata={"made": "elsewhere"},
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=5000)
    key = "demo/flight-delay/" + layout.capture_file(1, datetime.now(UTC), layout.CaptureName(1, 2, "pod", 1))
    scene.bucket.put(key, sink.getvalue())
    assert len(sink.getvalue()) > 4 * erasure.PIECE
    assert scene.run("--key", "k7", "--key", "k39999", "--yes").exit_code == 0
    after = scene.files()[key]
    assert after.equals(table.filter(pa.array([number not in (7, 39_999) for number in range(rows)])))
    assert after.schema.metadata == {b"made": b"elsewhere"}


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_searched(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.capture(MANY)
    (key,) = scene.files()
    monkeypatch.setattr(erasure, "PIECE", 1000)
    plain = Bucket.fetch

    def changed(self: Bucket, name: str, *arguments: Any, **options: Any) -> Any:
        found = plain(self, name, *arguments, **options)
        self.put(name, self.get(name) + b"x") if name == key and options["span"][0] == 0 else None
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "get", lambda self, name: plain(self, name).data)
        patch.setattr(Bucket, "fetch", changed)
        done = scene.run("--key", "a")
    assert done.exit_code == 1
    assert "it was changed while it was read; run the command again" in done.output


def test_other_models_are_left_alone(scene: Scene) -> None:
    scene.capture(MANY)
    (content,) = (scene.bucket.get(key) for key in scene.files())
    other = "demo/flight-delay-2/" + layout.capture_file(1, datetime.now(UTC), layout.CaptureName(1, 2, "pod", 1))
    scene.bucket.put(other, content)
    assert scene.run("--key", "a", "--yes").exit_code == 0
    assert scene.bucket.get(other) == content


def test_what_is_not_reached_is_said(versitygw: Versitygw, scene: Scene) -> None:
    scene.capture(MANY)
    said = scene.run("--key", "a", "--yes").output
    assert "older versions" not in said
    for words in ("serving pods", "trained on", "artifacts of revisions", "backups"):
        assert words in said
    versioned = Scene(versitygw, versions=True)
    versioned.capture(MANY)
    assert "older versions of these objects, which the bucket keeps" in versioned.run("--key", "a", "--yes").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no key was given"),
        (("--key", ""), "or an empty one"),
        (("--keys-file", "/nowhere"), "give a text file with a key a line"),
        (("--key", "a", "--hash-key-file", "/nowhere"), "/nowhere: can't be read"),
        (("--key", "a", "--captures", "lake"), "--captures: "),
        (("--key", "a", "--endpoint", "ftp://x"), "--endpoint: "),
        (("--key", "a", "--captures", "s3://no-such-bucket/x/"), "there is no bucket no-such-bucket"),
    ],
)
def test_wrong_input_is_refused(scene: Scene, arguments: tuple[str, ...], message: str) -> None:
    done = scene.run(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_a_store_that_is_away_is_said(scene: Scene) -> None:
    done = scene.run("--key", "a", "--endpoint", f"http://127.0.0.1:{free_port()}")
    assert done.exit_code == 2
    assert "is the store running" in done.output


def test_the_cluster_tells_where_the_captures_lie(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from truekeep.cli import kube

    scene.capture(MANY)
    spec = {
        "store": {"s3": {"uri": "s3://models/", "endpoint": "http://s3:7070", "credentialsSecretRef": {"name": "x"}}},
        "data": {
            "source": {"s3": {"uri": "s3://lake/"}}, "timeColumn": "at", "key": "id", "label": {"column": "late"},
            "features": [{"name": "hour", "type": "Number"}],
        },
        "training": {"recipe": {"estimator": "sklearn.linear_model.LogisticRegression"}},
        "serving": {"capture": {"s3": {"uri": scene.location.uri}}},
    }  # fmt: skip

    class Somebody:
        namespace = "demo"

        def get(self, plural: str, name: str) -> dict[str, Any]:
            return {"spec": spec}

        def user(self) -> str:
            return "anna"

    monkeypatch.setattr(kube, "person", lambda namespace: Somebody())
    arguments = ["erase", "flight-delay", "--endpoint", scene.location.endpoint or "", "--key", "a", "--yes"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert scene.receipts()[0][1]["by"] == "anna"
    assert "a" not in scene.stored()

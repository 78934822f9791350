"""`truekeep decisions`: what one revision decided in a span of time, as rows, and what the list lacks."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.cli.test_why import NOON, Scene, made, scene
from truekeep.cli.main import app
from truekeep.contract import layout

__all__ = ["made", "scene"]


def listed(scene: Scene, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Code, rows and what standard error said."""
    fixed = ["--store", str(scene.store.path), "--captures", str(scene.captures.path), "-n", "shop", "-o", "json"]
    done = CliRunner().invoke(app, ["decisions", "late", *arguments, *fixed])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_decisions_of_the_bad_revision_by_time(scene: Scene) -> None:
    scene.capture("good", received=NOON - timedelta(hours=3))
    scene.capture("early", "late", received=NOON, revision=2)
    scene.capture("next hour", received=NOON + timedelta(hours=1), revision=2)
    scene.capture("mended", received=NOON + timedelta(hours=2), revision=3)
    code, rows, err = listed(scene, "--revision", "2")
    assert code == 0
    assert [row["request_id"] for row in rows] == ["early"] * 3 + ["late"] * 3 + ["next hour"] * 3
    assert [row["row"] for row in rows[:3]] == [0, 1, 2]
    assert [row["key"] for row in rows[:3]] == ["k1", "k2", "k3"]
    first = rows[0]
    assert (first["received_at"], first["revision"], first["artifact"]) == (
        "2026-11-02T12:30:00.000Z", 2, scene.artifact,
    )  # fmt: skip
    assert first["prediction"] == int(first["probability"] >= first["cut_off"])
    assert "amount" not in first
    assert "9 decisions of revision 2 of shop/late" in err
    assert "from 2026-11-02 12:30:00 to 2026-11-02 13:30:00 UTC, from 2 files" in err

    after = ["--from", "2026-11-02T12:30:00.000001Z", "--to", "2026-11-02T13:30:00Z"]
    assert [row["request_id"] for row in listed(scene, *after)[1]] == ["late"] * 3
    assert {row["revision"] for row in listed(scene)[1]} == {1, 2, 3}
    assert [row["received_at"] for row in listed(scene)[1]] == sorted(row["received_at"] for row in listed(scene)[1])
    assert listed(scene, "--from", "2026-11-03")[1] == []
    assert {row["revision"] for row in listed(scene, "--to", "2026-11-02T10:00:00Z")[1]} == {1}


def test_rows_that_were_received_after_the_hour_of_their_file_are_found(scene: Scene) -> None:
    scene.capture("before", received=NOON + timedelta(minutes=30) - timedelta(microseconds=1))
    (file,) = (info.key for info in scene.captures.list() if info.key.endswith(".parquet"))
    scene.capture("after", received=NOON + timedelta(minutes=30))
    (later,) = (info.key for info in scene.captures.list() if info.key.endswith(".parquet") and info.key != file)
    moved = scene.captures.get(later)  # as if one file had both, named after the first
    scene.captures.put(file.replace("_000000.", "_000001."), moved)
    (scene.captures.path / later).unlink()
    assert {row["request_id"] for row in listed(scene, "--from", "2026-11-02T13:00:00Z")[1]} == {"after"}


def test_csv_has_a_head_and_the_features_where_they_are_asked_for(scene: Scene) -> None:
    scene.capture("one", hash=["kind"], hash_key_secret_ref={"name": "h"})
    fixed = ["--store", str(scene.store.path), "--captures", str(scene.captures.path), "-n", "shop"]
    done = CliRunner().invoke(app, ["decisions", "late", "--features", *fixed])
    assert done.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["amount"] for row in rows] == ["1.5", "", "-0.25"]
    assert rows[0]["kind"] not in ("a", "")
    assert list(rows[0])[:3] == ["received_at", "request_id", "row"]
    assert "kept as hashes: kind" in done.stderr
    empty = CliRunner().invoke(app, ["decisions", "late", "--revision", "9", *fixed])
    assert empty.stdout.startswith("received_at,request_id,row,key,")
    assert len(empty.stdout.splitlines()) == 1


def test_what_the_list_lacks_is_said(scene: Scene) -> None:
    scene.capture(*"abcdefgh", fraction_percent=50)
    scene.capture("broken", received=NOON + timedelta(hours=1))
    broken = sorted(info.key for info in scene.captures.list() if "hour=13" in info.key)[0]
    scene.captures.put(broken, b"PAR1 not at all")
    scene.captures.put(layout.captures("shop", "late") + layout.erasure(NOON, "x"), b"{}")
    code, _, err = listed(scene)
    assert code == 1
    assert "1 files could not be read, first: shop/late/revision=1" in err
    assert "50 % of the requests are captured" in err
    assert "rows were erased, by 1 receipts" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "noon"], "is no time"),
        (["--from", "2026-11-03", "--to", "2026-11-02"], "is not after"),
    ],
)
def test_wrong_input(scene: Scene, arguments: list[str], words: str) -> None:
    code, rows, err = listed(scene, *arguments)
    assert (code, rows) == (2, [])
    assert words in err

"""`truekeep train` checks data as a run in the cluster does: against the last run, and against captures."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from tests.unit.cli.test_train import MODEL
from tests.unit.trainer.lake import events, replaced
from tests.unit.trainer.test_skew import capture
from truekeep.cli.main import app

LAST = {"name": "volume", "lastRun": {"rows": {"minimum": "0.5", "maximum": "2"}}}


def run(folder: Path, *rules: Any, out: str = "out", more: tuple[str, ...] = ()) -> tuple[int, str, str]:
    model = copy.deepcopy(MODEL)
    model["spec"]["data"]["rules"] = list(rules)
    if any("skew" in rule for rule in rules):
        model["spec"]["serving"] = {"capture": {"s3": {"uri": "s3://lake/captures/"}}}
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(model))
    command = ["train", "-f", str(path), "--data", str(folder / "data"), "--out", str(folder / out), *more]
    done = CliRunner().invoke(app, command)
    return done.exit_code, done.stdout, done.stderr


def written(folder: Path, table: Any) -> None:
    (folder / "data/lake/rows").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "data/lake/rows/a.parquet")


def read(folder: Path, out: str = "out") -> Any:
    return json.loads((folder / out / "result.json").read_text())["data"]


def test_without_a_last_run_that_is_said_and_with_one_it_is_compared(tmp_path: Path) -> None:
    written(tmp_path, events())
    code, out, _ = run(tmp_path, LAST)
    assert code == 0
    assert "volume: not judged: there is no earlier run to compare with" in out
    assert read(tmp_path)["notJudged"] == ["volume: not judged: there is no earlier run to compare with"]
    last = ("--last-run", str(tmp_path / "out/result.json"))
    code, _, _ = run(tmp_path, LAST, out="again", more=last)
    assert code == 0
    assert "notJudged" not in read(tmp_path, "again") or not read(tmp_path, "again")["notJudged"]
    written(tmp_path, events().slice(1500))
    code, out, _ = run(tmp_path, LAST, out="fewer", more=last)
    assert code == 2, "wrong input"
    assert "900 labelled rows, 0.3750 times the 2,400 of run" in out
    (told,) = read(tmp_path, "fewer")["violations"]
    assert (told["check"], told["count"], told["severity"]) == ("volume", 900, "Fail")
    record = json.loads((tmp_path / "fewer/record.json").read_text())
    assert record["artifact"] is None
    assert [one["check"] for one in record["data"]["violations"]] == ["volume"]
    report = (tmp_path / "fewer/report.html").read_text()
    assert "0.3750 times the 2,400" in report


def test_what_is_warned_of_is_in_result_record_and_report(tmp_path: Path) -> None:
    table = events()
    written(tmp_path, table.append_column("refund", table["late"]))
    model = copy.deepcopy(MODEL)
    model["spec"]["data"]["features"].append({"name": "refund", "type": "Number"})
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(model))
    command = ["train", "-f", str(tmp_path / "model.yaml"), "--data", str(tmp_path / "data")]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "Warn: refund: rule leakage: this feature alone tells late" in done.stdout
    (told,) = read(tmp_path)["violations"]
    assert (told["check"], told["severity"], read(tmp_path)["warnedChecks"]) == ("leakage", "Warn", 1)
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert [one["check"] for one in record["data"]["violations"]] == ["leakage"]
    assert "this feature alone tells late" in (tmp_path / "out/report.html").read_text()


def test_captures_are_held_against_the_rows(tmp_path: Path) -> None:
    table = events()
    written(tmp_path, table)
    folder = tmp_path / "captures/date=2024-02-01/hour=12"
    folder.mkdir(parents=True)
    asked = replaced(table, "amount", np.asarray(table["amount"]) + 1)
    (folder / "0_1_pod_000001.parquet").write_bytes(capture(asked))
    skew = {"name": "as-served", "skew": {}}
    code, out, _ = run(tmp_path, skew, more=("--captures", str(tmp_path / "captures")))
    assert code == 2
    assert "amount: rule as-served: 2,400 of 2,400 rows (1.0000) had another value" in out
    (folder / "0_1_pod_000001.parquet").write_bytes(capture(table))
    assert run(tmp_path, skew, more=("--captures", str(tmp_path / "captures")))[0] == 0


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("--last-run", None, "is no result.json of a training"),
        ("--last-run", "{}", "is no result.json of a training"),
        ("--captures", None, "has no Parquet file"),
    ],
)
def test_a_path_with_nothing_of_the_kind_ends_with_two(
    tmp_path: Path, option: str, content: str | None, words: str
) -> None:
    written(tmp_path, events())
    path = tmp_path / "other"
    if content is not None:
        path.write_text(content)
    code, _, err = run(tmp_path, more=(option, str(path)))
    assert code == 2
    assert words in err
    assert not (tmp_path / "out").exists()

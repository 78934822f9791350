"""Remotes that DVC itself pushed: 3.67.1 in dvc/3, 2.58.2 in dvc/2; a folder, and a text with CRLF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.sources.test_read import ALL, EVERYTHING, told
from tests.unit.trainer.lake import events
from truekeep.api.common import DvcOutput
from truekeep.sources.places import opener
from truekeep.sources.read import Table, read_table
from truekeep.storage.folder import Folder

HERE = Path(__file__).parent / "dvc"


def read(version: str, pointer: str) -> Table:
    """What a .dvc file points to, by the two lines of it that a Model has."""
    (out,) = yaml.safe_load((HERE / version / pointer).read_text())["outs"]
    declared: dict[str, Any] = {"remote": {"uri": "s3://dvc/"}, "md5": out["md5"], "path": out["path"]}
    opened = opener(lambda _: Folder(HERE / version / "remote"))
    return read_table(opened(DvcOutput.model_validate(declared)), "source", ALL, EVERYTHING)


@pytest.mark.parametrize("version", ["2", "3"])
def test_a_folder(version: str) -> None:
    table = read(version, "flights.dvc")
    assert told(table) == []
    assert [name.removeprefix("dvc+s3://dvc/") for name in table.files] == ["flights/a.csv", "flights/day=2/b.parquet"]
    keys: Any = table.columns[ALL[1]]
    assert keys.to_pylist() == events(40)["id"].to_pylist()


@pytest.mark.parametrize("version", ["2", "3"])
def test_a_file_with_crlf(version: str) -> None:
    table = read(version, "one.csv.dvc")
    assert told(table) == []
    assert (len(table), table.files) == (10, ["dvc+s3://dvc/one.csv"])


def test_the_two_versions_name_it_otherwise() -> None:
    names = {read(version, "one.csv.dvc").pins[0].version_id for version in ("2", "3")}
    assert len(names) == 2

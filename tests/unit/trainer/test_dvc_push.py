"""DVC itself pushes to a real store, its repository is deleted, and a run trains from the remote: no Git, no DVC."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import dvc
from tests.unit.conftest import Versitygw
from tests.unit.trainer.lake import csv_of, events, parquet
from tests.unit.trainer.test_run import Place
from truekeep.api.data import Data
from truekeep.contract.requests import complete_data


@pytest.mark.full
@pytest.mark.timeout(600)
def test_what_dvc_pushed_trains_when_its_repository_is_gone(versitygw: Versitygw, tmp_path: Path) -> None:
    place, table = Place(versitygw), events()
    team = tmp_path / "team"
    (team / "rows").mkdir(parents=True)
    (team / "rows" / "a.parquet").write_bytes(parquet(table.slice(0, 1200).drop_columns(["late"])))
    (team / "rows" / "b.csv").write_bytes(csv_of(table.slice(1200).drop_columns(["late"])))
    (team / "labels.csv").write_bytes(csv_of(table.select(["id", "late"])))
    keys = {"AWS_ACCESS_KEY_ID": versitygw.access, "AWS_SECRET_ACCESS_KEY": versitygw.secret}
    dvc.run(team, "init", "--no-scm")
    dvc.run(team, "remote", "add", "--default", "store", f"s3://{place.name}/dvc")
    dvc.run(team, "remote", "modify", "store", "endpointurl", versitygw.endpoint)
    dvc.run(team, "add", "rows", "labels.csv")
    dvc.run(team, "push", environment=keys)
    outs = {name: yaml.safe_load((team / f"{name}.dvc").read_text())["outs"][0] for name in ("rows", "labels.csv")}
    shutil.rmtree(team)

    def source(name: str) -> dict[str, Any]:
        remote = {"uri": f"s3://{place.name}/dvc/"}
        return {"dvc": {"remote": remote, "md5": outs[name]["md5"], "path": outs[name]["path"]}}

    request = place.request()
    declared = request.data.dump() | {
        "source": source("rows"),
        "label": {"column": "late", "source": source("labels.csv")},
    }
    data = complete_data(Data.model_validate(declared), place.store)
    result = place.run(request.model_copy(update={"data": data}))
    assert result.reason == "Succeeded", result.message
    assert result.data is not None
    assert (result.data.rows, result.data.objects, result.data.replayable) == (2400, 3, "True")
    uris = [pin["uri"] for pin in place.record(result)["data"]["objects"]]
    root = f"dvc+s3://{place.name}/dvc/"
    assert uris == [f"{root}rows/a.parquet", f"{root}rows/b.csv", f"{root}labels.csv"]

"""Samples, volumes, outputs of DVC, buckets with versions: what a run makes of them, and what its record says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import Versitygw
from tests.unit.trainer.lake import Lake, csv_of, data_of, events, parquet
from tests.unit.trainer.test_dataset import loaded, refused
from tests.unit.trainer.test_run import Place
from truekeep.api.data import Data
from truekeep.contract import layout
from truekeep.contract.requests import VOLUMES_DIR_ENV, complete_data
from truekeep.contract.results import EXIT_OUT_OF_MEMORY
from truekeep.sources import memory, objects
from truekeep.sources.errors import OutOfMemory
from truekeep.sources.places import in_pod, opener
from truekeep.trainer.data.dataset import Dataset, load
from truekeep.trainer.data.pinned import pinned

SAMPLE = {"maxRows": 300, "seed": 5}


def said(dataset: Dataset) -> tuple[Any, ...]:
    read = dataset.read
    return read.sampling, read.sampled_from, read.rows, read.unlabelled


def test_without_a_sample_the_record_says_all_rows() -> None:
    assert said(loaded(events(50))) == ("AllRows", None, 50, 0)


def test_a_sample_is_of_the_window_and_the_record_says_so() -> None:
    table = events(2400)
    dataset = loaded(table, data_of(sample=SAMPLE, window={"days": 10}))
    assert said(dataset) == ("ByKeyHash", 1440, 300, 0)
    again = loaded(
        {f"rows/{n}.csv": csv_of(table.slice(600 * n, 600)) for n in range(4)},
        data_of(sample=SAMPLE, window={"days": 10}),
    )
    assert again.times.tolist() == dataset.times.tolist()
    assert again.labels.tolist() == dataset.labels.tolist()


def test_labels_and_joins_are_those_of_the_sampled_rows() -> None:
    table = events(2000)
    rows, labels = table.drop_columns(["late", "kind"]), table.select(["id", "late"])
    known = table.select(["at", "kind"])
    files = {"rows/a.parquet": parquet(rows), "labels/a.parquet": parquet(labels), "known/a.parquet": parquet(known)}
    joins = [{"name": "known", "source": {"s3": {"uri": "s3://lake/known/"}}, "timeColumn": "at"}]
    label = {"column": "late", "source": {"s3": {"uri": "s3://lake/labels/"}}}
    dataset = loaded(files, data_of(sample=SAMPLE, label=label, joins=joins))
    whole = loaded(table)
    assert len(dataset) == 300
    place = {time: number for number, time in enumerate(whole.times.tolist())}
    positions = [place[time] for time in dataset.times.tolist()]
    assert dataset.labels.tolist() == whole.labels[positions].tolist()
    for want, values in dataset.columns.items():
        assert values.tolist() == [whole.columns[want].tolist()[at] for at in positions]


def test_rules_judge_the_sampled_rows() -> None:
    rules = [{"name": "enough", "minRows": 301}]
    assert "300 labelled rows, fewer than minRows 301" in str(
        refused(events(2000), data_of(sample=SAMPLE, rules=rules))
    )


def test_too_many_files_are_a_verdict_on_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MOST_FILES", 3)
    fault = refused({f"rows/{n}.csv": csv_of(events(9)) for n in range(4)})
    assert fault.reason == "DataTooLarge"
    assert "more than 3 files of data lie below s3://lake/rows/" in str(fault)


def test_rows_that_do_not_fit_are_no_verdict_but_a_want_of_memory(
    monkeypatch: pytest.MonkeyPatch, versitygw: Versitygw, capfd: pytest.CaptureFixture[str]
) -> None:
    """The pod ends as if the kernel had killed it, but with words, so that it may be tried with more."""
    from truekeep.contract.requests import REQUEST_ENV
    from truekeep.trainer import __main__ as trainer

    monkeypatch.setattr("truekeep.trainer.data.dataset.limit", lambda: memory.used() + 1000)
    with pytest.raises(OutOfMemory, match="source does not fit into memory: with 2,400 rows of use in 1 of 1 files"):
        loaded(events(2400))
    place = Place(versitygw).write(events())
    monkeypatch.setenv(REQUEST_ENV, place.request().model_dump_json(by_alias=True))
    monkeypatch.setattr(trainer.sys, "argv", ["trainer"])
    monkeypatch.setattr(trainer.threads, "fix", lambda: 1)
    monkeypatch.setattr(trainer.signal, "signal", lambda *_: None)
    assert trainer.main() == EXIT_OUT_OF_MEMORY
    assert "out of memory: source does not fit into memory" in capfd.readouterr().out.splitlines()[-1]
    assert not [info for info in place.bucket.list() if "/runs/" in info.key]


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VOLUMES_DIR_ENV, str(tmp_path))
    folder = tmp_path / "lake" / "rows"
    folder.mkdir(parents=True)
    return folder


def test_a_run_reads_a_volume(volume: Path) -> None:
    (volume / "a.parquet").write_bytes(parquet(events(60)))
    data = data_of(source={"pvc": {"claimName": "lake", "path": "rows"}})
    dataset = load(complete_data(data, data.source.s3), [], in_pod, 0, lambda _: None)  # type: ignore[arg-type]
    assert (dataset.read.rows, dataset.read.replayable) == (60, "False")
    assert dataset.pins[0].uri == "pvc://lake/rows/a.parquet"
    (volume / "a.parquet").write_bytes(b"x")
    with pytest.raises(Exception, match=r"pvc://lake/rows/a.parquet was (read|pinned) with"):
        load(data, [], pinned(in_pod, dataset.pins), 0, lambda _: None)


def test_a_link_out_of_a_volume_is_a_verdict_on_the_data(volume: Path) -> None:
    (volume / "a.parquet").symlink_to("/etc/passwd")
    data = data_of(source={"pvc": {"claimName": "lake", "path": "rows"}})
    with pytest.raises(Exception, match=r"source: pvc://lake/rows/a\.parquet is a link that leads out") as error:
        load(data, [], in_pod, 0, lambda _: None)
    assert error.value.reason == "DataInvalid"  # type: ignore[attr-defined]


def versioned(place: Place) -> Callable[[], Dataset]:
    data = place.request().data
    return lambda: load(data, [], in_pod, 0, place.said.append)


def test_a_bucket_with_versions_pins_them_and_old_ones_are_read_again(versitygw: Versitygw) -> None:
    place = Place(versitygw, versions=True).write(events(100))
    place.write(events(100, seed=2), "gone.parquet")
    place.all.delete("lake/rows/gone.parquet")
    read = versioned(place)
    first = read()
    assert [pin.uri.rpartition("/")[2] for pin in first.pins] == ["a.parquet"]  # what is deleted is not there
    assert first.pins[0].version_id
    assert first.read.replayable == "True"
    place.write(events(100, seed=9)).write(events(50, seed=3), "b.parquet")
    assert read().labels.tolist() != first.labels.tolist()
    place.all.delete("lake/rows/a.parquet")
    again = load(place.request().data, [], pinned(in_pod, first.pins), 0, place.said.append)
    assert again.labels.tolist() == first.labels.tolist()
    assert again.pins == first.pins


def test_an_output_of_dvc_is_replayable_without_versions_of_the_bucket(versitygw: Versitygw) -> None:
    place = Place(versitygw)
    data, remote = parquet(events(80)), {}
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    remote[f"files/md5/{digest[:2]}/{digest[2:]}"] = data
    listed = json.dumps([{"md5": digest, "relpath": "a.parquet"}]).encode()
    folder = hashlib.md5(listed, usedforsecurity=False).hexdigest() + ".dir"
    remote[f"files/md5/{folder[:2]}/{folder[2:]}"] = listed
    for key, content in remote.items():
        place.all.put(f"dvc/{key}", content)
    output = {"remote": {"uri": f"s3://{place.name}/dvc/"}, "md5": folder, "path": "rows"}
    declared = complete_data(data_of(source={"dvc": output}), place.store)
    dataset = load(declared, [], in_pod, 0, place.said.append)
    assert (dataset.read.rows, dataset.read.replayable) == (80, "True")
    assert dataset.pins[0].version_id == digest
    again = load(declared, [], pinned(in_pod, dataset.pins), 0, place.said.append)
    assert again.labels.tolist() == dataset.labels.tolist()
    place.all.put(f"dvc/files/md5/{digest[:2]}/{digest[2:]}", parquet(events(80, seed=4)))
    with pytest.raises(Exception, match=rf"a\.parquet has not the MD5 {digest} that was declared"):
        load(declared, [], in_pod, 0, place.said.append)


def test_the_record_has_the_sample_and_how_it_was_declared(versitygw: Versitygw) -> None:
    place = Place(versitygw).write(events())
    request = place.request()
    request = request.model_copy(
        update={"data": Data.model_validate(request.data.dump() | {"sample": {"maxRows": 1500}})}
    )
    result = place.run(request)
    assert result.reason == "Succeeded"
    data = place.record(result)["data"]
    assert (data["sampling"], data["sampledFrom"], data["rows"]) == ("ByKeyHash", 2400, 1500)
    assert data["declared"]["sample"] == {"maxRows": 1500, "seed": 0}


def test_card_and_report_tell_of_places_and_sample(volume: Path, versitygw: Versitygw) -> None:
    (volume / "a.parquet").write_bytes(parquet(events()))
    place = Place(versitygw)
    request = place.request()
    declared = request.data.dump() | {
        "source": {"pvc": {"claimName": "lake", "path": "rows"}},
        "sample": {"maxRows": 1500},
    }
    result = place.run(request.model_copy(update={"data": Data.model_validate(declared)}))
    assert result.reason == "Succeeded"
    told = "\n".join(place.said)
    assert "could not" not in told, told
    assert result.record is not None
    page = place.bucket.get(layout.beside_record(result.record.id, layout.REPORT)).decode()
    assert "pvc://lake/rows" in page
    assert "2,400 rows, by the hash of their key" in page


def test_only_s3_is_completed_from_the_store() -> None:
    store = data_of().source.s3
    assert store is not None
    store = store.model_copy(update={"uri": "s3://models/", "endpoint": "http://s3:7070", "region": "eu-x"})
    output = {"remote": {"uri": "s3://dvc/"}, "md5": "0" * 32, "path": "a.csv"}
    label = {"column": "late", "source": {"dvc": output}}
    joins = [{"name": "j", "source": {"pvc": {"claimName": "c"}}, "timeColumn": "at"}]
    done = complete_data(data_of(label=label, joins=joins), store)
    assert done.label.source is not None
    assert done.label.source.dvc is not None
    assert done.label.source.dvc.remote.endpoint == "http://s3:7070"
    assert done.joins[0].source == data_of(joins=joins).joins[0].source
    assert [source.place.uri for source in done.sources] == ["s3://lake/rows/", "dvc+s3://dvc/", "pvc://c/"]


def test_an_opener_takes_other_volumes() -> None:
    lake = Lake({})
    opened = opener(lake.open, lambda place: f"the volume {place.claim_name}")  # type: ignore[arg-type,return-value]
    source = data_of(source={"pvc": {"claimName": "lake"}}).source
    assert opened(source.place) == "the volume lake"

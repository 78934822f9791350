"""Outputs of DVC in a remote of either layout, written here as DVC writes them; test_dvc_push has DVC itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.sources.test_read import AMOUNT, AT, EVERYTHING, KEY, KIND
from tests.unit.trainer.lake import Memory, csv_of, events, parquet
from truekeep.api.common import DvcOutput, Source
from truekeep.sources import objects
from truekeep.sources.dvc import Dvc
from truekeep.sources.errors import SourceInvalid
from truekeep.sources.read import Table, read_table
from truekeep.storage import ObjectMissing

FILES = {"2024/a.csv": csv_of(events(5)), "2024/b.parquet": parquet(events(4)), "notes.md": b"# x"}


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def key_of(layout: str, digest: str) -> str:
    return f"{layout}{digest[:2]}/{digest[2:]}"


def remote_of(files: dict[str, bytes], layout: str = "files/md5/") -> tuple[dict[str, bytes], str]:
    """The objects of a remote, and the MD5 of the folder."""
    listed = json.dumps([{"md5": md5(data), "relpath": path} for path, data in sorted(files.items())]).encode()
    folder = md5(listed) + ".dir"
    return {key_of(layout, folder): listed, **{key_of(layout, md5(data)): data for data in files.values()}}, folder


def output(digest: str, path: str = "data/flights") -> DvcOutput:
    return DvcOutput.model_validate({"remote": {"uri": "s3://dvc/store/"}, "md5": digest, "path": path})


class Remote(Memory):
    def list(self, prefix: str = "", start_after: str | None = None) -> Any:
        return (info for info in super().list() if info.key.startswith(prefix))

    def fetch(self, key: str, *arguments: Any, **named: Any) -> Any:
        if key not in self.files:
            raise ObjectMissing(key)
        return super().fetch(key, *arguments, **named)


def opened(contents: dict[str, bytes], digest: str, path: str = "data/flights") -> Dvc:
    return Dvc(Remote("s3://dvc/store/", contents), output(digest, path))


def read(contents: dict[str, bytes], digest: str, path: str = "data/flights") -> Table:
    return read_table(opened(contents, digest, path), "source", (AT, KEY, AMOUNT), EVERYTHING)


@pytest.mark.parametrize("layout", ["files/md5/", ""])
def test_a_folder_is_its_files(layout: str) -> None:
    contents, folder = remote_of(FILES, layout)
    table = read(contents, folder)
    assert len(table) == 9
    assert table.files == [f"dvc+s3://dvc/store/data/flights/2024/{name}" for name in ("a.csv", "b.parquet")]
    assert [pin.version_id for pin in table.pins] == [md5(FILES["2024/a.csv"]), md5(FILES["2024/b.parquet"])]
    assert [pin.size for pin in table.pins] == [len(FILES["2024/a.csv"]), len(FILES["2024/b.parquet"])]


@pytest.mark.parametrize("layout", ["files/md5/", ""])
def test_one_file_has_its_suffix_from_its_path(layout: str) -> None:
    data = FILES["2024/b.parquet"]
    table = read({key_of(layout, md5(data)): data}, md5(data), "data/b.parquet")
    assert table.files == ["dvc+s3://dvc/store/data/b.parquet"]
    assert len(table) == 4


def test_folders_of_a_folder_are_partitions() -> None:
    contents, folder = remote_of({"kind=z/a.csv": b"at,id\n2024-01-01,k\n"})
    table = read_table(opened(contents, folder), "source", (AT, KEY, KIND), EVERYTHING)
    assert table.columns[KIND].to_pylist() == ["z"]


def test_equal_files_of_a_folder_are_each_read() -> None:
    contents, folder = remote_of({"a.csv": FILES["2024/a.csv"], "b.csv": FILES["2024/a.csv"]})
    assert len(read(contents, folder)) == 10


@pytest.mark.parametrize("spooled", [True, False])
def test_an_altered_file_is_named(spooled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if spooled:
        monkeypatch.setattr(objects, "SPOOLED_FROM", 10)
        monkeypatch.setattr(objects, "PIECE", 16)
    contents, folder = remote_of(FILES)
    digest = md5(FILES["2024/a.csv"])
    contents[key_of("files/md5/", digest)] = FILES["2024/a.csv"].replace(b"k", b"K", 1)
    with pytest.raises(SourceInvalid) as error:
        read(contents, folder)
    assert f"dvc+s3://dvc/store/data/flights/2024/a.csv has not the MD5 {digest} that was declared" in str(error.value)


def test_an_altered_list_is_named() -> None:
    contents, folder = remote_of(FILES)
    contents[key_of("files/md5/", folder)] += b" "
    with pytest.raises(SourceInvalid, match=rf"{folder[2:]}, the list of .*, has not the MD5 of its name"):
        read(contents, folder)


def test_what_the_remote_lacks_is_named() -> None:
    contents, folder = remote_of(FILES)
    digest = md5(FILES["2024/a.csv"])
    del contents[key_of("files/md5/", digest)]
    with pytest.raises(
        SourceInvalid, match=rf"its file 2024/a\.csv, {digest}, is not in the DVC remote s3://dvc/store/"
    ):
        read(contents, folder)
    with pytest.raises(SourceInvalid, match=rf"the list of its files, {'0' * 32}\.dir, is not in the DVC remote"):
        read(contents, "0" * 32 + ".dir")


@pytest.mark.parametrize(
    "listed", [b"x", b"{}", b'[{"md5": "x", "relpath": "a.csv"}]', b'[{"relpath": "a.csv"}]', b"[1]"]
)
def test_a_list_that_is_none_is_refused(listed: bytes) -> None:
    folder = md5(listed) + ".dir"
    if listed == b"{}":
        assert not len(read({key_of("", folder): listed}, folder))
        return
    with pytest.raises(SourceInvalid, match="is no list of a folder as DVC writes it"):
        read({key_of("", folder): listed}, folder)


def test_a_text_of_windows_has_the_md5_that_old_dvc_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC 1 and 2 counted CRLF as LF, also where a piece ends between the two."""
    data = FILES["2024/a.csv"].replace(b"\n", b"\r\n")
    digest = md5(FILES["2024/a.csv"])
    for piece in (1, 7, 1 << 20):
        monkeypatch.setattr(objects, "PIECE", piece)
        assert len(read({key_of("", digest): data}, digest, "a.csv")) == 5
    with pytest.raises(SourceInvalid, match="has not the MD5"):
        read({key_of("files/md5/", digest): data}, digest, "a.csv")


def test_what_was_pinned_is_read_again_without_the_list() -> None:
    contents, folder = remote_of(FILES)
    digest = md5(FILES["2024/a.csv"])
    later = opened({key_of("files/md5/", digest): contents[key_of("files/md5/", digest)]}, folder)
    assert later.fetch("2024/a.csv", digest).data == FILES["2024/a.csv"]
    with pytest.raises(ObjectMissing, match=r"2024/b\.parquet"):
        later.fetch("2024/b.parquet", md5(FILES["2024/b.parquet"]))


@pytest.mark.parametrize(
    "change",
    [{"md5": "x"}, {"md5": "A" * 32}, {"path": "../a.csv"}, {"path": "/a.csv"}, {"path": ""}, {"md5": "0" * 36}],
)
def test_what_is_no_output_is_refused(change: dict[str, str]) -> None:
    good = {"remote": {"uri": "s3://dvc/"}, "md5": "0" * 32, "path": "a.csv"}
    DvcOutput.model_validate(good)
    with pytest.raises(ValidationError):
        DvcOutput.model_validate({**good, **change})


def test_a_source_without_a_place_has_none() -> None:
    with pytest.raises(ValueError, match="none of s3, pvc and dvc"):
        _ = Source().place

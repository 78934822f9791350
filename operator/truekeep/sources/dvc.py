"""What a `.dvc` file points to, read from the DVC remote that holds it; neither Git nor DVC is needed.

A remote is content-addressed: the object of a file is named by the MD5 of its bytes, `files/md5/ab/cdef…` (DVC 3) or
`ab/cdef…` (DVC 1 and 2), and a folder is an object `….dir` with the JSON list of its files,
`[{"md5": …, "relpath": …}, …]`. Every MD5 is checked. DVC 1 and 2 took that of a text with CRLF as if it had LF.

Layout as dvc-objects 5 and DVC 3.60 write it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

from truekeep.api.common import DvcOutput
from truekeep.sources.errors import SourceInvalid
from truekeep.sources.objects import AHEAD, MD5, MD5_OR_LF, Objects, is_data
from truekeep.storage.errors import ObjectMissing
from truekeep.storage.s3 import Fetched, ObjectInfo

FOLDER = ".dir"
LAYOUTS = ("files/md5/", "")  # of DVC 3; of DVC 1 and 2
LISTING_BYTES = 64 << 20  # of some 500,000 files
_NAMED = re.compile(r"[0-9a-f]{32}")


class Dvc:
    """An output of DVC: one file, or the files of a folder. An object's version is its MD5, so that it can be read
    again for as long as the remote keeps it."""

    def __init__(self, remote: Objects, output: DvcOutput) -> None:
        self._remote = remote
        self._output = output
        self._at: dict[str, str] = {}  # MD5 -> key in the remote, where that is known
        self._files: dict[str, str] | None = None  # key -> MD5

    def uri(self, key: str = "") -> str:
        """Example: dvc+s3://dvc-store/data/flights/2013-01.parquet, of the output data/flights."""
        return self._output.uri + key

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """The output's files of data, in the order of their keys, each with the MD5 that its bytes must have.
        SourceInvalid where the remote does not hold them."""
        files = self._known().items()
        wanted = [(key, md5) for key, md5 in sorted(files) if key.startswith(prefix) and is_data(key)]
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="find") as pool:  # a request for each
            found = pool.map(lambda one: self._info(*one), wanted)
            yield from (info for info in found if start_after is None or info.key > start_after)

    def fetch(self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None) -> Fetched:
        """The bytes of the output's file, or those of the MD5 `version_id`. ObjectMissing where there are none."""
        md5 = version_id or self._known().get(key)
        if md5 is None or not _NAMED.fullmatch(md5):
            raise ObjectMissing(f"{self.uri(key)}: the output has no such file")
        places = [self._at[md5]] if md5 in self._at else [_key(layout, md5) for layout in LAYOUTS]
        for place in places:
            try:
                fetched = self._remote.fetch(place, span=span)
            except ObjectMissing:
                continue
            self._at[md5] = place
            return Fetched(fetched.data, fetched.etag, md5)
        raise ObjectMissing(f"{self.uri(key)}: {self._remote.uri(places[0])} is not there; dvc push it again")

    def _known(self) -> dict[str, str]:
        if self._files is None:
            md5 = self._output.md5
            self._files = self._folder(md5) if md5.endswith(FOLDER) else {PurePosixPath(self._output.path).name: md5}
        return self._files

    def _folder(self, name: str) -> dict[str, str]:
        """The files of a folder by their paths in it."""
        if self._info("", name).size > LISTING_BYTES:
            where = self._remote.uri(self._at[name])
            raise SourceInvalid(f"{where}, the list of {self.uri()}, has more than {LISTING_BYTES:,} bytes; split it")
        data = self._remote.fetch(self._at[name]).data
        where = self._remote.uri(self._at[name])
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != name.removesuffix(FOLDER):
            raise SourceInvalid(f"{where}, the list of {self.uri()}, has not the MD5 of its name; dvc push it again")
        try:
            listed = json.loads(data)
            return {_text(one["relpath"]): _digest(one["md5"]) for one in listed}
        except (ValueError, KeyError, TypeError) as error:
            raise SourceInvalid(f"{where} is no list of a folder as DVC writes it: {error!r:.200}") from error

    def _info(self, key: str, md5: str) -> ObjectInfo:
        for layout in LAYOUTS:
            place = _key(layout, md5)
            for info in self._remote.list(place):
                if info.key == place:
                    self._at[md5] = place
                    must = (MD5 if layout else MD5_OR_LF) + md5
                    return ObjectInfo(key, info.size, info.etag, md5, info.last_modified, must)
        what = f"the list of its files, {md5}," if md5.endswith(FOLDER) else f"its file {key}, {md5},"
        raise SourceInvalid(
            f"{self.uri()}: {what} is not in the DVC remote {self._remote.uri()}; dvc push it, or correct md5 or remote"
        )


def _key(layout: str, md5: str) -> str:
    return f"{layout}{md5[:2]}/{md5[2:]}"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 1024:
        raise ValueError(f"{value!r:.80} is no path")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _NAMED.fullmatch(value):
        raise ValueError(f"{value!r:.80} is no MD5")
    return value

"""Labels of what was captured: the files that training reads, joined by the same rules.

Only files that were written since a window began are read: a label can't be older than its event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.contract import hashing
from truekeep.contract.canonical import digest_of
from truekeep.contract.requests import Labels
from truekeep.sources import join
from truekeep.sources.columns import NO_LABEL, Values, Want
from truekeep.sources.errors import SourceInvalid
from truekeep.sources.objects import data_files
from truekeep.sources.places import in_pod
from truekeep.sources.read import Objects, Selection, read_table
from truekeep.storage.hash_key import read_hash_key
from truekeep.storage.s3 import Fetched, ObjectInfo

SKEW = timedelta(days=1)  # how much the store's clock may differ from that of the events
SHOWN = 3

Found = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Files:
    """The objects of a label source that may hold labels of events since some time. For `read_table`."""

    place: Objects
    infos: tuple[ObjectInfo, ...]
    fault: str = ""  # why they can't be listed

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Those objects; there is no other prefix."""
        del prefix, start_after
        return iter(self.infos)

    def fetch(self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None) -> Fetched:
        """One of them."""
        return self.place.fetch(key, version_id, span=span)

    def uri(self, key: str = "") -> str:
        """Its address."""
        return self.place.uri(key)

    def since(self, moment: datetime) -> Files:
        """Those that were written since then."""
        return replace(self, infos=tuple(info for info in self.infos if info.last_modified >= moment - SKEW))

    @property
    def state(self) -> str:
        """Another one whenever there is another file, or a file changed."""
        return digest_of([[info.key, info.etag] for info in self.infos])


@dataclass(frozen=True)
class Read:
    """Labels, shape (rows,): 0, 1, or NO_LABEL where there is none; and what was wrong with the files."""

    labels: Found
    problems: tuple[str, ...] = ()


def files(labels: Labels) -> Files:
    """What lies there now. StoreError where the store is at fault."""
    place = in_pod(labels.source.place)
    try:
        return Files(place, tuple(data_files(place)))
    except SourceInvalid as error:
        return Files(place, (), str(error))


def read(source: Files, labels: Labels, keys: pa.Array[Any]) -> Read:
    """The last label of each key. `keys`: text, as captured, null where there is none."""
    key, label = Want(labels.key, "Category"), Want(labels.column, "Label")
    equal = hashes_of(labels, labels.key)

    def keep(values: Values) -> npt.NDArray[np.bool_]:
        found: Any = pc.is_in(equal(values), value_set=keys, skip_nulls=True)
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)

    if source.fault:
        return Read(np.full(len(keys), NO_LABEL, dtype=np.int8), (source.fault,))
    try:
        table = read_table(source, "label", [key, label], Selection(key, keep))
    except SourceInvalid as error:
        return Read(np.full(len(keys), NO_LABEL, dtype=np.int8), (str(error),))
    problems = [
        f"{table.files[found.file]}: {found.column or 'the file'} {found.bad.problem}" for found in table.problems
    ]
    missing = [want.name for want in (key, label) if source.infos and want.name not in table.known]
    problems += [f"no file of {source.uri()} has a column {name}" for name in missing]
    if missing or not len(table):
        return Read(np.full(len(keys), NO_LABEL, dtype=np.int8), tuple(problems[:SHOWN]))
    positions = join.by_key(keys, equal(table.columns[key]))
    values: Any = table.columns[label]
    return Read(np.append(values, np.int8(NO_LABEL))[positions], tuple(problems[:SHOWN]))


def hashes_of(labels: Labels, column: str) -> Callable[[Any], Any]:
    """What makes of the labels' values what captures have of them: their hashes, where `labels` names a key, or just
    themselves. HashKeyError where the key can't be read."""
    if not labels.hash_key_secret:
        return lambda values: values
    secret = read_hash_key(labels.hash_key_secret)
    return lambda values: _hashed(secret, column, values)


def _hashed(secret: bytes, column: str, values: Any) -> pa.Array[Any]:
    encoded = values.dictionary_encode()
    known = [value and hashing.hashed(secret, column, value) for value in encoded.dictionary.to_pylist()]
    return pa.array(known, pa.string()).take(encoded.indices)

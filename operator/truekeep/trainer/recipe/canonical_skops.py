"""skops bytes that depend on the model alone, so that the same model has the same digest wherever it was fitted.

A skops file is a zip of `schema.json` and of arrays. As skops writes it, it differs each time: nodes and files are
named by the memory addresses of the objects, entries carry the time of writing, and structured arrays (the nodes of
trees) hold whatever was in the memory between their fields. Here ids are counted in the order of the schema, entries
are sorted, stored uncompressed (zlib's versions compress differently) and dated 1980, and the gaps are zeros.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np

SCHEMA = "schema.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Whether two of these are one object in memory is the interpreter's business (interning), not the model's.
_VALUES = frozenset({"JsonNode", "TypeNode", "FunctionNode"})


def dumps(model: Any) -> bytes:
    """The model as a canonical skops file."""
    from skops import io as skops_io

    return canonical(skops_io.dumps(model))


def canonical(content: bytes) -> bytes:
    """The same skops file in its canonical form. ValueError where it is none."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = set(archive.namelist())
        if SCHEMA not in names:
            raise ValueError(f"no skops file: it has no {SCHEMA}")
        schema = json.loads(archive.read(SCHEMA))
        files = _renumber(schema, names)
        members = {target: _member(source, archive.read(source)) for source, target in files.items()}
    members[SCHEMA] = json.dumps(schema, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, whatever wrote it
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, members[name])
    return buffer.getvalue()


def _renumber(schema: Any, names: set[str]) -> dict[str, str]:
    """Give ids and files numbers in the order of the schema, in place. Returns the new name of each file in use."""
    ids: dict[int, int] = {}
    files: dict[str, str] = {}
    count = 0
    stack = [schema]
    while stack:  # no recursion: schemas nest deeper than Python likes
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(reversed(value))
        elif isinstance(value, dict):
            if isinstance(old := value.get("__id__"), int):
                shared = value.get("__loader__") not in _VALUES
                if shared and old in ids:
                    value["__id__"] = ids[old]
                else:
                    count += 1
                    value["__id__"] = count
                    if shared:
                        ids[old] = count
            if isinstance(file := value.get("file"), str) and file in names:
                value["file"] = files.setdefault(file, f"{len(files) + 1:06d}.{file.rpartition('.')[2]}")
            stack.extend(reversed(list(value.values())))
    return files


def _member(name: str, content: bytes) -> bytes:
    """The content, an array's gaps between fields filled with zeros."""
    if not name.endswith(".npy"):
        return content
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.names is None or _width(array.dtype) == array.dtype.itemsize:
        return content
    clean = np.zeros(array.shape, dtype=array.dtype)
    for field in array.dtype.names:
        clean[field] = array[field]
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, clean, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _width(dtype: np.dtype[Any]) -> int:
    """Bytes that the fields fill."""
    return sum(dtype[field].itemsize for field in dtype.names or ())

"""A part of the rows by the hash of their key: the same rows each time, whatever the order of files.

The hash is 64 bits: FNV-1a over the key's UTF-8 bytes, its first state the offset basis XOR the seed, and then the
finalizer of MurmurHash3. A fraction f keeps the rows whose hash is below f·2⁶⁴; with a greatest number of rows, those
with the smallest hashes are kept, as many whole keys as there is room for. All rows of a key go the same
way, so that what supersedes a row is sampled with it. Rows without a key are kept, to be told of.

FNV-1a: Fowler, Noll, Vo, draft-eastlake-fnv; the finalizer: Appleby, MurmurHash3, fmix64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from truekeep.api.sample import Sample

Hashes = npt.NDArray[np.uint64]

_BASIS, _PRIME = 0xCBF29CE484222325, 0x100000001B3
_MASK = (1 << 64) - 1


class Sampler:
    """Decides which rows stay while a source is read; `seen` counts all that it was asked for."""

    def __init__(self, declared: Sample) -> None:
        self.declared = declared
        self.seen = 0
        self._most = declared.max_rows
        self._below: int | None = None  # hashes below it stay; None: all do
        if declared.fraction is not None:
            numerator, _, decimals = declared.fraction.partition(".")
            scale = 10 ** len(decimals)
            self._below = ((int(numerator) * scale + int(decimals or 0)) << 64) // scale

    def hashes(self, keys: Any) -> Hashes:
        """A hash for each key, shape (rows,); 0 where there is none."""
        return hashes(keys, self.declared.seed)

    def keep(self, hashed: Hashes) -> npt.NDArray[np.bool_]:
        """Which rows stay, as far as it is known by now. Shape (rows,)."""
        if self._below is None or self._below > _MASK:
            return np.ones(len(hashed), dtype=np.bool_)
        return np.asarray((hashed < np.uint64(self._below)) | (hashed == 0))

    def crowded(self, rows: int) -> bool:
        """Whether so many are held that some should be let go."""
        return self._most is not None and rows > 2 * self._most

    def narrow(self, hashed: Hashes) -> None:
        """Settle, for all rows that are held, from which hash on there is no room."""
        if self._most is not None and len(hashed) > self._most:
            self._below = int(np.partition(hashed, self._most)[self._most])


def hashes(keys: Any, seed: int) -> Hashes:
    """The hash of each text, shape (rows,); 0 for a null. `keys`: an Arrow array of text."""
    keys = keys.cast(pa.large_string())
    rows = len(keys)
    if rows == 0:
        return np.empty(0, np.uint64)
    offsets = np.frombuffer(keys.buffers()[1], np.int64)[keys.offset : keys.offset + rows + 1]
    letters = np.frombuffer(keys.buffers()[2], np.uint8) if keys.buffers()[2] else np.empty(0, np.uint8)
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")  # the longest first, so that those with another letter are in front
    starts, lengths = offsets[:-1][order], lengths[order]
    state = np.full(rows, (_BASIS ^ seed) & _MASK, np.uint64)
    active = rows
    for place in range(int(lengths[0])):
        active = int(np.searchsorted(-lengths[:active], -place, side="left"))
        state[:active] = (state[:active] ^ letters[starts[:active] + place]) * np.uint64(_PRIME)
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53), (33, None)):
        state ^= state >> np.uint64(shift)
        if factor is not None:
            state *= np.uint64(factor)
    result = np.empty(rows, np.uint64)
    result[order] = state
    if keys.null_count:
        result[np.asarray(keys.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)] = 0
    return result

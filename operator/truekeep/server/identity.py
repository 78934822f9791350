"""What identifies a row besides its features: event times and keys, as clients write them. Captured, never scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from truekeep.features import times
from truekeep.features.encode import category_text
from truekeep.server.protocol import RequestError

KEY_CHARACTERS = 512

# An epoch number says its unit by its size: seconds until the year 5138, then milliseconds, microseconds, nanoseconds.
_UNITS = ((1e11, 1_000_000.0), (1e14, 1_000.0), (1e17, 1.0), (1e20, 0.001))


def microseconds(value: Any) -> int | None:
    """ISO 8601 text (UTC where it has no offset) or an epoch number in s, ms, µs or ns; None for a null.

    ValueError, with the reason, for anything else."""
    if value is None:
        return None
    if type(value) is str:
        return times.from_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no time; send ISO 8601 text or an epoch number")
    size = abs(value)
    for limit, factor in _UNITS:
        if size < limit:
            result = int(value) if factor == 1.0 else round(value * factor)
            if times.EARLIEST <= result <= times.LATEST:
                return result
            break
    raise ValueError(f"{value!r:.40} is no time between the years 1 and 9999")


def event_times(name: str, values: Sequence[Any]) -> list[int | None]:
    """Microseconds since 1970 (UTC) for each row. RequestError (422) that names tensor and row."""
    found: list[int | None] = []
    for row, value in enumerate(values):
        try:
            found.append(microseconds(value))
        except ValueError as error:
            raise RequestError(422, f"tensor {name}, row {row}: {error}") from None
    return found


def keys(name: str, values: Sequence[Any]) -> list[str | None]:
    """Text for each row, integers in decimal digits. RequestError (422) that names tensor and row."""
    texts: list[str | None] = []
    for row, value in enumerate(values):
        try:
            text = category_text(value)
        except TypeError:
            raise RequestError(
                422, f"tensor {name}, row {row}: a key is text or an integer, not {value!r:.60}"
            ) from None
        if text is not None and len(text) > KEY_CHARACTERS:
            raise RequestError(
                422,
                f"tensor {name}, row {row}: the key has {len(text)} characters, at most {KEY_CHARACTERS} are kept",
            )
        texts.append(text)
    return texts

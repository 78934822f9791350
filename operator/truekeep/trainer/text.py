"""Numbers and times as people and records read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECONDS = 1_000_000


def decimal(value: float, digits: int = 4) -> str:
    """Decimal text, rounded. Example: 0.7123. NaN where there is no number."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return f"{value + 0.0:.{digits}f}"


def against(value: float, threshold: float, *, upper: bool = False) -> str:
    """Decimal text with as many digits as it takes to see whether the value meets the threshold, an `upper` one or a
    lower one."""
    sign = -1 if upper else 1
    for digits in range(4, 16):
        text = decimal(value, digits)
        if (sign * float(text) >= sign * threshold) == (sign * value >= sign * threshold):
            return text
    return repr(value)


def moment(microseconds: int) -> datetime:
    """Microseconds since 1970 as a time in UTC."""
    return EPOCH + timedelta(microseconds=int(microseconds))


def iso(microseconds: int) -> str:
    """Microseconds since 1970 as text. Example: 2013-02-28T23:59:00Z."""
    return moment(microseconds).isoformat().replace("+00:00", "Z")


def counted(number: int, noun: str) -> str:
    """Example: 1 row, 12,345 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

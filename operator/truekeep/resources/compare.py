"""Whether what is wanted already holds, so that nothing is applied twice."""

from __future__ import annotations

from decimal import InvalidOperation
from typing import Any

from truekeep.api.common import quantity

EXACT = frozenset({"selector"})  # one value: a label more selects other pods
QUANTITIES = frozenset({"cpu", "memory", "sizeLimit"})


def holds(wanted: Any, live: Any, key: str = "") -> bool:
    """Whether every field that is wanted has that value in the live object, which may have more: defaults, status.

    A list must have as many items, each holding. Quantities are compared as numbers, and a zero value that is wanted
    holds where the field is absent, because the API server leaves such fields out."""
    if live is None:
        return not wanted and wanted is not False
    if key in EXACT:
        return bool(wanted == live)
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(holds(value, live.get(name), name) for name, value in wanted.items())
    if isinstance(wanted, list):
        same_length = isinstance(live, list) and len(wanted) == len(live)
        return same_length and all(holds(item, other) for item, other in zip(wanted, live, strict=True))
    if key in QUANTITIES and wanted != live:
        return _same_quantity(str(wanted), str(live))
    return bool(wanted == live)


def _same_quantity(one: str, other: str) -> bool:
    try:
        return quantity(one) == quantity(other)
    except (InvalidOperation, ValueError):
        return False

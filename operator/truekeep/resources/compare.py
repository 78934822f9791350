"""Whether what is wanted already holds, so that nothing is applied twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def left_over(wanted: Mapping[str, Any], live: Mapping[str, Any], manager: str) -> bool:
    """Whether the live object has fields that this manager once applied and does not want any more: a setting that was
    taken out of a spec. What others wrote there is theirs."""
    return any(
        _owns_more(each.get("fieldsV1") or {}, wanted)
        for each in (live.get("metadata") or {}).get("managedFields") or []
        if each.get("manager") == manager and each.get("operation") == "Apply" and not each.get("subresource")
    )


def _owns_more(fields: Mapping[str, Any], wanted: Any) -> bool:
    """Whether fieldsV1 names what is not wanted: `f:` a field, `k:` an item of a list by its keys."""
    for name, inside in fields.items():
        if name.startswith("f:") and isinstance(wanted, Mapping):
            if name[2:] not in wanted or _owns_more(inside, wanted[name[2:]]):
                return True
        elif name.startswith("k:") and isinstance(wanted, list):
            keys = json.loads(name[2:]).items()
            # A key that is not wanted by name has its default, which only the server knows.
            items = [each for each in wanted if all(each.get(key, value) == value for key, value in keys)]
            if not items or all(_owns_more(inside, each) for each in items):
                return True
    return False

"""Which objects to look at when one changed: an object of ours, or a child that bears our labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, LABEL_POLICY, LABEL_RUN
from truekeep.controller.queue import Key


def key_of(kind: str, item: Mapping[str, Any]) -> Key | None:
    """The key of an object of ours, None where it names no Model."""
    metadata = item.get("metadata") or {}
    namespace, name = str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
    reference = (item.get("spec") or {}).get("modelRef") or {}
    model = name if kind == "Model" else str(reference.get("name") or "")
    return Key(kind, namespace, name, model) if namespace and name and model else None


def keys_of_approval(item: Mapping[str, Any]) -> list[Key]:
    """The Model that an approval is for."""
    key = key_of("ModelApproval", item)
    return [Key("Model", key.namespace, key.model, key.model)] if key else []


def keys_of_child(item: Mapping[str, Any]) -> list[Key]:
    """The object that a child belongs to, by its labels."""
    metadata = item.get("metadata") or {}
    labels = metadata.get("labels") or {}
    namespace, model = str(metadata.get("namespace") or ""), str(labels.get(LABEL_MODEL) or "")
    if not namespace or not model:
        return []
    match labels.get(LABEL_COMPONENT):
        case "trainer" if labels.get(LABEL_RUN):
            return [Key("TrainingRun", namespace, str(labels[LABEL_RUN]), model)]
        case "monitor" | "notice" if labels.get(LABEL_POLICY):
            return [Key("DriftPolicy", namespace, str(labels[LABEL_POLICY]), model)]
        case "server" | "rehearsal" | "retention" | "newdata" | "decisions":
            return [Key("Model", namespace, model, model)]
        case _:
            return []


class Relations:
    """Who looks at a Model: its policies, and its runs that are not finished. Small: a finished run is forgotten."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, str], set[Key]] = {}

    def keys(self, kind: str, item: Mapping[str, Any], gone: bool) -> list[Key]:
        """Whom to look at when an object of ours changed or went: itself, and those that look at it."""
        key = key_of(kind, item)
        if key is None:
            return []
        where = (key.namespace, key.model)
        if kind == "Model":
            return [key, *sorted(self._members.get(where, ()))]
        members = self._members.setdefault(where, set())
        if gone or ended(kind, item):
            members.discard(key)
        else:
            members.add(key)
        if not members:
            del self._members[where]
        return [key, Key("Model", key.namespace, key.model, key.model)]


def ended(kind: str, item: Mapping[str, Any]) -> bool:
    """Whether an object is a run that came to its end: of such there are many, and nothing changes them any more."""
    conditions = (item.get("status") or {}).get("conditions") or []
    return kind == "TrainingRun" and any(
        each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in conditions
    )

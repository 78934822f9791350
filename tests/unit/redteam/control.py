"""Attacks on the operator by what lies in an object that it reads: a status and annotations that nobody would write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.unit.redteam.attack import Attack, Scene
from tests.unit.resources.samples import PLAIN
from truekeep.cluster import views
from truekeep.domain import overrides

GARBAGE = "status that is garbage"
ANNOTATIONS = "annotations"
META: dict[str, Any] = {
    "name": "m", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": "1",
    "creationTimestamp": "2026-01-01T00:00:00Z",
}  # fmt: skip


def _crashes(status: Any) -> bool:
    """Whether a Model with such a status ends the reconcile of it."""
    try:
        views.model_view({"metadata": META, "spec": PLAIN, "status": status})
    except Exception:
        return True
    return False


def _garbage() -> Iterator[Attack]:
    def unguard(scene: Scene) -> None:
        scene.patch.setattr(views, "lenient_status", lambda kind, item: (kind.model_validate(item["status"]), None))

    for name, status in {
        "a text": "text",
        "a number": 7,
        "a list": [],
        "conditions that are a number": {"conditions": 5},
        "a condition with nothing in it": {"conditions": [{"type": "Ready"}]},
        "a revision that is no number": {"active": {"revision": "many"}},
        "fewer revisions than none": {"latestRevision": -4},
        "parts of other types": {"previous": [1], "candidate": "x", "rejected": {}},
    }.items():
        yield Attack(GARBAGE, name, lambda scene, status=status: _crashes(status), unguard)  # type: ignore[misc]


def _misled(value: Any) -> bool:
    """Whether a rollback is understood from an annotation that says none, or reading it ends the reconcile."""
    try:
        annotated = {**META, "annotations": {"truekeep.dev/rollback": value}}
        model, _ = views.model_view({"metadata": annotated, "spec": PLAIN, "status": {"latestRevision": 3}})
        asked = overrides.rollback(model)
        return asked is not None and (asked.revision is not None or not isinstance(asked.value, str))
    except Exception:
        return True


def _annotations() -> Iterator[Attack]:
    def unguard(scene: Scene) -> None:
        scene.patch.setattr(overrides, "_revision", lambda model, asked: int(asked.split()[0], 0))

    for name, value in {
        "a path": "../../etc/passwd",
        "a number that is too large": "9" * 40,
        "a negative number": "-1",
        "a number of another base": "0x1",
        "a number and more": "1 and then some",
        "an object": {"revision": 1},
        "markup": "<script>alert(1)</script>",
    }.items():
        yield Attack(ANNOTATIONS, name, lambda scene, value=value: _misled(value), unguard)  # type: ignore[misc]


def attacks() -> Iterator[Attack]:
    """All of these."""
    yield from _garbage()
    yield from _annotations()

"""What there is after a chapter, without what differs from one telling to the next: uids, times, versions, hashes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from tests.faults.upstream import Json, Mirror

COMPARED = (
    "models",
    "trainingruns",
    "driftpolicies",
    "jobs",
    "cronjobs",
    "deployments",
    "services",
    "poddisruptionbudgets",
)
OWN = frozenset({"models", "trainingruns", "driftpolicies"})
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00| UTC)?")
POD = re.compile(r"\bpod \S+")
# How often decisions were handed over, and what of a canary was looked at when, is a matter of pace.
PACE = frozenset({"decisions", "analysis", "analysedAt", "reachedPercent"})
COMPONENT = "app.kubernetes.io/component"
# Components whose Jobs are a matter of pace: decisions are handed over in one or in several, and a candidate that
# crashes at once is rehearsed only where the crash was not seen before.
LEFT_OUT = frozenset({"decisions", "rehearsal"})


def state(mirror: Mirror, namespace: str) -> Json:
    """All objects of a namespace by kind and name, comparable between tellings."""
    items = {plural: mirror.all(plural, namespace) for plural in COMPARED}
    names = _names(items, namespace)
    result: dict[str, Any] = {}
    for plural, found in items.items():
        for item in found:
            if _component(item) in LEFT_OUT:
                continue
            key = f"{plural}/{_renamed(item['metadata']['name'], names)}"
            result[key] = _clean(_relevant(plural, item), names)
    return result


def _component(item: Json) -> str:
    return str((item["metadata"].get("labels") or {}).get(COMPONENT) or "")


def _relevant(plural: str, item: Json) -> Json:
    metadata = item["metadata"]
    kept = {
        "labels": metadata.get("labels"),
        "annotations": {
            key: value
            for key, value in (metadata.get("annotations") or {}).items()
            if not key.startswith("deployment.kubernetes.io/")
        },
        "owners": [owner["kind"] for owner in metadata.get("ownerReferences") or []],
        "deleting": "deletionTimestamp" in metadata,
        "spec": item.get("spec"),
    }
    if plural in OWN:
        kept["status"] = item.get("status")
        kept["generation"] = metadata["generation"]
    if plural == "jobs":
        kept["ended"] = [each["type"] for each in (item.get("status") or {}).get("conditions") or []]
        kept["spec"] = {"backoffLimit": item["spec"].get("backoffLimit")}
    if plural == "services":
        kept["spec"] = {key: item["spec"].get(key) for key in ("selector", "ports", "type")}
    return kept


def _names(items: Mapping[str, list[Json]], namespace: str) -> list[tuple[str, str]]:
    """Names and uids that a telling made up, and what to call them; the longest first."""
    result = {namespace: "NAMESPACE"}
    runs = sorted(
        items["trainingruns"], key=lambda run: (run["metadata"]["creationTimestamp"], run["metadata"]["name"])
    )
    for number, run in enumerate(runs, 1):
        result[run["metadata"]["name"]] = f"run-{number}"
    deployments: dict[str, list[Json]] = defaultdict(list)
    for item in items["deployments"]:
        deployments[item["metadata"]["labels"]["truekeep.dev/revision"]].append(item)
    for revision, found in deployments.items():
        found.sort(key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))
        for number, item in enumerate(found, 1):
            result[item["metadata"]["name"]] = f"deployment-{revision}-{number}"
    for plural, found in items.items():
        for item in found:
            uid, name = item["metadata"]["uid"], item["metadata"]["name"]
            result[uid] = f"uid-of-{plural}-{_renamed(name, sorted(result.items(), key=_length))}"
    return sorted(result.items(), key=_length)


def _length(pair: tuple[str, str]) -> int:
    return -len(pair[0])


def _renamed(text: str, names: list[tuple[str, str]]) -> str:
    for name, called in names:
        text = text.replace(name, called)
    return text


def _clean(value: Any, names: list[tuple[str, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _clean(each, names) for key, each in sorted(value.items()) if key not in PACE}
    if isinstance(value, list):
        cleaned = [_clean(each, names) for each in value]
        by_type = all(isinstance(each, dict) and "type" in each for each in cleaned)
        return sorted(cleaned, key=lambda each: str(each["type"])) if by_type else cleaned
    if isinstance(value, str):
        return POD.sub("pod POD", TIME.sub("TIME", _renamed(value, names)))
    return value


def difference(expected: Any, found: Any, path: str = "") -> list[str]:
    """Where two states differ, in words."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = []
        for key in sorted(expected.keys() | found.keys()):
            where = f"{path}.{key}" if path else str(key)
            if key not in found:
                lines.append(f"{where}: is missing")
            elif key not in expected:
                lines.append(f"{where}: is there, and ought not to be")
            else:
                lines += difference(expected[key], found[key], where)
        return lines
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [line for n, pair in enumerate(zip(expected, found, strict=True))
                for line in difference(*pair, f"{path}[{n}]")]  # fmt: skip
    return [] if expected == found else [f"{path}: {found!r} instead of {expected!r}"]


class Ledger:
    """What was ever made in each namespace, counted from the API server's own events: nothing doubled hides by being
    deleted, and nothing is counted that was not done."""

    def __init__(self, mirror: Mirror) -> None:
        self._made: dict[str, dict[str, str]] = defaultdict(dict)  # namespace -> uid -> what
        self._live: dict[str, list[int]] = defaultdict(list)
        self._rehearsed: dict[str, dict[str, str]] = defaultdict(dict)  # namespace -> uid -> name
        mirror.listeners.append(self._hear)

    def _hear(self, plural: str, what: str, item: Json) -> None:
        metadata = item["metadata"]
        namespace = metadata.get("namespace", "")
        if what == "DELETED":
            return
        if plural == "trainingruns":
            self._made[namespace][metadata["uid"]] = "run"
        elif plural == "jobs" and _component(item) not in LEFT_OUT:
            self._made[namespace][metadata["uid"]] = f"job of a {_component(item)}"
        elif plural == "jobs" and _component(item) == "rehearsal":
            self._rehearsed[namespace][metadata["uid"]] = metadata["name"]
        elif plural == "models":
            active = (item.get("status") or {}).get("active")
            live = self._live[namespace]
            if active and (not live or live[-1] != active["revision"]):
                live.append(active["revision"])

    def account(self, namespace: str) -> Json:
        """How many runs and Jobs there ever were, and which revisions answered, one after the other."""
        rehearsed = Counter(self._rehearsed[namespace].values())
        return {
            **Counter(self._made[namespace].values()),
            "answered": list(self._live[namespace]),
            "rehearsed twice": sum(count > 1 for count in rehearsed.values()),
        }

    def forget(self, namespace: str) -> None:
        """Nobody asks any more."""
        self._made.pop(namespace, None)
        self._live.pop(namespace, None)
        self._rehearsed.pop(namespace, None)

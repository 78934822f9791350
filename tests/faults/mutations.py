"""Every property of every kind, mutated as its schema suggests: made from the CRDs, so that a new field is tried, too.

A mutation is one change of a spec that is otherwise good: another value that the schema allows (the bounds, each word
of an enumeration, the empty list, the property left out), or one that it does not (another type, a bound passed by one,
an unknown word, a required property left out). Whether rules between fields (CEL) allow it, the API server says."""

from __future__ import annotations

import copy
import functools
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies

from tests.cluster.layout import REPOSITORY

Json = dict[str, Any]
LONGEST = 70000  # characters that a value may have here: some bounds are meant for the server's limit of 1.5 MB
MOST_ITEMS = 300
CANDIDATES = (
    "a", "m", "0", "1", "0.5", "1Gi", "100m", "a.b", "a/b", "* * * * *", "s3://a/", "s3://a", "https://a.example/",
    "http://a", "sha256:" + "0" * 64, "registry.example/a@sha256:" + "0" * 64, "2026-01-01T00:00:00Z", "Etc/UTC",
)  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """One changed spec. `allowed`: whether the schema by itself allows it."""

    kind: str
    path: str
    what: str
    spec: Json
    allowed: bool

    @property
    def name(self) -> str:
        """To find it again."""
        return f"{self.kind}{self.path} {self.what}"


class _Missing:
    """The property is left out."""


MISSING = _Missing()


def schema_of(plural: str, crds: Path = REPOSITORY / "crds") -> Json:
    """The schema of a kind's spec."""
    crd = json.loads((crds / f"truekeep.dev_{plural}.yaml").read_text())
    (version,) = crd["spec"]["versions"]
    spec: Json = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def mutations(kind: str, schema: Json, base: Json) -> Iterator[Mutation]:
    """All of one kind, in the schema's order. base: a good spec."""
    for path, node, required in _properties(schema, ()):
        for what, value, allowed in _values(node, required):
            spec = copy.deepcopy(base)
            if _put(schema, spec, path, value) and spec != base:
                yield Mutation(kind, "".join(f".{part}" for part in path), what, spec, allowed)


def _properties(node: Json, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json, bool]]:
    required = set(node.get("required") or ())
    for name, child in (node.get("properties") or {}).items():
        here = (*path, name)
        yield here, child, name in required
        if child.get("type") == "array":
            yield from _properties(child["items"], (*here, "0"))
        else:
            yield from _properties(child, here)


def _values(node: Json, required: bool) -> Iterator[tuple[str, Any, bool]]:
    """What a property is set to: a word for it, the value, whether the schema allows that."""
    yield "left out", MISSING, not required
    kind = node.get("type")
    yield "of another type", {"a": "b"} if kind != "object" else "text", False
    match kind:
        case "integer":
            for word, bound, beyond in (("least", node.get("minimum"), -1), ("most", node.get("maximum"), 1)):
                if bound is not None:
                    yield f"the {word}", int(bound), True
                    yield f"beyond the {word}", int(bound) + beyond, False
        case "boolean":
            yield from (("true", True, True), ("false", False, True))
        case "string" if "enum" in node:
            yield from ((f"{word!r}", word, True) for word in node["enum"][:6])
            yield "an unknown word", "Nonsense-9", False
        case "string":
            yield from _texts(node)
        case "array":
            item, most = minimal(node["items"]), node.get("maxItems")
            yield "empty", [], not node.get("minItems")
            yield "of one", [item], node.get("minItems", 0) <= 1
            if most is not None and most < MOST_ITEMS:
                yield "too long", [item] * (most + 1), False
        case "object":
            yield "the least", minimal(node), True
        case _:
            raise ValueError(f"a schema of type {kind!r}")


def _texts(node: Json) -> Iterator[tuple[str, Any, bool]]:
    yield "the simplest", minimal(node), True
    for word, text in (("empty", ""), ("hostile", "../..\x1b[2J; $(id) é\U0001f600 '\"<script>")):
        yield word, text, _fits(text, node)
    most = node.get("maxLength")
    if most is not None and most <= LONGEST:
        yield "too long", "a" * (most + 1), False


def _fits(text: str, node: Json) -> bool:
    if node.get("format") == "date-time":
        return False
    inside = node.get("minLength", 0) <= len(text) <= node.get("maxLength", LONGEST)
    return inside and ("pattern" not in node or re.search(node["pattern"], text) is not None)


def minimal(node: Json) -> Any:
    """The simplest value that a schema allows, with what it requires."""
    match node.get("type"):
        case "object":
            return {name: minimal(node["properties"][name]) for name in node.get("required") or ()}
        case "array":
            return [minimal(node["items"]) for _ in range(node.get("minItems", 0))]
        case "integer":
            return max(int(node.get("minimum", 0)), min(1, int(node.get("maximum", 1))))
        case "boolean":
            return False
        case _ if "enum" in node:
            return node["enum"][0]
        case _ if node.get("format") == "date-time":
            return "2026-01-01T00:00:00Z"
        case _:
            return _text(node.get("pattern", ""), node.get("minLength", 0), node.get("maxLength", LONGEST))


@functools.cache
def _text(pattern: str, least: int, most: int) -> str:
    for text in CANDIDATES:
        if least <= len(text) <= most and re.search(pattern, text):
            return text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: str = hypothesis.find(
            strategies.from_regex(pattern).filter(lambda text: least <= len(text) <= most and text.isprintable()),
            lambda _: True,
            settings=hypothesis.settings(derandomize=True, database=None, phases=[hypothesis.Phase.generate]),
        )
    return found


def _put(schema: Json, spec: Json, path: tuple[str, ...], value: Any) -> bool:
    """Set a property, making what holds it where that is not there. False where there is nothing to take away."""
    node: Json = schema
    where: Any = spec
    for name in path[:-1]:
        if name == "0":
            node = node["items"]
            where = where[0]
            continue
        node = node["properties"][name]
        held = node["items"] if node.get("type") == "array" else None
        if name not in where or (held is not None and not where[name]):
            if value is MISSING:
                return False
            where[name] = [minimal(held)] if held is not None else minimal(node)
        where = where[name]
    if value is MISSING:
        return where.pop(path[-1], MISSING) is not MISSING
    where[path[-1]] = value
    return True

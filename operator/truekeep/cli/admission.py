"""What the API server says of an object of ours, without an API server: schema, list types and CEL rules of the CRDs.

The schema is the one that the CRDs are made of, so the two can't disagree; a test compares the answers with those of a
real API server, rule by rule."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import cel
import jsonschema

from truekeep.api.common import API_VERSION
from truekeep.api.crd import render

Json = dict[str, Any]
RULES = "x-kubernetes-validations"
CEL_WORDS = frozenset((
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
    "let", "loop", "package", "namespace", "return", "var", "void", "while",
))  # fmt: skip
SHOWN = 80  # characters of a value


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where."""

    path: str  # spec.data.features[2].minimum
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@cache
def schemas() -> Mapping[str, Json]:
    """The schema of each of our kinds."""
    found = {}
    for text in render().values():
        crd = json.loads(text)
        (version,) = crd["spec"]["versions"]
        found[crd["spec"]["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return found


def faults(document: Json, old: Json | None = None) -> list[Fault]:
    """All that the API server would refuse. `old`: the stored object, for rules that compare with it."""
    kind = document.get("kind")
    schema = schemas().get(str(kind))
    if schema is None:
        known = ", ".join(sorted(schemas()))
        return [Fault("kind", f"{kind!r} is none of ours; there are {known}")]
    if document.get("apiVersion") != API_VERSION:
        return [Fault("apiVersion", f"{document.get('apiVersion')!r} must be {API_VERSION}")]
    found = [*_unknown(document, schema, ""), *_structure(document, schema)]
    if found:
        return found
    return [*_lists(document, schema, ""), *_rules(_defaulted(document, schema), schema, "", _old(old, schema))]


def _old(old: Json | None, schema: Json) -> Any:
    return None if old is None else _defaulted(old, schema)


def _unknown(node: Any, schema: Json, path: str) -> Iterator[Fault]:
    """Fields that nobody knows: kubectl refuses them, too."""
    if path == "metadata":
        return
    if isinstance(node, dict) and "properties" in schema:
        for name, value in node.items():
            at = f"{path}.{name}" if path else str(name)
            if name not in schema["properties"]:
                yield Fault(at, f"is an unknown field; known here: {', '.join(sorted(schema['properties']))}")
            else:
                yield from _unknown(value, schema["properties"][name], at)
    elif isinstance(node, list) and "items" in schema:
        for number, item in enumerate(node):
            yield from _unknown(item, schema["items"], f"{path}[{number}]")


def _structure(document: Json, schema: Json) -> Iterator[Fault]:
    """Types, enums, patterns, bounds, and what is missing."""
    without_rules = jsonschema.Draft7Validator(schema)
    for error in sorted(without_rules.iter_errors(document), key=lambda error: list(map(str, error.absolute_path))):
        path = ""
        for part in error.absolute_path:
            path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else str(part))
        yield Fault(path, _words(error))


def _words(error: jsonschema.ValidationError) -> str:
    value = json.dumps(error.instance, ensure_ascii=False, default=str)
    value = value if len(value) <= SHOWN else f"{value[:SHOWN]}…"
    limit: Any = error.validator_value
    match error.validator:
        case "required":
            return error.message.replace("'", "").replace(" is a required property", " is missing")
        case "enum":
            return f"is {value}, but must be one of {', '.join(map(str, limit))}"
        case "type":
            hint = "; write it in quotes" if limit == "string" and isinstance(error.instance, int | float) else ""
            return f"is {value}, but must be of type {limit}{hint}"
        case "pattern":
            return f"is {value}, but must match {limit}; {_example(error)}"
        case "maxLength" | "maxItems" | "maximum" | "minLength" | "minItems" | "minimum" as bound:
            return f"is {value}, but the {'most' if bound.startswith('max') else 'least'} is {limit}"
        case _:
            return error.message


def _example(error: jsonschema.ValidationError) -> str:
    """What the field's description says of it."""
    described = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    found = re.search(r"Example: (.+?)\.?$", described)
    return f"example: {found[1]}" if found else described


def _defaulted(node: Any, schema: Json) -> Any:
    """With the defaults that the API server fills in before it evaluates rules."""
    if isinstance(node, dict):
        result = dict(node)
        for name, child in schema.get("properties", {}).items():
            if name not in result and "default" in child:
                result[name] = copy.deepcopy(child["default"])
            if name in result:
                result[name] = _defaulted(result[name], child)
        return result
    if isinstance(node, list) and "items" in schema:
        return [_defaulted(item, schema["items"]) for item in node]
    return node


def _lists(node: Any, schema: Json, path: str) -> Iterator[Fault]:
    """Items that a list has twice."""
    if isinstance(node, dict):
        for name, child in schema.get("properties", {}).items():
            if name in node:
                yield from _lists(node[name], child, f"{path}.{name}" if path else name)
    elif isinstance(node, list) and "items" in schema:
        keys = schema.get("x-kubernetes-list-map-keys")
        if schema.get("x-kubernetes-list-type") == "set":
            identities = [json.dumps(item) for item in node]
        else:
            identities = [json.dumps([item.get(key) for key in keys]) for item in node] if keys else []
        for number, identity in enumerate(identities):
            if identity in identities[:number]:
                what = f"{' and '.join(keys)} of another item" if keys else "another item"
                yield Fault(f"{path}[{number}]", f"is the same as {what}; each may be there once")
        for number, item in enumerate(node):
            yield from _lists(item, schema["items"], f"{path}[{number}]")


def _rules(node: Any, schema: Json, path: str, old: Any) -> Iterator[Fault]:
    """CEL rules that do not hold."""
    for rule in schema.get(RULES, []):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        if not _holds(rule["rule"], node, old):
            yield Fault(path, rule["message"])
    if isinstance(node, dict):
        for name, child in schema.get("properties", {}).items():
            if name in node:
                before = old.get(name) if isinstance(old, dict) else None
                yield from _rules(node[name], child, f"{path}.{name}" if path else name, before)
    elif isinstance(node, list) and "items" in schema:
        for number, item in enumerate(node):
            # Rules of items compare with the item of the same key, if at all; ours do not compare.
            yield from _rules(item, schema["items"], f"{path}[{number}]", None)


def _escaped(node: Any) -> Any:
    """With the names that Kubernetes gives to fields that are words of CEL itself: `import` is `__import__`."""
    if isinstance(node, dict):
        return {f"__{name}__" if name in CEL_WORDS else name: _escaped(child) for name, child in node.items()}
    return [_escaped(item) for item in node] if isinstance(node, list) else node


def _holds(rule: str, node: Any, old: Any) -> bool:
    context = cel.Context()
    # Of Kubernetes' own functions, those that our rules use.
    context.add_function("isSorted", lambda items: list(items) == sorted(items))
    context.add_function("replace", lambda text, one, other: text.replace(one, other))
    context.add_variable("self", _escaped(node))
    if old is not None:
        context.add_variable("oldSelf", _escaped(old))
    try:
        return bool(cel.evaluate(rule, context))
    except (KeyError, ValueError, TypeError, RuntimeError):
        return False  # as the API server does: a rule that can't be evaluated does not hold

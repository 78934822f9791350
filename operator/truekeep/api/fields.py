"""The reference of all fields, written from the CRDs: `python -m truekeep.api.fields docs/fields.md`.

A part that stands in several places, an S3 location say, is told where it stands first, and named elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from truekeep.api.common import GROUP, VERSION
from truekeep.api.crd import KINDS, crd

Json = dict[str, Any]
HEAD = f"""# Fields

Every field of `{GROUP}/{VERSION}`, written from the schemas by `make crds`.
`kubectl explain models.truekeep.dev.spec.data` says the same for the version that a cluster has. Fields in **bold** are
required. What is outside of a limit, or breaks a rule, is refused when it is applied, with the message that is quoted.
"""
ABOUT_STATUS = "Written by the operator alone; conditions and their reasons are in [the reference](reference.md)."
REPEATED = 3  # fields from which on a part is told once only


class Page:
    """The tables of one kind."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}  # a part's schema to where it was told

    def table(self, schema: Json, path: str) -> str:
        """The fields under a path, as Markdown."""
        rows = "\n".join(self._rows(schema, path))
        rules = "\n".join(f"- {place}: {message}" for place, message in _rules(schema, path))
        text = f"| field | type | default | what it is |\n| --- | --- | --- | --- |\n{rows}\n"
        return f"{text}\nRules:\n\n{rules}\n" if rules else text

    def _rows(self, schema: Json, path: str) -> Iterator[str]:
        required = schema.get("required", ())
        for name, child in schema.get("properties", {}).items():
            place = f"{path}.{name}"
            inner, suffix = child, ""
            while inner.get("type") == "array":
                inner, suffix = inner["items"], suffix + "[]"
            same = self._seen(inner, place + suffix)
            words = _cell(child.get("description", "")) + (f" The same fields as `{same}`." if same else "")
            shown = f"**`{place}`**" if name in required else f"`{place}`"
            yield f"| {shown} | {_kind(child)} | {_default(child)} | {words} |"
            if not same:
                yield from self._rows(inner, place + suffix)

    def _seen(self, schema: Json, place: str) -> str | None:
        """Where an equal part was told before."""
        fields = schema.get("properties", {})
        if len(fields) < REPEATED:
            return None
        first = self._told.setdefault(json.dumps(_bare(fields), sort_keys=True), place)
        return None if first == place else first


def _bare(node: Any) -> Any:
    """A schema without defaults: in a list there are none, and it is the same part there."""
    if isinstance(node, dict):
        return {name: _bare(child) for name, child in node.items() if name != "default"}
    return [_bare(child) for child in node] if isinstance(node, list) else node


def _kind(schema: Json) -> str:
    """Type and bounds in words: `string, 1 to 253 characters`."""
    kind = str(schema["type"])
    if kind == "array":
        return f"list of {_kind(schema['items'])}{_between(schema, 'minItems', 'maxItems', 'items')}"
    if "enum" in schema:
        return _cell(" | ".join(f"`{one}`" for one in schema["enum"]))
    if kind == "integer":
        return f"integer{_between(schema, 'minimum', 'maximum', '')}"
    if kind == "string":
        what = schema.get("format", "string")
        return f"{what}{_between(schema, 'minLength', 'maxLength', 'characters')}"
    return kind


def _between(schema: Json, least: str, most: str, unit: str) -> str:
    low, high = schema.get(least), schema.get(most)
    words = {
        (False, False): "",
        (True, False): f", at least {low}",
        (False, True): f", at most {high}",
        (True, True): f", {low} to {high}",
    }[low is not None, high is not None]
    return f"{words} {unit}".rstrip() if words else ""


def _default(schema: Json) -> str:
    value = schema.get("default")
    return "" if value in (None, {}) else f"`{_cell(json.dumps(value))}`"


def _rules(schema: Json, path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"`{path}`", _cell(rule.get("message", rule["rule"]))
    for name, child in schema.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}")
    if schema.get("type") == "array":
        yield from _rules(schema["items"], f"{path}[]")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, plural, short, columns, extra in KINDS:
        schema = crd(kind, plural, short, columns, extra)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        page = Page()
        parts.append(f"## {kind.__name__} (`{short}`)\n\n{' '.join(schema['description'].split())}\n")
        parts.append(page.table(schema["properties"]["spec"], "spec"))
        if "status" in schema["properties"]:
            parts.append(f"### {kind.__name__}.status\n\n{ABOUT_STATUS}\n")
            parts.append(page.table(schema["properties"]["status"], "status"))
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")

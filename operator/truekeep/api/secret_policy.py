"""The ValidatingAdmissionPolicy that asks whether who names a Secret may read it, made from the schemas of the kinds:
`python -m truekeep.api.secret_policy manifests/operator/secrets.yaml`.

A pod of a Model mounts the Secrets that the Model names. Without this, the right to write a Model would be the right to
use every Secret of the namespace, at an address that the writer chooses. Made from the schemas, so that no field is
forgotten: every field whose name holds `Secret` is a reference, and every object that says where to (`uri`, `url`) is a
place at which a Secret is used. A `get` of the Secret is asked for where a place or a reference is new, of every Secret
that the object names (a place that names none takes that of spec.store); who changes anything else needs no such right.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truekeep.api.common import GROUP
from truekeep.api.crd import KINDS, crd

Json = dict[str, Any]
NAME = f"secrets.{GROUP}"
MOST = 12  # different Secrets; each question costs 350,000 of the 10,000,000 that a policy may cost
# Fields with names that are words of CEL are written so in its rules.
_WORDS = {"import": "__import__", "namespace": "__namespace__"}


@dataclass(frozen=True)
class Field:
    """A field below `spec`, by the names on the way; `[]` stands for the items of a list."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        return "spec" + "".join("[]" if part == "[]" else f".{part}" for part in self.parts)

    def values(self, root: str) -> str:
        """A CEL expression: the list of what is there. ValueError for a list in a list."""
        before, _, after = " ".join(self.parts).partition("[]")
        if "[]" in after:
            raise ValueError(f"{self} is in a list of a list; say how to write that in CEL")
        there, found = _reach(f"{root}.spec", before.split())
        if "[]" not in self.parts:
            return f"({there} ? [{found}] : [])"
        inside, item = _reach("i", after.split())
        wanted = f"{found}.filter(i, {inside})" if inside else found
        return f"({there} ? {wanted}.map(i, {item}) : [])"


def _reach(root: str, names: list[str]) -> tuple[str, str]:
    """Whether all on the way is there, and what is at its end."""
    tests = []
    for name in names:
        root = f"{root}.{_WORDS.get(name, name)}"
        tests.append(f"has({root})")
    return " && ".join(tests), root


def references(schema: Json) -> list[Field]:
    """The names of Secrets in a kind: every `name` below a field whose own name holds `Secret`."""
    return [
        Field((*parts, *(("[]",) if node["type"] == "array" else ()), "name"))
        for parts, node in _walk(schema["properties"]["spec"])
        if "secret" in parts[-1].lower()
    ]


def places(schema: Json) -> list[Field]:
    """What must not change without the right: objects that say where to, and references that lie in none of them."""
    named = {reference.parts for reference in references(schema)}
    found: list[tuple[str, ...]] = []
    for parts, node in _walk(schema["properties"]["spec"]):
        is_place = not {"uri", "url"}.isdisjoint(node.get("properties", {}))
        is_reference = (*parts, "name") in named or (*parts, "[]", "name") in named
        if is_place or (is_reference and not any(parts[: len(each)] == each for each in found)):
            found.append((*parts, "[]") if is_reference and node["type"] == "array" else parts)
    return [Field(parts) for parts in found]


def _walk(node: Json, parts: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    for name, child in node.get("properties", {}).items():
        yield (*parts, name), child
        yield from _walk(child, (*parts, name))
    if "items" in node:
        yield from _walk(node["items"], (*parts, "[]"))


def policy(kind: str, plural: str, schema: Json) -> list[Json]:
    """The policy of one kind and its binding; empty where the kind names no Secret."""
    named, used = references(schema), places(schema)
    if not named:
        return []
    name = f"{plural}.{NAME}"
    metadata = {"name": name, "labels": {"app.kubernetes.io/name": "truekeep"}}
    most = MOST if any("[]" in field.parts for field in named) else min(MOST, len(named))
    variables = [
        {"name": "named", "expression": _sum(named, "object")},
        {"name": "places", "expression": _sum(used, "object")},
        {"name": "before", "expression": f"oldObject == null ? [] : {_sum(used, 'oldObject')}"},
        {
            "name": "asked",
            "expression": "variables.places.all(p, p in variables.before) ? [] : variables.named",
        },
        *_distinct(most),
    ]
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [GROUP], "apiVersions": ["*"], "resources": [plural], "operations": ["CREATE", "UPDATE"]}
            ]
        },
        "variables": variables,
        "validations": [*(_question(kind, number) for number in range(most)), _not_too_many(kind, most)],
    }
    version = {"apiVersion": "admissionregistration.k8s.io/v1"}
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        {**version, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": spec},
        {**version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata, "spec": binding},
    ]


def _sum(fields: list[Field], root: str) -> str:
    return " + ".join(field.values(root) for field in fields)


def _distinct(most: int) -> list[Json]:
    """`left0` is what is asked for; each next lacks the first of the one before. One expression may ask but twice."""
    steps = [{"name": "left0", "expression": "variables.asked"}]
    for number in range(most):
        left = f"variables.left{number}"
        steps.append(
            {"name": f"left{number + 1}", "expression": f"size({left}) == 0 ? [] : {left}.filter(n, n != {left}[0])"}
        )
    return steps


def _question(kind: str, number: int) -> Json:
    left = f"variables.left{number}"
    return {
        "expression": (
            f"size({left}) == 0 || authorizer.group('').resource('secrets').namespace(request.namespace)"
            f".name({left}[0]).check('get').allowed()"
        ),
        "reason": "Forbidden",
        "messageExpression": (
            f'"\'" + request.userInfo.username + "\' may not read Secret " + {left}[0] + ", which this {kind} names: '
            'who names a Secret, or changes where it is used, needs the verb get on it in namespace " + '
            'request.namespace + "; ask an admin of the namespace for that, or name another"'
        ),
    }


def _not_too_many(kind: str, most: int) -> Json:
    return {
        "expression": f"size(variables.left{most}) == 0",
        "message": f"a {kind} names at most {most} different Secrets; let locations share one",
    }


def render() -> str:
    """The manifest. Each value is JSON on a line of its own, which is YAML, too."""
    documents: list[str] = []
    for kind, plural, short, columns, extra in KINDS:
        (version,) = crd(kind, plural, short, columns, extra)["spec"]["versions"]
        made = policy(kind.__name__, plural, version["schema"]["openAPIV3Schema"])
        documents.extend("\n".join(_yaml(document)) for document in made)
    head = "# Who names a Secret must be allowed to read it. Made from the schemas: `make crds`.\n"
    return head + "\n---\n".join(documents) + "\n"


def _yaml(node: Json, indent: str = "") -> Iterator[str]:
    """Block style for objects and lists of objects, JSON for the rest: to be read by people, without a library."""
    for key, value in node.items():
        if isinstance(value, dict) and any(isinstance(each, dict | list) for each in value.values()):
            yield f"{indent}{key}:"
            yield from _yaml(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            yield f"{indent}{key}:"
            for each in value:
                first, *rest = _yaml(each, indent + "    ")
                yield f"{indent}  - {first.lstrip()}"
                yield from rest
        else:
            yield f"{indent}{key}: {json.dumps(value)}"


def main(path: str) -> None:
    """Write the manifest."""
    Path(path).write_text(render())


if __name__ == "__main__":
    main(sys.argv[1])

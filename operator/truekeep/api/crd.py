"""The CustomResourceDefinitions, generated from the pydantic models: `python -m truekeep.api.crd DIRECTORY`.

A structural schema has no `$ref`, no `anyOf` with null and no `additionalProperties: false`; pydantic writes all
three, so they are rewritten here. A default stands only on scalars and objects outside of lists: in list items it
would break the merge keys of server-side apply.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from truekeep.api.common import GROUP, VERSION, Schema
from truekeep.api.driftpolicy import DriftPolicy
from truekeep.api.model import Model
from truekeep.api.modelapproval import ModelApproval
from truekeep.api.trainingrun import TrainingRun

Json = dict[str, Any]
KEPT = (
    "type", "format", "description", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems",
    "maxItems", "maxProperties", "required", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type", "x-kubernetes-validations",
)  # fmt: skip


def condition(kind: str, field: str = "status") -> str:
    """JSONPath of a field of one condition."""
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


def column(name: str, path: str, kind: str = "string", priority: int = 0, text: str = "") -> Json:
    """One printer column."""
    return {"name": name, "type": kind, "jsonPath": path, "priority": priority, "description": text or name}


MODEL = ".spec.modelRef.name"  # by which the API server selects, so that a Model's many runs cost no other Model's look
AGE = column("Age", ".metadata.creationTimestamp", "date", text="Time since creation.")

KINDS: tuple[tuple[type[Schema], str, str, list[Json], Json], ...] = (
    (
        Model,
        "models",
        "tkm",
        [
            column("Ready", condition("Ready"), text="Whether the revision that answers meets the spec."),
            column("Reason", condition("Ready", "reason"), text="Why."),
            column("Revision", ".status.active.revision", "integer", text="The revision that answers."),
            column("Candidate", ".status.candidate.revision", "integer", text="The revision on its way."),
            column("Metric", ".status.metric", text="Main metric of the active revision on its holdout."),
            column("Drift", condition("DriftDetected"), text="Whether drift was found."),
            column("Message", condition("Ready", "message"), priority=1, text="What is, and what to do."),
            AGE,
        ],
        {
            "scale": {
                "specReplicasPath": ".spec.serving.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            }
        },
    ),
    (
        TrainingRun,
        "trainingruns",
        "tkr",
        [
            column("Model", MODEL, text="The Model."),
            column("Revision", ".status.revision", "integer", text="The revision that it became."),
            column("Complete", condition("Complete"), text="Whether it succeeded."),
            column("Reason", condition("Ready", "reason"), text="Where it stands."),
            column("Trigger", ".spec.trigger.type", text="Why it was made."),
            column("Rows", ".status.data.rows", "integer", priority=1, text="Rows trained on."),
            column("Message", condition("Ready", "message"), priority=1, text="What is, and what to do."),
            AGE,
        ],
        {},
    ),
    (
        DriftPolicy,
        "driftpolicies",
        "tkd",
        [
            column("Model", MODEL, text="The Model."),
            column("Ready", condition("Ready"), text="Whether it watches."),
            column("Drift", condition("DriftDetected"), text="Whether a breach stands."),
            column("Decayed", condition("PerformanceDecayed"), text="Whether it answers worse than its gates showed."),
            column("Revision", ".status.watchedRevision", "integer", text="The revision watched."),
            column("Window", ".status.summary", text="The newest window."),
            column("Last-Run", ".status.lastRun", priority=1, text="The last run that it started."),
            AGE,
        ],
        {},
    ),
    (
        ModelApproval,
        "modelapprovals",
        "tka",
        [
            column("Model", MODEL, text="The Model."),
            column("Decision", ".spec.decision", text="What was decided."),
            column("Approver", ".spec.approver", text="Who decided."),
            column("Artifact", ".spec.artifactDigest", priority=1, text="The artifact's digest."),
            column("Reason", ".spec.reason", priority=1, text="Why."),
            AGE,
        ],
        {},
    ),
)


def structural(node: Json, definitions: Json, in_list: bool = False) -> Json:
    """A pydantic JSON schema as a structural one."""
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    if "anyOf" in node:
        (inner,) = [option for option in node["anyOf"] if option != {"type": "null"}]
        return structural({**inner, **{k: v for k, v in node.items() if k != "anyOf"}}, definitions, in_list)
    result = {key: node[key] for key in KEPT if key in node}
    if "const" in node:
        result["enum"] = [node["const"]]
    if not in_list and not isinstance(node.get("default"), list | type(None)):
        result["default"] = _object_default(node) if isinstance(node["default"], dict) else node["default"]
    if node.get("type") == "integer":
        result["format"] = "int64"
    if "items" in node:
        result["items"] = structural(node["items"], definitions, in_list=True)
    if "properties" in node:
        result["properties"] = {
            name: structural(child, definitions, in_list) for name, child in node["properties"].items()
        }
    elif node.get("type") == "object":
        result["additionalProperties"] = structural(node["additionalProperties"], definitions, in_list=True)
        result.pop("default", None)
    return result


def _object_default(node: Json) -> Json:
    """An object's own default is empty, because the API server fills in those of its fields. Where the object has
    rules, the default must pass them by itself."""
    if "x-kubernetes-validations" not in node:
        return {}
    return {key: value for key, value in node["default"].items() if isinstance(value, str | int)}


def _without_defaults(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_defaults(v) for k, v in node.items() if k != "default" or not _is_schema(node)}
    return [_without_defaults(item) for item in node] if isinstance(node, list) else node


def _is_schema(node: Json) -> bool:
    return "type" in node and isinstance(node["type"], str)


def crd(kind: type[Schema], plural: str, short: str, columns: list[Json], subresources: Json) -> Json:
    """One kind's CustomResourceDefinition."""
    raw = kind.model_json_schema(by_alias=True)
    schema = structural(raw, raw.get("$defs", {}))
    # Status is applied whole by the operator: a default there would show what nobody observed.
    stateful = "status" in schema["properties"]
    if stateful:
        schema["properties"]["status"] = _without_defaults(schema["properties"]["status"])
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}."},
        "kind": {"type": "string", "description": f"Always {kind.__name__}."},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    schema["required"] = ["spec"]
    schema["description"] = (kind.__doc__ or "").strip()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": plural,
                "singular": kind.__name__.lower(),
                "shortNames": [short],
                "categories": ["truekeep"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": columns,
                    **({"selectableFields": selectable} if (selectable := _selectable(kind)) else {}),
                    **({"subresources": {"status": {}, **subresources}} if stateful else {}),
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _selectable(kind: type[Schema]) -> list[Json]:
    paths = [MODEL] if kind is not Model else []
    paths += [".status.completionTime"] if kind is TrainingRun else []
    return [{"jsonPath": path} for path in paths]


def render() -> dict[str, str]:
    """File name to text, a CRD each. JSON is YAML, and needs no YAML library in the operator's image."""
    return {
        f"{GROUP}_{plural}.yaml": json.dumps(crd(kind, plural, short, columns, extra), indent=1) + "\n"
        for kind, plural, short, columns, extra in KINDS
    }


def main(directory: str) -> None:
    """Write the CRDs into a directory."""
    for name, text in render().items():
        Path(directory, name).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])

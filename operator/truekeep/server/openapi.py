"""What the server understands, as an OpenAPI document with this model's own inputs, and as a page without scripts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from truekeep import __version__
from truekeep.server.load import ServedModel
from truekeep.server.protocol import OUTPUTS

POLICY = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:#8881;padding:1rem;overflow:auto}"
    "td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}:root{color-scheme:light dark}"
)
_ERRORS = {
    "400": "No valid request: broken JSON, a wrong name, shape, datatype or binary length. The text names the tensor.",
    "404": "Another model or version.",
    "413": "Too large: bytes, rows or tensors.",
    "415": "A content coding that is not supported.",
    "422": "A value that the model can't take. The text names tensor and row.",
    "429": "Busy; try again after Retry-After.",
    "500": "The model or the server failed.",
    "502": "The team's own server died, or gave no valid answer. Only where an image of the team's answers.",
    "503": "Still loading, or about to end.",
    "504": "The team's own server did not answer in time. Only where an image of the team's answers.",
}


def document(name: str, version: str, model: ServedModel | None, optional: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI 3.1 document. `optional`: inputs that are captured, not fed to the model."""
    tensors = _tensors(model)
    example = _example(model)
    infer = {
        "summary": "Predict",
        "description": "One tensor for each input, or one of shape [n, inputs] for all of them. Tensors may be binary "
        "(Inference-Header-Content-Length, binary_data_size). Null, in binary floats NaN, is a missing value. "
        f"Optional inputs, captured and never fed to the model: {', '.join(optional)}.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/InferRequest"},
                    **({"example": example} if example else {}),
                },
                "application/octet-stream": {},
            },
        },
        "responses": {
            "200": _json("The prediction.", "InferResponse"),
            **{status: _json(text, "Error") for status, text in _ERRORS.items()},
        },
    }
    ready = {"200": _json("Yes.", "Any"), "503": _json("Not yet, or no longer.", "Any")}
    base = f"/v2/models/{name}"
    told = {"200": _json("Inputs, outputs, cut-off, artifact.", "Any"), "503": _json("Still loading.", "Error")}
    paths: dict[str, Any] = {
        "/v2": _get("The server", {"200": _json("Name, version, extensions.", "Any")}),
        "/v2/health/live": _get("Whether the process lives", {"200": _json("Yes.", "Any")}),
        "/v2/health/ready": _get("Whether it takes traffic", ready),
        "/metrics": _get("Prometheus metrics", {"200": {"description": "Text."}}),
    }
    for path in (base, f"{base}/versions/{version}"):
        paths[path] = _get("The model", told)
        paths[f"{path}/ready"] = _get("Whether the model answers", ready)
        paths[f"{path}/infer"] = {"post": infer}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{name}, revision {version}",
            "version": __version__,
            "description": "A model served by Truekeep, over the Open Inference Protocol V2. The same is offered as "
            "gRPC (inference.GRPCInferenceService).",
        },
        "paths": paths,
        "components": {"schemas": _schemas(tensors)},
    }


def page(described: Mapping[str, Any]) -> bytes:
    """The document for a person: plain HTML, nothing loaded from anywhere."""
    rows = "".join(
        f"<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation['summary'])}</td></tr>"
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    )
    infer = next(one["post"] for one in described["paths"].values() if "post" in one)
    example = infer["requestBody"]["content"]["application/json"].get("example")
    shown = orjson.dumps(example, option=orjson.OPT_INDENT_2).decode() if example else "The model is still loading."
    errors = "".join(f"<tr><td>{status}</td><td>{html.escape(text)}</td></tr>" for status, text in _ERRORS.items())
    title = html.escape(described["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{html.escape(described['info']['description'])} "
        f'The machine-readable form is <a href="openapi.json">openapi.json</a>.</p><table>{rows}</table>'
        f"<h2>A request</h2><p>{html.escape(infer['description'])}</p><pre>{html.escape(shown)}</pre>"
        f"<h2>Refusals</h2><table>{errors}</table></html>"
    ).encode()


def _tensors(model: ServedModel | None) -> list[dict[str, str]]:
    if model is None:
        return []
    return [{"name": one.name, "datatype": _datatype(one.type)} for one in model.signature.features]


def _datatype(kind: str) -> str:
    return "FP64" if kind == "Number" else "BYTES"


def _example(model: ServedModel | None) -> dict[str, Any] | None:
    """A request that training answered."""
    if model is None or not model.signature.examples:
        return None
    inputs = model.signature.examples[0].inputs
    return {
        "id": "any-text",
        "inputs": [
            {"name": one.name, "shape": [1], "datatype": _datatype(one.type), "data": [inputs.get(one.name)]}
            for one in model.signature.features
        ],
    }


def _schemas(tensors: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string", **({"examples": [one["name"] for one in tensors]} if tensors else {})},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2},
            "datatype": {
                "type": "string",
                "enum": ["BOOL", *(f"{u}INT{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)), "FP16", "FP32",
                         "FP64", "BYTES"],
            },
            "parameters": {"type": "object"},
            "data": {"type": "array", "description": "Flat, or a list a row."},
        },
    }  # fmt: skip
    wanted = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": list(OUTPUTS)}, "parameters": {"type": "object"}},
    }
    return {
        "Any": {"type": "object"},
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
        "Tensor": tensor,
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "parameters": {"type": "object"},
                "inputs": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Tensor"}},
                "outputs": {"type": "array", "items": wanted},
            },
        },
        "InferResponse": {
            "type": "object",
            "required": ["model_name", "model_version", "id", "outputs"],
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
            },
        },
    }


def _get(summary: str, responses: Mapping[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": responses}}


def _json(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}

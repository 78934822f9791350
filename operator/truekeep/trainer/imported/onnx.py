"""An ONNX file from elsewhere: its inputs, the output with the probabilities, and no ZipMap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from truekeep.features import compiled
from truekeep.features.trust import UntrustedModelError

InputType = Literal["Float64", "Float32", "Int64", "Boolean", "Text"]
_TYPES: dict[int, InputType] = {1: "Float32", 11: "Float64", 7: "Int64", 9: "Boolean", 8: "Text"}
_FLOATS = (1, 11)


@dataclass(frozen=True)
class GraphInput:
    """One input; `width` is None where the file does not say how many columns it has."""

    name: str
    type: InputType
    width: int | None


@dataclass(frozen=True)
class Graph:
    """A classifier as ONNX, without ZipMap, that answers nothing but probabilities."""

    content: bytes
    inputs: tuple[GraphInput, ...]
    output: str
    classes: tuple[str, ...]  # as the file names them, where it does
    texts: frozenset[str]  # every text in it: the categories that it knows are among them


def read_graph(content: bytes) -> Graph:
    """The classifier in an ONNX file. UntrustedModelError where it is none, or holds what is not allowed."""
    try:
        return _read(content)
    except UntrustedModelError:
        raise
    except (ValueError, TypeError, IndexError) as error:  # names that are no text, nodes without outputs
        raise UntrustedModelError(f"is damaged ({type(error).__name__}: {error!s:.200})") from error


def _read(content: bytes) -> Graph:
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise UntrustedModelError(f"is no ONNX file ({error!s:.200})") from error
    compiled.check(content, compiled.FOREIGN_OPERATORS | {("ai.onnx.ml", "ZipMap")})
    graph = model.graph
    constants = {one.name for one in graph.initializer}
    inputs = tuple(_input(one) for one in graph.input if one.name not in constants)
    if not inputs:
        raise UntrustedModelError("has no input; export a fitted classifier")
    classes = _strip_zip_map(graph)
    output = _probabilities(graph)
    del graph.output[:]
    graph.output.append(output)
    stripped: bytes = model.SerializeToString(deterministic=True)
    return Graph(stripped, inputs, output.name, classes or _classes(graph), _texts(graph))


def _input(one: Any) -> GraphInput:
    tensor = one.type.tensor_type
    kind = _TYPES.get(tensor.elem_type)
    if kind is None:
        raise UntrustedModelError(
            f"input {one.name!r:.80} has element type {tensor.elem_type}; float, double, int64, bool and string are fed"
        )
    shape = tensor.shape.dim
    if len(shape) != 2 or shape[0].dim_value:
        raise UntrustedModelError(
            f"input {one.name!r:.80} must be of shape [any number of rows, columns]; export with [None, columns]"
        )
    return GraphInput(one.name, kind, shape[1].dim_value or None)


def _strip_zip_map(graph: Any) -> tuple[str, ...]:
    """Answer a ZipMap's array instead of its list of maps, which costs time and says no more; its classes."""
    classes: tuple[str, ...] = ()
    maps = {node.output[0]: node for node in graph.node if (node.domain, node.op_type) == ("ai.onnx.ml", "ZipMap")}
    for index, one in enumerate(graph.output):
        node = maps.get(one.name)
        if node is None:
            continue
        from onnx import TensorProto, helper

        classes = _labels(node)
        graph.output[index].CopyFrom(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, None]))
        graph.node.remove(node)
    return classes


def _probabilities(graph: Any) -> Any:
    """The output that holds them: the only array of floats, or the one that is called so."""
    arrays = [one for one in graph.output if one.type.tensor_type.elem_type in _FLOATS]
    named = [one for one in arrays if "prob" in one.name.lower()]
    chosen = named if len(named) == 1 else arrays
    if len(chosen) != 1:
        listed = ", ".join(one.name for one in graph.output) or "none"
        raise UntrustedModelError(
            f"has the outputs {listed:.300}, of which not one is the array of probabilities; export a classifier with "
            "one output of floats, a column a class"
        )
    return chosen[0]


def _classes(graph: Any) -> tuple[str, ...]:
    return next((found for node in graph.node if (found := _labels(node))), ())


def _labels(node: Any) -> tuple[str, ...]:
    for one in node.attribute:
        if one.name in ("classlabels_int64s", "classlabels_ints"):
            return tuple(str(value) for value in one.ints)
        if one.name == "classlabels_strings":
            return tuple(value.decode() for value in one.strings)
    return ()


def _texts(graph: Any) -> frozenset[str]:
    """What encoders compare text with, wherever it stands."""
    attributes: Sequence[Any] = [one for node in graph.node for one in node.attribute]
    found = [text for one in attributes if one.name in ("cats_strings", "keys_strings") for text in one.strings]
    for tensor in [*graph.initializer, *(one.t for one in attributes if one.HasField("t"))]:
        found += tensor.string_data
    return frozenset(text.decode(errors="replace") for text in found)

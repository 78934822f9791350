"""Nodes and constants of an ONNX graph in the making."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.features.compiled import INPUT, ML_DOMAIN, OUTPUT
from truekeep.trainer.onnx.trees import Meaning

OPSET, ML_OPSET, IR_VERSION = 21, 5, 10


class NotConvertibleError(ValueError):
    """The pipeline has a part that has no translation here. The text names it."""


@dataclass
class Graph:
    """Nodes and constants, named by their number."""

    nodes: list[Any] = field(default_factory=list)
    meanings: Sequence[Meaning] | None = None  # of the trees' features, where they ask the matrix itself
    constants: list[Any] = field(default_factory=list)

    def constant(self, values: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], *, output: str = "", domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def columns(self, name: str, positions: Sequence[int]) -> str:
        return self.node("Gather", [name, self.constant(np.array(positions, dtype=np.int64))], axis=1)

    def rows(self, name: str, positions: Sequence[int]) -> str:
        return self.node("Gather", [name, self.constant(np.array(positions, dtype=np.int64))], axis=0)

    def double(self, name: str) -> str:
        from onnx import TensorProto

        return self.node("Cast", [name], to=TensorProto.DOUBLE)

    def joined(self, names: Sequence[str]) -> str:
        return names[0] if len(names) == 1 else self.node("Concat", names, axis=1)

    def to_bytes(self, features: int) -> bytes:
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self.nodes,
            "truekeep",
            [helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, ["rows", features])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, ["rows"])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="truekeep")
        content: bytes = model.SerializeToString(deterministic=True)
        return content

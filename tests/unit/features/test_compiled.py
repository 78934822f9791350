"""No ONNX file is loaded that holds more than ours do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from truekeep.features.compiled import check, load
from truekeep.features.trust import UntrustedModelError


def model(nodes: list[Any], constants: tuple[Any, ...] = (), kind: int = TensorProto.DOUBLE) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", kind, ["rows", 2])],
        [helper.make_tensor_value_info("probability", kind, ["rows"])],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def flat() -> list[Any]:
    weights = numpy_helper.from_array(np.array([[1.0], [2.0]]), "w")
    shape = numpy_helper.from_array(np.array([-1]), "s")
    nodes = [helper.make_node("MatMul", ["X", "w"], ["m"]), helper.make_node("Reshape", ["m", "s"], ["probability"])]
    return [nodes, (weights, shape)]


def test_a_good_file_answers() -> None:
    predict, width = load(model(*flat()).SerializeToString())
    assert width == 2
    assert predict(np.array([[1.0, 1.0], [0.0, 0.5]])).tolist() == [3.0, 1.0]


def elsewhere() -> Any:
    nodes, constants = flat()
    constants[0].ClearField("raw_data")
    constants[0].data_location = TensorProto.EXTERNAL
    entry = constants[0].external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return model(nodes, constants)


def hidden() -> Any:
    nodes, constants = flat()
    tensor = elsewhere().graph.initializer[0]
    nodes[0].attribute.append(helper.make_attribute("value", tensor))
    return model(nodes, constants)


def looped() -> Any:
    nodes, constants = flat()
    nodes[0].attribute.append(helper.make_attribute("body", model(*flat()).graph))
    return model(nodes, constants)


def functions() -> Any:
    made = model(*flat())
    made.functions.append(helper.make_function("d", "f", ["a"], ["b"], [], [helper.make_opsetid("", 21)]))
    return made


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (elsewhere(), "takes a tensor from another file"),
        (hidden(), "takes a tensor from another file"),
        (looped(), "holds g, not allowed"),
        (functions(), "holds functions"),
        (model([helper.make_node("Exp", ["X"], ["probability"])]), "the operator '.Exp'"),
        (model([helper.make_node("Add", ["X", "X"], ["probability"], domain="com.x")]), "operator 'com.x.Add'"),
    ],
)
def test_more_than_ours_is_refused_before_it_is_loaded(content: Any, message: str) -> None:
    with pytest.raises(UntrustedModelError, match=message):
        check(content.SerializeToString())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 100, model(*flat()).SerializeToString()[:-30]])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(UntrustedModelError):
        load(content)


def test_other_inputs_are_refused() -> None:
    nodes = [helper.make_node("Add", ["X", "X"], ["probability"])]
    with pytest.raises(UntrustedModelError, match="takes and gives"):
        load(model(nodes, kind=TensorProto.FLOAT).SerializeToString())

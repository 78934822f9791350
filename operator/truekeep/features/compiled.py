"""A model as ONNX, and the only door through which one is loaded.

onnxruntime reads a file's tensors from other files where the model says so, and models may hold loops and functions.
What `trainer.onnx_graph` writes needs none of it, so that whatever else a file holds is refused before onnxruntime
sees it. Imports onnxruntime and protobuf when something is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from truekeep.features.trust import MAX_BYTES, UntrustedModelError

Matrix: TypeAlias = npt.NDArray[np.float64]

INPUT, OUTPUT = "X", "probability"
ML_DOMAIN = "ai.onnx.ml"
OPERATORS = frozenset(
    ("", name)
    for name in (
        "Abs", "Add", "And", "Cast", "Clip", "Concat", "Div", "Equal", "Floor", "Gather", "Greater", "GreaterOrEqual",
        "IsNaN", "Less", "LessOrEqual", "Log", "MatMul", "Mul", "Or", "Reshape", "Sigmoid", "Sub", "Transpose", "Where",
    )
) | {(ML_DOMAIN, "TreeEnsemble")}  # fmt: skip

# What sklearn-onnx writes besides, for a model that was trained elsewhere. Each only computes on what it is given, and
# makes little out of little: no loops, no copies by the million (Tile, Expand, Range), no ZipMap (an import strips it).
FOREIGN_OPERATORS = OPERATORS | frozenset(
    ("", name)
    for name in (
        "ArgMax", "ArgMin", "Ceil", "Constant", "ConstantOfShape", "Exp", "Flatten", "Gemm", "Identity", "Max", "Min",
        "Mod", "Neg", "Not", "Pow",
        "Reciprocal", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Relu", "Round", "Shape", "Sign", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sum",
        "Tanh", "Transpose", "Unsqueeze",
    )
) | {
    (ML_DOMAIN, name)
    for name in (
        "ArrayFeatureExtractor", "Binarizer", "FeatureVectorizer", "Imputer", "LabelEncoder", "LinearClassifier",
        "LinearRegressor", "Normalizer", "OneHotEncoder", "Scaler", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
    )
}  # fmt: skip

# As much of onnx.proto as is asked for; what is not named here is skipped by the parser.
_TENSOR = {"external_data": (13, "*bytes"), "data_location": (14, "int32")}
_TABLE = {
    "Tensor": _TENSOR,
    "Attribute": {
        "t": (5, "*Tensor"), "tensors": (10, "*Tensor"),
        "refused_g": (6, "*bytes"), "refused_graphs": (11, "*bytes"),
        "refused_sparse": (22, "*bytes"), "refused_sparses": (23, "*bytes"),
    },
    "Node": {"op_type": (4, "string"), "attribute": (5, "*Attribute"), "domain": (7, "string")},
    "Graph": {"node": (1, "*Node"), "initializer": (5, "*Tensor"), "refused_sparse": (15, "*bytes")},
    "Model": {"graph": (7, "*Graph"), "refused_training": (20, "*bytes"), "refused_functions": (25, "*bytes")},
}  # fmt: skip


def load(content: bytes) -> tuple[Callable[[Matrix], Matrix], int]:
    """Probability of class 1, shape (rows,), of a matrix float64 of shape (rows, features); and how many features it
    takes (0: the file does not say). UntrustedModelError where the file holds what ours do not, or is damaged."""
    opened = session(content)
    try:
        (given,), (made,) = opened.get_inputs(), opened.get_outputs()
    except ValueError as error:
        raise UntrustedModelError(f"the model file has not one input and one output ({error})") from error
    shape = [(one.name, one.type) for one in (given, made)]
    if shape != [(INPUT, "tensor(double)"), (OUTPUT, "tensor(double)")]:
        raise UntrustedModelError(f"the model file takes and gives {shape!r:.200}, not {INPUT} and {OUTPUT}")
    width = given.shape[1] if len(given.shape) == 2 and isinstance(given.shape[1], int) else 0
    # Past InferenceSession.run, whose checks of names and types cost a quarter of a small model.
    run, wanted = opened._sess.run, [OUTPUT]

    def predict(matrix: Matrix) -> Matrix:
        scored: Matrix = run(wanted, {INPUT: matrix}, None)[0]
        return scored

    return predict, width


def session(content: bytes, operators: frozenset[tuple[str, str]] = OPERATORS) -> Any:
    """An onnxruntime.InferenceSession for one thread. UntrustedModelError where the file holds what must not be loaded,
    or is damaged."""
    check(content, operators)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # One odd batch of 10,000 rows must not be held for ever.
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UntrustedModelError(f"the model file is damaged ({type(error).__name__}: {error!s:.200})") from error


def check(content: bytes, operators: frozenset[tuple[str, str]] = OPERATORS) -> None:
    """UntrustedModelError where an ONNX file holds other operators than these, functions, graphs within graphs, sparse
    tensors, or tensors that lie in other files."""
    from google.protobuf.message import DecodeError

    from truekeep.features.wire import messages

    if len(content) > MAX_BYTES:
        raise UntrustedModelError(f"the model file has {len(content)} bytes; at most {MAX_BYTES} are loaded")
    try:
        model = messages("truekeep.onnx", _TABLE)["Model"].FromString(content)
    except DecodeError as error:
        raise UntrustedModelError(f"the model file is no ONNX file ({error!s:.200})") from error
    _no_more(model)
    if len(model.graph) != 1:
        raise UntrustedModelError("the model file holds no model, or several")
    graph = model.graph[0]
    _no_more(graph)
    _inside(graph.initializer)
    for node in graph.node:
        kind = (node.domain, node.op_type)
        if kind not in operators:
            raise UntrustedModelError(
                f"the model file holds the operator {'.'.join(kind)!r:.100}, which is not allowed"
            )
        for attribute in node.attribute:
            _no_more(attribute)
            _inside(attribute.t)
            _inside(attribute.tensors)


def _no_more(message: Any) -> None:
    for field, _ in message.ListFields():
        if field.name.startswith("refused_"):
            raise UntrustedModelError(f"the model file holds {field.name.removeprefix('refused_')}, not allowed here")


def _inside(tensors: Iterable[Any]) -> None:
    for tensor in tensors:
        if tensor.external_data or tensor.data_location:
            raise UntrustedModelError("the model file takes a tensor from another file, which is not allowed")

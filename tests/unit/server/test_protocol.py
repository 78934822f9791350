"""Bodies: every shape that the protocol allows, and a refusal that names the tensor for every other."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truekeep.server.limits import Limits
from truekeep.server.protocol import RequestError, Responses, parse

LIMITS = Limits(rows=4, inputs=3, id_characters=8)


def one(**changes: Any) -> bytes:
    tensor = {"name": "hour", "shape": [2], "datatype": "FP64", "data": [1.5, 2], **changes}
    return orjson.dumps({"inputs": [{key: value for key, value in tensor.items() if value is not ...}]})


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, [1.5, 2]),
        ({"shape": [2, 1]}, [1.5, 2]),
        ({"shape": [2, 1], "data": [[1.5], [2]]}, [1.5, 2]),
        ({"shape": [2], "data": [[1.5], [2]]}, [1.5, 2]),
        ({"data": [None, 3]}, [None, 3]),
        ({"datatype": "FP32"}, [1.5, 2]),
        ({"datatype": "FP16", "data": [1, 2]}, [1, 2]),
        ({"datatype": "INT8", "data": [-128, 127]}, [-128, 127]),
        ({"datatype": "UINT64", "data": [0, 2**64 - 1]}, [0, 2**64 - 1]),
        ({"datatype": "INT64", "data": [None, None]}, [None, None]),
        ({"datatype": "BOOL", "data": [True, None]}, [True, None]),
        ({"datatype": "BYTES", "data": ["JFK", None]}, ["JFK", None]),
        ({"parameters": {"content_type": "np", "any": [1, {"x": None}]}}, [1.5, 2]),
    ],
)
def test_columns(changes: dict[str, Any], values: list[Any]) -> None:
    request = parse(one(**changes), LIMITS)
    assert request.columns == {"hour": values}
    assert request.rows == 2
    assert request.id is None
    assert request.outputs == {"probability": False, "prediction": False}


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"name": ...}, 400, "inputs[0].name must be text"),
        ({"name": ""}, 400, "inputs[0].name must be text"),
        ({"name": ["hour"]}, 400, "inputs[0].name must be text"),
        ({"shape": ...}, 400, "tensor hour: shape must be [n] or [n, 1], one tensor for a column; got None"),
        ({"shape": [2, 2]}, 400, "got [2, 2]"),
        ({"shape": [1, 2, 1]}, 400, "got [1, 2, 1]"),
        ({"shape": [-1]}, 400, "got [-1]"),
        ({"shape": [2.0]}, 400, "got [2.0]"),
        ({"shape": [True]}, 400, "got [True]"),
        ({"shape": "2"}, 400, "got '2'"),
        ({"shape": []}, 400, "got []"),
        ({"shape": [3]}, 400, "tensor hour: shape says 3 rows, but data has 2 values"),
        ({"shape": [0], "data": []}, 400, "tensor hour has no rows; send at least one"),
        ({"shape": [5], "data": [0] * 5}, 413, "tensor hour has 5 rows; at most 4 are accepted: split the request"),
        ({"shape": [10**30]}, 400, "tensor hour: shape"),
        ({"data": ...}, 400, "tensor hour: data must be a list of 2 values"),
        ({"data": 1}, 400, "tensor hour: data must be a list"),
        ({"data": {"0": 1}}, 400, "tensor hour: data must be a list"),
        (
            {"data": ..., "parameters": {"binary_data_size": 8}},
            400,
            "tensor hour: binary_data_size needs the header Inference-Header",
        ),
        ({"data": [[1, 2]]}, 400, "tensor hour: nested data must be lists of one value each"),
        ({"data": [[1], 2]}, 400, "tensor hour: nested data must be"),
        ({"data": [1, [2]]}, 400, "tensor hour, row 1: FP64 takes numbers or null, not data nested too deep"),
        ({"data": [[[1]], [[2]]]}, 400, "tensor hour, row 0: FP64 takes numbers or null, not data nested too deep"),
        ({"datatype": ...}, 400, "tensor hour: datatype None is unknown; use one of BOOL, INT8"),
        ({"datatype": "fp64"}, 400, "tensor hour: datatype 'fp64' is unknown"),
        ({"datatype": ["FP64"]}, 400, "tensor hour: datatype ['FP64'] is unknown"),
        ({"data": ["1", 2]}, 400, "tensor hour, row 0: FP64 takes numbers or null, not '1'"),
        ({"data": [True, 2]}, 400, "tensor hour, row 0: FP64 takes numbers or null, not True"),
        ({"datatype": "INT64"}, 400, "tensor hour, row 0: INT64 takes whole numbers or null, not 1.5"),
        ({"datatype": "BOOL", "data": [1, 0]}, 400, "tensor hour, row 0: BOOL takes true or false or null, not 1"),
        ({"datatype": "BYTES"}, 400, "tensor hour, row 0: BYTES takes text or null, not 1.5"),
        ({"datatype": "INT8", "data": [1, 128]}, 400, "tensor hour: a value lies outside of INT8 (-128 to 127)"),
        ({"datatype": "UINT8", "data": [None, -1]}, 400, "tensor hour: a value lies outside of UINT8 (0 to 255)"),
    ],
)
def test_a_bad_tensor_is_named(changes: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(one(**changes) if "10" not in str(changes.get("shape")) else _raw(changes), LIMITS)
    assert caught.value.status == status
    assert message in str(caught.value)


def _raw(changes: dict[str, Any]) -> bytes:
    """orjson writes no integer of more than 64 bits."""
    return one(shape=[7]).replace(b"[7]", str(changes["shape"]).encode())


TENSOR = {"name": "a", "shape": [1], "datatype": "FP64", "data": [1]}


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (b"", 400, "the body is not valid JSON"),
        (b"{", 400, "the body is not valid JSON"),
        (b"\xff", 400, "the body is not valid JSON"),
        (b'{"inputs": [{"data": [NaN]}]}', 400, "NaN and Infinity are no JSON: send null where a value is unknown"),
        (b'{"inputs": [{"data": [-Infinity]}]}', 400, "NaN and Infinity are no JSON"),
        (b'{"inputs": [{"data": [1e999]}]}', 400, "the body is not valid JSON: number is infinity"),
        (b"[" * 100_000 + b"]" * 100_000, 400, "the body is not valid JSON: depth limit exceeded"),
        (b"[]", 400, "the body must be a JSON object"),
        (b"null", 400, "the body must be a JSON object"),
        (b"{}", 400, "inputs must be a list of at least one tensor"),
        (b'{"inputs": []}', 400, "inputs must be a list of at least one tensor"),
        (b'{"inputs": {"a": 1}}', 400, "inputs must be a list"),
        (b'{"inputs": [1]}', 400, "inputs[0] must be an object"),
        ({"inputs": [TENSOR] * 4}, 413, "inputs has 4 tensors; at most 3 are accepted"),
        ({"inputs": [TENSOR, TENSOR]}, 400, "inputs: tensor a is there twice"),
        (
            {"inputs": [TENSOR, {**TENSOR, "name": "b", "shape": [2], "data": [1, 2]}]},
            400,
            "tensor b has 2 rows, but a has 1",
        ),
        ({"id": 7, "inputs": [TENSOR]}, 400, "id must be text of at most 8 characters"),
        ({"id": "123456789", "inputs": [TENSOR]}, 400, "id must be text of at most 8 characters"),
        ({"inputs": [TENSOR], "outputs": "probability"}, 400, "outputs must be a list of objects with a name"),
        ({"inputs": [TENSOR], "outputs": [{"name": "score"}]}, 400, "outputs: score is unknown; the model gives"),
        ({"inputs": [TENSOR], "outputs": [{"name": []}]}, 400, "outputs: [] is unknown"),
    ],
)
def test_a_bad_body_is_refused(text: bytes | dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(text if isinstance(text, bytes) else orjson.dumps(text), LIMITS)
    assert caught.value.status == status
    assert message in str(caught.value)


def test_outputs_and_id() -> None:
    asked = {"id": "x", "inputs": [TENSOR], "outputs": [{"name": "prediction", "parameters": {"binary_data": True}}]}
    request = parse(orjson.dumps(asked), LIMITS)
    assert request.id == "x"
    assert request.outputs == {"prediction": True}


def test_the_answer_has_every_digit() -> None:
    probability = np.array([0.1 + 0.2, 1e-300])
    both = {"probability": False, "prediction": False}
    headers, body = Responses("m", "3").body("x", both, probability, np.array([1, 0], dtype=np.int64))
    assert headers == [(b"content-type", b"application/json")]
    answer = orjson.loads(body)
    assert answer == {
        "model_name": "m",
        "model_version": "3",
        "id": "x",
        "outputs": [
            {"name": "probability", "datatype": "FP64", "shape": [2], "data": [0.1 + 0.2, 1e-300]},
            {"name": "prediction", "datatype": "INT64", "shape": [2], "data": [1, 0]},
        ],
    }


@pytest.mark.parametrize("identifier", ["x", 'a"b\\\n', "é", ""])
def test_the_answer_of_one_row_is_the_same(identifier: str) -> None:
    responses = Responses('m"', "3")
    _, body = responses.body(
        identifier, {"probability": False, "prediction": False}, np.array([0.1 + 0.2]), np.array([1], dtype=np.int64)
    )
    assert responses.one(identifier, 0.1 + 0.2, 1) == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["hour", "carrier"]) | json_values,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | json_values,
        "datatype": st.sampled_from(["FP64", "INT8", "BYTES", "BOOL", "UINT64"]) | json_values,
        "data": st.lists(json_values, max_size=3) | json_values,
        "parameters": json_values,
    },
)
documents = st.fixed_dictionaries(
    {}, optional={"id": json_values, "inputs": st.lists(tensors, max_size=3) | json_values, "outputs": json_values}
)


@given(st.one_of(st.binary(max_size=60), json_values.map(orjson.dumps), documents.map(orjson.dumps)))
def test_any_body_is_parsed_or_refused(text: bytes) -> None:
    refused = None
    try:
        request = parse(text, LIMITS)
    except RequestError as error:
        refused = error
    if refused is None:
        assert all(len(values) == request.rows > 0 for values in request.columns.values())
    else:
        assert refused.status in (400, 413)
        assert str(refused)

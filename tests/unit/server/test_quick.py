"""The short way gives what the long way gives, or leaves it to the long way."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truekeep.contract.artifact import Signature, SignatureFeature
from truekeep.contract.requests import ServeRequest
from truekeep.features.encode import Encoder, FeatureError
from truekeep.server.inference import Inference
from truekeep.server.limits import Limits
from truekeep.server.load import LoadedModel, ServedModel
from truekeep.server.metrics import Metrics
from truekeep.server.protocol import RequestError, parse
from truekeep.server.quick import Reader
from truekeep.server.scoring import Cost, Scorer

FEATURES = [
    SignatureFeature(name="hour", type="Number"),
    SignatureFeature(name="carrier", type="Category", categories=["AA", "B6", "true"]),
    SignatureFeature(name="distance", type="Number", nulls="Refuse"),
    SignatureFeature(name="gate", type="Category", categories=["-3", "0", "01", "1", "10", "A"], nulls="Refuse"),
    SignatureFeature(name="closed", type="Category", categories=["x", "y"], unknown="Refuse"),
]
NUMBERS = [SignatureFeature(name=f"n{position}", type="Number") for position in range(3)]
CODES = [NUMBERS[0], SignatureFeature(name="gate", type="Category", categories=["-3", "0", "01", "1", "10"])]
LIMITS = Limits(rows=50)
DATATYPES = ["FP64", "FP32", "INT64", "INT8", "UINT8", "BOOL", "BYTES", "STRING", 7, None]


def long_way(features: list[SignatureFeature], body: bytes) -> Any:
    """Matrix, unknown categories and what is left of the columns; or the refusal."""
    encoder = Encoder(features)
    try:
        request = parse(body, LIMITS, encoder.names)
        others = {name: request.columns.pop(name) for name in ("at", "id") if name in request.columns}
        if request.columns.keys() != set(encoder.names):
            named(features, body)
        return encoder.encode(request.columns, request.rows), request.columns, others
    except (RequestError, FeatureError) as error:
        return error


def named(features: list[SignatureFeature], body: bytes) -> None:
    """What is found after the body was read: other names than the model's."""
    names = {tensor["name"] for tensor in orjson.loads(body)["inputs"]} - {"at", "id"}
    if names != {feature.name for feature in features}:
        raise RequestError(400, "names")


def agree(features: list[SignatureFeature], document: Any) -> bool:
    """Whether the short way was taken; it must not differ from the long way."""
    body = orjson.dumps(document)
    reader = Reader(features, ("at", "id"), LIMITS.rows)
    expected = long_way(features, body)
    if isinstance(expected, RequestError):  # what is no feature is judged afterwards
        with pytest.raises(RequestError) as refusal:
            _ = parse(body, LIMITS, Encoder(features).names, None, reader) and named(features, body)
        assert (refusal.value.status, str(refusal.value)) == (expected.status, str(expected))
        return False
    found = parse(body, LIMITS, Encoder(features).names, None, reader)
    if found.matrix is None:
        return False
    assert not isinstance(expected, Exception), f"the short way took what the long way refuses: {expected}"
    matrix, columns, others = expected
    np.testing.assert_array_equal(found.matrix, matrix)
    assert found.matrix.flags.c_contiguous
    assert found.columns == others
    for position, feature in enumerate(features):
        strange = feature.type == "Category" and (matrix[:, position] == -1).any()
        assert strange == (position in found.unknown)
        if strange:
            assert found.unknown[position] == columns[feature.name]
    return True


def tensor(name: Any, values: Any, datatype: Any = "FP64", **changes: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values, **changes}


def request(rows: int, **changes: Any) -> dict[str, Any]:
    """A good one; a change is a whole tensor, or None for one that is not there."""
    tensors = {
        "hour": tensor("hour", [row + 0.5 for row in range(rows)]),
        "carrier": tensor("carrier", ["AA", "B6"] * (rows // 2) + ["AA"] * (rows % 2), "BYTES"),
        "distance": tensor("distance", list(range(rows)), "INT64"),
        "gate": tensor("gate", ["10"] * rows, "BYTES"),
        "closed": tensor("closed", ["y"] * rows, "BYTES"),
    }
    tensors.update(changes)
    return {"id": "a", "inputs": [one for one in tensors.values() if one is not None]}


@pytest.mark.parametrize("rows", [1, 2, 7, 50])
def test_the_usual_goes_the_short_way(rows: int) -> None:
    assert agree(FEATURES, request(rows))
    assert agree(FEATURES, {**request(rows), "inputs": request(rows)["inputs"][::-1]})
    assert agree(FEATURES, request(rows, hour=tensor("hour", [None] * rows)))
    assert agree(FEATURES, request(rows, carrier=tensor("carrier", [None] * (rows - 1) + ["new"], "BYTES")))
    assert agree(FEATURES, request(rows, gate=tensor("gate", [-3.0] * rows)))
    assert agree(FEATURES, request(rows, gate=tensor("gate", [10] * rows, "INT8")))
    assert agree(FEATURES, request(rows, at=tensor("at", ["2013-01-01"] * rows, "BYTES")))
    assert agree(FEATURES, request(rows, hour=tensor("hour", [1] * rows, shape=[rows, 1])))
    codec = {"parameters": {"content_type": "np"}}
    assert agree(FEATURES, request(rows, hour=tensor("hour", [0.0] * rows, **codec)))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_one_tensor_for_all_goes_the_short_way(rows: int) -> None:
    values = [float(value) for value in range(3 * rows)]
    nested = [values[start : start + 3] for start in range(0, 3 * rows, 3)]
    for data in (values, nested, [None, *values[1:]], [int(value) for value in values]):
        assert agree(NUMBERS, {"inputs": [tensor("X", data, shape=[rows, 3])]})
    assert agree(NUMBERS, {"inputs": [tensor("X", list(range(3 * rows)), "INT64", shape=[rows, 3])]})
    for code in (-3, 0, 1.0, -0.0, 10, None):
        assert agree(CODES, {"inputs": [tensor("X", [0.5, code] * rows, shape=[rows, 2])]})
    for code in (2, 0.5, 2**53, True):
        assert not agree(CODES, {"inputs": [tensor("X", [0.5, code] * rows, shape=[rows, 2])]})


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    "wrong",
    [
        {"hour": None},
        {"extra": tensor("extra", [1.0])},
        {"twice": tensor("hour", [1.0])},
        {"hour": tensor("hour", [True])},
        {"hour": tensor("hour", ["1"])},
        {"hour": tensor("hour", [[1.0]])},
        {"hour": tensor("hour", [1.5], "INT64")},
        {"hour": tensor("hour", [300], "UINT8")},
        {"hour": tensor("hour", [1.0], "BYTES")},
        {"hour": tensor("hour", [1.0], "FP64", shape=[True])},
        {"hour": tensor("hour", [1.0], "FP64", shape=[1.0])},
        {"hour": tensor("hour", [1.0], shape=[3])},
        {"distance": tensor("distance", [None])},
        {"gate": tensor("gate", [None], "BYTES")},
        {"gate": tensor("gate", [1], "BYTES")},
        {"gate": tensor("gate", [1.5])},
        {"gate": tensor("gate", [True])},
        {"gate": tensor("gate", [True], "BOOL")},
        {"carrier": tensor("carrier", [True], "BOOL")},
        {"carrier": tensor("carrier", ["QUE="], "BYTES", parameters={"content_type": "base64"})},
        {"closed": tensor("closed", ["z"], "BYTES")},
        {"at": tensor("at", ["2013-01-01"] * 3, "BYTES")},
    ],
)
def test_the_unusual_is_left_to_the_long_way(rows: int, wrong: dict[str, Any]) -> None:
    (name, one), *_ = wrong.items()
    if one is not None and rows > 1:
        one = {**one, "data": one["data"] * rows}
        if one["shape"] == [1] and type(one["shape"][0]) is int:
            one["shape"] = [rows]
    assert not agree(FEATURES, request(rows, **{name: one}))


def test_infinity_and_numbers_beyond_floats_are_left_to_the_long_way() -> None:
    for rows in (1, 2):
        body = json.dumps(request(rows, hour=tensor("hour", ["HUGE"] * rows))).replace('"HUGE"', "1e999").encode()
        reader = Reader(FEATURES, (), 50)
        try:
            inputs = orjson.loads(body)["inputs"]
        except orjson.JSONDecodeError:
            continue
        assert reader.read(inputs) is None


cells = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 12), st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, width=32), st.just([1.0]),
    st.sampled_from(["AA", "B6", "true", "1", "10", "x", "y", "é", ""]),
)  # fmt: skip
usual = {
    "hour": (["FP64"], st.floats(-100, 100)), "carrier": (["BYTES"], st.sampled_from(["AA", "B6", "ZZ"])),
    "distance": (["FP64", "INT64"], st.integers(0, 3)), "gate": (["BYTES"], st.sampled_from(["1", "10", "Z"])),
    "closed": (["BYTES"], st.sampled_from(["x", "y"])),
}  # fmt: skip


@st.composite
def requests(draw: Any) -> dict[str, Any]:
    rows = draw(st.integers(1, 4))
    tensors = []
    for name, (datatypes, values) in usual.items():
        odd = draw(st.integers(0, 7)) == 0
        datatype = draw(st.sampled_from(DATATYPES if odd else datatypes))
        given_rows = draw(st.integers(0, 5)) if odd else rows
        data = draw(
            st.lists(cells if odd and draw(st.booleans()) else values, min_size=given_rows, max_size=given_rows)
        )
        shape = draw(st.sampled_from([[given_rows], [given_rows, 1], [rows], rows, [], None, [[1]]])) if odd else [rows]
        made = {"name": name, "shape": shape, "datatype": datatype, "data": data}
        if odd and draw(st.booleans()):
            made["parameters"] = draw(st.sampled_from([None, {}, {"content_type": "np"}, {"binary_data_size": 8}, 3]))
        tensors.append(made)
    return {"inputs": draw(st.permutations(tensors))}


@settings(max_examples=400)
@given(requests())
def test_whatever_is_sent_both_ways_say_the_same(document: dict[str, Any]) -> None:
    agree(FEATURES, document)


@settings(max_examples=200)
@given(st.integers(1, 3), st.lists(cells, min_size=1, max_size=9), st.sampled_from(DATATYPES), st.booleans())
def test_whatever_one_tensor_holds_both_ways_say_the_same(rows: int, data: Any, datatype: Any, nested: bool) -> None:
    for features in (NUMBERS, CODES):
        width = len(features)
        shaped = [data[start : start + width] for start in range(0, len(data), width)] if nested else data
        agree(features, {"inputs": [tensor("X", shaped, datatype, shape=[rows, width])]})


def test_a_model_that_answers_in_this_process_is_asked_the_short_way() -> None:
    """It would answer the same the long way, so that nothing else would tell."""
    limits, metrics = Limits(), Metrics()
    store = {"uri": "s3://models/"}
    asked = ServeRequest.model_validate(
        {
            "namespace": "demo", "model": "m", "revision": 1, "run": "r", "artifactDigest": "sha256:" + "0" * 64,
            "store": store, "timeColumn": "at", "key": "id", "connectionMaxAgeSeconds": 60,
        }
    )  # fmt: skip
    signature = Signature(estimator="x", features=FEATURES, cut_off=0.5, examples=[])
    known: dict[str, Any] = {
        "signature": signature, "encoder": Encoder(FEATURES), "cost": Cost(0, 0), "self_test_difference": 0.0,
        "format": "onnx",
    }  # fmt: skip
    here, elsewhere = LoadedModel(**known, predict=lambda matrix: matrix[:, 0]), ServedModel(**known)
    scorer = Scorer(here.predict, here.cost, 1)
    for model, quick in ((here, True), (elsewhere, False)):
        inference = Inference(asked, limits, metrics)
        inference.serve_by(scorer, model, None)
        assert (inference.reader is not None) == quick
    scorer.close()

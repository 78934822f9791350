"""Binary tensors, and one tensor for all columns: the same columns as JSON gives, or a refusal by name."""

from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truekeep.server.limits import Limits
from truekeep.server.protocol import RequestError, Responses, parse

LIMITS = Limits(rows=4, inputs=3, id_characters=8)
NAMES = ("hour", "carrier")


def text(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def binary(*tensors: tuple[str, list[int], str, bytes], **members: Any) -> tuple[bytes, int]:
    """A body, and how much of it is JSON."""
    inputs = [
        {"name": name, "shape": shape, "datatype": kind, "parameters": {"binary_data_size": len(content)}}
        for name, shape, kind, content in tensors
    ]
    header = orjson.dumps({"inputs": inputs, **members})
    return header + b"".join(content for *_, content in tensors), len(header)


def columns(body: bytes, length: int | None, names: tuple[str, ...] = NAMES) -> dict[str, list[Any]]:
    found = parse(body, LIMITS, names, length).columns
    return {name: values if isinstance(values, list) else values.tolist() for name, values in found.items()}


@pytest.mark.parametrize(
    ("datatype", "content", "values"),
    [
        ("FP64", struct.pack("<2d", 1.5, -2), [1.5, -2]),
        ("FP32", struct.pack("<2f", 1.5, -2), [1.5, -2]),
        ("FP16", struct.pack("<2e", 1.5, -2), [1.5, -2]),
        ("INT8", struct.pack("<2b", -128, 127), [-128, 127]),
        ("INT16", struct.pack("<2h", -300, 1), [-300, 1]),
        ("INT32", struct.pack("<2i", -70000, 1), [-70000, 1]),
        ("INT64", struct.pack("<2q", -(2**60), 1), [-(2**60), 1]),
        ("UINT8", b"\xff\x00", [255, 0]),
        ("UINT16", struct.pack("<2H", 65535, 1), [65535, 1]),
        ("UINT32", struct.pack("<2I", 2**32 - 1, 1), [2**32 - 1, 1]),
        ("UINT64", struct.pack("<2Q", 2**64 - 1, 1), [2**64 - 1, 1]),
        ("BOOL", b"\x01\x00", [True, False]),
        ("BYTES", text(b"JFK", "é".encode()), ["JFK", "é"]),
        ("BYTES", text(b"", b"x"), ["", "x"]),
    ],
)
def test_every_datatype(datatype: str, content: bytes, values: list[Any]) -> None:
    assert columns(*binary(("hour", [2], datatype, content))) == {"hour": values}


def test_binary_and_json_side_by_side() -> None:
    header = orjson.dumps(
        {
            "inputs": [
                {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
                {"name": "hour", "shape": [1, 1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
            ],
            "outputs": [{"name": "prediction"}, {"name": "probability", "parameters": {"binary_data": False}}],
            "parameters": {"binary_data_output": True},
        }
    )
    request = parse(header + struct.pack("<d", 7), LIMITS, NAMES, len(header))
    assert request.columns["carrier"] == ["UA"]
    assert request.columns["hour"].tolist() == [7.0]  # type: ignore[union-attr]
    assert request.outputs == {"prediction": True, "probability": False}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (binary(("hour", [2], "FP64", b"\0" * 15)), "tensor hour: 2 values of FP64 are 16 bytes, but 15 were sent"),
        (binary(("hour", [2], "FP65", b"")), "datatype 'FP65' is unknown"),
        (binary(("hour", [2], "BOOL", b"\x01\x02")), "a BOOL is a byte 0 or 1, not 2"),
        (binary(("hour", [2], "BYTES", text(b"a"))), "shape says 2 values, but the binary data holds 1 and 0 bytes"),
        (binary(("hour", [1], "BYTES", text(b"a", b"b"))), "the binary data holds 1 and 5 bytes more"),
        (binary(("hour", [1], "BYTES", b"\xff\xff\xff\xff")), "a text of 4294967295 bytes, but 0 bytes are left"),
        (binary(("hour", [1], "BYTES", text(b"\xff"))), "tensor hour, row 0: BYTES must be UTF-8 text"),
        ((binary(("hour", [1], "FP64", b"\0" * 8))[0] + b"more", 101), "4 bytes of binary data belong to no tensor"),
        ((b"{}", 3), "Inference-Header-Content-Length is 3, but the body has 2 bytes"),
        ((b"{}", 0), "Inference-Header-Content-Length is 0"),
    ],
)
def test_wrong_lengths_are_refused(body: tuple[bytes, int], message: str) -> None:
    content, length = body
    if length == 101:
        length = len(content) - 12
    with pytest.raises(RequestError) as caught:
        parse(content, LIMITS, NAMES, length)
    assert caught.value.status == 400
    assert message in str(caught.value)


@pytest.mark.parametrize("size", [-1, 9, 10**18, "8", None, 8.0])
def test_a_size_that_lies_is_refused(size: Any) -> None:
    tensor = {"name": "hour", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": size}}
    header = orjson.dumps({"inputs": [tensor]})
    with pytest.raises(RequestError, match="tensor hour: binary_data_size is"):
        parse(header + b"\0" * 8, LIMITS, NAMES, len(header))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_parsed_or_refused(tail: bytes, length: int) -> None:
    start, _ = binary(("hour", [2], "BYTES", b"\0" * 12), ("carrier", [2], "FP16", b"\0" * 4))
    for body in (tail, start + tail, start[: len(start) - 16] + tail):
        refused = None
        try:
            request = parse(body, LIMITS, NAMES, length)
        except RequestError as error:
            refused = error
        if refused is None:
            assert all(len(values) == request.rows for values in request.columns.values())
        else:
            assert refused.status in (400, 413)


def wide(**changes: Any) -> bytes:
    tensor = {"name": "input-0", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4], **changes}
    return orjson.dumps({"inputs": [tensor]})


def test_one_tensor_for_all_columns() -> None:
    expected = {"hour": [1, 3], "carrier": [2, 4]}
    assert columns(wide(), None) == expected
    assert columns(wide(data=[[1, 2], [3, 4]]), None) == expected
    content = struct.pack("<4f", 1, 2, 3, 4)
    assert columns(*binary(("x", [2, 2], "FP32", content))) == expected
    assert columns(*binary(("x", [1, 2], "BYTES", text(b"a", b"b")))) == {"hour": ["a"], "carrier": ["b"]}
    # Of one input, under any name.
    one = orjson.dumps({"inputs": [{"name": "input-0", "shape": [2], "datatype": "FP64", "data": [1, 2]}]})
    assert columns(one, None, ("hour",)) == {"hour": [1, 2]}
    with_key = orjson.loads(wide())
    with_key["inputs"].append({"name": "id", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]})
    assert columns(orjson.dumps(with_key), None) == {**expected, "id": ["a", "b"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [2, 3]}, r"or [n, 2] for all of them; got [2, 3]"),
        ({"data": [1, 2, 3]}, "shape says 2 rows of 2, but data has 3 values"),
        ({"data": [[1, 2], [3]]}, "nested data must be lists of 2 values each"),
        ({"data": [[1, 2], [3, [4]]]}, "data nested too deep"),
        ({"shape": [5, 2], "data": [0] * 10}, "has 5 rows; at most 4"),
    ],
)
def test_a_wide_tensor_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(wide(**changes), LIMITS, NAMES)
    assert message in str(caught.value)


def test_all_columns_twice_are_refused() -> None:
    body = orjson.loads(wide())
    body["inputs"].append({"name": "hour", "shape": [2], "datatype": "FP64", "data": [1, 2]})
    with pytest.raises(RequestError, match="tensor hour is there twice"):
        parse(orjson.dumps(body), LIMITS, NAMES)


def test_base64_of_mlserver() -> None:
    """MLServer's codecs send bytes as base64 where they are told to."""
    data = [base64.b64encode(value.encode()).decode() for value in ("JFK", "é")]
    tensor = {"name": "carrier", "shape": [2, 1], "datatype": "BYTES", "data": data}
    body = {"parameters": {"content_type": "pd"}, "inputs": [{**tensor, "parameters": {"content_type": "base64"}}]}
    assert columns(orjson.dumps(body), None) == {"carrier": ["JFK", "é"]}
    body["inputs"][0]["data"] = ["not base64!", "x"]  # type: ignore[index]
    with pytest.raises(RequestError, match="tensor carrier: content_type base64, but"):
        parse(orjson.dumps(body), LIMITS, NAMES)


def test_a_binary_answer() -> None:
    probability, prediction = np.array([0.25, 0.75]), np.array([0, 1], dtype=np.int64)
    headers, body = Responses("m", "3").body("x", {"prediction": True, "probability": True}, probability, prediction)
    length = int(dict(headers)[b"inference-header-content-length"])
    document = orjson.loads(body[:length])
    assert [(one["name"], one["parameters"]) for one in document["outputs"]] == [
        ("prediction", {"binary_data_size": 16}),
        ("probability", {"binary_data_size": 16}),
    ]
    assert "data" not in document["outputs"][0]
    assert body[length:] == struct.pack("<2q2d", 0, 1, 0.25, 0.75)

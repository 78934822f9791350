"""gRPC clients that mean harm, or make mistakes: garbage, bombs, streams that never end, messages beyond the budget."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.server.conftest import MODEL, NAMES, ROWS, Published, Running, Start
from tests.unit.server.hostile import MIB, assert_sound, peak_bytes
from truekeep.server import grpc_messages as messages

PATH = "/inference.GRPCInferenceService/"
ALLOWED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED}
quickly = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server(shared: Running) -> Iterator[Running]:
    yield shared
    assert_sound(shared)


@pytest.fixture(scope="module")
def ask(server: Running) -> Iterator[Callable[[str, bytes], Any]]:
    """Status and text of the answer to any bytes, for a method."""
    with grpc.insecure_channel(server.grpc) as channel:

        def ask(method: str, content: bytes) -> Any:
            try:
                return None, channel.unary_unary(PATH + method)(content, timeout=20, wait_for_ready=True)
            except grpc.RpcError as error:
                return error.code(), error.details()

        yield ask


def good(rows: int = 5) -> Any:
    """A request that is answered."""
    request = messages.ModelInferRequest(model_name=MODEL)
    for name in NAMES:
        values = (ROWS[name] * (rows // 5 + 1))[:rows]
        tensor = request.inputs.add(name=name, shape=[rows])
        if name in ("hour", "distance"):
            tensor.datatype = "FP64"
            tensor.contents.fp64_contents.extend(float("nan") if value is None else value for value in values)
        else:
            tensor.datatype = "BYTES"
            tensor.contents.bytes_contents.extend((value or "AA").encode() for value in values)
    return request


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "ServerLive"])
@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\x0a\x7fab", os.urandom(300)])
def test_garbage_is_the_client_s_fault(server: Running, ask: Any, method: str, content: bytes) -> None:
    before = server.metric("truekeep_server_requests_total", outcome="client_error")
    assert ask(method, content) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"the message is no request of {method}",
    )
    after = server.metric("truekeep_server_requests_total", outcome="client_error")
    assert after - before == (method == "ModelInfer")


sizes = st.sampled_from([0, 1, 2, 5, -1, 10_001, 2**31, 2**62, -(2**63)])
contents = st.fixed_dictionaries(
    {},
    optional={
        "fp64_contents": st.lists(st.floats(), max_size=3),
        "fp32_contents": st.lists(st.floats(width=32), max_size=3),
        "int64_contents": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=3),
        "bool_contents": st.lists(st.booleans(), max_size=3),
        "bytes_contents": st.lists(st.sampled_from([b"AA", b"", b"\xff\xfe", b"\x00" * 40]), max_size=3),
    },
)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from([*NAMES, "scheduled_at", "flight_id", "", "odd", "x" * 500]),
        "datatype": st.sampled_from(["FP64", "FP32", "FP16", "INT64", "INT8", "UINT64", "BOOL", "BYTES", "", "odd"]),
        "shape": st.lists(sizes, max_size=3),
    },
    optional={"contents": contents},
)
requests = st.fixed_dictionaries(
    {"model_name": st.sampled_from([MODEL, MODEL, MODEL, "other", ""]), "inputs": st.lists(tensors, max_size=6)},
    optional={
        "id": st.sampled_from(["x", "y" * 300, "\x00"]),
        "model_version": st.sampled_from(["3", "4", "\n"]),
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["probability", "odd"])}), max_size=3),
        "raw_input_contents": st.lists(st.binary(max_size=20), max_size=6),
    },
)


@quickly
@given(requests)
def test_any_message_is_answered_or_refused(ask: Any, request_: dict[str, Any]) -> None:
    code, said = ask("ModelInfer", messages.ModelInferRequest(**request_).SerializeToString())
    assert code in ALLOWED | {None}, said
    assert code is None or 0 < len(said) < 2000


@quickly
@given(position=st.integers(0, 500), change=st.binary(min_size=1, max_size=4))
def test_a_good_message_with_bytes_changed_is_answered_or_refused(ask: Any, position: int, change: bytes) -> None:
    content = bytearray(good().SerializeToString())
    at = position % len(content)
    content[at : at + len(change)] = change
    code, said = ask("ModelInfer", bytes(content))
    assert code in ALLOWED | {None}, said


def test_a_bomb_is_refused_before_it_goes_off(server: Running) -> None:
    """64 MiB of the same byte are 64 KiB on the wire, and never more than a message may have in memory."""
    before = peak_bytes(server)
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(
            PATH + "ModelInfer", request_serializer=messages.ModelInferRequest.SerializeToString
        )
        bomb = messages.ModelInferRequest(model_name=MODEL, id="x" * (64 * MIB))
        with pytest.raises(grpc.RpcError) as caught:
            infer(bomb, timeout=60, wait_for_ready=True, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_bytes(server) - before < 32 * MIB


def test_a_compressed_message_of_moderate_size_is_read(server: Running) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(
            PATH + "ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        answer = infer(good(2000), timeout=20, compression=grpc.Compression.Gzip)
    assert answer.outputs[0].shape == [2000]


def test_large_messages_share_a_budget_that_is_given_back(published: Published, start: Start) -> None:
    content = good(1500).SerializeToString()
    assert 16 << 10 < len(content) < 60_000
    larger = good(4000).SerializeToString()
    running = start(published.request(), limits={"held_bytes": 60_000}).ready()
    with grpc.insecure_channel(running.grpc) as channel:
        infer = channel.unary_unary(PATH + "ModelInfer")
        for _ in range(5):
            assert infer(content, timeout=20)
        with pytest.raises(grpc.RpcError) as caught:
            infer(larger, timeout=20)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "too many large messages at once; try again, or send less"
        assert infer(content, timeout=20)
    assert running.metric("truekeep_server_requests_total", outcome="rejected") == 1
    assert_sound(running)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def fields(**values: str) -> bytes:
    """Header fields in HPACK, each written out."""
    found = b""
    for keyword, value in values.items():
        name = keyword.replace("_", "-").replace("pseudo-", ":")
        found += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return found


BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
HEADERS = fields(
    pseudo_method="POST", pseudo_scheme="http", pseudo_path=PATH + "ModelInfer", pseudo_authority="x", te="trailers",
    content_type="application/grpc",
)  # fmt: skip


def test_calls_that_never_end_lose_their_places(published: Published, start: Start) -> None:
    """A client begins as many calls as there are places, and sends three bytes of each message. Others are turned away
    until its connection reached its age and the time that calls under way have then; HTTP is answered all the while."""
    limits = {"grpc_calls": 3, "grpc_age_seconds": 1, "drain_seconds": 2}
    running = start(published.request(), limits=limits).ready()
    host, port = running.grpc.split(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as slow:
        slow.sendall(BEGIN)
        for number in range(3):
            stream = 2 * number + 1
            slow.sendall(frame(1, 4, stream, HEADERS) + frame(0, 0, stream, b"\x00" + struct.pack(">I", 1000) + b"abc"))
        with grpc.insecure_channel(running.grpc) as channel:
            live = channel.unary_unary(PATH + "ServerLive")

            def code() -> Any:
                try:
                    live(b"", timeout=20)
                except grpc.RpcError as error:
                    return error.code()
                return None

            running.until(lambda: code() == grpc.StatusCode.RESOURCE_EXHAUSTED)
            with running.client() as client:
                assert client.get("/v2/health/ready").status_code == 200
            running.until(lambda: code() is None)
        while slow.recv(65536):  # the server closes
            pass
    assert_sound(running)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(1, 4, 2, HEADERS),
        BEGIN + frame(0, 0, 1, b"x" * 10),
        BEGIN + frame(1, 4, 1, b"\xff" * 40),
        BEGIN + frame(1, 0, 1, HEADERS) + frame(9, 0, 1, b"\x00" * 9) * 50,
        BEGIN
        + b"".join(frame(1, 4, 2 * n + 1, HEADERS) + frame(3, 0, 2 * n + 1, b"\x00\x00\x00\x08") for n in range(2000)),
    ],
    ids=["http1", "tls", "even stream", "no stream", "no hpack", "continuations", "rapid reset"],
)  # fmt: skip
def test_what_is_no_grpc_ends_that_connection_and_no_other(server: Running, ask: Any, sent: bytes) -> None:
    host, port = server.grpc.split(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        connection.settimeout(0.5)  # some are closed at once, some when they reach their age
        with suppress(ConnectionError, TimeoutError):
            connection.sendall(sent)
            while connection.recv(65536):
                pass
        assert ask("ModelInfer", good().SerializeToString())[0] is None

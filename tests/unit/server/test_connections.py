"""Slow, lying and patient clients, on raw sockets; and the bounded age of a connection."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import orjson
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.server.conftest import MODEL, Published, Running, _starter, body, files_of, fit, signature_of
from truekeep.storage import artifacts

INFER = f"/v2/models/{MODEL}/infer"
CONTENT = orjson.dumps(body())
LIMITS = {
    "header_seconds": 2,
    "body_seconds": 2,
    "idle_seconds": 4,
    "first_byte_seconds": 4,
    "header_bytes": 4096,
    "connections": 40,
    "drain_seconds": 3,
}


@pytest.fixture(scope="module")
def server(_store: Versitygw, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with short deadlines and an age of one second."""
    patch = pytest.MonkeyPatch()
    for name, value in _store.environment().items():
        patch.setenv(name, value)
    model = fit()
    bucket = _store.bucket("models/")
    digest = artifacts.write(bucket, files_of(model, signature_of(model))).digest
    published = Published(_store, _store.location("models/", bucket=bucket.name), digest)
    try:
        with _starter(tmp_path_factory.mktemp("connections"), _store.environment()) as starter:
            yield starter(published.request(connection_max_age_seconds=1), limits=LIMITS).ready()
    finally:
        patch.undo()


def connect(server: Running) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def head(*lines: str, method: str = "POST", path: str = INFER) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def answers(received: bytes) -> list[tuple[int, dict[str, str], Any]]:
    """The answers in what was received."""
    found = []
    while received:
        top, _, rest = received.partition(b"\r\n\r\n")
        status, *fields = top.decode().split("\r\n")
        headers = dict(field.lower().split(": ", 1) for field in fields)
        size = int(headers.get("content-length", 0))
        found.append((int(status.split()[1]), headers, orjson.loads(rest[:size]) if size else None))
        received = rest[size:]
    return found


@pytest.mark.parametrize("start", [b"G", b"GET /v2 HTTP/1.1\r\nHost: x\r\n", b"POST /v2 HTTP/1.1\r\nX: " + b"y" * 500])
def test_a_header_that_does_not_end_is_cut_off(server: Running, start: bytes) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(start)
        ((status, headers, document),) = answers(everything(connection))
    assert (status, headers["connection"]) == (408, "close")
    assert document == {"error": "the header did not arrive within 2 s"}


def drip(connection: socket.socket, piece: bytes) -> int:
    """How many pieces could be sent, one every 0.1 s, until the server closed; at most 200."""
    for sent in range(200):
        try:
            connection.sendall(piece)
        except OSError:
            return sent
        time.sleep(0.1)
    return 200


def test_a_header_that_drips_is_cut_off_all_the_same(server: Running) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nX: ")
        assert drip(connection, b"y") < 200


def test_a_body_that_does_not_end_is_cut_off(server: Running) -> None:
    before = server.metric("truekeep_server_requests_total", outcome="client_error")
    with closing(connect(server)) as connection:
        connection.sendall(head(f"Content-Length: {len(CONTENT)}") + CONTENT[:20])
        ((status, headers, document),) = answers(everything(connection))
    assert (status, headers["connection"]) == (408, "close")
    assert document["error"].startswith("the body did not arrive within 2 s")
    server.until(lambda: server.metric("truekeep_server_requests_total", outcome="client_error") == before + 1)


def test_chunks_that_drip_are_cut_off(server: Running) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        assert drip(connection, b"1\r\n \r\n") < 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v2 HTTP/1.1\r\nX: " + b"y" * 5000,
        b"GET /v2 HTTP/1.1\r\nX: " + b"y" * 5000 + b"\r\n\r\n",
        b"GET /" + b"y" * 5000,
        head(*(f"X-{i}: y" for i in range(150)), method="GET", path="/v2"),
    ],
)
def test_a_header_too_large(server: Running, sent: bytes) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(sent)
        ((status, headers, document),) = answers(everything(connection))
    assert (status, headers["connection"]) == (431, "close")
    assert document == {"error": "the header is larger than 4096 bytes or has more than 100 fields; send less"}


@pytest.mark.parametrize(
    "sent",
    [
        b"BOGUS\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        head("Content-Length: -1"),
        head("Content-Length: 1x"),
        head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"zz\r\n",
    ],
)
def test_what_is_no_http_is_refused(server: Running, sent: bytes) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(sent)
        (status, headers, document), *_ = answers(everything(connection))
    assert (status, headers["connection"]) == (400, "close")
    assert document == {"error": "this is no valid HTTP/1.1 request"}


def test_a_client_that_leaves_in_the_middle_is_no_harm(server: Running) -> None:
    for _ in range(5):
        with closing(connect(server)) as connection:
            connection.sendall(head("Content-Length: 1000") + b"{")
    with server.client() as client:
        assert client.post(INFER, json=body()).status_code == 200
    assert server.metric("truekeep_server_requests_total", outcome="server_error") == 0


def test_a_client_that_has_asked_everything_gets_its_answer(server: Running) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(head(f"Content-Length: {len(CONTENT)}") + CONTENT)
        connection.shutdown(socket.SHUT_WR)
        ((status, _, _),) = answers(everything(connection))
        assert status == 200


def test_requests_in_one_packet_are_answered_in_order(server: Running) -> None:
    def request(identifier: str, *fields: str) -> bytes:
        content = orjson.dumps(body(id=identifier))
        return head(f"Content-Length: {len(content)}", *fields) + content

    with closing(connect(server)) as connection:
        connection.sendall(request("1") + request("2") + request("3", "Connection: close"))
        received = answers(everything(connection))
    assert [(status, document["id"]) for status, _, document in received] == [(200, "1"), (200, "2"), (200, "3")]


def test_100_continue(server: Running) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(head(f"Content-Length: {len(CONTENT)}", "Expect: 100-continue", "Connection: close"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(CONTENT)
        ((status, _, _),) = answers(everything(connection))
    assert status == 200


def test_a_body_too_large_is_refused_before_it_is_sent(server: Running) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(head("Content-Length: 9999999999", "Expect: 100-continue"))
        ((status, headers, document),) = answers(everything(connection))
    assert (status, headers["connection"]) == (413, "close")
    assert document["error"].startswith("the body has 9999999999 bytes; at most 4194304")


def test_a_connection_ends_with_an_answer_that_says_so(server: Running) -> None:
    """No request is ever lost to the age of a connection: the close is announced in an answer, and follows it."""
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        end = time.monotonic() + 20
        while True:
            connection.request("POST", INFER, CONTENT)
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
            if answer.getheader("connection") == "close":
                break
            assert time.monotonic() < end
            time.sleep(0.01)
        assert connection.sock is None  # http.client closed it, as it was told


def test_connections_do_not_all_end_at_once() -> None:
    from truekeep.server.connections import Keeper
    from truekeep.server.limits import Limits

    ages = [Keeper(Limits(), 30).age() for _ in range(200)]
    assert all(22.5 <= age <= 30 for age in ages)
    assert len({round(age) for age in ages}) >= 6


def test_an_idle_connection_ends_too(server: Running) -> None:
    with closing(connect(server)) as used, closing(connect(server)) as unused:
        used.sendall(head(f"Content-Length: {len(CONTENT)}") + CONTENT)
        assert answers(everything(used))[0][0] == 200
        assert everything(unused) == b""


def test_more_connections_than_allowed_are_turned_away(server: Running) -> None:
    opened = [connect(server) for _ in range(60)]
    try:
        opened[0].sendall(head(method="GET", path="/v2/health/live"))
        assert opened[0].recv(100).startswith(b"HTTP/1.1 200")
        turned_away = 0
        for connection in opened[45:]:
            try:
                turned_away += connection.recv(1) == b""
            except ConnectionResetError:
                turned_away += 1
        assert turned_away == 15
    finally:
        for connection in opened:
            connection.close()
    server.until(lambda: _answers(server))


def _answers(server: Running) -> bool:
    try:
        with server.client() as client:
            return client.get("/v2/health/live").status_code == 200
    except (OSError, httpx.TransportError):
        return False


def test_the_end_comes_although_a_client_does_not_let_go(server: Running) -> None:
    """The last test of this server: a request that never gets whole does not hold up the end for ever."""
    with closing(connect(server)) as connection:
        server.terminate()
        server.until(lambda: server.logged("draining"))
        connection.sendall(head("Content-Length: 10"))
        assert server.exit_code() == 0
    assert "Traceback" not in server.log.read_text()

"""What every test of hostile clients asks at its end, and raw clients."""

from __future__ import annotations

import socket
from typing import Any

import orjson

from tests.unit.server.conftest import MODEL, Running, body

INFER = f"/v2/models/{MODEL}/infer"
CONTENT = orjson.dumps(body())
MIB = 1 << 20


def peak_bytes(server: Running) -> int:
    """The most memory that the process ever had resident (VmHWM)."""
    return _status(server, "VmHWM")


def resident_bytes(server: Running) -> int:
    """What it has resident now."""
    return _status(server, "VmRSS")


def _status(server: Running, name: str) -> int:
    with open(f"/proc/{server.process.pid}/status") as lines:
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith(name + ":"))
    return int(kilobytes) << 10


def assert_sound(server: Running) -> None:
    """It lives, answers, blames itself for nothing, and shows nobody its insides."""
    with server.client() as client:
        assert client.get("/v2/health/live").status_code == 200
        assert client.post(INFER, content=CONTENT).status_code == 200
    assert server.metric("truekeep_server_requests_total", outcome="server_error") == 0
    server.until(lambda: server.metric("truekeep_server_in_flight_requests") == 0)
    log = server.log.read_text()
    assert "Traceback" not in log, log[-3000:]
    assert not [line for line in server.lines() if line["level"] in ("error", "critical")]


def connect(server: Running) -> socket.socket:
    """A raw connection to the HTTP port."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def head(*lines: str, method: str = "POST", path: str = INFER) -> bytes:
    """A request's header."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def statuses(received: bytes) -> list[int]:
    """The statuses of the answers in what was received, each of which has a JSON body with its length."""
    found = []
    while received:
        top, _, rest = received.partition(b"\r\n\r\n")
        first, *fields = top.decode().split("\r\n")
        headers = dict(field.lower().split(": ", 1) for field in fields)
        size = int(headers["content-length"])
        document: Any = orjson.loads(rest[:size])
        status = int(first.split()[1])
        assert status == 200 or list(document) == ["error"]
        found.append(status)
        received = rest[size:]
    return found


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received

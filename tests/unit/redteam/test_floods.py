"""Clients that send too much, too slowly, or never end, to a real server: cut off, unless it has no limits.

What is slow is waited for: a connection that is cut off is seen to be, one that is kept is given three seconds."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.unit.conftest import Versitygw
from tests.unit.server.conftest import Published, Running, _starter, body, files_of, fit, signature_of
from tests.unit.server.hostile import connect, head
from truekeep.storage import artifacts

pytestmark = pytest.mark.full  # each limit by itself is tried in tests/unit/server, too
GROUP = "floods and slow bodies"
STRICT = {
    "header_seconds": 1, "body_seconds": 1, "first_byte_seconds": 1, "body_bytes": 20_000, "rows": 50, "inputs": 6,
    "header_bytes": 4096, "id_characters": 64,
}  # fmt: skip
LOOSE = {
    "header_seconds": 3600, "body_seconds": 3600, "first_byte_seconds": 3600, "body_bytes": 64 << 20, "rows": 10**6,
    "inputs": 10**6, "header_bytes": 64 << 20, "id_characters": 10**6,
}  # fmt: skip
Tried = Callable[[str, str], None]


@pytest.fixture(scope="module")
def servers(_store: Versitygw, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """One with strict limits, and one with none to speak of."""
    patch = pytest.MonkeyPatch()
    for name, value in _store.environment().items():
        patch.setenv(name, value)
    model = fit()
    bucket = _store.bucket("models/")
    digest = artifacts.write(bucket, files_of(model, signature_of(model))).digest
    request = Published(_store, _store.location("models/", bucket=bucket.name), digest).request()
    try:
        with _starter(tmp_path_factory.mktemp("floods"), _store.environment()) as start:
            limits = {"guarded": STRICT, "bare": LOOSE}
            yield {name: start(request, each).ready() for name, each in limits.items()}
    finally:
        patch.undo()


def _kept(server: Running, *sent: bytes) -> bool:
    """Whether a connection that sent this, and sends no more, is kept."""
    with closing(connect(server)) as connection:
        for piece in sent:
            connection.sendall(piece)
        connection.settimeout(20 if server.log.name == "server-0.log" else 3)
        try:
            return not _ended(connection)
        except TimeoutError:
            return True


def _ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def _answered(server: Running, content: bytes, *headers: str) -> bool:
    """Whether it is answered with a prediction."""
    with closing(connect(server)) as connection:
        try:
            connection.sendall(head(f"Content-Length: {len(content)}", "Connection: close", *headers) + content)
            received = connection.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            return False
    return received.startswith(b"HTTP/1.1 200")


def _asked(rows: int, **members: object) -> bytes:
    columns = {"hour": [7.0] * rows, "distance": [9.0] * rows, "carrier": ["AA"] * rows, "gate": ["1"] * rows}
    return json.dumps(body(columns, **members)).encode()


FLOODS: dict[str, Callable[[Running], bool]] = {
    "a header that never ends": lambda server: _kept(server, b"POST /v2/x HTTP/1.1\r\nHost: x\r\nX-A: "),
    "a body that never comes": lambda server: _kept(server, head("Content-Length: 1000")),
    "chunks that never end": lambda server: _kept(server, head("Transfer-Encoding: chunked"), b"1\r\na\r\n"),
    "a connection that says nothing": _kept,
    "a body that is too large": lambda server: _answered(server, _asked(1) + b" " * 30_000),
    "more rows than one asks for": lambda server: _answered(server, _asked(200)),
    "a header that is too large": lambda server: _answered(server, _asked(1), "X-A: " + "a" * 20_000),
    "an id that is too long": lambda server: _answered(server, _asked(1, id="i" * 1000)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_it_is_cut_off(servers: dict[str, Running], flood: str, tried: Tried) -> None:
    tried(GROUP, "guarded")
    assert not FLOODS[flood](servers["guarded"])


@pytest.mark.parametrize("flood", FLOODS)
def test_it_would_not_be_without_limits(servers: dict[str, Running], flood: str, tried: Tried) -> None:
    tried(GROUP, "bare")
    assert FLOODS[flood](servers["bare"])

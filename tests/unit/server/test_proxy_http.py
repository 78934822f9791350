"""The client that asks a team's own server: whatever comes back, it stays within its bounds and says what it was."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.server.backend import Backend, Behave, http
from truekeep.server.proxy_http import HEADER_BYTES, Client, NoAnswerError, SilentError

LIMIT = 10_000


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend(lambda asked: http(200, b"fine"))
    yield made
    made.close()


async def asked(backend: Backend, behave: Behave | bytes | None, seconds: float = 20) -> tuple[int, bytes]:
    backend.behave = behave if callable(behave) else lambda _: behave
    client = Client(backend.port, LIMIT)
    try:
        answer = await client.ask("POST", "/x", b"question", seconds)
    finally:
        client.close()
    return answer.status, answer.body


async def test_what_is_sent_is_one_plain_request(backend: Backend) -> None:
    assert await asked(backend, http(200, b"fine")) == (200, b"fine")
    (seen,) = backend.asked
    assert (seen.method, seen.path, seen.body) == ("POST", "/x", b"question")
    assert seen.headers["host"] == f"127.0.0.1:{backend.port}"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", (200, b"abcde")),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end", (200, b"until the end")),
        (b"HTTP/1.0 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", (200, b"ok")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + http(200, b"after all"), (200, b"after all")),
        (b"HTTP/1.1 103 Hint\r\nlink: x\r\n\r\n" + http(503, b"no"), (503, b"no")),
        (http(307, b"", "location: http://169.254.169.254/latest"), (307, b"")),
        (http(200, b"x" * LIMIT), (200, b"x" * LIMIT)),
    ],
)
async def test_every_way_to_frame_an_answer(backend: Backend, reply: bytes, expected: tuple[int, bytes]) -> None:
    assert await asked(backend, reply) == expected
    assert len(backend.asked) == 1


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "is no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", "is no HTTP"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc", "is no HTTP"),
        (http(200, b"x" * (LIMIT + 1)), f"more than {LIMIT} bytes"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"x" * 3 * LIMIT, f"more than {LIMIT} bytes"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2 * HEADER_BYTES, f"header of its answer has more than {HEADER_BYTES}"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nshort", "closed the connection before"),
        (b"connection: close", "is no HTTP"),
    ],
)
async def test_what_is_no_answer_is_named(backend: Backend, reply: bytes, message: str) -> None:
    with pytest.raises(NoAnswerError, match=message):
        await asked(backend, reply)


@pytest.mark.parametrize("reply", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b"HTTP/1.1 200 O", b""])
async def test_silence_has_an_end(backend: Backend, reply: bytes | None) -> None:
    start = time.monotonic()
    with pytest.raises(SilentError, match=r"no answer within 0\.3 s"):
        await asked(backend, reply, seconds=0.3)
    assert time.monotonic() - start < 15


async def test_nobody_there_is_down(backend: Backend) -> None:
    backend.die()
    with pytest.raises(NoAnswerError, match=f"nobody answers on port {backend.port}") as caught:
        await asked(backend, b"")
    assert caught.value.down


async def test_a_connection_is_used_again_and_one_that_ended_meanwhile_is_replaced(backend: Backend) -> None:
    client = Client(backend.port, LIMIT)
    for _ in range(3):
        await client.ask("GET", "/", None, 20)
    assert backend.opened == 1
    backend.hang_up()
    for _ in range(3):
        assert (await client.ask("GET", "/", None, 20)).body == b"fine"
    assert backend.opened == 2
    client.close()


async def test_a_question_is_asked_twice_only_where_the_old_connection_said_nothing(backend: Backend) -> None:
    client = Client(backend.port, LIMIT)
    await client.ask("GET", "/", None, 20)
    backend.behave = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nshort"
    with pytest.raises(NoAnswerError, match="before its answer was whole"):
        await client.ask("GET", "/", None, 20)
    assert len(backend.asked) == 2
    client.close()


async def test_a_second_answer_to_one_question_is_nobodys(backend: Backend) -> None:
    client = Client(backend.port, LIMIT)
    backend.behave = lambda asked: http(200, b"first") + http(200, b"second")
    for _ in range(3):
        assert (await client.ask("GET", "/", None, 20)).body == b"first"
    client.close()


async def test_a_question_that_nobody_waits_for_any_more_leaves_no_connection(backend: Backend) -> None:
    client = Client(backend.port, LIMIT)
    backend.behave = lambda asked: None
    with pytest.raises(SilentError):
        await client.ask("GET", "/", None, 0.2)
    backend.behave = lambda asked: http(200, b"again")
    assert (await client.ask("GET", "/", None, 20)).body == b"again"
    assert backend.opened == 2
    client.close()


@given(
    pieces=st.lists(
        st.sampled_from(
            [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"content-length: 3\r\n", b"\r\n", b"abc",
             b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"connection: close\r\n", b"\x00\xff"]
        )
        | st.binary(max_size=20),
        max_size=8,
    )
)  # fmt: skip
@settings(max_examples=60)
def test_whatever_bytes_come_there_is_an_answer_or_a_reason(pieces: list[bytes]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            client = Client(server.sockets[0].getsockname()[1], LIMIT)
            for _ in range(2):
                with contextlib.suppress(NoAnswerError):
                    answer = await client.ask("GET", "/", None, 20)
                    assert len(answer.body) <= LIMIT
                    assert not 100 <= answer.status < 200
            client.close()

    asyncio.run(ask())

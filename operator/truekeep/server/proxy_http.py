"""A small HTTP client for one server on the loopback, which may die, hang, or answer anything.

What it sends back is bounded: the header, the body, and the time until the last byte. Connections are kept and used
again. Nothing is followed (no redirects) and nothing is unpacked (no codings).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools

HOST = "127.0.0.1"
HEADER_BYTES = 32 << 10
IDLE_CONNECTIONS = 8


class NoAnswerError(Exception):
    """There is no whole answer: the text says why. `down`: nobody listens, or the connection ended early."""

    def __init__(self, message: str, *, down: bool = False, unused: bool = False) -> None:
        super().__init__(message)
        self.down = down
        self.unused = unused  # the connection was an old one, and ended without one byte of an answer


class SilentError(NoAnswerError):
    """It did not answer in time."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes


class Client:
    """Asks one port. As many connections as there are questions at once: the caller bounds them."""

    def __init__(self, port: int, answer_bytes: int) -> None:
        self.port = port
        self._answer_bytes = answer_bytes
        self._idle: list[_Connection] = []

    async def ask(self, method: str, path: str, body: bytes | None, seconds: float) -> Answer:
        """The answer, whatever its status. NoAnswerError; SilentError after so many seconds."""
        request = self._request(method, path, body)
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(request)
        except TimeoutError:
            raise SilentError(f"no answer within {seconds:g} s") from None

    def close(self) -> None:
        """End all connections that are not in use."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def _ask(self, request: bytes) -> Answer:
        while self._idle:
            connection = self._idle.pop()
            if connection.lost:
                continue
            try:
                return await self._ask_on(connection, request)
            except NoAnswerError as error:
                # The other side may close a connection that was idle just when something is sent on it.
                if not error.unused:
                    raise
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self._answer_bytes), HOST, self.port)
        except OSError as error:
            raise NoAnswerError(f"nobody answers on port {self.port}: {error.strerror or error}", down=True) from None
        return await self._ask_on(connection, request)

    async def _ask_on(self, connection: _Connection, request: bytes) -> Answer:
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.abort()
            raise
        if connection.reusable and len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        headers: Mapping[str, str] = {
            "host": f"{HOST}:{self.port}",
            "accept": "application/json",
            "accept-encoding": "identity",
            **({} if body is None else {"content-type": "application/json", "content-length": str(len(body))}),
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + (body or b"")


class _Connection(asyncio.Protocol):
    """One connection; one question at a time."""

    def __init__(self, answer_bytes: int) -> None:
        self._limit = answer_bytes
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._asked = 0
        self._reset()
        self.lost = False
        self.reusable = False

    def _reset(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0  # of the body so far
        self._header_bytes = 0  # received before the header was whole
        self._any = False  # whether one byte of an answer came
        self._in_body = False
        self._framed = False  # whether the header says where the body ends

    async def ask(self, request: bytes) -> Answer:
        """The answer. NoAnswerError."""
        assert self._transport is not None
        self._reset()
        self.reusable = False
        self._asked += 1
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        """End it at once."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if exc is None and self._in_body and not self._framed:
            self._finish()  # a body that ends with its connection
            return
        unused = self._asked > 1 and not self._any
        self._fail("it closed the connection before its answer was whole", down=True, unused=unused)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # it talks without being asked
            return
        self._any = True
        if not self._in_body:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("its answer is no HTTP/1.1")
        if not self._in_body and self._header_bytes > HEADER_BYTES:
            self._fail(f"the header of its answer has more than {HEADER_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the parser."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Of the parser."""
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """Of the parser."""
        self._size += len(body)
        if self._size > self._limit:
            self._fail(f"its answer has more than {self._limit} bytes")
            return
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Of the parser."""
        if 100 <= self._parser.get_status_code() < 200:  # "wait", and the answer comes behind it
            self._reset()
            self._any = True
            return
        self.reusable = self._parser.should_keep_alive()
        self._finish()

    def _finish(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(self._parser.get_status_code(), b"".join(self._parts)))
        elif not self.lost:
            self.abort()  # a second answer to one question

    def _fail(self, message: str, *, down: bool = False, unused: bool = False) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NoAnswerError(message, down=down, unused=unused))
        self._parts.clear()
        self.abort()

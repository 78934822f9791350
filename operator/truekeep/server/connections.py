"""Deadlines, a bounded age and a graceful end for every connection.

uvicorn has no deadline for a header, a body or a client that does not read; and it closes idle connections at once
when it stops, also the one on which a request is just arriving. Here a sweep looks after all connections twice a
second, which costs a request nothing but a few time stamps.

A connection that reached its age is closed *after* an answer that said `Connection: close`, so that the client knows;
it is closed while idle only after it was idle for long, because a request may be on its way (HTTP/1.1 has no way to
say goodbye on an idle connection). While draining after SIGTERM, new connections and requests are still answered, each
answer says `Connection: close`, what was idle for a second is closed, so that a client that asks rarely asks another
pod next time, and the end is when nobody is left, or at a deadline.

Predictions of moderate size take a short way: from the parser straight to `Application.answer`, and from there to the
socket, without an ASGI scope, a task and two events for each.
Everything else, pipelined requests included, goes the usual way.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from truekeep.server.app import Application, Asked, read_headers
from truekeep.server.limits import SMALL_BODY, Limits
from truekeep.server.protocol import JSON, Headers, RequestError, error_body

SWEEP_SECONDS = 0.5
HEADER_FIELDS = 100
DIRECT_BODY = 256 << 10  # bytes; larger ones go the usual way, which slows their sender down

# What a connection waits for.
FIRST, IDLE, HEADER, BODY, ANSWER, GONE = range(6)


class Keeper:
    """Knows all connections of a server and ends them."""

    def __init__(self, limits: Limits, max_age_seconds: float) -> None:
        self.limits = limits
        self.max_age_seconds = max_age_seconds
        self.connections: set[Connection] = set()
        self.draining_since: float | None = None
        self.last_change = 0.0  # when a connection came or went last

    def age(self) -> float:
        """How old one connection may become, in seconds: 75 to 100 % of the maximum, so that those that were opened
        together are not closed together."""
        return self.max_age_seconds * random.uniform(0.75, 1.0)

    async def sweep_for_ever(self) -> None:
        """Look after all connections until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep(time.monotonic())

    def sweep(self, now: float) -> None:
        """End what is over its time."""
        for connection in list(self.connections):
            connection.look(now)

    def start_draining(self) -> None:
        """From now on every answer says goodbye, those that are under way included."""
        if self.draining_since is None:
            self.draining_since = time.monotonic()
            for connection in self.connections:
                connection.say_goodbye()

    async def drained(self) -> bool:
        """Wait until nobody is left, and nobody came back for a while: a client that is sent away returns at once as
        long as it does not know of another pod. False where the deadline came first."""
        assert self.draining_since is not None
        limits = self.limits
        while True:
            now = time.monotonic()
            elapsed = now - self.draining_since
            if elapsed >= limits.drain_seconds:
                return not self.connections
            quiet = not self.connections and now - self.last_change >= limits.drain_quiet_seconds
            if quiet and elapsed >= limits.drain_linger_seconds:
                return True
            await asyncio.sleep(0.02)


class _Gone:
    """What uvicorn sets when the client has gone; nobody waits for it here."""

    def set(self) -> None:
        """Nothing to do."""


_GONE = _Gone()


class Exchange:
    """A prediction on the short way, with as much of uvicorn's RequestResponseCycle as its protocol asks for."""

    __slots__ = (
        "asked", "connection", "disconnected", "held", "keep_alive", "message_event", "parts", "response_complete",
        "response_started", "start",
    )  # fmt: skip

    def __init__(self, connection: Connection, asked: Asked, held: int, keep_alive: bool) -> None:
        self.connection = connection
        self.asked = asked
        self.held = held
        self.keep_alive = keep_alive
        self.start = time.perf_counter()
        self.parts: list[bytes] = []
        self.disconnected = self.response_started = self.response_complete = False
        self.message_event = _GONE

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Write the answer."""
        self.connection.respond(self, status, headers, body)


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *, keeper: Keeper, application: Application, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._application = application
        self._exchange: Exchange | None = None  # whose body is being read
        # Requests that may not be answered yet: the newest on the short way, and behind it uvicorn's, several where a
        # client pipelines.
        self._direct: Exchange | None = None
        self._cycles: list[Any] = []
        self._keeper = keeper
        self._limits = keeper.limits
        self._phase = FIRST
        self._since = self._expires = 0.0
        self._header_bytes = 0  # read since the last request
        self._field_bytes = 0  # of the header that is being read
        self._too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = time.monotonic()
        self._expires = self._since + self._keeper.age()
        if len(self._keeper.connections) >= self._limits.connections:
            self._phase = GONE
            transport.abort()
            return
        self._keeper.connections.add(self)
        self._keeper.last_change = self._since

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.connections.discard(self)
        self._keeper.last_change = time.monotonic()
        self._phase = GONE
        if self._exchange is not None:
            self._application.lost()
            self._give_back(self._exchange)
            self._exchange = None
        for cycle in self._cycles:  # uvicorn tells the newest alone, and the others would write to what is closed
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # What is not parsed yet is held by the parser, so that is what a header without end must be measured by.
        if self._phase in (FIRST, IDLE, HEADER):
            self._header_bytes += len(data)
        super().data_received(data)
        if self._phase == HEADER and self._header_bytes > self._limits.header_bytes:
            self._refuse_header()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that only says that it has asked everything still gets its answer."""
        if self._phase != ANSWER:
            return False
        self.say_goodbye()
        return True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._field_bytes = 0
        self._enter(HEADER)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > self._limits.header_bytes or len(self.headers) > HEADER_FIELDS:
            self._too_large = True
            raise httptools.HttpParserError

    def on_headers_complete(self) -> None:
        self._enter(BODY)
        self._header_bytes = 0
        exchange = self._exchange = self._directly()
        if exchange is None:
            super().on_headers_complete()
            self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
            self._cycles.append(self.cycle)
        else:
            self.cycle = self._direct = exchange  # type: ignore[assignment]
        if self._since >= self._expires or self._keeper.draining_since is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if self._exchange is None:
            super().on_body(body)
        else:
            self._exchange.parts.append(body)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            super().on_message_complete()
            self._enter(IDLE if self.cycle.response_complete else ANSWER)
            return
        self._exchange = None
        self._enter(ANSWER)
        parts, exchange.parts = exchange.parts, []
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._application.answer(body, exchange.asked, exchange.start, exchange.respond)

    def respond(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        """The answer to a prediction on the short way."""
        self._give_back(exchange)
        exchange.response_complete = True
        if exchange.disconnected or self.transport.is_closing():
            return
        if headers is JSON and status == 200 and exchange.keep_alive:
            self.transport.write(_OK % len(body) + body)
        else:
            self.transport.write(_head(status, headers, len(body), exchange.keep_alive) + body)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _directly(self) -> Exchange | None:
        """The exchange, where this request may take the short way."""
        if (
            not self._application.asks_to_infer(self.url)
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
            or self.expect_100_continue
            or self.flow.write_paused
            or (self.cycle is not None and not self.cycle.response_complete)
            or self.parser.should_upgrade()
        ):
            return None
        try:
            asked = read_headers(self.headers)
        except RequestError:
            return None
        if not 0 <= asked.length <= min(DIRECT_BODY, self._limits.body_bytes):  # chunked, or long
            return None
        held = asked.length if asked.length > SMALL_BODY else 0
        if not self._application.held.take(held):
            return None
        return Exchange(self, asked, held, self.parser.should_keep_alive())

    def _give_back(self, exchange: Exchange) -> None:
        self._application.held.give_back(exchange.held)
        exchange.held = 0

    def on_response_complete(self) -> None:
        # As uvicorn's, without its keep-alive timer: the sweep does that.
        self.server_state.total_requests += 1
        if self._phase == ANSWER:
            self._enter(IDLE)
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if self._keeper.draining_since is not None:
                cycle.keep_alive = False
            self._phase = BODY if cycle.more_body else ANSWER
            self._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        if self._too_large:
            self._refuse_header()
        else:
            self._refuse(400, "this is no valid HTTP/1.1 request")

    def say_goodbye(self) -> None:
        """Make the answer that is under way the last one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def look(self, now: float) -> None:
        """End the connection where it is over its time."""
        limits, waited = self._limits, now - self._since
        if self.transport.is_closing():  # the answer is written, the client does not take it
            if waited > limits.write_seconds:
                self.transport.abort()
        elif self._phase == HEADER:
            if waited > limits.header_seconds:
                self._refuse(408, f"the header did not arrive within {limits.header_seconds:g} s")
        elif self._phase == BODY:
            if waited > limits.body_seconds:
                self._refuse(
                    408, f"the body did not arrive within {limits.body_seconds:g} s; send it faster or split it"
                )
        elif self._phase == ANSWER:
            if self.flow.write_paused and waited > limits.write_seconds:
                self.transport.abort()
        elif self._idle_too_long(now, waited):
            self.transport.close()

    def _idle_too_long(self, now: float, waited: float) -> bool:
        limits = self._limits
        since = self._keeper.draining_since
        if since is not None and now - since >= limits.drain_idle_seconds and waited > 1:
            return True  # it would answer once more, with a revision that was taken back, say
        if self._phase == FIRST:
            return waited > limits.first_byte_seconds
        return waited > limits.idle_seconds and now > self._expires

    def _enter(self, phase: int) -> None:
        self._phase = phase
        self._since = time.monotonic()

    def _earlier(self) -> list[Any]:
        """Requests before the one that is being read that are not answered yet."""
        reading = self.cycle if self._phase == BODY else None
        asked = [self._direct, *self._cycles]
        return [each for each in asked if each is not None and not each.response_complete and each is not reading]

    def _refuse_header(self) -> None:
        size = self._limits.header_bytes
        self._refuse(431, f"the header is larger than {size} bytes or has more than {HEADER_FIELDS} fields; send less")

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application, and close. Silently where earlier requests still wait for their answers,
        which are then the last ones, or where this request was answered before its body was there."""
        if self.transport.is_closing():
            return
        if earlier := self._earlier():
            earlier[-1].keep_alive = False
            self.flow.pause_reading()
            self._enter(ANSWER)
            return
        if self._phase != BODY or not self.cycle.response_started:
            body = error_body(message)
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
                + body
            )
        self.transport.close()


_OK = STATUS_LINE[200] + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"


def _head(status: int, headers: Headers, length: int, keep_alive: bool) -> bytes:
    lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers)]
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % length)
    return b"".join(lines)

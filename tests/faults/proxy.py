"""Between the operator and the API server: it passes everything on, and does to it what the plan says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.faults.plans import Plan
from tests.faults.upstream import Upstream

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
LATE_SECONDS = 2.0
REPLAY_SECONDS = 1.0
STALE_SECONDS = 1.0
BODY_LIMIT = 8 << 20
HOP = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive", "host"})
REFUSALS = {
    "conflict": (409, "Conflict", "the object has been modified; please apply your changes to the latest version"),
    "invalid": (422, "Invalid", "an admission webhook denied the request: planned"),
    "throttled": (429, "TooManyRequests", "too many requests, please try again later"),
    "error": (500, "InternalError", "etcdserver: request timed out"),
    "read-error": (500, "InternalError", "etcdserver: request timed out"),
}


@dataclass(frozen=True)
class Write:
    """A write of the operator, as it came by."""

    verb: str
    path: str
    status: int | None  # None: it got no answer

    def __str__(self) -> str:
        name = self.path.partition("?")[0].rpartition("/namespaces/")[2]
        return f"{self.verb} {name.partition('/')[2]}: {self.status or 'no answer'}"


@dataclass
class Answer:
    """What the API server said."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Chapter:
    """What came by since the chapter began, and the fault that is to strike in it."""

    plan: Plan | None = None
    writes: list[Write] = field(default_factory=list)
    events: int = 0
    reads: int = 0
    struck: str = ""  # what the fault hit
    silent: bool = False
    stale_until: float = 0.0


class FaultProxy:
    """One operator's way to the API server. `kill`: ends the operator and returns when it is gone; `usurp`: stops it,
    and returns when the write that it was at may go on."""

    def __init__(
        self, upstream: Upstream, kill: Callable[[], Awaitable[None]], usurp: Callable[[], Awaitable[None]]
    ) -> None:
        self._upstream = upstream
        self._kill = kill
        self._usurp = usurp
        self._session = upstream.new_session()
        self._answers: dict[str, Answer] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.chapter = Chapter()
        self.last_write = 0.0  # by the monotonic clock
        self.busy = 0  # writes that are under way
        self.watched: set[str] = set()  # collections that are being watched
        self._handling: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen on a free loopback port."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Close every connection."""
        for task in list(self._handling):
            task.cancel()
        await asyncio.gather(*self._handling, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        await self._session.close()

    def begin(self, plan: Plan | None) -> None:
        """A chapter begins; its fault, if it has one."""
        self.chapter = Chapter(plan)

    # -- requests ------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._handling.add(task)
        try:
            if request.query.get("watch") in ("true", "1"):
                return await self._watch(request)
            if "/leases" in request.path:
                return _response(await self._pass(request))
            return await (self._write(request) if request.method in WRITES else self._read(request))
        except (aiohttp.ClientError, ConnectionResetError):
            return self._hang_up(request)  # the API server is away, or the operator
        finally:
            self._handling.discard(task)

    async def _pass(self, request: web.Request) -> Answer:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        headers.pop("Authorization", None)
        async with self._session.request(
            request.method,
            self._upstream.server + request.raw_path,
            data=await request.read() or None,  # an empty body would get a content type
            headers=headers,
            allow_redirects=False,
        ) as response:
            body = await response.read()
            kept = {name: value for name, value in response.headers.items() if name.lower() not in HOP}
            return Answer(response.status, kept, body)

    def _hang_up(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)

    def _strikes(self, of: str, index: int) -> str | None:
        plan = self.chapter.plan
        return plan.kind.name if plan and plan.kind.of == of and plan.index == index else None

    async def _write(self, request: web.Request) -> web.StreamResponse:
        chapter = self.chapter
        self.last_write = time.monotonic()
        fault = self._strikes("write", len(chapter.writes))
        place = len(chapter.writes)
        chapter.writes.append(Write(request.method, request.raw_path, None))
        self.busy += 1
        try:
            if fault is not None:
                chapter.struck = f"{request.method} {request.path}"
            if fault == "kill-before":
                await request.read()
                await self._kill()
                return self._hang_up(request)
            if fault in REFUSALS:
                await request.read()
                return self._refusal(fault)
            if fault == "unanswered":
                await request.read()
                return await self._no_answer(request)
            if fault == "usurped":
                await request.read()
                await self._usurp()
            answer = await self._pass(request)
            chapter.writes[place] = Write(request.method, request.raw_path, answer.status)
            if fault == "kill-after":
                await self._kill()
                return self._hang_up(request)
            if fault == "answer-lost":
                return await self._no_answer(request)
            return _response(answer)
        finally:
            self.busy -= 1
            self.last_write = time.monotonic()

    async def _no_answer(self, request: web.Request) -> web.Response:
        """Until the operator gives up."""
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return web.Response(status=504)

    def _refusal(self, fault: str) -> web.Response:
        code, reason, message = REFUSALS[fault]
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        return web.json_response(status, status=code, headers={"Retry-After": "1"} if code == 429 else None)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        chapter = self.chapter
        fault = self._strikes("read", chapter.reads)
        chapter.reads += 1
        if fault is not None:
            chapter.struck = f"{request.method} {request.path}"
        if fault == "stale-second":
            chapter.stale_until = time.monotonic() + STALE_SECONDS
        if fault == "read-error":
            return self._refusal(fault)
        known = self._answers.get(request.raw_path)
        if known is not None and (fault == "stale" or time.monotonic() < chapter.stale_until):
            return _response(known)
        answer = await self._pass(request)
        if answer.status in (200, 404):
            self._answers[request.raw_path] = answer
        return _response(answer)

    # -- watches -------------------------------------------------------------------------------------------------

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        url = self._upstream.server + request.raw_path
        async with self._session.get(url, headers={"Accept": "application/json"}, read_bufsize=1 << 22) as upstream:
            if upstream.status != 200:
                return web.Response(status=upstream.status, body=await upstream.read(), content_type="application/json")
            response = web.StreamResponse(status=upstream.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            teller = _Teller(self, response)
            self.watched.add(request.path)
            try:
                async for line in upstream.content:
                    await teller.hear(line)
                await teller.end()
            finally:
                teller.close()
                self.watched.discard(request.path)
            return response


class _Teller:
    """Tells one watch's events, or not."""

    def __init__(self, proxy: FaultProxy, response: web.StreamResponse) -> None:
        self._proxy = proxy
        self._response = response
        self._held: bytes | None = None  # told after the next
        self._tasks: set[asyncio.Task[None]] = set()

    async def hear(self, line: bytes) -> None:
        """An event came."""
        chapter = self._proxy.chapter
        if chapter.silent:
            return
        if json.loads(line)["type"] in ("BOOKMARK", "ERROR"):
            await self._response.write(line)
            return
        fault = self._proxy._strikes("event", chapter.events)
        chapter.events += 1
        if fault is not None:
            chapter.struck = _named(line)
        if fault == "silence":
            chapter.silent = True
        elif fault == "reorder":
            self._held = line
        elif fault != "drop":
            if fault == "delay":
                await asyncio.sleep(LATE_SECONDS)
            await self._tell(line)
        if fault == "replay":
            task = asyncio.create_task(self._again(line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self, line: bytes) -> None:
        held, self._held = self._held, None
        await self._response.write(line)
        if held is not None:
            await self._response.write(held)

    async def _again(self, line: bytes) -> None:
        await asyncio.sleep(REPLAY_SECONDS)
        with suppress(ConnectionResetError):
            await self._response.write(line)

    async def end(self) -> None:
        """The watch ends: what was held back is told."""
        if self._held is not None:
            await self._response.write(self._held)

    def close(self) -> None:
        """Nothing more can be told."""
        for task in self._tasks:
            task.cancel()


def _named(line: bytes) -> str:
    event = json.loads(line)
    item = event["object"]
    return f"{event['type']} {item.get('kind')} {item['metadata'].get('name')}"


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

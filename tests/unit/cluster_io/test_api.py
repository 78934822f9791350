"""The client against a small HTTP server that says what an API server says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from truekeep.cluster import kinds
from truekeep.cluster.api import Api
from truekeep.cluster.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    NotLeader,
    Refused,
    Terminating,
    Unavailable,
)

Json = dict[str, Any]
MANIFEST: Json = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"namespace": "demo", "name": "m"},
    "spec": {"selector": {}},
}


@dataclass
class Server:
    """Answers what it is told, and keeps what it was asked."""

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    asked: list[tuple[str, str, dict[str, str], str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.asked.append(
            (request.method, request.path, dict(request.query), request.headers.get("Content-Type", ""), body)
        )
        assert self.answer is not None
        return await self.answer(request)

    def says(self, body: Any, status: int = 200) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status)

        self.answer = answer

    def fails(self, code: int, reason: str = "", message: str = "no", **details: Any) -> None:
        body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "details": details}
        self.says({**body, "code": code}, code)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (address,) = runner.addresses
    yield server, f"http://127.0.0.1:{address[1]}"
    await runner.cleanup()


@pytest.fixture
async def api(server: tuple[Server, str]) -> AsyncIterator[Api]:
    api = Api(client.ApiClient(client.Configuration(host=server[1])))
    yield api
    await api.close()


async def test_an_apply_names_its_manager_and_forces(api: Api, server: tuple[Server, str]) -> None:
    server[0].says(MANIFEST)
    assert await api.apply(kinds.SERVICE, MANIFEST) == MANIFEST
    ((method, path, query, content, body),) = server[0].asked
    assert (method, path) == ("PATCH", "/api/v1/namespaces/demo/services/m")
    assert query == {"fieldManager": "truekeep", "force": "true"}
    assert content == "application/apply-patch+yaml"
    assert '"selector"' in body


async def test_a_status_is_set_whole_and_only_in_the_version_that_was_read(
    api: Api, server: tuple[Server, str]
) -> None:
    server[0].says({})
    await api.set_status(kinds.MODEL, "demo", "m", "42", {"latestRevision": 1}, [])
    ((method, path, query, content, body),) = server[0].asked
    assert (method, path) == ("PATCH", "/apis/truekeep.dev/v1alpha1/namespaces/demo/models/m/status")
    assert (query["fieldManager"], content) == ("truekeep", "application/json-patch+json")
    assert [step["value"] for step in json.loads(body)] == ["42", [{}], {"latestRevision": 1}]


async def test_a_status_is_applied_at_its_own_path_with_the_version_that_was_read(
    api: Api, server: tuple[Server, str]
) -> None:
    server[0].says({})
    await api.apply_status(kinds.MODEL, "demo", "m", "42", {"latestRevision": 1})
    ((method, path, _, _, body),) = server[0].asked
    assert (method, path) == ("PATCH", "/apis/truekeep.dev/v1alpha1/namespaces/demo/models/m/status")
    assert '"resourceVersion": "42"' in body


async def test_an_answer_tells_its_date_and_a_failure_none(server: tuple[Server, str]) -> None:
    dates: list[str | None] = []
    api = Api(client.ApiClient(client.Configuration(host=server[1])), dated=dates.append)
    server[0].says(MANIFEST)
    await api.get(kinds.SERVICE, "demo", "m")
    await api.for_lease().get(kinds.SERVICE, "demo", "m")
    server[0].fails(500)
    with pytest.raises(Unavailable):
        await api.get(kinds.SERVICE, "demo", "m")
    await api.close()
    told = [parsedate_to_datetime(date or "") for date in dates]
    assert len(told) == 2
    assert all(abs(datetime.now(UTC) - moment) < timedelta(minutes=1) for moment in told)


async def test_a_list_goes_on_to_its_last_page(api: Api, server: tuple[Server, str]) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        page = request.query.get("continue", "first")
        more = {"first": "second", "second": ""}[page]
        return web.json_response({"metadata": {"continue": more}, "items": [{"metadata": {"name": page}}]})

    server[0].answer = answer
    found = await api.list(kinds.POD, None, {"b": "2", "a": "1"})
    assert [item["metadata"]["name"] for item in found] == ["first", "second"]
    assert found[0]["kind"] == "Pod"
    assert server[0].asked[0][1] == "/api/v1/pods"
    assert server[0].asked[0][2]["labelSelector"] == "a=1,b=2"


async def test_what_is_not_there_is_none(api: Api, server: tuple[Server, str]) -> None:
    server[0].fails(404, "NotFound")
    assert await api.get(kinds.JOB, "demo", "x") is None
    assert await api.delete(kinds.JOB, "demo", "x") is False


async def test_a_delete_is_of_one_object_and_in_the_background(api: Api, server: tuple[Server, str]) -> None:
    server[0].says({})
    assert await api.delete(kinds.JOB, "demo", "x", uid="u")
    body = server[0].asked[0][4]
    assert '"propagationPolicy": "Background"' in body
    assert '"uid": "u"' in body
    server[0].fails(409, "Conflict", "the UID in the precondition does not match")
    assert await api.delete(kinds.JOB, "demo", "x", uid="u") is False


@pytest.mark.parametrize(
    ("code", "reason", "details", "error"),
    [
        (409, "AlreadyExists", {}, AlreadyExists),
        (409, "Conflict", {}, Conflict),
        (403, "Forbidden", {}, Refused),
        (403, "Forbidden", {"causes": [{"reason": "NamespaceTerminating"}]}, Terminating),
        (422, "Invalid", {}, Refused),
        (400, "BadRequest", {}, Refused),
        (401, "Unauthorized", {}, Unavailable),
        (429, "TooManyRequests", {}, Unavailable),
        (500, "InternalError", {}, Unavailable),
        (503, "", {}, Unavailable),
    ],
)
async def test_an_error_says_what_was_asked_and_why_not(
    api: Api, server: tuple[Server, str], code: int, reason: str, details: Json, error: type[ClusterError]
) -> None:
    server[0].fails(code, reason, "because of this", **details)
    with pytest.raises(ClusterError, match="create Service demo/m: because of this") as raised:
        await api.create(kinds.SERVICE, MANIFEST)
    assert type(raised.value) is error


async def test_an_answer_that_is_no_status(api: Api, server: tuple[Server, str]) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="<html>bad gateway</html>")

    server[0].answer = answer
    with pytest.raises(Unavailable, match="Bad Gateway"):
        await api.get(kinds.MODEL, "demo", "m")


async def test_a_server_that_does_not_answer_is_not_waited_for(server: tuple[Server, str]) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    server[0].answer = answer
    api = Api(client.ApiClient(client.Configuration(host=server[1])), timeout_seconds=0.05)
    with pytest.raises(Unavailable, match="get Model demo/m: no answer from the API server"):
        await api.get(kinds.MODEL, "demo", "m")
    await api.close()


async def test_a_server_that_is_gone() -> None:
    api = Api(client.ApiClient(client.Configuration(host="http://127.0.0.1:1")))
    with pytest.raises(Unavailable, match="no answer"):
        await api.list(kinds.MODEL, None)
    await api.close()


async def test_who_may_not_write_asks_nothing(server: tuple[Server, str]) -> None:
    def refuse() -> None:
        raise NotLeader("no")

    wrote: list[tuple[str, str]] = []
    server[0].says({})
    fenced = Api(
        client.ApiClient(client.Configuration(host=server[1])), refuse, lambda verb, kind: wrote.append((verb, kind))
    )
    for call in (
        fenced.create(kinds.SERVICE, MANIFEST),
        fenced.apply(kinds.SERVICE, MANIFEST),
        fenced.replace(kinds.SERVICE, MANIFEST),
        fenced.apply_status(kinds.MODEL, "demo", "m", "1", {}),
        fenced.delete(kinds.SERVICE, "demo", "m"),
    ):
        with pytest.raises(NotLeader):
            await call
    assert server[0].asked == []
    await fenced.for_lease().replace(kinds.SERVICE, MANIFEST)  # a standby must be able to take the Lease
    assert wrote == [("replace", "Service")]
    await fenced.close()


async def test_every_call_is_counted_with_what_was_answered(server: tuple[Server, str]) -> None:
    calls: list[tuple[str, str, str]] = []
    api = Api(
        client.ApiClient(client.Configuration(host=server[1])),
        called=lambda verb, kind, code, seconds: calls.append((verb, kind, code)) if seconds >= 0 else None,
        timeout_seconds=0.5,
    )
    server[0].says({"items": []})
    await api.list(kinds.POD, "demo")
    server[0].says(MANIFEST, 201)
    await api.create(kinds.SERVICE, MANIFEST)
    server[0].fails(404)
    await api.get(kinds.MODEL, "demo", "m")
    server[0].fails(409)
    with pytest.raises(Conflict):
        await api.for_lease().replace(kinds.LEASE, MANIFEST)

    async def hangs(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    server[0].answer = hangs
    with pytest.raises(Unavailable):
        await api.get(kinds.JOB, "demo", "m")
    await api.close()
    assert calls == [
        ("list", "Pod", "200"),
        ("create", "Service", "201"),
        ("get", "Model", "404"),
        ("replace", "Lease", "409"),
        ("get", "Job", "none"),
    ]

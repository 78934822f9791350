"""The API server itself, past the proxy: what a person, the scripted kubelet and the tests' own eyes use."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

Json = dict[str, Any]
TRUEKEEP = "/apis/truekeep.dev/v1alpha1"
PATHS = {
    "models": TRUEKEEP,
    "trainingruns": TRUEKEEP,
    "driftpolicies": TRUEKEEP,
    "pods": "/api/v1",
    "services": "/api/v1",
    "jobs": "/apis/batch/v1",
    "cronjobs": "/apis/batch/v1",
    "deployments": "/apis/apps/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
}
RETRIES = 60  # half a second each: an API server may be restarting
BUSY = frozenset({429, 500, 503, 504})  # an API server that is not all there yet


class UpstreamError(Exception):
    """The API server refused what a test wanted; the text says what, and why."""


class Upstream:
    """Calls as the administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        (cluster,), (user,) = document["clusters"], document["users"]
        self.server: str = cluster["cluster"]["server"]
        self._tls = _tls(cluster["cluster"], user["user"])
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Upstream:
        self._session = self.new_session()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    def new_session(self) -> aiohttp.ClientSession:
        """Connections of one's own."""
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None, connect=10))

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections."""
        assert self._session is not None, "use it in an `async with` statement"
        return self._session

    async def ask(
        self, method: str, path: str, body: Json | None = None, content: str = "application/json"
    ) -> tuple[int, Json]:
        """Status and answer. What has no answer is tried again a few times: an API server may be restarting."""
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(RETRIES):
            try:
                async with self.session.request(
                    method,
                    self.server + path,
                    data=data,
                    headers={"Content-Type": content, "Accept": "application/json"},
                    timeout=aiohttp.ClientTimeout(total=15),
                ) as response:
                    text = await response.text()
                    if response.status in BUSY and attempt < RETRIES - 1:
                        await asyncio.sleep(0.5)
                        continue
                    return response.status, json.loads(text) if text.startswith("{") else {"message": text}
            except (aiohttp.ClientError, TimeoutError) as error:
                if attempt == RETRIES - 1:
                    raise UpstreamError(f"{method} {path}: {error or type(error).__name__}") from error
                await asyncio.sleep(0.5)
        raise AssertionError

    async def do(self, method: str, path: str, body: Json | None = None, content: str = "application/json") -> Json:
        """The answer. UpstreamError where it is a refusal."""
        status, answer = await self.ask(method, path, body, content)
        if status >= 400:
            raise UpstreamError(f"{method} {path}: {status} {answer.get('message')}")
        return answer

    async def apply(self, plural: str, namespace: str, document: Json) -> Json:
        """Server-side apply, as a person does it."""
        path = f"{place(plural, namespace)}/{document['metadata']['name']}?fieldManager=person&force=true"
        return await self.do("PATCH", path, document, "application/apply-patch+yaml")

    async def patch(self, plural: str, namespace: str, name: str, patch: Json, sub: str = "") -> Json:
        """A JSON merge patch; `sub` is "/status" for a status."""
        path = f"{place(plural, namespace)}/{name}{sub}"
        return await self.do("PATCH", path, patch, "application/merge-patch+json")


def place(plural: str, namespace: str = "") -> str:
    """The path of a collection."""
    return f"{PATHS[plural]}/namespaces/{namespace}/{plural}" if namespace else f"{PATHS[plural]}/{plural}"


def _tls(cluster: Mapping[str, str], user: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile("wb") as file:
        for part in ("client-certificate-data", "client-key-data"):
            file.write(base64.b64decode(user[part]) + b"\n")
        file.flush()
        context.load_cert_chain(file.name)
    return context


Listener = Callable[[str, str, Json], None]


class Mirror:
    """All objects of the kinds in PATHS, kept current by watches that no fault touches."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._objects: dict[tuple[str, str], dict[str, Json]] = defaultdict(dict)
        self._tasks: list[asyncio.Task[None]] = []
        self._changed: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.listeners: list[Listener] = []

    async def __aenter__(self) -> Mirror:
        synced = [asyncio.Event() for _ in PATHS]
        for plural, ready in zip(PATHS, synced, strict=True):
            self._tasks.append(asyncio.create_task(self._follow(plural, ready), name=f"mirror of {plural}"))
        await asyncio.wait_for(asyncio.gather(*(ready.wait() for ready in synced)), 30)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def all(self, plural: str, namespace: str) -> list[Json]:
        """Those of a namespace, by name."""
        return [item for _, item in sorted(self._objects[plural, namespace].items())]

    def get(self, plural: str, namespace: str, name: str) -> Json | None:
        """One of them."""
        return self._objects[plural, namespace].get(name)

    async def changed(self, namespace: str, seconds: float) -> None:
        """Return when something in the namespace changed, after so many seconds at the latest."""
        event = self._changed[namespace]
        event.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    async def _follow(self, plural: str, ready: asyncio.Event) -> None:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, UpstreamError):
                listed = await self._upstream.do("GET", place(plural))
                there = set()
                for item in listed["items"]:
                    there.add((item["metadata"]["namespace"], item["metadata"]["name"]))
                    self._take(plural, "ADDED", item)
                for (kind, namespace), items in list(self._objects.items()):
                    for name in [name for name in items if kind == plural and (namespace, name) not in there]:
                        self._take(plural, "DELETED", items[name])
                ready.set()
                await self._watch(plural, listed["metadata"]["resourceVersion"])
            await asyncio.sleep(0.2)

    async def _watch(self, plural: str, version: str) -> None:
        url = f"{self._upstream.server}{place(plural)}?watch=true&resourceVersion={version}"
        async with self._upstream.session.get(url, read_bufsize=1 << 22) as response:
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                self._take(plural, event["type"], event["object"])

    def _take(self, plural: str, what: str, item: Json) -> None:
        namespace, name = item["metadata"].get("namespace", ""), item["metadata"]["name"]
        if what == "DELETED":
            self._objects[plural, namespace].pop(name, None)
        else:
            self._objects[plural, namespace][name] = item
        for listener in self.listeners:
            listener(plural, what, item)
        self._changed[namespace].set()

"""Calls to the API server: typed, thin, each with a timeout. Objects are plain JSON."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import orjson
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic import Resource as DynamicResource

from truekeep.api.names import FIELD_MANAGER
from truekeep.cluster.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    NotFound,
    Refused,
    Terminating,
    Unavailable,
)
from truekeep.cluster.kinds import ALL, Kind

Json = dict[str, Any]
Call = Callable[..., Awaitable[Any]]
Labels = Mapping[str, str | Sequence[str]]
TIMEOUT_SECONDS = 10.0
LEASE_TIMEOUT_SECONDS = 3.0
CONNECTIONS = 32
PAGE = 500


async def connect() -> client.ApiClient:
    """A client with the pod's service account, or, outside of a cluster, with the kubeconfig's current context."""
    configuration = client.Configuration(connection_pool_maxsize=CONNECTIONS)
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    found = client.ApiClient(configuration)
    # The API server would compress what is large, which costs it and us more than the bytes do.
    found.set_default_header("Accept-Encoding", "identity")  # type: ignore[no-untyped-call]
    return found


class Api:
    """The API server.

    `may_write` is asked before every write and raises NotLeader where nothing may be written; `wrote` hears of every
    write that was done: verb and kind; `called` of every call: verb, kind, HTTP status (none where no answer came), and
    seconds; `dated` of the time that an answer names."""

    def __init__(
        self,
        api_client: client.ApiClient,
        may_write: Callable[[], None] = lambda: None,
        wrote: Callable[[str, str], None] = lambda verb, kind: None,
        called: Callable[[str, str, str, float], None] = lambda verb, kind, code, seconds: None,
        dated: Callable[[str | None], None] = lambda date: None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        dynamic = DynamicClient(api_client)  # type: ignore[no-untyped-call]
        self._resources = {kind: _resource(kind, dynamic) for kind in ALL}
        self._client = api_client
        self._may_write = may_write
        self._wrote = wrote
        self._called = called
        self._dated = dated
        self._timeout = timeout_seconds

    def for_lease(self) -> Api:
        """The same API server, for what a standby must write, too, and soon: the Lease."""
        return Api(self._client, wrote=self._wrote, called=self._called, dated=self._dated,
                   timeout_seconds=LEASE_TIMEOUT_SECONDS)  # fmt: skip

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """One object as it is now, or None. `namespace` is empty for what is in none."""
        call = self._resources[kind].get
        with suppress(NotFound):
            what = f"{kind.kind} {namespace}/{name}"
            return await self._call("get", kind, what, call, namespace=namespace or None, name=name)
        return None

    async def list(
        self, kind: Kind, namespace: str | None, labels: Labels | None = None, fields: str | None = None
    ) -> list[Json]:
        """All objects as they are now (never from a cache), in one namespace or, for None, in all. A label may have
        one of several values."""
        return [item async for item in self.each(kind, namespace, labels, fields)]

    async def each(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Labels | None = None,
        fields: str | None = None,
        page: int = PAGE,
    ) -> AsyncIterator[Json]:
        """The same one by one, for those that are many: no more than a page of them is held."""
        selector = ",".join(_term(key, value) for key, value in sorted((labels or {}).items())) or None
        more: str | None = None
        while True:
            answer = await self._call(
                "list",
                kind,
                f"{kind.plural} in {namespace or 'all namespaces'}",
                self._resources[kind].get,
                namespace=namespace,
                label_selector=selector,
                field_selector=fields,
                limit=page,
                _continue=more,
            )
            for item in answer.get("items") or []:
                yield {"apiVersion": kind.api_version, "kind": kind.kind, **item}
            more = (answer.get("metadata") or {}).get("continue")
            if not more:
                return

    async def create(self, kind: Kind, manifest: Json) -> Json:
        """Create an object. AlreadyExists where there is one of this name."""
        call = self._resources[kind].create
        return await self._write("create", kind, manifest, call, body=manifest, field_manager=FIELD_MANAGER)

    async def apply(self, kind: Kind, manifest: Json, manager: str = FIELD_MANAGER) -> Json:
        """Server-side apply: what the manifest says holds afterwards, and what others say of the rest stays."""
        call = self._resources[kind].server_side_apply
        what = {"body": manifest, "field_manager": manager, "force_conflicts": True}
        return await self._write("apply", kind, manifest, call, **what)

    async def apply_status(self, kind: Kind, namespace: str, name: str, resource_version: str, status: Json) -> Json:
        """Server-side apply of a whole status. Conflict where the object is no longer as it was read."""
        metadata = {"namespace": namespace, "name": name, "resourceVersion": resource_version}
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "status": status}
        call = self._resources[kind].subresources["status"].server_side_apply
        what = {"body": body, "field_manager": FIELD_MANAGER, "force_conflicts": True}
        return await self._write("status", kind, body, call, **what)

    async def set_status(
        self, kind: Kind, namespace: str, name: str, resource_version: str, status: Json, owners: Sequence[Json]
    ) -> Json:
        """A whole status in place of what is there, whoever owned parts of it. `owners`: the managedFields that stay.
        Conflict where the object is no longer as it was read."""
        steps = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version},
            {
                "op": "replace",
                "path": "/metadata/managedFields",
                "value": [*owners] or [{}],
            },  # an empty list says nothing
            {"op": "add", "path": "/status", "value": status},
        ]
        what = {"name": name, "body": steps, "content_type": "application/json-patch+json"}
        call = self._resources[kind].subresources["status"].patch
        manifest = {"metadata": {"namespace": namespace, "name": name}}
        return await self._write("status", kind, manifest, call, field_manager=FIELD_MANAGER, **what)

    async def replace(self, kind: Kind, manifest: Json) -> Json:
        """Put an object in place of the one that was read. Conflict where it changed meanwhile."""
        return await self._write("replace", kind, manifest, self._resources[kind].replace, body=manifest)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> bool:
        """Delete an object, what it owns in the background. False where there was none (or not with this uid)."""
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        manifest = {"metadata": {"namespace": namespace, "name": name}}
        try:
            await self._write("delete", kind, manifest, self._resources[kind].delete, name=name, body=body)
        except (NotFound, Conflict):
            return False
        return True

    async def _write(self, verb: str, kind: Kind, manifest: Json, call: Call, **keywords: Any) -> Json:
        self._may_write()
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        answer = await self._call(verb, kind, f"{kind.kind} {namespace}/{name}", call, namespace=namespace, **keywords)
        self._wrote(verb, kind.kind)
        return answer

    async def _call(self, verb: str, kind: Kind, item: str, call: Call, **keywords: Any) -> Json:
        what = f"{verb} {item}"
        code, started = "none", time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                response = await call(serialize=False, **keywords)
                answer: Json = orjson.loads(await response.read())
                code = str(response.status)
                self._dated(response.headers.get("Date"))
        except ApiException as error:
            code = str(error.status)
            raise _translated(what, error) from error
        except (TimeoutError, aiohttp.ClientError, OSError, orjson.JSONDecodeError) as error:
            raise Unavailable(f"{what}: no answer from the API server: {error or type(error).__name__}") from error
        finally:
            self._called(verb, kind.kind, code, time.monotonic() - started)
        return answer


def _term(key: str, value: str | Sequence[str]) -> str:
    return f"{key}={value}" if isinstance(value, str) else f"{key} in ({','.join(value)})"


def _resource(kind: Kind, dynamic: DynamicClient) -> DynamicResource:
    described: Json = {
        "prefix": "apis" if kind.group else "api",
        "group": kind.group or None,
        "api_version": kind.version,
        "kind": kind.kind,
        "namespaced": kind.namespaced,
    }
    status = {"name": f"{kind.plural}/status", **described}
    return DynamicResource(  # type: ignore[no-untyped-call]
        name=kind.plural, client=dynamic, subresources={"status": status}, **described
    )


def _translated(what: str, error: ApiException) -> ClusterError:
    body = error.body.decode() if isinstance(error.body, bytes) else str(error.body or "")
    status = _status(body)
    message = str(status.get("message") or "")
    text = f"{what}: {message or error.reason}"
    match error.status:
        case 404:
            return NotFound(text)
        case 409:
            return AlreadyExists(text) if status.get("reason") == "AlreadyExists" else Conflict(text)
        case 403 if _terminating(status):
            return Terminating(text)
        case 400 | 403 | 405 | 413 | 422:
            return Refused(text)
        case _:
            return Unavailable(f"{text} (HTTP {error.status})")


def _status(body: str) -> Json:
    """The `Status` that an error answer is, empty where it is none."""
    with suppress(ValueError):
        status = json.loads(body)
        if isinstance(status, dict):
            return status
    return {}


def _terminating(status: Json) -> bool:
    causes = (status.get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)

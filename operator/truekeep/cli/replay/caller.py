"""The served model as a client sees it: a few keep-alive connections, each with one request at a time."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx


@dataclass(frozen=True)
class Answer:
    """What came back: the revision that answered, or why none did."""

    version: str | None
    why: str
    seconds: float


class Caller:
    """Connections that are used in turn, as those of many clients would be: a Service spreads connections over pods,
    not requests, so that with a single one a canary would see all of the traffic or none of it."""

    def __init__(
        self,
        url: str,
        model: str,
        connections: int,
        timeout_seconds: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._path = f"{url.rstrip('/')}/v2/models/{model}"
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=3)
        self._clients = [
            httpx.AsyncClient(timeout=timeout_seconds, limits=limits, transport=transport) for _ in range(connections)
        ]
        self._turns = itertools.cycle(zip(self._clients, [asyncio.Lock() for _ in self._clients], strict=True))

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            await client.aclose()

    async def metadata(self, patience_seconds: float) -> Mapping[str, Any]:
        """The model's metadata; asked again until it answers, for so long. ConnectionError where it never does."""
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                response = await self._clients[0].get(self._path)
                response.raise_for_status()
                metadata: dict[str, Any] = response.json()
                return metadata
            except (httpx.HTTPError, json.JSONDecodeError) as error:
                if time.monotonic() > deadline:
                    remedy = "is the Model Serving (kubectl get models.truekeep.dev), and is the URL right?"
                    raise ConnectionError(f"{self._path} does not answer: {error!r}; {remedy}") from error
            await asyncio.sleep(1)

    async def infer(self, body: bytes) -> Answer:
        """One request, never tried again."""
        client, lock = next(self._turns)
        async with lock:
            started = time.perf_counter()
            try:
                response = await client.post(
                    f"{self._path}/infer", content=body, headers={"Content-Type": "application/json"}
                )
                version, why = _judge(response)
            except httpx.HTTPError as error:
                version, why = None, f"{type(error).__name__}: {error}"
            return Answer(version, why, time.perf_counter() - started)


def _judge(response: httpx.Response) -> tuple[str | None, str]:
    """The revision that answered, or why this is no answer."""
    if response.status_code != httpx.codes.OK:
        return None, f"HTTP {response.status_code}: {response.text[:200]}"
    try:
        answer = response.json()
    except json.JSONDecodeError:
        return None, f"no JSON: {response.text[:200]}"
    if not isinstance(answer, dict) or not answer.get("outputs") or not answer.get("model_version"):
        return None, f"no outputs, or no model_version: {response.text[:200]}"
    return str(answer["model_version"]), ""

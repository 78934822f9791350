"""A team's own server as tests want it: it answers with a pipeline, or however it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from truekeep.contract.artifact import SignatureFeature
from truekeep.features.encode import Encoder

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Json:
        found: Json = orjson.loads(self.body)
        return found


Reply: TypeAlias = bytes | None  # what is sent, as it stands; None: nothing, ever
Behave: TypeAlias = Callable[[Asked], Reply]


def http(status: int, content: bytes | Json, *lines: str) -> bytes:
    """A whole answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = [f"HTTP/1.1 {status} It", f"content-length: {len(body)}", "content-type: application/json", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def predicted(values: list[Any], **changes: Any) -> Json:
    """An infer response."""
    output = {"name": "probability", "datatype": "FP64", "shape": [len(values)], "data": values, **changes}
    return {"model_name": "m", "id": "1", "outputs": [{"name": "other", "data": []}, output]}


class Model:
    """Answers as the pipeline does."""

    def __init__(self, pipeline: Any, features: list[SignatureFeature]) -> None:
        self._pipeline = pipeline
        self._encoder = Encoder(features)

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/v2/health/ready":
            return http(200, {"ready": True})
        columns = {tensor["name"]: tensor["data"] for tensor in asked.document["inputs"]}
        matrix = self._encoder.encode(columns, asked.document["inputs"][0]["shape"][0])
        return http(200, predicted(self._pipeline.predict_proba(matrix)[:, 1].tolist()))


class Backend:
    """Listens on the loopback, in a thread of its own."""

    def __init__(self, behave: Behave, port: int = 0) -> None:
        self.behave = behave
        self.asked: list[Asked] = []
        self.opened = 0
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._socket = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port: int = self._socket.getsockname()[1]
        self._server = self._loop.run_until_complete(asyncio.start_server(self._talk, sock=self._socket))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def questions(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "POST"]

    def hang_up(self) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._hang_up)

    def _hang_up(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def die(self) -> None:
        """Listen no more, and end all connections."""

        async def stop() -> None:
            self._server.close()
            self._hang_up()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(5)

    def close(self) -> None:
        self.die()

        async def stop() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.05)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split()
                asked = Asked(method, path, headers, body)
                self.asked.append(asked)
                reply = await self._loop.run_in_executor(None, self.behave, asked)
                if reply is None:
                    await asyncio.sleep(3600)
                    return
                writer.write(reply)
                await writer.drain()
                if b"connection: close" in reply[:1000]:
                    return
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

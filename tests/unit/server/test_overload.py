"""Too much at once: 429 with Retry-After, while health goes on; driven on the application itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from tests.unit.server.conftest import MODEL, body, fit, signature_of
from truekeep.api.common import S3Location
from truekeep.contract.requests import ServeRequest
from truekeep.features.encode import Encoder
from truekeep.server.app import Application
from truekeep.server.limits import Limits
from truekeep.server.load import LoadedModel
from truekeep.server.metrics import Metrics
from truekeep.server.scoring import Cost

REQUEST = ServeRequest(
    namespace="demo", model=MODEL, revision=3, run="r", artifact_digest="sha256:" + "0" * 64,
    store=S3Location(uri="s3://models/"), time_column="scheduled_at", key="flight_id",
)  # fmt: skip
INFER = f"/v2/models/{MODEL}/infer"
CONTENT = orjson.dumps(body())
SLOW = Cost(call=1.0, row=0.001)  # so that it goes to the thread


class Caller:
    """One request, driven as uvicorn would."""

    def __init__(self, *parts: bytes, method: str = "POST", path: str = INFER, length: int | None = None) -> None:
        self.parts = list(parts)
        self.more: asyncio.Queue[bytes | None] = asyncio.Queue()
        size = sum(map(len, parts)) if length is None else length
        self.scope = {
            "type": "http", "method": method, "path": path, "query_string": b"",
            "headers": [(b"content-length", b"%d" % size)],
        }  # fmt: skip
        self.hold = length is not None
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        if self.parts:
            part = self.parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self.parts) or self.hold}
        if (late := await self.more.get()) is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": late, "more_body": False}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def ask(self, application: Application) -> Caller:
        await application(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def document(self) -> Any:
        return orjson.loads(self.sent[1]["body"])


def application(predict: Callable[[Any], Any], cost: Cost, **limits: Any) -> Application:
    signature = signature_of(fit())
    served = Application(REQUEST, Limits(**limits), Metrics())
    served.serve(
        LoadedModel(
            signature=signature,
            encoder=Encoder(signature.features),
            predict=predict,
            cost=cost,
            self_test_difference=0.0,
            format="skops",
        ),
        None,
    )
    return served


class Gate:
    """A model that answers when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, matrix: Any) -> Any:
        assert self.open.wait(20)
        return np.full(len(matrix), 0.5)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("limits", [{"in_flight": 3}, {"queue_seconds": 2.5}])
async def test_more_than_allowed_at_once_is_told_to_come_back(limits: dict[str, Any]) -> None:
    gate = Gate()
    served = application(gate, SLOW, **{"queue_seconds": 100, **limits})
    first = [asyncio.create_task(Caller(CONTENT).ask(served)) for _ in range(3)]
    await settle()
    assert served.inference.in_flight == 3
    turned_away = await Caller(CONTENT).ask(served)
    assert (turned_away.status, turned_away.headers[b"retry-after"]) == (429, b"1")
    assert turned_away.document == {"error": "the server is busy with 3 requests; try again"}
    health = await Caller(b"", method="GET", path="/v2/health/live").ask(served)
    assert (health.status, health.document) == (200, {"live": True, "ready": True})
    gate.open.set()
    assert [(await task).status for task in first] == [200] * 3
    assert served.inference.in_flight == 0
    assert (await Caller(CONTENT).ask(served)).status == 200
    sample = served._metrics.registry.get_sample_value
    assert sample("truekeep_server_requests_total", {"outcome": "rejected"}) == 1
    assert sample("truekeep_server_requests_total", {"outcome": "ok"}) == 4


async def test_large_bodies_share_a_budget() -> None:
    served = application(lambda matrix: np.full(len(matrix), 0.5), Cost(1e-4, 1e-6), held_bytes=5000, body_bytes=4000)
    slow = Caller(CONTENT[:100], length=4000)
    reading = asyncio.create_task(slow.ask(served))
    await settle()
    refused = Caller(CONTENT[:100], length=2000)
    waiting = asyncio.create_task(refused.ask(served))
    await settle()
    assert (refused.status, refused.headers[b"retry-after"]) == (429, b"1")
    assert (await Caller(CONTENT).ask(served)).status == 200  # what came in one piece needs no budget
    refused.more.put_nowait(None)
    slow.more.put_nowait(CONTENT[100:])
    await asyncio.gather(reading, waiting)
    assert slow.status == 200
    assert served.held.taken == 0


async def test_a_model_that_fails_is_a_500_without_a_traceback() -> None:
    def broken(matrix: Any) -> Any:
        raise RuntimeError("secret detail")

    served = application(broken, Cost(1e-4, 1e-6))
    answer = await Caller(CONTENT).ask(served)
    assert answer.status == 500
    assert answer.document == {"error": "the model failed to score this request; the server's log says why"}
    sample = served._metrics.registry.get_sample_value
    assert sample("truekeep_server_requests_total", {"outcome": "server_error"}) == 1


async def test_a_capture_that_fails_is_a_500_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    served = application(lambda matrix: np.full(len(matrix), 0.5), Cost(1e-4, 1e-6))
    served.inference.capture = object()  # type: ignore[assignment]
    answer = await Caller(CONTENT).ask(served)
    assert (answer.status, answer.document) == (500, {"error": "the server failed; its log says why"})
    assert "an infer request failed" in caplog.text


async def test_a_client_that_is_gone_is_not_answered() -> None:
    served = application(lambda matrix: np.full(len(matrix), 0.5), Cost(1e-4, 1e-6))
    for parts in ([], [CONTENT[:10]]):
        gone = Caller(*parts, length=100)
        gone.more.put_nowait(None)
        await gone.ask(served)
        assert gone.sent == []

"""The ASGI application: routes of the Open Inference Protocol V2, and /metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import orjson

from truekeep import __version__
from truekeep.contract.requests import BACKEND_LIVE_PATH, REHEARSAL_HEADER, ServeRequest
from truekeep.server import metrics as names
from truekeep.server import openapi
from truekeep.server.capture import Capture
from truekeep.server.inference import AGAIN, Inference, Predicted, in_public, outcome_of
from truekeep.server.limits import Budget, Limits
from truekeep.server.load import LoadedModel, ServedModel
from truekeep.server.logs import log
from truekeep.server.metrics import Metrics, Outcome
from truekeep.server.protocol import (
    EXTENSIONS,
    JSON,
    OUTPUTS,
    Headers,
    RequestError,
    Responses,
    error_body,
    parse,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Respond = Callable[[int, Headers, bytes], None]

PLATFORMS = {"onnx": "onnx_onnxruntime", "skops": "sklearn_skops", "image": "image"}
_REHEARSAL = REHEARSAL_HEADER.encode()
_JSON = (b"content-type", b"application/json")
_DISCARDED_BODIES = 4  # an oversized body is read on for so many times its limit, so that its client reads the answer


class Asked(NamedTuple):
    """What the header of an infer request says besides its path."""

    length: int  # of the body; -1: not said
    header_length: int | None  # of the JSON before binary data
    rehearsal: bool


class ClientGoneError(Exception):
    """The connection was lost before the request was whole."""


class Application:
    """One revision's answers. Health and metrics answer from the start, predictions once there is a model."""

    def __init__(self, request: ServeRequest, limits: Limits, metrics: Metrics) -> None:
        self._name = request.model
        self.version = str(request.revision)
        self._request = request
        self._limits = limits
        self._metrics = metrics
        self._responses = Responses(self._name, self.version)
        self.inference = Inference(request, limits, metrics)
        self.held = Budget(limits.held_bytes)
        self.draining = False
        model = f"/v2/models/{self._name}"
        self._infer_paths = frozenset((f"{model}/infer", f"{model}/versions/{self.version}/infer"))
        self._infer_urls = frozenset(path.encode() for path in self._infer_paths)

    @property
    def ready(self) -> bool:
        """Whether new traffic should come here."""
        return self.inference.ready and not self.draining

    def serve(self, model: LoadedModel, capture: Capture | None) -> None:
        """Begin to answer with this model, and to capture where it is wanted."""
        self.inference.serve(model, capture)

    def buffered_rows(self) -> int:
        """Rows that wait to be captured."""
        return self.inference.capture.buffered_rows() if self.inference.capture else 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application knows nothing of {scope['type']}")
        if scope["path"] in self._infer_paths and scope["method"] == "POST":
            await self._infer(scope, receive, send)
            return
        try:
            status, headers, body = 200, *self._read_only(scope["path"], scope["method"], scope["query_string"])
        except RequestError as error:
            if scope["path"].endswith("/infer"):
                self._metrics.requests["client_error"].inc()
            status, headers, body = error.status, _error_headers(error.headers), error_body(str(error))
        except _NotReady as answer:
            status, headers, body = 503, JSON, answer.body
        await _answer(send, status, headers, body)

    def asks_to_infer(self, url: bytes) -> bool:
        """Whether a POST of this is a prediction that can be answered without ASGI."""
        return url in self._infer_urls and self.inference.model is not None

    def answer(self, body: bytes, asked: Asked, start: float, respond: Respond) -> None:
        """Answer a prediction, now or soon: `respond` is called once with status, headers and body. Never raises."""

        def reply(answer: Predicted | Exception) -> None:
            if isinstance(answer, Predicted):
                self.count("ok", asked.rehearsal, start)
                respond(200, *self._said(answer))
                return
            told = in_public(answer)
            self.count(outcome_of(told), asked.rehearsal, start)
            respond(told.status, _error_headers(told.headers), error_body(str(told)))

        def read(inputs: tuple[str, ...]) -> Any:
            return parse(body, self._limits, inputs, asked.header_length, self.inference.reader)

        try:
            self.inference.begin(read, len(body), reply, captured=not asked.rehearsal)
        except RequestError as error:
            self.refuse(error, asked.rehearsal, start, respond)
        except Exception as error:
            log.exception("an infer request failed")
            reply(error)

    def refuse(self, error: RequestError, rehearsal: bool, start: float, respond: Respond) -> None:
        """Answer that it is not answered."""
        self.count("rejected" if error.status in (429, 503) else "client_error", rehearsal, start)
        respond(error.status, _error_headers(error.headers), error_body(str(error)))

    def lost(self) -> None:
        """A client went away before its request was whole."""
        self._metrics.requests["client_error"].inc()

    def count(self, outcome: Outcome, rehearsal: bool, start: float) -> None:
        """A request that began at `start` (perf_counter) came to its end."""
        if rehearsal:
            self._metrics.requests["rehearsal"].inc()
            return
        self._metrics.requests[outcome].inc()
        if outcome == "ok":
            self._metrics.seconds.observe(time.perf_counter() - start)

    def _said(self, answer: Predicted) -> tuple[Headers, bytes]:
        outputs, probability, prediction = answer.outputs, answer.probability, answer.prediction
        if len(probability) == 1 and len(outputs) == len(OUTPUTS) and not any(outputs.values()):
            return JSON, self._responses.one(answer.identifier, probability.item(), prediction.item())
        return self._responses.body(answer.identifier, outputs, probability, prediction)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The long way to `answer`: bodies that are large, chunked or wrong, and requests that are no good."""
        start = time.perf_counter()
        answered: asyncio.Future[tuple[int, Headers, bytes]] = asyncio.get_running_loop().create_future()

        def respond(status: int, headers: Headers, body: bytes) -> None:
            if not answered.done():
                answered.set_result((status, headers, body))

        unread, held = True, 0
        rehearsal = any(name == _REHEARSAL for name, _ in scope["headers"])
        try:
            self.inference.loaded()
            asked = read_headers(scope["headers"])
            body, held = await self._body(asked.length, receive)
            unread = False
            self.answer(body, asked, start, respond)
            del body
        except RequestError as error:
            self.refuse(error, rehearsal, start, respond)
        except ClientGoneError:
            self.lost()
            return
        try:
            status, headers, content = await answered
        finally:
            self.held.give_back(held)
        if unread:
            await self._answer_early(receive, send, status, headers, content)
        else:
            await _answer(send, status, headers, content)

    async def _body(self, expected: int, receive: Receive) -> tuple[bytes, int]:
        """The whole body, and what it took of the budget. RequestError (413, 429) where it is too much."""
        limit = self._limits.body_bytes
        if expected > limit:
            raise RequestError(413, f"the body has {expected} bytes; at most {limit} are accepted: split the request")
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if message.get("more_body", False):
            return await self._long_body(message["body"], expected, receive)
        whole: bytes = message["body"]
        if len(whole) > limit:
            raise RequestError(413, f"the body has more than {limit} bytes; split the request")
        return whole, 0

    async def _long_body(self, first: bytes, expected: int, receive: Receive) -> tuple[bytes, int]:
        """A body in several parts. What it takes of the budget is given back by the caller, or here where it fails."""
        limit = self._limits.body_bytes
        held, size, more, parts = 0, len(first), True, [first]
        try:
            while True:
                if size > limit:
                    raise RequestError(413, f"the body has more than {limit} bytes; split the request")
                wanted = max(expected, size) - held
                if wanted > 0:
                    if not self.held.take(wanted):
                        raise RequestError(429, "too many large bodies at once; try again, or send less", AGAIN)
                    held += wanted
                if not more:
                    return b"".join(parts), held
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                parts.append(message["body"])
                size += len(message["body"])
                more = message.get("more_body", False)
        except BaseException:
            self.held.give_back(held)
            raise

    def _read_only(self, path: str, method: str, query: bytes) -> tuple[Headers, bytes]:
        """Headers and body of everything but infer. RequestError (400, 404, 405) or _NotReady."""
        parts = path.strip("/").split("/")
        if path == "/metrics":
            _only(method, "GET", "HEAD")
            return [(b"content-type", names.CONTENT_TYPE.encode())], self._metrics_page(query)
        if path == BACKEND_LIVE_PATH:
            _only(method, "GET", "HEAD")
            if not self.inference.live:
                raise _NotReady({"live": False})
            return JSON, orjson.dumps({"live": True})
        if path in ("/openapi.json", "/docs"):
            _only(method, "GET", "HEAD")
            described = openapi.document(self._name, self.version, self.inference.model, self._optional())
            if path == "/docs":
                return [(b"content-type", b"text/html; charset=utf-8"), openapi.POLICY], openapi.page(described)
            return JSON, orjson.dumps(described)
        if parts[0] != "v2":
            raise RequestError(404, f"there is no {path[:100]}; the protocol's paths begin with /v2")
        document: Any
        if parts == ["v2"]:
            document = {"name": "truekeep", "version": __version__, "extensions": list(EXTENSIONS)}
        elif parts[1:] in (["health", "live"], ["health", "ready"]):
            document = {"live": True, "ready": self.ready}
            if parts[2] == "ready" and not self.ready:
                raise _NotReady(document)
        elif len(parts) >= 3 and parts[1] == "models":
            document = self._model_document(parts[2:], method)
        else:
            raise RequestError(404, f"there is no {path[:100]}; see /v2, /v2/health/ready and /v2/models/{self._name}")
        _only(method, "GET", "HEAD")
        return JSON, orjson.dumps(document)

    def _metrics_page(self, query: bytes) -> bytes:
        """All metrics since the start, or with ?seconds=N what was counted lately."""
        seconds = parse_qs(query.decode("latin-1")).get("seconds")
        if seconds is None:
            return self._metrics.page()
        if not (seconds[0].isascii() and seconds[0].isdecimal() and len(seconds[0]) <= 6):
            raise RequestError(400, f"seconds is {seconds[0][:40]}; it must be a whole number of seconds")
        return self._metrics.recent_page(float(seconds[0]))

    def _model_document(self, parts: list[str], method: str) -> Mapping[str, object]:
        """What there is to read about a model: parts are its name and what follows in the path."""
        name, rest = parts[0], list(parts[1:])
        versioned = rest[:1] == ["versions"] and len(rest) >= 2
        self.check_model(name, rest[1] if versioned else self.version)
        if versioned:
            rest = rest[2:]
        if rest == ["infer"]:
            _only(method, "POST")
        if rest == ["ready"]:
            document = {"name": name, "version": self.version, "ready": self.ready}
            if not self.ready:
                raise _NotReady(document)
            return document
        if rest:
            raise RequestError(404, f"a model has no {'/'.join(rest)[:100]}; it has ready and infer")
        return self.metadata(self.inference.loaded())

    def check_model(self, name: str, version: str) -> None:
        """RequestError (404) where another model or version is meant. No version means whichever there is."""
        if name != self._name:
            raise RequestError(404, f"model {name[:100]} is unknown; this server has {self._name}")
        if version and version != self.version:
            raise RequestError(404, f"version {version[:40]} of {name} is unknown; this server has {self.version}")

    def _optional(self) -> list[str]:
        """Inputs that are captured when a request carries them, and never fed to the model."""
        return [self._request.time_column, self._request.key]

    def metadata(self, model: ServedModel) -> Mapping[str, Any]:
        """The model's, as the protocol has it."""
        signature = model.signature
        return {
            "name": self._name,
            "versions": [self.version],
            "platform": PLATFORMS[model.format],
            "inputs": [
                {"name": feature.name, "datatype": "FP64" if feature.type == "Number" else "BYTES", "shape": [-1]}
                for feature in signature.features
            ],
            "outputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in OUTPUTS.items()],
            "parameters": {
                "artifact": self._request.artifact_digest,
                "cut_off": signature.cut_off,
                "estimator": signature.estimator,
                "optional_inputs": self._optional(),
            },
        }

    async def _answer_early(self, receive: Receive, send: Send, status: int, headers: Headers, body: bytes) -> None:
        """An answer before the body was read, and the end of the connection. What still comes is read on for a while:
        a socket that is closed with bytes unread takes the answer with it."""
        headers = [*headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        discarded = 0
        while discarded < _DISCARDED_BODIES * self._limits.body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            discarded += len(message["body"])
            if not message.get("more_body", False):
                break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _NotReady(Exception):  # noqa: N818 - an answer, not an error
    def __init__(self, document: Mapping[str, object]) -> None:
        super().__init__()
        self.body = orjson.dumps(document)


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RequestError(405, f"{method[:20]} is not allowed here; use {allowed[0]}", {"allow": ", ".join(allowed)})


def _error_headers(headers: Mapping[str, str]) -> Headers:
    return [*JSON, *((name.encode(), value.encode()) for name, value in headers.items())]


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> Asked:
    """RequestError (400, 415) for a body that is not understood."""
    length, header_length, rehearsal = -1, None, False
    for name, value in headers:
        if name == b"content-length":
            length = int(value)  # the HTTP parser let only digits pass
        elif name == b"content-encoding" and value.lower() != b"identity":
            coding = value[:40].decode("latin-1")
            raise RequestError(415, f"content-encoding {coding} is not supported; send plain JSON or binary tensors")
        elif name == b"inference-header-content-length":
            if not value.isdigit() or len(value) > 12:
                raise RequestError(400, "Inference-Header-Content-Length must be a number of bytes")
            header_length = int(value)
        elif name == _REHEARSAL:
            rehearsal = True
    return Asked(length, header_length, rehearsal)


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

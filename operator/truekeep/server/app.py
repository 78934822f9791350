"""The ASGI application: routes of the Open Inference Protocol V2, and /metrics."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import orjson

from truekeep import __version__
from truekeep.contract.requests import REHEARSAL_HEADER, ServeRequest
from truekeep.features.encode import FeatureError
from truekeep.server import identity
from truekeep.server import metrics as names
from truekeep.server.capture import Capture, Served
from truekeep.server.limits import Budget, Limits
from truekeep.server.load import LoadedModel
from truekeep.server.logs import fields, log
from truekeep.server.metrics import Metrics, Outcome
from truekeep.server.protocol import OUTPUTS, InferRequest, RequestError, error_body, parse, response
from truekeep.server.scoring import Scorer, ScoringError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_REHEARSAL = REHEARSAL_HEADER.encode()
_JSON = (b"content-type", b"application/json")
_AGAIN = {"retry-after": "1"}
_DISCARDED_BODIES = 4  # an oversized body is read on for so many times its limit, so that its client reads the answer


class ClientGoneError(Exception):
    """The connection was lost before the request was whole."""


class Application:
    """One revision's answers. `model` is None until it is loaded; health and metrics answer from the start."""

    def __init__(self, request: ServeRequest, limits: Limits, metrics: Metrics) -> None:
        self._name = request.model
        self._version = str(request.revision)
        self._digest = request.artifact_digest
        self._time_column = request.time_column
        self._key = request.key
        self._limits = limits
        self._metrics = metrics
        self._held = Budget(limits.held_bytes)
        self._ids = map("{}-{:x}".format, itertools.repeat(os.urandom(8).hex()), itertools.count())
        self._model: LoadedModel | None = None
        self._scorer: Scorer | None = None
        self._inputs: frozenset[str] = frozenset()
        self.capture: Capture | None = None
        self.draining = False
        self.in_flight = 0
        model = f"/v2/models/{self._name}"
        self._infer_paths = frozenset((f"{model}/infer", f"{model}/versions/{self._version}/infer"))

    @property
    def ready(self) -> bool:
        """Whether new traffic should come here."""
        return self._model is not None and not self.draining

    def serve(self, model: LoadedModel, capture: Capture | None) -> None:
        """Begin to answer with this model, and to capture where it is wanted."""
        self.capture = capture
        self._scorer = Scorer(model.predict, model.cost, self._limits.inline_seconds)
        self._inputs = frozenset(model.encoder.names)
        self._model = model

    def buffered_rows(self) -> int:
        """Rows that wait to be captured."""
        return self.capture.buffered_rows() if self.capture else 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application knows nothing of {scope['type']}")
        if scope["path"] in self._infer_paths and scope["method"] == "POST":
            await self._infer(scope, receive, send)
            return
        try:
            status, headers, body = 200, *self._read_only(scope["path"], scope["method"])
        except RequestError as error:
            if scope["path"].endswith("/infer"):
                self._metrics.requests["client_error"].inc()
            status, headers, body = error.status, _error_headers(error.headers), error_body(str(error))
        except _NotReady as answer:
            status, headers, body = 503, [_JSON], answer.body
        await _answer(send, status, headers, body)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        headers: Headers = [_JSON]
        unread = True
        held = 0
        outcome: Outcome
        rehearsal = any(name == _REHEARSAL for name, _ in scope["headers"])
        try:
            if self._model is None or self._scorer is None:
                raise RequestError(503, f"model {self._name} is still loading; try again", _AGAIN)
            body, held = await self._body(scope["headers"], receive)
            unread = False
            content = await self._predict(self._model, self._scorer, body, captured=not rehearsal)
            status, outcome = 200, "ok"
        except RequestError as error:
            status, headers, content = error.status, _error_headers(error.headers), error_body(str(error))
            outcome = "rejected" if status in (429, 503) else "client_error"
        except ClientGoneError:
            self._metrics.requests["client_error"].inc()
            return
        except ScoringError as error:
            log.error("the model failed to score", extra=fields(reason=str(error)[:500]))
            status, outcome = 500, "server_error"
            content = error_body("the model failed to score this request; the server's log says why")
        except Exception:
            log.exception("an infer request failed")
            status, outcome = 500, "server_error"
            content = error_body("the server failed; its log says why")
        finally:
            if held:
                self._held.give_back(held)
        self._metrics.requests["rehearsal" if rehearsal else outcome].inc()
        if outcome == "ok" and not rehearsal:
            self._metrics.seconds.observe(time.perf_counter() - start)
        if unread:
            await self._answer_early(receive, send, status, headers, content)
        else:
            await _answer(send, status, headers, content)

    async def _body(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> tuple[bytes, int]:
        """The whole body, and what it took of the budget. RequestError (400, 413, 415, 429) where it is not wanted."""
        limit = self._limits.body_bytes
        expected = 0
        for name, value in headers:
            if name == b"content-length":
                expected = int(value)  # the HTTP parser let only digits pass
            elif name == b"content-encoding" and value.lower() != b"identity":
                coding = value[:40].decode("latin-1")
                raise RequestError(415, f"content-encoding {coding} is not supported; send plain JSON")
            elif name == b"inference-header-content-length":
                raise RequestError(400, "the binary tensor extension is not supported; send data as JSON")
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
                    if not self._held.take(wanted):
                        raise RequestError(429, "too many large bodies at once; try again, or send less", _AGAIN)
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
            self._held.give_back(held)
            raise

    async def _predict(self, model: LoadedModel, scorer: Scorer, body: bytes, *, captured: bool) -> bytes:
        """The answer's body. RequestError (400, 413, 422, 429)."""
        if self.in_flight >= self._limits.in_flight or scorer.backlog_seconds() > self._limits.queue_seconds:
            raise RequestError(429, f"the server is busy with {self.in_flight} requests; try again", _AGAIN)
        self.in_flight += 1
        try:
            request = parse(body, self._limits)
            times, keys = self._identity(request)
            columns = request.columns
            if columns.keys() != self._inputs:
                self._name_mismatch(columns, model.encoder.names)
            try:
                matrix = model.encoder.encode(columns, request.rows)
            except FeatureError as error:
                raise RequestError(422, f"tensor {error}") from None
            probability = await scorer.score(matrix)
        finally:
            self.in_flight -= 1
        prediction = (probability >= model.signature.cut_off).astype(np.int64)
        identifier = request.id or next(self._ids)
        self._metrics.rows.inc(request.rows)
        if self.capture is not None and captured:
            received = time.time_ns() // 1000
            self.capture.offer(
                Served(identifier, matrix, columns, probability, prediction, received, times, keys, len(body))
            )
        return response(
            self._name,
            self._version,
            identifier,
            outputs=request.outputs,
            probability=probability,
            prediction=prediction,
        )

    def _identity(self, request: InferRequest) -> tuple[list[int | None] | None, list[str | None] | None]:
        """Event times and keys where the request has them. They are taken out of its columns: no model sees them."""
        times = request.columns.pop(self._time_column, None)
        keys = request.columns.pop(self._key, None)
        return (
            None if times is None else identity.event_times(self._time_column, times),
            None if keys is None else identity.keys(self._key, keys),
        )

    def _name_mismatch(self, columns: Mapping[str, object], wanted: Sequence[str]) -> None:
        for name in columns:
            if name not in self._inputs:
                raise RequestError(400, f"tensor {name[:100]} is no input of the model; it takes {_listed(wanted)}")
        missing = [name for name in wanted if name not in columns]
        raise RequestError(400, f"tensor {_listed(missing)} is missing; send a tensor for each of the model's inputs")

    def _read_only(self, path: str, method: str) -> tuple[Headers, bytes]:
        """Headers and body of everything but infer. RequestError (404, 405) or _NotReady."""
        parts = path.strip("/").split("/")
        if path == "/metrics":
            _only(method, "GET", "HEAD")
            return [(b"content-type", names.CONTENT_TYPE.encode())], self._metrics.page()
        if parts[0] != "v2":
            raise RequestError(404, f"there is no {path[:100]}; the protocol's paths begin with /v2")
        document: Any
        if parts == ["v2"]:
            document = {"name": "truekeep", "version": __version__, "extensions": []}
        elif parts[1:] in (["health", "live"], ["health", "ready"]):
            document = {"live": True, "ready": self.ready}
            if parts[2] == "ready" and not self.ready:
                raise _NotReady(document)
        elif len(parts) >= 3 and parts[1] == "models":
            document = self._model_document(parts[2:], method)
        else:
            raise RequestError(404, f"there is no {path[:100]}; see /v2, /v2/health/ready and /v2/models/{self._name}")
        _only(method, "GET", "HEAD")
        return [_JSON], orjson.dumps(document)

    def _model_document(self, parts: Sequence[str], method: str) -> Mapping[str, object]:
        """What there is to read about a model: parts are its name and what follows in the path."""
        name, rest = parts[0], list(parts[1:])
        if name != self._name:
            raise RequestError(404, f"model {name[:100]} is unknown; this server has {self._name}")
        if rest[:1] == ["versions"] and len(rest) >= 2:
            if rest[1] != self._version:
                raise RequestError(404, f"version {rest[1][:40]} of {name} is unknown; this server has {self._version}")
            rest = rest[2:]
        if rest == ["infer"]:
            _only(method, "POST")
        if rest == ["ready"]:
            document = {"name": name, "version": self._version, "ready": self.ready}
            if not self.ready:
                raise _NotReady(document)
            return document
        if rest:
            raise RequestError(404, f"a model has no {'/'.join(rest)[:100]}; it has ready and infer")
        if self._model is None:
            raise RequestError(503, f"model {name} is still loading; try again", _AGAIN)
        return self._metadata(self._model)

    def _metadata(self, model: LoadedModel) -> Mapping[str, object]:
        signature = model.signature
        return {
            "name": self._name,
            "versions": [self._version],
            "platform": "onnx_onnxruntime" if model.format == "onnx" else "sklearn_skops",
            "inputs": [
                {"name": feature.name, "datatype": "FP64" if feature.type == "Number" else "BYTES", "shape": [-1]}
                for feature in signature.features
            ],
            "outputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in OUTPUTS.items()],
            "parameters": {
                "artifact": self._digest,
                "cut_off": signature.cut_off,
                "estimator": signature.estimator,
                # Captured when a request carries them; never fed to the model.
                "optional_inputs": [self._time_column, self._key],
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
    return [_JSON, *((name.encode(), value.encode()) for name, value in headers.items())]


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

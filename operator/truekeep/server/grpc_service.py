"""`inference.GRPCInferenceService`: the same model, limits, metrics and capture over gRPC.

A connection's age is bounded as for HTTP (gRPC says goodbye properly, with GOAWAY), messages are as large as bodies may
be, and calls at once are bounded by themselves: gRPC reads a whole message before it asks anyone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from truekeep import __version__
from truekeep.contract.requests import REHEARSAL_HEADER
from truekeep.server import grpc_messages as messages
from truekeep.server.app import Application
from truekeep.server.inference import AGAIN, Predicted, in_public, outcome_of
from truekeep.server.limits import SMALL_BODY, Limits
from truekeep.server.logs import log
from truekeep.server.protocol import (
    EXTENSIONS,
    OUTPUTS,
    PREDICTION,
    PROBABILITY,
    Columns,
    InferRequest,
    RequestError,
    Values,
    as_text,
    check_count,
    check_range,
    checked_id,
    checked_output,
    from_bytes,
    little_endian,
    shown,
)

MESSAGE_OVERHEAD = 64 << 10  # bytes of names, shapes and ids beside the data

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
Method = Callable[[Any, Any], Awaitable[Any]]


class Service:
    """The methods of the protocol."""

    def __init__(self, application: Application, limits: Limits) -> None:
        self._application = application
        self._limits = limits

    def handlers(self) -> Any:
        """For grpc.Server.add_generic_rpc_handlers."""
        table: Mapping[str, tuple[Method, Any, Any]] = {
            "ServerLive": (self._server_live, messages.ServerLiveRequest, messages.ServerLiveResponse),
            "ServerReady": (self._server_ready, messages.ServerReadyRequest, messages.ServerReadyResponse),
            "ModelReady": (self._model_ready, messages.ModelReadyRequest, messages.ModelReadyResponse),
            "ServerMetadata": (self._server_metadata, messages.ServerMetadataRequest, messages.ServerMetadataResponse),
            "ModelMetadata": (self._model_metadata, messages.ModelMetadataRequest, messages.ModelMetadataResponse),
            "ModelInfer": (self._model_infer, messages.ModelInferRequest, messages.ModelInferResponse),
        }
        return grpc.method_handlers_generic_handler(
            messages.SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._readable(method, name),
                    request_deserializer=_lenient(asked),
                    response_serializer=told.SerializeToString,
                )
                for name, (method, asked, told) in table.items()
            },
        )

    def _readable(self, method: Method, name: str) -> Method:
        """The method, for messages that could be read."""

        async def answer(request: Any, context: Any) -> Any:
            if request is None:
                if name == "ModelInfer":
                    self._application.lost()
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is no request of {name}")
            return await method(request, context)

        return answer

    async def _server_live(self, request: Any, context: Any) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, request: Any, context: Any) -> Any:
        return messages.ServerReadyResponse(ready=self._application.ready)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        await self._checked(request.name, request.version, context)
        return messages.ModelReadyResponse(ready=self._application.ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        return messages.ServerMetadataResponse(name="truekeep", version=__version__, extensions=EXTENSIONS)

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        await self._checked(request.name, request.version, context)
        try:
            document = self._application.metadata(self._application.inference.loaded())
        except RequestError as error:
            await context.abort(_CODES[error.status], str(error))
        properties = {name: _property(value) for name, value in document["parameters"].items()}
        plain = {name: document[name] for name in ("name", "versions", "platform", "inputs", "outputs")}
        return messages.ModelMetadataResponse(**plain, properties=properties)

    async def _model_infer(self, request: Any, context: Any) -> Any:
        start = time.perf_counter()
        rehearsal = any(key == REHEARSAL_HEADER for key, _ in context.invocation_metadata() or ())
        application = self._application
        answered: asyncio.Future[Predicted | Exception] = asyncio.get_running_loop().create_future()

        def reply(answer: Predicted | Exception) -> None:
            if not answered.done():  # the call was cancelled
                answered.set_result(answer)

        held = 0
        try:
            application.check_model(request.model_name, request.model_version)
            size = request.ByteSize()
            if size > SMALL_BODY:
                if not application.held.take(size):
                    raise RequestError(429, "too many large messages at once; try again, or send less", AGAIN)
                held = size
            application.inference.begin(lambda inputs: self._read(request, inputs), size, reply, captured=not rehearsal)
            answer = await answered
        except RequestError as error:
            application.count("rejected" if error.status in (429, 503) else "client_error", rehearsal, start)
            await context.abort(_CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error))
        except Exception as error:
            log.exception("a ModelInfer call failed")
            answer = error
        finally:
            application.held.give_back(held)
        if not isinstance(answer, Predicted):
            told = in_public(answer)
            application.count(outcome_of(told), rehearsal, start)
            await context.abort(_CODES.get(told.status, grpc.StatusCode.INTERNAL), str(told))
            raise AssertionError("abort raises") from None
        application.count("ok", rehearsal, start)
        return self._response(request.model_name, answer, raw=bool(request.raw_input_contents))

    async def _checked(self, name: str, version: str, context: Any) -> None:
        try:
            self._application.check_model(name, version)
        except RequestError as error:
            await context.abort(_CODES[error.status], str(error))

    def _read(self, request: Any, inputs: tuple[str, ...]) -> InferRequest:
        """Columns of the tensors. RequestError (400, 413)."""
        limits = self._limits
        tensors, raw = request.inputs, request.raw_input_contents
        if not tensors:
            raise RequestError(400, "inputs must be a list of at least one tensor")
        check_count(len(tensors), limits)
        if raw and len(raw) != len(tensors):
            raise RequestError(400, f"raw_input_contents has {len(raw)} entries for {len(tensors)} inputs")
        columns = Columns(inputs, limits)
        for position, tensor in enumerate(tensors):
            shape = list(tensor.shape)
            rows, width = columns.size(tensor.name, shape)
            if raw and tensor.HasField("contents"):
                raise RequestError(400, f"tensor {shown(tensor.name)} has contents beside raw_input_contents; send one")
            values = (
                from_bytes(tensor.name, tensor.datatype, rows * width, raw[position])
                if raw
                else _contents(tensor, rows * width)
            )
            columns.add(tensor.name, shape, values)
        outputs = [checked_output(output.name) for output in request.outputs] or list(OUTPUTS)
        return InferRequest(checked_id(request.id, limits), columns.values, columns.rows, dict.fromkeys(outputs, True))

    def _response(self, name: str, answer: Predicted, *, raw: bool) -> Any:
        """Raw where the request was, typed contents else."""
        data = {PROBABILITY: answer.probability, PREDICTION: answer.prediction}
        response = messages.ModelInferResponse(
            model_name=name, model_version=self._application.version, id=answer.identifier
        )
        for output in answer.outputs:
            tensor = response.outputs.add(name=output, datatype=OUTPUTS[output], shape=[len(data[output])])
            if raw:
                response.raw_output_contents.append(little_endian(data[output]))
            else:
                getattr(tensor.contents, messages.CONTENTS[OUTPUTS[output]]).extend(data[output].tolist())
        return response


def _lenient(kind: Any) -> Callable[[bytes], Any]:
    """Reads a message; None where it can't be read, which gRPC itself would log with a traceback, as our fault."""

    def read(content: bytes) -> Any:
        try:
            return kind.FromString(content)
        except DecodeError:
            return None

    return read


def _contents(tensor: Any, count: int) -> Values:
    """The typed values of a tensor. NaN of a float is a missing value."""
    name, datatype = tensor.name, tensor.datatype
    field = messages.CONTENTS.get(datatype)
    if field is None:
        from_bytes(name, datatype, 0, b"")  # FP16 has no field, so only the raw form; anything else is unknown
        raise RequestError(400, f"tensor {shown(name)}: {datatype} must be sent in raw_input_contents")
    values = getattr(tensor.contents, field)
    if len(values) != count:
        raise RequestError(
            400, f"tensor {shown(name)}: shape says {count} values, but contents.{field} has {len(values)}"
        )
    if datatype == "BYTES":
        return [as_text(name, row, value) for row, value in enumerate(values)]
    if datatype in ("FP32", "FP64"):
        return np.array(values, dtype=np.float64)
    plain = list(values)
    check_range(name, datatype, plain)
    return plain


def _property(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def build(application: Application, limits: Limits, max_age_seconds: float) -> Any:
    """A `grpc.aio.Server` without a port yet."""
    age = int(max_age_seconds * 1000)
    server = grpc.aio.server(
        maximum_concurrent_rpcs=limits.grpc_calls,
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.body_bytes + MESSAGE_OVERHEAD),
            ("grpc.max_metadata_size", limits.header_bytes),
            ("grpc.max_concurrent_streams", limits.grpc_calls),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            ("grpc.max_connection_age_ms", age),  # gRPC scatters it by 10 % itself
            ("grpc.max_connection_age_grace_ms", int(limits.drain_seconds * 1000)),
            ("grpc.max_connection_idle_ms", max(age, int(limits.idle_seconds * 1000))),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.server_handshake_timeout_ms", int(limits.header_seconds * 1000)),
        ],
    )
    server.add_generic_rpc_handlers((Service(application, limits).handlers(),))
    return server

"""The life of a server process: listen, load, prove, answer, and on SIGTERM drain and flush."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import uvicorn

from truekeep.contract.requests import (
    SERVER_GRPC_PORT,
    SERVER_PORT,
    ServeRequest,
)
from truekeep.contract.results import EXIT_INPUT, EXIT_OUTSIDE
from truekeep.server.app import Application
from truekeep.server.capture import Capture, Source
from truekeep.server.connections import Connection, Keeper
from truekeep.server.limits import Limits
from truekeep.server.load import ModelInvalidError, ServedModel, obtain
from truekeep.server.logs import fields, last_words, log
from truekeep.server.metrics import Metrics
from truekeep.server.scoring import Scorer, Scoring
from truekeep.server.sockets import free_listener
from truekeep.server.spool import open_spool
from truekeep.storage import StoreError
from truekeep.storage.hash_key import HashKeyError, read_hash_key

if TYPE_CHECKING:
    from truekeep.server.grpc_listener import GrpcListener

T = TypeVar("T")
PORT_ENV = "TRUEKEEP_SERVER_PORT"
GRPC_PORT_ENV = "TRUEKEEP_SERVER_GRPC_PORT"


class Server(uvicorn.Server):
    """uvicorn, but a signal only says "drain", and the end waits for every connection."""

    def __init__(self, config: uvicorn.Config, keeper: Keeper, told_to_stop: Callable[[], object]) -> None:
        super().__init__(config)
        self._keeper = keeper
        self._told_to_stop = told_to_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Of SIGTERM and SIGINT; the second SIGINT ends at once. (uvicorn's own would raise the signal again at the
        end, and a drained server would exit with 143.)"""
        if sig == signal.SIGINT and self._keeper.draining_since is not None:
            self.should_exit = self.force_exit = True
        else:
            self._told_to_stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, then let those who came at the last moment have their answer."""
        for server in self.servers:
            server.close()
        end = time.monotonic() + 1.0
        while self._keeper.connections and time.monotonic() < end and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)


class Process:
    """One server."""

    def __init__(self, request: ServeRequest, limits: Limits, started: float) -> None:
        self._request = request
        self._limits = limits
        self._started = started
        self._exit_code = 0
        self.port = 0
        self._metrics = Metrics()
        self._keeper = Keeper(limits, request.connection_max_age_seconds)
        self._rpc: GrpcListener | None = None
        self._app = Application(request, limits, self._metrics)
        self._metrics.watch(
            connections=lambda: len(self._keeper.connections),
            in_flight=lambda: self._app.inference.in_flight,
            buffered=self._app.buffered_rows,
            ready=lambda: self._app.ready,
        )

    async def run(self) -> int:
        """Serve until told to stop; the exit code."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        listener = free_listener(int(os.environ.get(PORT_ENV, SERVER_PORT)))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            http=functools.partial(Connection, keeper=self._keeper, application=self._app),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=2,
        )
        server = Server(config, self._keeper, lambda: loop.call_soon_threadsafe(stop.set))
        tasks = [
            asyncio.create_task(self._load(server)),
            asyncio.create_task(self._drain(stop, server)),
            asyncio.create_task(self._keeper.sweep_for_ever()),
            asyncio.create_task(self._metrics.recent.keep_for_ever()),
        ]
        self._rpc = await self._listen_for_grpc()
        log.info("listening", extra=fields(port=self.port, grpc_port=self._rpc.port))
        await server.serve(sockets=[listener])
        await self._rpc.stop(0.5)
        for task in tasks:
            task.cancel()
        if self._app.inference.capture is not None:
            await asyncio.to_thread(self._app.inference.capture.close, self._limits.capture_close_seconds)
        log.info("stopped", extra=fields(exit_code=self._exit_code))
        return self._exit_code

    async def _listen_for_grpc(self) -> GrpcListener:
        """The gRPC server, started."""
        from truekeep.server.grpc_listener import GrpcListener  # gRPC is imported while the model is on its way

        rpc = GrpcListener(self._app, self._limits, self._request.connection_max_age_seconds)
        await rpc.start(int(os.environ.get(GRPC_PORT_ENV, SERVER_GRPC_PORT)))
        return rpc

    async def _load(self, server: Server) -> None:
        """Fetch, prove and serve the model, or end the process with the reason."""
        try:
            model, scorer = await self._obtain()
        except ModelInvalidError as error:
            self._fail(server, EXIT_INPUT, "the artifact is invalid", str(error))
            return
        except StoreError as error:
            self._fail(server, EXIT_OUTSIDE, "the store did not answer in time", str(error))
            return
        except Exception as error:
            log.exception("loading failed")
            self._fail(server, 1, "loading failed", f"{type(error).__name__}: {error}")
            return
        try:
            capture = self._capture(model)
        except HashKeyError as error:
            self._fail(server, EXIT_INPUT, "the key of the hashes can't be used", str(error))
            return
        self._app.inference.serve_by(scorer, model, capture)
        self._say_ready(model)
        try:
            await self._stay()
        except ModelInvalidError as error:
            self._fail(server, EXIT_INPUT, "the model is no longer what training made", str(error))

    async def _stay(self) -> None:
        """Look after the model while it is served. ModelInvalidError where it must be served no longer."""

    def _say_ready(self, model: ServedModel) -> None:
        gc.collect()
        gc.freeze()  # some 300,000 objects of libraries and model: no later collection need look at them
        seconds = time.time() - self._started
        self._metrics.self_test.set(1)
        self._metrics.self_test_difference.set(model.self_test_difference)
        self._metrics.load_seconds.set(seconds)
        self._metrics.artifact.labels(
            namespace=self._request.namespace,
            model=self._request.model,
            revision=str(self._request.revision),
            digest=self._request.artifact_digest,
            estimator=model.signature.estimator,
            format=model.format,
        ).set(1)
        log.info(
            "ready",
            extra=fields(
                seconds=round(seconds, 2),
                digest=self._request.artifact_digest,
                estimator=model.signature.estimator,
                format=model.format,
                examples=len(model.signature.examples),
                largest_difference=model.self_test_difference,
                milliseconds_a_call=round(model.cost.call * 1e3, 3),
                microseconds_a_row=round(model.cost.row * 1e6, 2),
            ),
        )

    async def _obtain(self) -> tuple[ServedModel, Scoring]:
        """The model, proved, and who answers for it. ModelInvalidError, StoreError."""
        warm = asyncio.create_task(in_thread(_import_onnxruntime))
        model = await in_thread(functools.partial(obtain, self._request, self._limits.load_seconds))
        await warm
        return model, Scorer(model.predict, model.cost, self._limits.inline_seconds)

    def _capture(self, model: ServedModel) -> Capture | None:
        settings = self._request.capture
        if settings is None or settings.fraction_percent == 0:
            return None
        source = Source(
            namespace=self._request.namespace,
            model=self._request.model,
            revision=self._request.revision,
            pod=socket.gethostname().replace("_", "-")[:63],
            cut_off=model.signature.cut_off,
            features=tuple(model.signature.features),
            key_column=self._request.key,
            artifact=self._request.artifact_digest,
            run=self._request.run,
            format=model.format,
        )
        hash_key = read_hash_key(settings.hash_key_secret_ref.name) if settings.hash_key_secret_ref else None
        spool = open_spool(settings.spool_mebibytes)
        capture = Capture(settings, source, self._limits, self._metrics, hash_key=hash_key, spool=spool)
        capture.start()
        return capture

    async def _drain(self, stop: asyncio.Event, server: Server) -> None:
        await stop.wait()
        log.info(
            "draining", extra=fields(connections=len(self._keeper.connections), in_flight=self._app.inference.in_flight)
        )
        served = self._app.ready
        self._app.draining = True
        self._keeper.start_draining()
        ends = [self._keeper.drained(), self._rpc.drain()] if served and self._rpc else []
        drained = all(await asyncio.gather(*ends))
        if not drained:
            log.warning("drained only in part", extra=fields(connections=len(self._keeper.connections)))
        server.should_exit = True

    def _fail(self, server: Server, code: int, what: str, reason: str) -> None:
        log.error(what, extra=fields(reason=reason, exit_code=code))
        last_words(reason)
        self._exit_code = code
        server.should_exit = True


def _import_onnxruntime() -> None:
    """While the artifact is on its way. scikit-learn, which takes seconds, only where no ONNX file serves."""
    import onnxruntime  # noqa: F401


async def in_thread(work: Callable[[], T]) -> T:
    """Run in a daemon thread, which the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            loop.call_soon_threadsafe(_settle, future, None, error)
        else:
            loop.call_soon_threadsafe(_settle, future, result, None)

    threading.Thread(target=run, daemon=True).start()
    return await future


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)

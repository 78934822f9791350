"""Our server in front of a team's own, in one pod: `ServeRequest.backend`.

Requests, limits, metrics, capture, connections and the end are those of our own server; only the numbers come from
somebody else. It is believed once it says that it is ready *and* answers the signature's examples as training did, and
is asked again whenever it comes back from not being so. What it answers wrongly ends this process with the reason, as
an artifact does that fails its self-test.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Any

from truekeep.contract.artifact import Signature
from truekeep.contract.layout import SIGNATURE
from truekeep.contract.requests import ServeRequest
from truekeep.features.encode import Encoder
from truekeep.server import folder
from truekeep.server.limits import Limits
from truekeep.server.load import ModelInvalidError, ServedModel, compare, examples_of, read_signature
from truekeep.server.logs import fields, log
from truekeep.server.process import Process, in_thread
from truekeep.server.proxy_http import Client, NoAnswerError, SilentError
from truekeep.server.proxy_scoring import REFUSALS, BackendError, Remote
from truekeep.server.scoring import Cost, Scoring

READY_PATH = "/v2/health/ready"
LOOK_SECONDS = 1.0
READY_SECONDS = 2.0  # for an answer about its health
MISSES = 3  # in a row, until it is no longer ready: one that computes may be late now and then
TRIES = 5  # of a self-test that is answered, but not validly; numbers that are wrong are final at once
SAID_EVERY_SECONDS = 10.0
REMEDY = (
    "spec.serving.image computes something else than training did: mend it, or, where it computes in float32, set "
    "spec.serving.image.tolerance"
)


class ProxyProcess(Process):
    """One proxy."""

    def __init__(self, request: ServeRequest, limits: Limits, started: float) -> None:
        super().__init__(request, limits, started)
        self._watch: Watch | None = None

    async def _obtain(self) -> tuple[ServedModel, Scoring]:
        request, backend = self._request, self._request.backend
        assert backend is not None
        read = functools.partial(folder.read, folder.place(), request.artifact_digest, SIGNATURE)
        signature = read_signature(await in_thread(read))
        tolerance = signature.tolerance if backend.tolerance is None else backend.tolerance
        client = Client(backend.port, self._limits.body_bytes)
        remote = Remote(client, request.model, signature.features, self._limits, float(backend.timeout_seconds))
        self._watch = Watch(client, remote, signature, tolerance)
        return await self._watch.first(), remote

    async def _stay(self) -> None:
        assert self._watch is not None
        await self._watch.for_ever()


class Watch:
    """Keeps up with how the team's server is: `Remote.up`, `Remote.ready` and `Remote.silent_since`."""

    def __init__(self, client: Client, remote: Remote, signature: Signature, tolerance: float) -> None:
        self._client = client
        self._remote = remote
        self._signature = signature
        self._tolerance = tolerance
        self._encoder = Encoder(signature.features)
        self._columns: dict[str, list[Any]]
        self._columns, self._matrix = examples_of(signature, self._encoder)
        self._failed_tests = 0
        self._misses = 0
        self._spoke = False  # since it was started last
        self._said = float("-inf")
        self._difference = 0.0

    async def first(self) -> ServedModel:
        """Wait until it answers as training did. ModelInvalidError where it answers otherwise."""
        while not self._remote.ready:
            await self._look()
            if not self._remote.ready:
                await asyncio.sleep(LOOK_SECONDS / 2)
        return ServedModel(
            signature=self._signature,
            encoder=self._encoder,
            cost=self._remote.cost,
            self_test_difference=self._difference,
            format="image",
        )

    async def for_ever(self) -> None:
        """Look again and again. ModelInvalidError where it no longer answers as training did."""
        while True:
            self._remote.went_down.clear()
            try:
                await asyncio.wait_for(self._remote.went_down.wait(), LOOK_SECONDS)
                await asyncio.sleep(LOOK_SECONDS / 4)
            except TimeoutError:
                pass
            await self._look()

    async def _look(self) -> None:
        """One look at its health; where it came back, the self-test as well."""
        remote = self._remote
        asked = time.monotonic()
        try:
            answer = await self._client.ask("GET", READY_PATH, None, READY_SECONDS)
        except SilentError as error:
            if remote.last_answer > asked:  # it is busy with what matters more
                return
            self._misses += 1
            if self._spoke and remote.silent_since is None:
                remote.silent_since = asked
            if self._misses >= MISSES:
                self._not_ready(str(error))
            return
        except NoAnswerError as error:
            self._spoke = self._spoke and not error.down
            remote.silent_since = None
            remote.up = remote.up and not error.down
            self._not_ready(str(error))
            return
        self._spoke, self._misses, remote.silent_since = True, 0, None
        if answer.status != 200:
            self._not_ready(f"it says that it is not ready (HTTP {answer.status})")
        elif not (remote.ready and remote.up):
            await self._prove()

    async def _prove(self) -> None:
        """The self-test. ModelInvalidError where it fails; where there is no answer, the next look tries again."""
        remote, rows = self._remote, len(self._matrix)
        first = {name: values[:1] for name, values in self._columns.items()}
        try:
            start = time.perf_counter()
            got = await remote.ask(self._matrix, self._columns)
            whole = time.perf_counter() - start
            start = time.perf_counter()
            one = await remote.ask(self._matrix[:1], first)
            single = time.perf_counter() - start
        except BackendError as error:
            self._failed_tests += 1
            final = error.status in REFUSALS or (error.alone and self._failed_tests >= TRIES)
            if final:
                raise ModelInvalidError(f"the self-test failed: the team's server gave no answer: {error}") from error
            self._not_ready(f"self-test: {error}")
            return
        self._failed_tests = 0
        self._difference = compare(self._signature, got, self._tolerance, REMEDY)
        compare(self._signature.model_copy(update={"examples": self._signature.examples[:1]}), one, self._tolerance,
                REMEDY)  # fmt: skip
        row = max(whole - single, 0.0) / max(rows - 1, 1)
        remote.cost = Cost(call=max(single - row, 0.0), row=row)
        remote.up = remote.ready = True
        log.info("the team's server is ready", extra=fields(largest_difference=self._difference))

    def _not_ready(self, reason: str) -> None:
        changed, self._remote.ready = self._remote.ready, False
        now = time.monotonic()
        if changed or now - self._said > SAID_EVERY_SECONDS:
            self._said = now
            log.warning("the team's server is not ready", extra=fields(reason=reason))

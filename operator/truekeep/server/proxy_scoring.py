"""Asks a team's own server for the model's answers: the same questions, in its own words.

What waits is asked together, in as many requests at once as `Limits.backend_requests`; nobody waits for company. Each
request carries the features as columns, numbers as FP64 and categories as the text that the client sent, and wants one
output, `probability`. Whatever comes back is judged before anybody sees it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from truekeep.contract.artifact import UNKNOWN_CATEGORY, SignatureFeature
from truekeep.features.encode import category_text, listed
from truekeep.server.limits import Limits
from truekeep.server.logs import fields, log
from truekeep.server.protocol import PROBABILITY, InferRequest
from truekeep.server.proxy_http import Answer, Client, NoAnswerError, SilentError
from truekeep.server.scoring import Cost, Matrix, Question, ScoringError

SHOWN = 300  # characters of what a backend says
FLOATS = ("FP16", "FP32", "FP64")
REFUSALS = (400, 413, 422)  # of the values themselves: its caller may mend them
SAID_EVERY_SECONDS = 5.0


class BackendError(ScoringError):
    """The team's server gave no valid answer. `text`: why; `alone`: whether each request deserves a try of its own,
    because it may have been another one's fault."""

    def __init__(self, status: int, text: str, *, alone: bool = False, down: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.public = f"the model's own server: {text}"
        self.alone = alone
        self.down = down


@dataclass(slots=True)
class _Waiting:
    question: Question
    since: float  # monotonic


class Remote:
    """The scorer of one revision that a team's own server answers for.

    `up` says whether it is asked at all; `ready`, whether new traffic should come: both are kept by `proxy.Watch`."""

    def __init__(
        self, client: Client, model: str, features: Sequence[SignatureFeature], limits: Limits, seconds: float
    ) -> None:
        self._client = client
        self._path = f"/v2/models/{model}/infer"
        self._features = tuple(features)
        self._limits = limits
        self._seconds = seconds
        self._waiting: deque[_Waiting] = deque()
        self._rows = 0
        self._busy = 0
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = -math.inf
        self.cost = Cost(0.0, 0.0)
        self.ready = False
        self.up = False
        self.went_down = asyncio.Event()
        self.last_answer = -math.inf  # to a question
        self.silent_since: float | None = None

    @property
    def live(self) -> bool:
        """Whether it still reacts to anything."""
        return self.silent_since is None or time.monotonic() - self.silent_since < self._limits.backend_silent_seconds

    def backlog_seconds(self) -> float:
        """Estimated work that waits, and at least as long as the first in the queue waits already."""
        if not self._waiting:
            return 0.0
        waited = time.monotonic() - self._waiting[0].since
        calls = math.ceil(self._rows / self._limits.backend_rows)
        return max(waited, self.cost.of(self._rows, calls) / self._limits.backend_requests)

    def submit(self, job: Question) -> None:
        """Ask it soon; `job.done` tells."""
        loop = asyncio.get_running_loop()
        if not self.up:
            loop.call_soon(job.done, BackendError(503, "it does not answer; it is being waited for"))
            return
        self._waiting.append(_Waiting(job, time.monotonic()))
        self._rows += len(job.matrix)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._send)

    async def ask(self, matrix: Matrix, columns: Mapping[str, list[Any]]) -> Matrix:
        """Probabilities of class 1, shape (rows,). BackendError."""
        request = InferRequest(None, dict(columns), len(matrix), {})
        return await self._ask(_body(self._features, [matrix], [request]), len(matrix), self._seconds)

    async def _ask(self, body: bytes, rows: int, seconds: float) -> Matrix:
        try:
            answer = await self._client.ask("POST", self._path, body, seconds)
        except SilentError as error:
            raise BackendError(504, str(error)) from None
        except NoAnswerError as error:
            raise BackendError(502, str(error), alone=not error.down, down=error.down) from None
        return probabilities(answer, rows)

    def _send(self) -> None:
        """Ask what waits, as far as it may be asked at once."""
        self._scheduled = False
        while self._waiting and self._busy < self._limits.backend_requests:
            questions = self._take()
            if not questions:
                continue
            self._busy += 1
            task = asyncio.get_running_loop().create_task(self._answer(questions))
            self._tasks.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._busy -= 1
        self._send()

    def _take(self) -> list[Question]:
        """Questions from the front: at least one, and as many more as go into one request. Those that waited for too
        long are told so."""
        taken: list[Question] = []
        rows, now = 0, time.monotonic()
        while self._waiting:
            waiting = self._waiting[0]
            size = len(waiting.question.matrix)
            if taken and rows + size > self._limits.backend_rows:
                break
            self._waiting.popleft()
            self._rows -= size
            if now - waiting.since > self._seconds:
                waiting.question.done(BackendError(504, f"the request waited for more than {self._seconds:g} s"))
                continue
            taken.append(waiting.question)
            rows += size
        return taken

    async def _answer(self, questions: list[Question]) -> None:
        """Ask for all of them at once; each alone, for as long as one answer may take, where that is refused."""
        end = time.monotonic() + self._seconds
        failed = await self._together(questions, self._seconds)
        if failed is not None and failed.alone and len(questions) > 1:
            for question in questions:
                left = end - time.monotonic()
                late = BackendError(504, f"no answer within {self._seconds:g} s") if left <= 0 else None
                failed = late or await self._together([question], left)
                if failed is not None:
                    question.done(failed)
        elif failed is not None:
            for question in questions:
                question.done(failed)

    async def _together(self, questions: list[Question], seconds: float) -> BackendError | None:
        """Ask one request for all and tell each its answer; what went wrong, and then nobody was told anything."""
        rows = [len(question.matrix) for question in questions]
        try:
            body = _body(
                self._features,
                [question.matrix for question in questions],
                [question.request for question in questions],
            )
            scored = await self._ask(body, sum(rows), seconds)
        except BackendError as error:
            self._note(error)
            return error
        except Exception as error:  # a fault of ours; whoever asked must hear of it
            log.exception("the model's own server could not be asked")
            return BackendError(500, f"it could not be asked ({type(error).__name__})")
        start = 0
        self.last_answer = time.monotonic()
        for question, count in zip(questions, rows, strict=True):
            question.done(scored[start : start + count])
            start += count
        return None

    def _note(self, error: BackendError) -> None:
        """Tell the watch, and the log now and then: a server that is down fails every request."""
        if error.down and self.up:
            self.up = self.ready = False
            self.went_down.set()
        now = time.monotonic()
        if error.status not in REFUSALS and now - self._said > SAID_EVERY_SECONDS:
            self._said = now
            log.error("the model's own server gave no valid answer", extra=fields(reason=str(error)))


def _body(features: Sequence[SignatureFeature], matrices: Sequence[Matrix], requests: Sequence[InferRequest]) -> bytes:
    """An infer request for the rows of all, one behind the other."""
    matrix = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
    inputs: list[dict[str, Any]] = []
    for position, feature in enumerate(features):
        data: Any
        if feature.type == "Number":
            datatype, data = "FP64", np.ascontiguousarray(matrix[:, position])  # NaN becomes null
        else:
            datatype, data = "BYTES", []
            for each, request in zip(matrices, requests, strict=True):
                data += _texts(feature, position, each[:, position], request)
        inputs.append({"name": feature.name, "shape": [len(matrix)], "datatype": datatype, "data": data})
    return orjson.dumps({"inputs": inputs, "outputs": [{"name": PROBABILITY}]}, option=orjson.OPT_SERIALIZE_NUMPY)


def _texts(feature: SignatureFeature, position: int, codes: Matrix, request: InferRequest) -> list[str | None]:
    """A Category's values: known ones by their codes, so that 1, 1.0 and "1" are the same to every server; what
    training has never seen as the client sent it."""
    known = feature.categories or []
    sent: Sequence[Any] = ()
    if (codes == UNKNOWN_CATEGORY).any():
        sent = listed(request.unknown[position] if position in request.unknown else request.columns[feature.name])
    texts: list[str | None] = []
    for row, code in enumerate(codes.tolist()):
        if math.isnan(code):
            texts.append(None)
        else:
            texts.append(category_text(sent[row]) if code == UNKNOWN_CATEGORY else known[int(code)])
    return texts


def probabilities(answer: Answer, rows: int) -> Matrix:
    """What an answer says, shape (rows,). BackendError where it is an error, or no valid answer."""
    if answer.status in REFUSALS:
        raise BackendError(answer.status, f"it refuses the request: {_error_text(answer.body)}", alone=True)
    if answer.status in (429, 503):
        # Not a 429 of ours, which counts as no error: it is asked no more than a few requests at once.
        raise BackendError(503, f"it has no capacity (HTTP {answer.status})")
    if answer.status != 200:  # whatever else it says is for its own log: a client never sees a traceback
        raise BackendError(502, f"it failed with HTTP {answer.status}; its log says why", alone=True)
    try:
        document = orjson.loads(answer.body)
        (output,) = (each for each in document["outputs"] if each["name"] == PROBABILITY)
        datatype, shape, data = output["datatype"], output["shape"], output["data"]
    except (ValueError, TypeError, KeyError, orjson.JSONDecodeError):
        raise BackendError(
            502, f"its answer is no infer response with one output {PROBABILITY}, with its data as JSON", alone=True
        ) from None
    if shape not in ([rows], [rows, 1]) or datatype not in FLOATS:
        raise BackendError(
            502,
            f"{PROBABILITY} must be FP64 or FP32 of shape [{rows}]; it is {datatype!r:.20} of {shape!r:.40}",
            alone=True,
        )
    return _checked(data, rows)


def _checked(data: Any, rows: int) -> Matrix:
    if type(data) is list and data and type(data[0]) is list:  # [[a], [b]]
        data = [value for row in data for value in (row if type(row) is list else [row])]
    if type(data) is not list or len(data) != rows:
        found = len(data) if type(data) is list else "no list"
        raise BackendError(502, f"{PROBABILITY} has {found} values for {rows} rows", alone=True)
    if not {float, int} >= set(map(type, data)):
        odd = next(value for value in data if type(value) not in (float, int))
        raise BackendError(502, f"{PROBABILITY} must be numbers, not {odd!r:.40}", alone=True)
    try:
        values: Matrix = np.array(data, dtype=np.float64)
    except OverflowError:
        values = np.array([math.inf])
    if not ((values >= 0) & (values <= 1)).all():
        odd = next(value for value in data if not 0 <= value <= 1)
        raise BackendError(502, f"{PROBABILITY} must be between 0 and 1, not {odd!r:.40}", alone=True)
    return values


def _error_text(body: bytes) -> str:
    """The protocol's `error` of an answer, never more than a line of it."""
    try:
        text = orjson.loads(body)["error"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        text = ""
    return " ".join(text.split())[:SHOWN] if type(text) is str and text else "it does not say why"

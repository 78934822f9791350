"""From a request that was read to its answer, whatever it came by: admitted, encoded, scored together, captured."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from truekeep.contract.artifact import UNKNOWN_CATEGORY
from truekeep.contract.requests import ServeRequest
from truekeep.features.encode import FeatureError, Values, listed
from truekeep.server import identity
from truekeep.server.capture import Capture
from truekeep.server.limits import Limits
from truekeep.server.load import LoadedModel, ServedModel
from truekeep.server.logs import fields, log
from truekeep.server.metrics import Metrics, Outcome
from truekeep.server.protocol import InferRequest, RequestError
from truekeep.server.quick import Reader
from truekeep.server.scoring import Matrix, Scorer, Scoring, ScoringError

AGAIN = {"retry-after": "1"}


@dataclass(slots=True)
class Predicted:
    """What the model says. Both arrays have shape (rows,)."""

    identifier: str
    outputs: Mapping[str, bool]
    probability: npt.NDArray[np.float64]
    prediction: npt.NDArray[np.int64]


Reply: TypeAlias = Callable[["Predicted | Exception"], None]  # a ScoringError, or a fault of ours
Read: TypeAlias = Callable[[tuple[str, ...]], InferRequest]


class Inference:
    """One revision's predictions. Nothing is answered before `serve`."""

    def __init__(self, request: ServeRequest, limits: Limits, metrics: Metrics) -> None:
        self._name = request.model
        self._time_column = request.time_column
        self._key = request.key
        self._limits = limits
        self._metrics = metrics
        self._ids = map("{}-{:x}".format, itertools.repeat(os.urandom(8).hex()), itertools.count())
        self._scorer: Scoring | None = None
        self._inputs: frozenset[str] = frozenset()
        self.model: ServedModel | None = None
        self.reader: Reader | None = None  # for a model that answers here; others need the tensors as they came
        self.capture: Capture | None = None
        self.in_flight = 0

    def serve(self, model: LoadedModel, capture: Capture | None) -> None:
        """Begin to answer with this model, and to capture where it is wanted."""
        self.serve_by(Scorer(model.predict, model.cost, self._limits.inline_seconds), model, capture)

    def serve_by(self, scorer: Scoring, model: ServedModel, capture: Capture | None) -> None:
        """Likewise, with somebody else to answer for the model."""
        self.capture = capture
        self._scorer = scorer
        self._inputs = frozenset(model.encoder.names)
        others = (self._time_column, self._key)
        here = isinstance(model, LoadedModel)
        self.reader = Reader(model.encoder.features, others, self._limits.rows) if here else None
        self.model = model

    @property
    def ready(self) -> bool:
        """Whether new traffic should come here."""
        return self._scorer is not None and self._scorer.ready

    @property
    def live(self) -> bool:
        """Whether what answers still reacts."""
        return self._scorer is None or self._scorer.live

    def loaded(self) -> ServedModel:
        """The model. RequestError (503) while it is loading."""
        if self.model is None:
            raise RequestError(503, f"model {self._name} is still loading; try again", AGAIN)
        return self.model

    def begin(self, read: Read, size: int, reply: Reply, *, captured: bool) -> None:
        """Have a request of `size` bytes read and answered: `reply` is called once, later, on the event loop.
        RequestError (400, 413, 422, 429, 503) instead where it is not answered."""
        model, scorer = self.loaded(), self._scorer
        assert scorer is not None
        if self.in_flight >= self._limits.in_flight or scorer.backlog_seconds() > self._limits.queue_seconds:
            raise RequestError(429, f"the server is busy with {self.in_flight} requests; try again", AGAIN)
        request = read(model.encoder.names)
        times, keys = self._identity(request)
        matrix = request.matrix
        if matrix is None:
            matrix = self._encoded(request, model)
        self.in_flight += 1
        scorer.submit(_Question(matrix, self, request, size, captured, times, keys, reply))

    def _encoded(self, request: InferRequest, model: ServedModel) -> Matrix:
        """The matrix, the long way. RequestError (400, 422) that names the tensor."""
        columns = request.columns
        if columns.keys() != self._inputs:
            self._name_mismatch(columns, model.encoder.names)
        try:
            return model.encoder.encode(columns, request.rows)
        except FeatureError as error:
            raise RequestError(422, f"tensor {error}") from None

    def finish(self, question: _Question, answer: Matrix | ScoringError) -> None:
        """The model has answered."""
        self.in_flight -= 1
        if isinstance(answer, ScoringError):
            if answer.status == 500:  # what another server is to blame for, whoever asked it has told
                log.error("the model failed to score", extra=fields(reason=str(answer)[:500]))
            question.reply(answer)
            return
        try:
            predicted = self._predicted(question, answer)
        except Exception as error:  # of one request; those that were scored with it must not suffer
            log.exception("an infer request failed")
            question.reply(error)
            return
        question.reply(predicted)

    def _predicted(self, question: _Question, probability: Matrix) -> Predicted:
        assert self.model is not None
        request = question.request
        prediction = (probability >= self.model.signature.cut_off).astype(np.int64)
        identifier = request.id or next(self._ids)
        self._metrics.rows.inc(request.rows)
        if question.captured:
            self._metrics.predictions.observe_all(probability)
        if self.capture is not None and question.captured:
            unknown = request.unknown if request.matrix is not None else self._unknown(question)
            self.capture.offer(
                identifier, question.matrix, probability, time.time_ns() // 1000,
                event_times=question.times, keys=question.keys, unknown=unknown, size=question.size,
            )  # fmt: skip
        return Predicted(identifier, request.outputs, probability, prediction)

    def _unknown(self, question: _Question) -> dict[int, Values]:
        """By position: the columns that hold a category which training has never seen, as the client sent them."""
        assert self.model is not None
        features = self.model.encoder.features
        strange = (question.matrix == UNKNOWN_CATEGORY).any(axis=0)
        return {
            position: question.request.columns[features[position].name]
            for position in np.flatnonzero(strange).tolist()
            if features[position].type == "Category"
        }

    def _identity(self, request: InferRequest) -> tuple[list[int | None] | None, list[str | None] | None]:
        """Event times and keys where the request has them. They are taken out of its columns, because no model sees
        them: but for the event time where it is a feature itself."""
        take = request.columns.get if self._time_column in self._inputs else request.columns.pop
        times = take(self._time_column, None)
        keys = request.columns.pop(self._key, None)
        return (
            None if times is None else identity.event_times(self._time_column, listed(times)),
            None if keys is None else identity.keys(self._key, listed(keys)),
        )

    def _name_mismatch(self, columns: Mapping[str, object], wanted: Sequence[str]) -> None:
        for name in columns:
            if name not in self._inputs:
                raise RequestError(400, f"tensor {name[:100]} is no input of the model; it takes {in_words(wanted)}")
        missing = [name for name in wanted if name not in columns]
        raise RequestError(400, f"tensor {in_words(missing)} is missing; send a tensor for each of the model's inputs")


@dataclass(slots=True)
class _Question:
    """A request on its way through the scorer."""

    matrix: Matrix
    inference: Inference
    request: InferRequest
    size: int
    captured: bool
    times: list[int | None] | None
    keys: list[str | None] | None
    reply: Reply

    def done(self, answer: Matrix | ScoringError) -> None:
        self.inference.finish(self, answer)


def in_public(fault: Exception) -> RequestError:
    """What a client may know of it."""
    if isinstance(fault, ScoringError):
        return RequestError(fault.status, fault.public, AGAIN if fault.status == 503 else None)
    return RequestError(500, "the server failed; its log says why")


def outcome_of(told: RequestError) -> Outcome:
    """How a fault that a client is told is counted."""
    return "client_error" if told.status < 500 else "server_error"


def in_words(names: Sequence[str], most: int = 20) -> str:
    """Names for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

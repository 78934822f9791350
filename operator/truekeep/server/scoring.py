"""Runs the model for many requests: what arrived together is scored together, and nobody waits for company.

A pipeline of scikit-learn costs milliseconds a call and microseconds a row. Small requests are scored on the event
loop itself, all that the last turn of the loop brought in one call: handing them to a thread would cost them the
hand-over and a fight for the interpreter lock. What would hold up the loop for longer than `Limits.inline_seconds`,
by the costs measured at start, goes to one thread of its own, where what queues up meanwhile is again scored together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from truekeep.server.protocol import InferRequest

Matrix: TypeAlias = npt.NDArray[np.float64]
Predict: TypeAlias = Callable[[Matrix], Matrix]  # (rows, features) -> probability of class 1, (rows,)

MOST_ROWS = 10_000  # in one call, so that its memory stays bounded


class ScoringError(Exception):
    """The model did not answer, or not with finite numbers. `status` and `public`: what a client is told."""

    status = 500
    public = "the model failed to score this request; the server's log says why"


@dataclass(frozen=True)
class Cost:
    """What a call of the model takes, in seconds: `call` for itself and `row` for each row."""

    call: float
    row: float

    def of(self, rows: int, calls: int = 1) -> float:
        """Estimated seconds."""
        return calls * self.call + rows * self.row


def measure(predict: Predict, example: Matrix, many: int = 256, tries: int = 3) -> Cost:
    """The costs of a model, by calling it with one row and with `many`; the smallest of some tries counts."""

    def seconds(matrix: Matrix) -> float:
        best = float("inf")
        for _ in range(tries):
            start = time.perf_counter()
            predict(matrix)
            best = min(best, time.perf_counter() - start)
        return best

    one = seconds(example[:1])
    row = max(seconds(np.resize(example, (many, example.shape[1]))) - one, 0.0) / (many - 1)
    return Cost(call=max(one - row, 0.0), row=row)


class Job(Protocol):
    """A matrix to score. `done` is called once, on the event loop, with shape (rows,)."""

    matrix: Matrix

    def done(self, answer: Matrix | ScoringError) -> None:
        """Take the answer."""


class Question(Job, Protocol):
    """A job with what was asked, as the client sent it."""

    request: InferRequest


class Scoring(Protocol):
    """Whoever answers questions."""

    @property
    def ready(self) -> bool:
        """Whether new traffic should come here."""

    @property
    def live(self) -> bool:
        """Whether it still reacts: False calls for a restart."""

    def submit(self, job: Question) -> None:
        """Answer it soon; `job.done` tells."""

    def backlog_seconds(self) -> float:
        """Estimated work that waits."""


@dataclass(slots=True)
class _Waiting:
    """A job of a coroutine."""

    matrix: Matrix
    answer: asyncio.Future[Matrix]

    def done(self, answer: Matrix | ScoringError) -> None:
        if self.answer.done():  # its task was cancelled
            return
        if isinstance(answer, ScoringError):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Scorer:
    """Scores matrices for coroutines of one event loop."""

    ready = live = True

    def __init__(self, predict: Predict, cost: Cost, inline_seconds: float) -> None:
        self._predict = predict
        self._cost = cost
        left = inline_seconds - cost.call
        self.inline_rows = 0 if left <= 0 else min(int(left / max(cost.row, 1e-9)), MOST_ROWS)
        self._small: deque[Job] = deque()
        self._large: deque[Job] = deque()
        self._scheduled = False
        self._busy = False
        self._rows = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    def backlog_seconds(self) -> float:
        """Estimated work that waits, if every request needed a call of its own."""
        return self._cost.of(self._rows, len(self._small) + len(self._large) + self._busy)

    async def score(self, matrix: Matrix) -> Matrix:
        """Probability of class 1, shape (rows,). ScoringError where the model fails."""
        job = _Waiting(matrix, asyncio.get_running_loop().create_future())
        self.submit(job)
        return await job.answer

    def submit(self, job: Job) -> None:
        """Score it soon; `job.done` tells."""
        rows = len(job.matrix)
        self._rows += rows
        if rows <= self.inline_rows:
            self._small.append(job)
            if not self._scheduled:
                self._scheduled = True
                loop = asyncio.get_running_loop()
                loop.call_soon(self._run_small, loop)
        else:
            self._large.append(job)
            self._run_large(asyncio.get_running_loop())

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run_small(self, loop: asyncio.AbstractEventLoop) -> None:
        jobs = _take(self._small, self.inline_rows)
        self._scheduled = bool(self._small)
        if self._scheduled:  # the rest after the loop has looked at its sockets
            loop.call_soon(self._run_small, loop)
        self._tell(jobs, self._answers(jobs))

    def _run_large(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._busy or not self._large:
            return
        self._busy = True
        jobs = _take(self._large, MOST_ROWS)
        work = loop.run_in_executor(self._thread, self._answers, jobs)

        def done(future: asyncio.Future[list[Matrix | ScoringError]]) -> None:
            self._busy = False
            if future.cancelled():
                self._tell(jobs, [ScoringError("the server stops")] * len(jobs))
                return
            self._tell(jobs, future.result())
            self._run_large(loop)

        work.add_done_callback(done)

    def _answers(self, jobs: list[Job]) -> list[Matrix | ScoringError]:
        """One answer a job. Where a call for several fails, each is tried alone: no request spoils another's."""
        try:
            together = jobs[0].matrix if len(jobs) == 1 else np.concatenate([job.matrix for job in jobs])
            scored = self._checked(together)
        except Exception as error:
            if len(jobs) > 1:
                return [self._answers([job])[0] for job in jobs]
            reason = error if isinstance(error, ScoringError) else ScoringError(f"{type(error).__name__}: {error}")
            return [reason]
        if len(jobs) == 1:
            return [scored]
        answers: list[Matrix | ScoringError] = []
        start = 0
        for job in jobs:
            end = start + len(job.matrix)
            answers.append(scored[start:end])
            start = end
        return answers

    def _tell(self, jobs: list[Job], answers: list[Matrix | ScoringError]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            self._rows -= len(job.matrix)
            job.done(answer)

    def _checked(self, matrix: Matrix) -> Matrix:
        scored = self._predict(matrix)
        if scored.shape != (len(matrix),) or not np.isfinite(scored).all():
            raise ScoringError("the model answered with numbers that are not finite")
        return scored


def _take(queue: deque[Job], rows: int) -> list[Job]:
    """Jobs from the front: at least one, and as many more as make at most `rows` rows."""
    jobs = [queue.popleft()]
    total = len(jobs[0].matrix)
    while queue and total + len(queue[0].matrix) <= rows:
        jobs.append(queue.popleft())
        total += len(jobs[-1].matrix)
    return jobs

"""Requests scored together get what each would get alone."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from truekeep.server.scoring import Cost, Scorer, ScoringError, measure

QUICK = Cost(call=0.001, row=1e-6)
SLOW = Cost(call=1.0, row=0.01)


class Model:
    """Answers the mean of a row; 13 in a row makes the whole call fail, 14 makes its answer not finite."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, matrix: Any) -> Any:
        self.calls.append((len(matrix), threading.current_thread() is threading.main_thread()))
        if (matrix == 13).any():
            raise RuntimeError("thirteen")
        answer = matrix.mean(axis=1)
        return np.where((matrix == 14).any(axis=1), np.nan, answer)


def rows(*values: float) -> Any:
    return np.array([[value, value] for value in values])


async def test_what_comes_together_is_one_call() -> None:
    model = Model()
    scorer = Scorer(model, QUICK, inline_seconds=0.01)
    answers = await asyncio.gather(*(scorer.score(rows(i, i + 0.5)) for i in range(100, 120)))
    assert model.calls == [(40, True)]
    for i, answer in enumerate(answers, start=100):
        np.testing.assert_array_equal(answer, [i, i + 0.5])
    assert scorer.backlog_seconds() == 0


async def test_a_turn_of_the_loop_is_bounded() -> None:
    model = Model()
    scorer = Scorer(model, Cost(call=0.001, row=0.001), inline_seconds=0.006)
    assert scorer.inline_rows == 5
    await asyncio.gather(*(scorer.score(rows(1.0, 2.0)) for _ in range(5)))
    assert model.calls == [(4, True), (4, True), (2, True)]


async def test_what_takes_long_goes_to_the_thread_and_is_gathered_there() -> None:
    model = Model()
    gate = threading.Event()

    def gated(matrix: Any) -> Any:
        gate.wait(10)
        return model(matrix)

    scorer = Scorer(gated, SLOW, inline_seconds=0.01)
    first = asyncio.create_task(scorer.score(rows(1)))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(scorer.score(rows(i))) for i in range(2, 6)]
    await asyncio.sleep(0.05)
    assert scorer.backlog_seconds() >= 5  # the loop is free all the while
    gate.set()
    assert (await first).tolist() == [1]
    assert [(await task).tolist() for task in others] == [[2], [3], [4], [5]]
    assert model.calls == [(1, False), (4, False)]
    scorer.close()


@pytest.mark.parametrize("cost", [QUICK, SLOW])
@pytest.mark.parametrize("bad", [13.0, 14.0])
async def test_one_bad_request_spoils_no_other(cost: Cost, bad: float) -> None:
    scorer = Scorer(Model(), cost, inline_seconds=0.01)
    good, failed, other = await asyncio.gather(
        *(scorer.score(rows(value)) for value in (1.0, bad, 3.0)), return_exceptions=True
    )
    assert isinstance(failed, ScoringError)
    assert [answer.tolist() for answer in (good, other) if not isinstance(answer, BaseException)] == [[1.0], [3.0]]
    assert scorer.backlog_seconds() == 0


async def test_a_cancelled_request_is_no_harm() -> None:
    scorer = Scorer(Model(), QUICK, inline_seconds=0.01)
    gone = asyncio.create_task(scorer.score(rows(1)))
    stays = asyncio.create_task(scorer.score(rows(2)))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).tolist() == [2]
    assert scorer.backlog_seconds() == 0


def test_costs_are_of_a_call_and_of_a_row() -> None:
    sizes: list[int] = []
    cost = measure(lambda matrix: sizes.append(len(matrix)) or matrix[:, 0], np.zeros((3, 2)), many=100, tries=2)
    assert sizes == [1, 1, 100, 100]
    assert cost.call >= 0
    assert cost.row >= 0
    assert Cost(call=2, row=0.5).of(rows=4, calls=3) == 8

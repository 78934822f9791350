"""Questions to a team's own server: together where several wait, and no answer is believed that can't be one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from tests.unit.server.backend import Asked, Backend, Model, Reply, http, predicted
from tests.unit.server.conftest import FEATURES, ROWS
from truekeep.features.encode import Encoder
from truekeep.server.limits import Limits
from truekeep.server.protocol import InferRequest
from truekeep.server.proxy_http import Answer, Client
from truekeep.server.proxy_scoring import BackendError, Remote, probabilities
from truekeep.server.scoring import Cost, Matrix, ScoringError

ENCODER = Encoder(FEATURES)
ALL = ENCODER.encode(ROWS, 5)


class Question:
    """A request, and what became of it."""

    def __init__(self, columns: dict[str, Any]) -> None:
        rows = len(columns["hour"])
        self.matrix = ENCODER.encode(columns, rows)
        self.request = InferRequest("id", columns, rows, {})
        self.answer: asyncio.Future[Matrix | ScoringError] = asyncio.get_running_loop().create_future()

    def done(self, answer: Matrix | ScoringError) -> None:
        self.answer.set_result(answer)  # twice would fail


def row(number: int) -> dict[str, Any]:
    return {name: [values[number]] for name, values in ROWS.items()}


@pytest.fixture
def backend(pipeline: Pipeline) -> Iterator[Backend]:
    made = Backend(Model(pipeline, FEATURES))
    yield made
    made.close()


@pytest.fixture
def remote(backend: Backend) -> Callable[..., Remote]:
    def remote(seconds: float = 20.0, **limits: Any) -> Remote:
        changed = dataclasses.replace(Limits(), **limits)
        made = Remote(Client(backend.port, 100_000), "flight-delay", FEATURES, changed, seconds)
        made.up = made.ready = True
        return made

    return remote


Made = Callable[..., Remote]


async def told(remote: Remote, *questions: Question) -> list[Matrix | ScoringError]:
    for question in questions:
        remote.submit(question)
    return [await asyncio.wait_for(question.answer, 30) for question in questions]


async def test_it_asks_in_the_protocol_and_returns_the_numbers(
    backend: Backend, remote: Made, pipeline: Pipeline
) -> None:
    (answer,) = await told(remote(), Question(dict(ROWS)))
    assert isinstance(answer, np.ndarray)
    np.testing.assert_array_equal(answer, pipeline.predict_proba(ALL)[:, 1])
    (asked,) = backend.questions
    assert asked.path == "/v2/models/flight-delay/infer"
    assert asked.document == {
        "inputs": [
            {"name": "hour", "shape": [5], "datatype": "FP64", "data": ROWS["hour"]},
            {"name": "distance", "shape": [5], "datatype": "FP64", "data": ROWS["distance"]},
            {"name": "carrier", "shape": [5], "datatype": "BYTES", "data": ["AA", "UA", "B6", None, "ZZ"]},
            {"name": "gate", "shape": [5], "datatype": "BYTES", "data": ["1", "10", None, "2", "99"]},
        ],
        "outputs": [{"name": "probability"}],
    }


async def test_categories_arrive_as_training_wrote_them_however_a_client_did(backend: Backend, remote: Made) -> None:
    columns = {**row(0), "gate": np.array([10.0]), "carrier": ["never seen"]}
    await told(remote(), Question(columns))
    tensors = {tensor["name"]: tensor["data"] for tensor in backend.questions[0].document["inputs"]}
    assert tensors["gate"] == ["10"]
    assert tensors["carrier"] == ["never seen"]


async def test_unknown_categories_of_a_request_that_was_read_the_short_way(backend: Backend, remote: Made) -> None:
    question = Question(row(4))
    question.request = InferRequest("id", {}, 1, {}, question.matrix, {2: ["ZZ"], 3: ["99"]})
    await told(remote(), question)
    tensors = {tensor["name"]: tensor["data"] for tensor in backend.questions[0].document["inputs"]}
    assert (tensors["carrier"], tensors["gate"]) == (["ZZ"], ["99"])


async def test_what_waits_is_asked_together_and_everybody_gets_his_own(
    backend: Backend, remote: Made, pipeline: Pipeline
) -> None:
    answers = await told(remote(), *(Question(row(number)) for number in (0, 1, 2, 3, 4)))
    assert len(backend.questions) == 1
    np.testing.assert_array_equal(np.concatenate(answers), pipeline.predict_proba(ALL)[:, 1])


async def test_no_request_of_several_is_larger_than_the_limit(backend: Backend, remote: Made) -> None:
    answers = await told(remote(backend_rows=2), *(Question(row(number)) for number in range(5)), Question(dict(ROWS)))
    assert [len(answer) for answer in answers if isinstance(answer, np.ndarray)] == [1, 1, 1, 1, 1, 5]
    sizes = [asked.document["inputs"][0]["shape"][0] for asked in backend.questions]
    assert sorted(sizes) == [1, 2, 2, 5]


async def test_it_is_asked_no_more_at_once_than_the_limit_says(backend: Backend, remote: Made) -> None:
    backend.behave = lambda asked: None
    asking = remote(seconds=0.5, backend_rows=1, backend_requests=3)
    answers = await told(asking, *(Question(row(0)) for _ in range(6)))
    assert all(isinstance(answer, BackendError) and answer.status == 504 for answer in answers)
    assert len(backend.questions) <= 6
    assert backend.opened <= 6


async def test_a_request_that_is_refused_spoils_no_other(backend: Backend, remote: Made, pipeline: Pipeline) -> None:
    model = Model(pipeline, FEATURES)

    def behave(asked: Asked) -> Reply:
        if 23.5 in asked.document["inputs"][0]["data"]:
            return http(400, {"error": "hour 23.5 is too\nlate"})
        return model(asked)

    backend.behave = behave
    answers = await told(remote(), *(Question(row(number)) for number in range(5)))
    refused = [isinstance(answer, BackendError) for answer in answers]
    assert refused == [False, True, False, False, False]
    error = answers[1]
    assert isinstance(error, BackendError)
    assert (error.status, error.public) == (
        400,
        "the model's own server: it refuses the request: hour 23.5 is too late",
    )


def said(*values: Any, **changes: Any) -> bytes:
    return http(200, predicted(list(values), **changes))


FIVE = [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    "reply",
    [
        said(*FIVE),
        said(*FIVE, shape=[5, 1]),
        said(*[[value] for value in FIVE], shape=[5, 1]),
        said(*FIVE, datatype="FP32"),
    ],
)
async def test_the_ways_to_write_an_answer(backend: Backend, remote: Made, reply: bytes) -> None:
    backend.behave = lambda asked: reply
    (answer,) = await told(remote(), Question(dict(ROWS)))
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == FIVE


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (said(*FIVE[:4]), 502, r"of \[4\]"),
        (said(*FIVE[:4], shape=[5]), 502, "has 4 values for 5 rows"),
        (said(*FIVE, shape=[4]), 502, r"of \[4\]"),
        (said(*FIVE, shape=[1, 5]), 502, r"of \[1, 5\]"),
        (said(*FIVE, datatype="BYTES"), 502, "it is 'BYTES'"),
        (said(*FIVE[:4], None), 502, "must be numbers, not None"),
        (said(*FIVE[:4], "0.5"), 502, "must be numbers, not '0.5'"),
        (said(*FIVE[:4], True), 502, "must be numbers, not True"),
        (said(*FIVE[:4], 1.5), 502, "between 0 and 1, not 1.5"),
        (said(*FIVE[:4], -0.1), 502, "between 0 and 1, not -0.1"),
        (said(*FIVE[:4], 10**400), 502, "no infer response"),
        (said(*FIVE[:4], [[0.5]]), 502, "must be numbers"),
        (said(*FIVE, name="p"), 502, "one output probability"),
        (http(200, {"outputs": "none"}), 502, "no infer response"),
        (http(200, [1, 2]), 502, "no infer response"),
        (http(200, b"<html>"), 502, "no infer response"),
        (http(200, b'{"outputs": [{"name": "probability", "data": [NaN]}]}'), 502, "no infer response"),
        (http(204, b""), 502, "HTTP 204"),
        (http(302, b"", "location: http://elsewhere/"), 502, "HTTP 302"),
        (http(404, {"error": "no such model"}), 502, "HTTP 404; its log says why"),
        (http(500, b"Traceback (most recent call last): secret"), 502, "it failed with HTTP 500; its log says why"),
        (http(503, {"error": "x"}), 503, r"no capacity \(HTTP 503\)"),
        (http(429, {"error": "x"}), 503, r"no capacity \(HTTP 429\)"),
        (http(422, b"<html>"), 422, "it does not say why"),
        (http(413, {"error": "x" * 1000}), 413, "refuses the request: x{300}$"),
        (http(200, b"x" * 200_000), 502, "more than 100000 bytes"),
        (b"nonsense\r\n\r\n", 502, "no HTTP/1.1"),
        (None, 504, "no answer within 0.5 s"),
    ],
)
async def test_what_is_no_answer_is_an_error_that_says_what_it_was(
    backend: Backend, remote: Made, reply: Reply, status: int, message: str
) -> None:
    backend.behave = lambda asked: reply
    asking = remote(seconds=0.5 if reply is None else 20)
    (answer,) = await told(asking, Question(dict(ROWS)))
    assert isinstance(answer, BackendError)
    assert answer.status == status
    with pytest.raises(BackendError, match=message):
        raise answer
    assert asking.up


async def test_one_that_died_is_asked_no_more_until_the_watch_says_so(backend: Backend, remote: Made) -> None:
    asking = remote()
    backend.die()
    answers = await told(asking, Question(row(0)), Question(row(1)))
    assert [answer.status for answer in answers if isinstance(answer, BackendError)] == [502, 502]
    assert not asking.up
    assert not asking.ready
    assert asking.went_down.is_set()
    (answer,) = await told(asking, Question(row(0)))
    assert isinstance(answer, BackendError)
    assert answer.status == 503


async def test_the_backlog_grows_with_what_waits_and_with_how_long(backend: Backend, remote: Made) -> None:
    backend.behave = lambda asked: None
    asking = remote(seconds=1.0, backend_requests=1, backend_rows=1)
    asking.cost = Cost(call=2.0, row=0.5)
    assert asking.backlog_seconds() == 0
    questions = [Question(row(0)) for _ in range(4)]
    for question in questions:
        asking.submit(question)
    await asyncio.sleep(0.1)
    assert asking.backlog_seconds() == pytest.approx(3 * 2.5)
    asking.cost = Cost(0, 0)
    await asyncio.sleep(0.3)
    assert 0.3 <= asking.backlog_seconds() < 30
    assert {answer.status for answer in await told(asking, Question(row(0))) if isinstance(answer, BackendError)} == {
        504
    }


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
OUTPUT = st.fixed_dictionaries(
    {"name": st.just("probability") | JSON_VALUES},
    optional={"datatype": st.sampled_from(["FP64", "FP32"]) | JSON_VALUES,
              "shape": st.sampled_from([[5], [5, 1]]) | JSON_VALUES,
              "data": st.lists(st.floats(0, 1), min_size=5, max_size=5) | JSON_VALUES},
)  # fmt: skip
ANSWERS = st.fixed_dictionaries({}, optional={"outputs": st.lists(OUTPUT, max_size=3) | JSON_VALUES}) | JSON_VALUES


@given(status=st.sampled_from([200, 200, 200, 400, 422, 500, 503, 999]), document=ANSWERS | st.binary(max_size=40))
def test_whatever_it_answers_is_five_probabilities_or_an_error_of_one_line(status: int, document: Any) -> None:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    refusal: BackendError | None = None
    try:
        found = probabilities(Answer(status, content), 5)
    except BackendError as error:
        refusal = error
    if refusal is not None:
        assert 400 <= refusal.status < 600
        assert len(refusal.public) < 500
        assert "\n" not in refusal.public
        return
    assert status == 200
    assert found.shape == (5,)
    assert found.dtype == np.float64
    assert ((found >= 0) & (found <= 1)).all()

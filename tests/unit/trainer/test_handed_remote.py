"""Files that only a team's own server knows, judged over the Open Inference Protocol on the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.trainer.lake import START, events, with_value
from tests.unit.trainer.teams import Team, leaving
from tests.unit.trainer.test_run import GATE, champion
from truekeep.contract import layout
from truekeep.contract.artifact import Manifest, SignatureFeature
from truekeep.contract.requests import Backend
from truekeep.features import models
from truekeep.features.models import ArtifactFaultError
from truekeep.trainer.faults import DeliveryInvalid
from truekeep.trainer.handed import remote as handed_remote
from truekeep.trainer.handed.remote import Remote

Answer = Callable[[dict[str, list[Any]]], Any]
FEATURES = [
    SignatureFeature(name="amount", type="Number"),
    SignatureFeature(name="kind", type="Category", categories=["a", "b", "c"]),
]
WEIGHTS = b'{"amount": 2.0, "a": 1.0}'


def score(columns: dict[str, list[Any]], weights: bytes = WEIGHTS) -> list[float]:
    """A model of its own format: a few weights in JSON."""
    weight = json.loads(weights)
    amounts = [0.0 if value is None else value for value in columns["amount"]]
    raw = [weight["amount"] * a + weight["a"] * (k == "a") - 1 for a, k in zip(amounts, columns["kind"], strict=True)]
    return [float(1 / (1 + np.exp(-value))) for value in raw]


class Server:
    """A team's server. `answer`: what comes of the columns; a tuple is a status and a body."""

    def __init__(self) -> None:
        self.answer: Answer = score
        self.ready = 200
        self.asked: list[dict[str, list[Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                self.say(outer.ready if self.path == "/v2/health/ready" else 404, b"{}")

            def do_POST(self) -> None:
                assert self.path == "/v2/models/late/infer"
                document = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert document["outputs"] == [{"name": "probability"}]
                kinds = [(one["name"], one["datatype"]) for one in document["inputs"]]
                assert kinds == [("amount", "FP64"), ("kind", "BYTES")]
                columns = {one["name"]: one["data"] for one in document["inputs"]}
                outer.asked.append(columns)
                found = outer.answer(columns)
                if isinstance(found, tuple):
                    self.say(*found)
                    return
                output = {"name": "probability", "shape": [len(found)], "datatype": "FP64", "data": found}
                self.say(200, json.dumps({"outputs": [output]}).encode())

            def say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def team(versitygw: Versitygw, tmp_path: Path) -> Team:
    team = Team.at(versitygw, tmp_path, format="Opaque")
    team.place.write(events())
    return team


def remote(server: Server) -> Remote:
    return Remote(server.port, "late", 2.0, FEATURES, sleep=lambda _: None)


def test_opaque_files_are_judged_by_asking_their_server(team: Team, server: Server) -> None:
    request = team.request(evaluation=GATE, backend=Backend(port=server.port))
    result = team.run(leaving(weights_json=WEIGHTS), request)
    assert result.reason == "Succeeded", result.message
    assert result.gates[0].rows == 480
    files = team.place.files(result)
    assert set(files) == {"weights.json", "signature.json", "profile.json", "performance.json"}
    assert files["weights.json"] == WEIGHTS
    signature = models.read_signature(files[layout.SIGNATURE])
    assert signature.imported is not None
    assert signature.imported.format == "opaque"
    columns = {name: [one.inputs[name] for one in signature.examples] for name in ("amount", "kind")}
    assert [one.probability for one in signature.examples] == pytest.approx(score(columns), abs=1e-12)
    from sklearn.metrics import roc_auc_score

    new = events().slice(1920)
    truth = roc_auc_score(new["late"].to_numpy(), score({name: new[name].to_pylist() for name in ("amount", "kind")}))
    assert float(result.gates[0].value) == pytest.approx(truth, abs=1e-4)
    with pytest.raises(ArtifactFaultError, match=r"only spec\.serving\.image answers for it"):
        models.predictor(files, signature)


def test_a_server_that_answers_badly_is_as_bad_as_it_is(team: Team, server: Server) -> None:
    server.answer = lambda columns: [0.5] * len(columns["kind"])
    result = team.run(
        leaving(weights_json=WEIGHTS, metrics_json=b'{"roc_auc": 1.0}'),
        team.request(evaluation=GATE, backend=Backend(port=server.port)),
    )
    assert result.reason == "GatesFailed"
    assert "0.5000 is below 0.7" in result.message


def test_it_finds_the_files_in_its_folder_and_what_the_features_mean(team: Team, server: Server) -> None:
    request = team.request(backend=Backend(port=server.port))
    assert team.fitted(leaving(weights_json=WEIGHTS), request) is None
    folder = team.folder / "model"
    folder.mkdir()
    for _ in range(2):  # a container may be started again
        assert team.part("fetch", request) is None
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "signature.json", "weights.json"]
    assert (folder / "weights.json").read_bytes() == WEIGHTS
    features = json.loads((folder / "signature.json").read_text())["features"]
    assert [one.get("categories") for one in features] == [None, ["a", "b", "c"]]
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert {file.path for file in manifest.files} == {"weights.json", "signature.json"}


def test_a_champion_of_that_kind_is_not_asked_and_the_run_says_so(team: Team, server: Server) -> None:
    first = team.run(leaving(weights_json=WEIGHTS), team.request(backend=Backend(port=server.port)))
    rule = {"evaluation": {"champion": {"metric": "roc_auc"}}, **champion(first, START)}
    result = team.place.run(run_uid="two", **rule)
    assert result.reason == "Succeeded", result.message
    assert result.champion is not None
    assert result.champion.result == "NotJudged"
    assert "only its own spec.serving.image answers for it" in result.message


def test_rows_are_asked_as_they_are_with_what_training_never_saw(team: Team, server: Server) -> None:
    team.place.write(with_value(with_value(events(), "kind", 2300, "new"), "amount", 2301, None))
    team.run(leaving(weights_json=WEIGHTS), team.request(backend=Backend(port=server.port)))
    assert any("new" in columns["kind"] for columns in server.asked)
    assert any(None in columns["amount"] for columns in server.asked)


def test_a_matrix_is_asked_by_its_meaning(server: Server) -> None:
    rows = np.array([[1.0, 0.0], [np.nan, 1.0], [2.0, np.nan], [3.0, -1.0]])
    remote(server).matrix(rows)
    (columns,) = server.asked
    assert columns["amount"] == [1.0, None, 2.0, 3.0]
    assert columns["kind"][:3] == ["a", "b", None]
    assert columns["kind"][3] not in ("a", "b", "c", None)


def test_many_rows_are_asked_in_parts(server: Server) -> None:
    rows = np.tile([[1.0, 0.0]], (handed_remote.ROWS_AT_ONCE * 2 + 1, 1))
    assert remote(server).matrix(rows).shape == (len(rows),)
    assert [len(columns["kind"]) for columns in server.asked] == [200, 200, 1]


BAD: list[tuple[Answer, str]] = [
    (lambda _: [2.0], "which is no probability"),
    (lambda _: [float("nan")], "which is no probability"),
    (lambda _: [0.5, 0.5], "one probability a row"),
    (lambda _: ["0.5"], "gives no infer response"),
    (lambda _: (200, b"[]"), "gives no infer response"),
    (lambda _: (200, b"[" * 100_000), "gives no infer response"),
    (lambda _: (200, b'{"outputs": [{"name": "other", "data": [1]}]}'), "gives no infer response"),
    (lambda _: (200, b" " * (2 << 20)), "gave no answer"),
    (lambda _: (400, b'{"error": "no such\\n feature"}'), "answers HTTP 400: no such feature"),
    (lambda _: (500, b"<html>"), "answers HTTP 500: it does not say why"),
    (lambda _: (503, b"{}"), "answers HTTP 503"),
]


@pytest.mark.parametrize(("answer", "words"), BAD)
def test_whatever_it_answers_is_judged_first(server: Server, answer: Answer, words: str) -> None:
    server.answer = answer
    with pytest.raises(DeliveryInvalid, match=words):
        remote(server).matrix(np.array([[1.0, 0.0]]))


def test_one_that_is_busy_is_asked_again(server: Server) -> None:
    answers = iter([(503, b"{}"), (200, b'{"outputs": [{"name": "probability", "data": [[0.25]]}]}')])
    server.answer = lambda _: next(answers)
    assert remote(server).matrix(np.array([[1.0, 0.0]])).tolist() == [0.25]


def test_it_is_waited_for_and_given_up(server: Server) -> None:
    remote(server).wait(seconds=5)
    server.ready = 503
    ticks = iter(range(1000))
    waiting = Remote(server.port, "late", 2.0, FEATURES, sleep=lambda _: None, clock=lambda: float(next(ticks)))
    with pytest.raises(DeliveryInvalid, match=r"not ready .* within 20 s \(it answers HTTP 503\)"):
        waiting.wait(seconds=20)
    server.close()
    with pytest.raises(DeliveryInvalid, match="ConnectionRefusedError"):
        Remote(server.port, "late", 2.0, FEATURES, sleep=lambda _: None, clock=lambda: float(next(ticks))).wait(20)

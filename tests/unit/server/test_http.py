"""A real server, asked everything that the protocol knows, and much that it does not."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from tests.unit.server.conftest import FEATURES, LOGISTIC, MODEL, NAMES, ROWS, Running, body, tensor
from tests.unit.server.test_protocol import documents
from truekeep.features.encode import Encoder

INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture
def client(shared: Running) -> Any:
    with shared.client() as client:
        yield client


def expected(pipeline: Pipeline, rows: dict[str, list[Any]] = ROWS) -> Any:
    """What the pipeline says itself; sums may be rounded otherwise."""
    matrix = Encoder(FEATURES).encode(rows, len(rows["hour"]))
    return pytest.approx([float(value) for value in pipeline.predict_proba(matrix)[:, 1]], rel=0, abs=1e-15)


def outputs(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def test_health_and_metadata(client: httpx.Client) -> None:
    assert client.get("/v2").json()["name"] == "truekeep"
    for path in ("live", "ready"):
        answer = client.get(f"/v2/health/{path}")
        assert (answer.status_code, answer.json()) == (200, {"live": True, "ready": True})
    document = client.get(f"/v2/models/{MODEL}").json()
    assert document == client.get(f"/v2/models/{MODEL}/versions/3").json()
    assert document["versions"] == ["3"]
    assert [(i["name"], i["datatype"], i["shape"]) for i in document["inputs"]] == [
        ("hour", "FP64", [-1]),
        ("distance", "FP64", [-1]),
        ("carrier", "BYTES", [-1]),
        ("gate", "BYTES", [-1]),
    ]
    assert [(o["name"], o["datatype"]) for o in document["outputs"]] == [
        ("probability", "FP64"),
        ("prediction", "INT64"),
    ]
    assert document["parameters"]["optional_inputs"] == ["scheduled_at", "flight_id"]
    for path in (f"/v2/models/{MODEL}/ready", f"/v2/models/{MODEL}/versions/3/ready"):
        assert client.get(path).json() == {"name": MODEL, "version": "3", "ready": True}
    head = client.head("/v2/health/ready")
    assert (head.status_code, head.content) == (200, b"")


def test_answers_are_those_of_the_pipeline(client: httpx.Client, pipeline: Pipeline) -> None:
    answer = client.post(INFER, json=body(id="abc"))
    document = answer.json()
    assert (document["model_name"], document["model_version"], document["id"]) == (MODEL, "3", "abc")
    assert outputs(answer)["probability"] == expected(pipeline)
    assert outputs(answer)["prediction"] == [int(value >= 0.4) for value in expected(pipeline).expected]
    assert [(o["name"], o["datatype"], o["shape"]) for o in document["outputs"]] == [
        ("probability", "FP64", [5]),
        ("prediction", "INT64", [5]),
    ]


def test_one_row_at_a_time_is_the_same(client: httpx.Client, pipeline: Pipeline) -> None:
    for row, value in enumerate(expected(pipeline).expected):
        one = {name: [values[row]] for name, values in ROWS.items()}
        assert outputs(client.post(INFER, json=body(one)))["probability"] == pytest.approx([value], abs=1e-15)


def test_ten_thousand_rows(client: httpx.Client, pipeline: Pipeline) -> None:
    many = {name: (values * 2000) for name, values in ROWS.items()}
    np.testing.assert_allclose(
        outputs(client.post(INFER, json=body(many)))["probability"],
        expected(pipeline).expected * 2000,
        rtol=0,
        atol=1e-15,
    )


@pytest.mark.parametrize(
    "inputs",
    [
        [tensor(name, [[value] for value in ROWS[name]], shape=[5, 1]) for name in NAMES],
        [tensor(name, ROWS[name], shape=[5, 1]) for name in reversed(NAMES)],
        [*(tensor(name, ROWS[name]) for name in NAMES[:3]), tensor("gate", [1, 10, None, 2, 99], "INT16")],
        [tensor(name, ROWS[name], parameters={"content_type": "str"}) for name in NAMES],
        [
            *(tensor(name, ROWS[name]) for name in NAMES),
            tensor("scheduled_at", ["2013-05-01T12:00:00Z", None, "2013-05-01", None, None], "BYTES"),
            tensor("flight_id", [1, 2, None, 4, 5], "INT64"),
        ],
    ],
)
def test_every_form_of_a_column_gives_the_same(
    client: httpx.Client, pipeline: Pipeline, inputs: list[dict[str, Any]]
) -> None:
    answer = client.post(f"/v2/models/{MODEL}/versions/3/infer", json={"inputs": inputs, "parameters": {"x": 1}})
    assert outputs(answer)["probability"] == expected(pipeline)


def test_booleans_and_integers_are_numbers(client: httpx.Client, pipeline: Pipeline) -> None:
    rows = {"hour": [1, 0], "distance": [5, 6], "carrier": ["AA", "AA"], "gate": ["1", "1"]}
    inputs = body(rows)["inputs"]
    inputs[0] = tensor("hour", [True, False], "BOOL")
    inputs[1] = tensor("distance", [5, 6], "UINT8")
    assert outputs(client.post(INFER, json={"inputs": inputs}))["probability"] == expected(pipeline, rows)


def test_a_missing_id_is_given_and_differs(client: httpx.Client) -> None:
    first, second = (client.post(INFER, json=body()).json()["id"] for _ in range(2))
    assert first
    assert second
    assert first != second


def test_wanted_outputs_only(client: httpx.Client) -> None:
    assert list(outputs(client.post(INFER, json=body(outputs=[{"name": "prediction"}])))) == ["prediction"]


def changed(name: str, **changes: Any) -> dict[str, Any]:
    """The good request with one tensor changed."""
    return {"inputs": [tensor(n, ROWS[n], **(changes if n == name else {})) for n in NAMES]}


def with_more(*more: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": [*(tensor(name, ROWS[name]) for name in NAMES), *more]}


@pytest.mark.parametrize(
    ("request_body", "status", "message"),
    [
        (b"{", 400, "the body is not valid JSON"),
        (orjson.dumps(body()).replace(b"23.5", b"NaN"), 400, "NaN and Infinity are no JSON"),
        (orjson.dumps(body()).replace(b"23.5", b"-Infinity"), 400, "NaN and Infinity are no JSON"),
        (orjson.dumps(body()).replace(b"23.5", b"1e999"), 400, "not valid JSON"),
        (b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "depth limit exceeded"),
        ({"inputs": body()["inputs"][:3]}, 400, "tensor gate is missing; send a tensor for each"),
        (
            with_more(tensor("origin", ["JFK"] * 5, "BYTES")),
            400,
            "tensor origin is no input of the model; it takes hour",
        ),
        (with_more(tensor("gate", ["1"] * 5)), 400, "tensor gate is there twice"),
        (changed("gate", data=["1"]), 400, "tensor gate: shape says 5 rows, but data has 1"),
        (changed("gate", shape=[1], data=["1"]), 400, "tensor gate has 1 rows, but hour has 5"),
        (changed("distance", data=[1, 2, None, 4, 5]), 422, "tensor distance: row 2: null is refused"),
        (changed("hour", datatype="BYTES", data=["7"] * 5), 422, "tensor hour: row 0: a Number must be a number"),
        (changed("gate", datatype="FP64", data=[1.5] * 5), 422, "tensor gate: row 0: a Category must be text"),
        (with_more(tensor("scheduled_at", ["noon"] * 5, "BYTES")), 422, "tensor scheduled_at, row 0: 'noon' is no ISO"),
        (with_more(tensor("scheduled_at", [True] * 5, "BOOL")), 422, "tensor scheduled_at, row 0: True is no time"),
        (with_more(tensor("flight_id", [1.5] * 5, "FP64")), 422, "tensor flight_id, row 0: a key is text"),
        (with_more(tensor("flight_id", [1], "INT64")), 400, "tensor flight_id has 1 rows, but hour has 5"),
        (body({n: v * 2001 for n, v in ROWS.items()}), 413, "tensor hour has 10005 rows; at most 10000 are accepted"),
        (b" " * ((4 << 20) + 1), 413, "the body has 4194305 bytes; at most 4194304 are accepted"),
    ],
)
def test_what_can_not_be_answered_is_refused_by_name(
    client: httpx.Client, request_body: Any, status: int, message: str
) -> None:
    content = request_body if isinstance(request_body, bytes) else orjson.dumps(request_body)
    answer = client.post(INFER, content=content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/", 404, "the protocol's paths begin with /v2"),
        ("GET", "/v1/models", 404, "the protocol's paths begin with /v2"),
        ("GET", "/v2/nothing", 404, f"see /v2, /v2/health/ready and /v2/models/{MODEL}"),
        ("GET", "/v2/models", 404, "there is no /v2/models"),
        ("GET", "/v2/models/other", 404, f"model other is unknown; this server has {MODEL}"),
        ("POST", "/v2/models/other/infer", 404, "model other is unknown"),
        ("POST", f"/v2/models/{MODEL}/versions/2/infer", 404, f"version 2 of {MODEL} is unknown; this server has 3"),
        ("POST", f"/v2/models/{MODEL}/versions/03/infer", 404, "version 03"),
        ("GET", f"/v2/models/{MODEL}/explain", 404, "a model has no explain"),
        ("GET", f"/v2/models/{MODEL}/%69nfer", 405, "GET is not allowed here; use POST"),
        ("PUT", INFER, 405, "PUT is not allowed here; use POST"),
        ("POST", "/v2/health/ready", 405, "POST is not allowed here; use GET"),
        ("DELETE", "/metrics", 405, "DELETE is not allowed here; use GET"),
        ("GET", "/v2/models/" + "x" * 2000, 404, "model xxx"),
        ("GET", "/%ff%00<script>", 404, "there is no /"),
    ],
)
def test_unknown_paths_and_methods(client: httpx.Client, method: str, path: str, status: int, message: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert len(answer.json()["error"]) < 300
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"content-encoding": "gzip"}, 415, "content-encoding gzip is not supported; send plain JSON or"),
        ({"inference-header-content-length": "10"}, 400, "the body is not valid JSON"),
        ({"inference-header-content-length": "1000000"}, 400, "is 1000000, but the body has"),
        ({"inference-header-content-length": "-1"}, 400, "must be a number of bytes"),
    ],
)
def test_encodings_that_are_not_known(client: httpx.Client, headers: dict[str, str], status: int, message: str) -> None:
    answer = client.post(INFER, json=body(), headers=headers)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True)


def test_a_body_without_length_is_read_too(client: httpx.Client, pipeline: Pipeline) -> None:
    content = orjson.dumps(body())

    def pieces(size: int = 7) -> Any:
        for start in range(0, len(content), size):
            yield content[start : start + size]

    assert outputs(client.post(INFER, content=pieces()))["probability"] == expected(pipeline)


def test_a_chunk_flood_is_cut_off(client: httpx.Client) -> None:
    answer = client.post(INFER, content=(b" " * 65536 for _ in range(80)))
    assert answer.status_code == 413
    assert "more than 4194304 bytes" in answer.json()["error"]
    assert client.get("/v2/health/live").status_code == 200


def test_metrics_count_outcomes_and_rows(shared: Running, client: httpx.Client) -> None:
    def counts() -> tuple[float, ...]:
        return (
            shared.metric("truekeep_server_requests_total", outcome="ok"),
            shared.metric("truekeep_server_requests_total", outcome="client_error"),
            shared.metric("truekeep_server_rows_total"),
            shared.metric("truekeep_server_request_seconds_count"),
        )

    before = counts()
    client.post(INFER, json=body())
    client.post(INFER, content=b"{")
    client.post("/v2/models/other/infer", json=body())
    assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [1, 2, 5, 1]
    assert shared.metric("truekeep_server_requests_total", outcome="server_error") == 0
    assert shared.metric("truekeep_server_in_flight_requests") == 0
    assert shared.metric("truekeep_server_self_test_passed") == 1
    assert shared.metric("truekeep_server_ready") == 1
    assert shared.metric("process_resident_memory_bytes") > 0
    assert f'estimator="{LOGISTIC}"' in client.get("/metrics").text


json_like = documents.map(orjson.dumps) | st.binary(max_size=80)
shapes = st.sampled_from([[1], [2], [1, 1], [0], [2, 1]])
near_misses = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.builds(
                lambda name, shape, datatype, data: {"name": name, "shape": shape, "datatype": datatype, "data": data},
                st.sampled_from([*NAMES, "scheduled_at", "flight_id", "odd"]),
                shapes,
                st.sampled_from(["FP64", "BYTES", "INT64", "BOOL"]),
                st.lists(st.sampled_from([1, 2.5, "AA", "2013-05-01", None, True, -1e308, "", "\x00", []]), max_size=2),
            ),
            max_size=7,
        )
    }
).map(orjson.dumps)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(json_like, near_misses))
def test_no_body_gets_anything_but_an_answer_or_a_refusal(client: httpx.Client, content: bytes) -> None:
    answer = client.post(INFER, content=content)
    assert answer.status_code in (200, 400, 413, 422)
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_valid_rows_get_the_pipeline_s_answer(
    client: httpx.Client, pipeline: Pipeline, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 4))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(values, min_size=count, max_size=count))

    sizes = st.floats(-1e6, 1e6)
    rows = {
        "hour": column(st.none() | sizes),
        "distance": column(sizes),
        "carrier": column(st.none() | st.sampled_from(["AA", "UA", "??", ""])),
        "gate": column(st.none() | st.sampled_from(["1", "2", "10"])),
    }
    got = outputs(client.post(INFER, json=body(rows)))["probability"]
    assert got == pytest.approx(expected(pipeline, rows), abs=1e-12)

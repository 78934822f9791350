"""Clients that others wrote, unmodified: tritonclient over HTTP and gRPC, and requests as MLServer's codecs make them.

Whatever way a row takes, its number is the pipeline's own."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from sklearn.pipeline import Pipeline
from tritonclient.utils import InferenceServerException

from tests.unit.server.conftest import FEATURES, MODEL, NAMES, Published, Running, Start
from truekeep.features.encode import Encoder

MANY = 700


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, shared: Running) -> Iterator[tuple[Any, Any]]:
    """The client's module, and a client."""
    module = triton_http if request.param == "http" else triton_grpc
    address = shared.url.removeprefix("http://") if request.param == "http" else shared.grpc
    client = module.InferenceServerClient(address)
    yield module, client
    client.close()


def rows(count: int = MANY, seed: int = 3) -> dict[str, Any]:
    """Columns without nulls, unknown categories included."""
    random = np.random.default_rng(seed)
    return {
        "hour": random.uniform(0, 24, count),
        "distance": random.integers(0, 3000, count).astype(np.float64),
        "carrier": random.choice(np.array(["AA", "B6", "UA", "ZZ", "Ü"], dtype=np.object_), count),
        "gate": random.choice(np.array(["1", "10", "2", "99"], dtype=np.object_), count),
    }


def expected(pipeline: Pipeline, columns: dict[str, Any]) -> Any:
    plain = {name: [None if value != value else value for value in columns[name].tolist()] for name in NAMES}
    matrix = Encoder(FEATURES).encode(plain, len(plain["hour"]))
    return pipeline.predict_proba(matrix)[:, 1]


def inputs(module: Any, columns: dict[str, Any], **options: Any) -> list[Any]:
    made = []
    for name, values in columns.items():
        datatype = {"f8": "FP64", "f4": "FP32", "f2": "FP16", "i8": "INT64", "i2": "INT16", "b1": "BOOL"}
        kind = "BYTES" if values.dtype == np.object_ else datatype[values.dtype.str[1:]]
        made.append(module.InferInput(name, list(values.shape), kind))
        made[-1].set_data_from_numpy(values, **options)
    return made


def test_it_sees_a_server_and_a_model(triton: tuple[Any, Any]) -> None:
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "3")


def test_metadata(shared: Running) -> None:
    with triton_http.InferenceServerClient(shared.url.removeprefix("http://")) as client:
        over_http = client.get_model_metadata(MODEL)
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    with triton_grpc.InferenceServerClient(shared.grpc) as client:
        over_grpc = client.get_model_metadata(MODEL, as_json=True)
        assert client.get_server_metadata().name == "truekeep"
    for part in ("inputs", "outputs"):
        told = [(one["name"], one["datatype"], one["shape"]) for one in over_http[part]]
        assert told == [(one["name"], one["datatype"], [int(size) for size in one["shape"]]) for one in over_grpc[part]]
    assert over_http["platform"] == over_grpc["platform"] == "onnx_onnxruntime"


def test_many_rows(triton: tuple[Any, Any], pipeline: Pipeline) -> None:
    module, client = triton
    columns = rows()
    answer = client.infer(MODEL, inputs(module, columns), model_version="3", request_id="abc")
    np.testing.assert_allclose(answer.as_numpy("probability"), expected(pipeline, columns), rtol=0, atol=1e-15)
    decided = (answer.as_numpy("probability") >= 0.4).astype(np.int64)
    np.testing.assert_array_equal(answer.as_numpy("prediction"), decided)


def test_json_in_and_out(shared: Running, pipeline: Pipeline) -> None:
    columns = rows()
    with triton_http.InferenceServerClient(shared.url.removeprefix("http://")) as client:
        for binary_in in (True, False):
            for binary_out in (True, False):
                wanted = [triton_http.InferRequestedOutput("probability", binary_data=binary_out)]
                answer = client.infer(MODEL, inputs(triton_http, columns, binary_data=binary_in), outputs=wanted)
                got = answer.as_numpy("probability")
                np.testing.assert_allclose(got, expected(pipeline, columns), rtol=0, atol=1e-15)
                assert answer.as_numpy("prediction") is None


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int64, np.int16, np.bool_])
def test_every_kind_of_number(triton: tuple[Any, Any], pipeline: Pipeline, kind: Any) -> None:
    module, client = triton
    columns = rows(50)
    columns["hour"] = columns["hour"].astype(kind)
    columns["gate"] = np.array([1, 10, 2, 99, 1], dtype=np.int64).repeat(10)
    answer = client.infer(MODEL, inputs(module, columns))
    np.testing.assert_allclose(answer.as_numpy("probability"), expected(pipeline, columns), rtol=0, atol=1e-15)


def test_nan_is_a_missing_value(triton: tuple[Any, Any], pipeline: Pipeline) -> None:
    module, client = triton
    columns = rows(50)
    columns["hour"][::3] = np.nan
    columns["gate"] = np.array([1.0, 10.0, np.nan, 2.0, 7.0], dtype=np.float32).repeat(10)
    answer = client.infer(MODEL, inputs(module, columns))
    np.testing.assert_allclose(answer.as_numpy("probability"), expected(pipeline, columns), rtol=0, atol=1e-15)


def test_one_tensor_for_all(triton: tuple[Any, Any], pipeline: Pipeline) -> None:
    """Numbers, categories as codes; and as many columns as [n, 1]."""
    module, client = triton
    columns = rows(50)
    columns["carrier"] = np.full(50, 7.0)  # unknown
    columns["gate"] = np.array([1.0, 10.0, np.nan, 2.0, 7.0]).repeat(10)
    wide = np.column_stack([columns[name] for name in NAMES])
    answer = client.infer(MODEL, inputs(module, {"input-0": wide}))
    np.testing.assert_allclose(answer.as_numpy("probability"), expected(pipeline, columns), rtol=0, atol=1e-15)
    narrow = {name: values.reshape(-1, 1) for name, values in columns.items()}
    again = client.infer(MODEL, inputs(module, narrow))
    np.testing.assert_array_equal(again.as_numpy("probability"), answer.as_numpy("probability"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hour": np.array([np.inf])}, "tensor hour: row 0: inf is not finite; send null"),
        ({"distance": np.array([np.nan])}, "tensor distance: row 0: NaN is refused, because the Model declares"),
        ({"gate": np.array([1.5])}, "tensor gate: row 0: a Category must be text, an integer"),
        ({"hour": np.array(["7"], dtype=np.object_)}, "tensor hour: row 0: a Number must be a number or null"),
        ({"hour": np.array([1.0, 2.0])}, "tensor distance has 1 rows, but hour has 2"),
        ({"origin": np.array([1.0])}, "tensor origin is no input of the model"),
        ({"scheduled_at": np.array(["noon"], dtype=np.object_)}, "tensor scheduled_at, row 0: 'noon' is no ISO"),
    ],
)
def test_what_can_not_be_answered_is_refused_by_name(triton: tuple[Any, Any], change: Any, message: str) -> None:
    module, client = triton
    columns = {name: values[:1] for name, values in rows(1).items()}
    with pytest.raises(InferenceServerException) as caught:
        client.infer(MODEL, inputs(module, {**columns, **change}))
    assert message in str(caught.value.message())


def test_another_model_or_version(triton: tuple[Any, Any]) -> None:
    module, client = triton
    for name, version, message in (("other", "", "model other is unknown"), (MODEL, "2", "version 2 of")):
        with pytest.raises(InferenceServerException, match=message):
            client.infer(name, inputs(module, rows(1)), model_version=version)


def test_event_times_and_keys(triton: tuple[Any, Any]) -> None:
    module, client = triton
    columns = rows(2)
    columns["scheduled_at"] = np.array([1.4e9, np.nan])
    columns["flight_id"] = np.array(["a", "b"], dtype=np.object_)
    assert len(client.infer(MODEL, inputs(module, columns)).as_numpy("probability")) == 2


def test_typed_contents_over_grpc(shared: Running, pipeline: Pipeline) -> None:
    """Other gRPC clients send values in `contents`, and are answered likewise."""
    import grpc

    from truekeep.server import grpc_messages as messages

    columns = rows(20)
    request = messages.ModelInferRequest(model_name=MODEL, id="x")
    for name, values in columns.items():
        text = values.dtype == np.object_
        tensor = request.inputs.add(name=name, datatype="BYTES" if text else "FP64", shape=[20])
        if text:
            tensor.contents.bytes_contents.extend(value.encode() for value in values)
        else:
            tensor.contents.fp64_contents.extend(values.tolist())
    with grpc.insecure_channel(shared.grpc) as channel:
        infer = channel.unary_unary(
            f"/{messages.SERVICE}/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        answer = infer(request)
        assert (answer.id, answer.model_version, list(answer.raw_output_contents)) == ("x", "3", [])
        got = list(answer.outputs[0].contents.fp64_contents)
        np.testing.assert_allclose(got, expected(pipeline, columns), rtol=0, atol=1e-15)
        request.inputs[0].contents.fp64_contents.pop()
        with pytest.raises(grpc.RpcError) as caught:
            infer(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "tensor hour: shape says 20 values, but contents.fp64_contents has 19" in caught.value.details()
        too_large = messages.ModelInferRequest(model_name=MODEL, id="x" * (5 << 20))
        with pytest.raises(grpc.RpcError) as caught:
            infer(too_large)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert shared.metric("truekeep_server_requests_total", outcome="server_error") == 0


def test_over_grpc_connections_end_without_a_failed_call(published: Published, start: Start) -> None:
    """At their age, and at SIGTERM: the call under way is answered, then the process ends."""
    server = start(published.request(connection_max_age_seconds=1)).ready()
    columns = rows(3)
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert len(client.infer(MODEL, inputs(triton_grpc, columns)).as_numpy("probability")) == 3
        answered: queue.Queue[Any] = queue.Queue()
        for _ in range(20):
            client.async_infer(MODEL, inputs(triton_grpc, columns), lambda result, error: answered.put((result, error)))
        first = answered.get(timeout=10)
        server.terminate()
        others = [answered.get(timeout=10) for _ in range(19)]
    assert [error for _, error in [first, *others] if error is not None] == []
    assert server.exit_code() == 0
    assert server.logged("stopped")


def test_too_many_calls_at_once_are_turned_away_and_the_others_answered(published: Published, start: Start) -> None:
    server = start(published.request(), limits={"grpc_calls": 3}).ready()
    columns = rows(10_000)
    errors: queue.Queue[Any] = queue.Queue()
    clients = [triton_grpc.InferenceServerClient(server.grpc) for _ in range(5)]
    for number in range(40):
        clients[number % 5].async_infer(
            MODEL, inputs(triton_grpc, columns), lambda result, error: errors.put((result, error))
        )
    results = [errors.get(timeout=30) for _ in range(40)]
    for client in clients:
        client.close()
    refused = [error for _, error in results if error is not None]
    assert len(refused) < 40
    # Refused by the server, or before it by HTTP/2 (REFUSED_STREAM): both mean that it may be sent again.
    assert {error.status() for error in refused} <= {"StatusCode.RESOURCE_EXHAUSTED", "StatusCode.UNAVAILABLE"}
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        assert len(client.infer(MODEL, inputs(triton_grpc, rows(3))).as_numpy("probability")) == 3


def test_requests_of_mlserver_s_pandas_codec(shared: Running, pipeline: Pipeline) -> None:
    """As `PandasCodec.encode_request` of MLServer 1.7 makes them: a column a tensor of [n, 1], with content types."""
    columns = rows(20)
    request = {
        "parameters": {"content_type": "pd"},
        "inputs": [
            {
                "name": name, "shape": [20, 1], "datatype": "BYTES" if values.dtype == np.object_ else "FP64",
                "data": values.tolist(),
                **({"parameters": {"content_type": "str"}} if values.dtype == np.object_ else {}),
            }
            for name, values in columns.items()
        ],
    }  # fmt: skip
    with shared.client() as client:
        answer = client.post(f"/v2/models/{MODEL}/infer", json=request).json()
    np.testing.assert_allclose(answer["outputs"][0]["data"], expected(pipeline, columns), rtol=0, atol=1e-15)


def test_the_openapi_document(shared: Running) -> None:
    with shared.client() as client:
        document = client.get("/openapi.json").json()
        page = client.get("/docs")
        assert document["openapi"].startswith("3.1")
        infer = document["paths"][f"/v2/models/{MODEL}/infer"]["post"]
        example = infer["requestBody"]["content"]["application/json"]["example"]
        assert [one["name"] for one in example["inputs"]] == NAMES
        assert client.post(f"/v2/models/{MODEL}/infer", json=example).status_code == 200
        for path in document["paths"]:
            if not path.endswith("infer"):
                assert client.get(path).status_code == 200, path
    references = [part.partition('"')[0] for part in str(document).replace("'", '"').split('"$ref": "')[1:]]
    assert references
    assert all(one.rpartition("/")[2] in document["components"]["schemas"] for one in references)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not any(word in page.text for word in ("src=", "<script", "<link", "url(", "://"))
    assert "carrier" in page.text

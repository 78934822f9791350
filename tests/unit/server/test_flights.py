"""The example's own model, trained on real flights: every row of the holdout, over every protocol, gets the number that
scikit-learn's `predict_proba` gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from tests.unit.server.conftest import Start
from tests.unit.trainer.test_main import Pod, flight_request, lake, pod  # noqa: F401 - fixtures
from truekeep.api.common import S3Location
from truekeep.contract.artifact import Signature
from truekeep.contract.requests import ServeRequest
from truekeep.features import encode
from truekeep.features.trust import load_pipeline
from truekeep.storage import artifacts
from truekeep.storage.s3 import Bucket
from truekeep.trainer.data.dataset import load
from truekeep.trainer.judging import evaluate
from truekeep.trainer.recipe.pipeline import probabilities

AT_ONCE = 2500


def tensors(module: Any, columns: dict[str, Any], **options: Any) -> Iterator[Any]:
    for name, values in columns.items():
        tensor = module.InferInput(name, [len(values)], "BYTES" if values.dtype == np.object_ else "FP64")
        tensor.set_data_from_numpy(values, **options)
        yield tensor


def test_every_row_of_the_holdout(pod: Pod, lake: S3Location, start: Start) -> None:  # noqa: F811
    asked = flight_request(lake)
    assert pod.run(asked)[0] == 0
    trained = pod.result()
    assert trained.artifact is not None
    assert trained.artifact.format == "skops+onnx"
    files = artifacts.read(Bucket.open(lake), trained.artifact.digest)
    signature = Signature.model_validate_json(files["signature.json"])

    dataset = load(asked.data, [], Bucket.open, 0, lambda _: None)
    at = evaluate.split(dataset.times, dataset.labels, asked.evaluation.holdout.latest_fraction).at
    whole = {want.name: values[at:] for want, values in dataset.columns.items()}
    rows = len(dataset) - at
    wanted = probabilities(
        load_pipeline(files["model.skops"], signature.estimator), encode.matrix(whole, signature.features)
    )
    compiled = signature.compiled
    assert compiled is not None
    assert (compiled.reason, compiled.crossed) == ("", 0)
    assert rows < compiled.rows < rows + 30, "and the examples"

    server = start(
        ServeRequest(
            namespace="shop", model="late", revision=1, run="late-1", artifact_digest=trained.artifact.digest,
            store=lake, time_column=asked.data.time_column, key=asked.data.key,
        )
    ).ready()  # fmt: skip
    assert server.logged("ready")[0]["format"] == "onnx"
    with (
        triton_http.InferenceServerClient(server.url.removeprefix("http://")) as over_http,
        triton_grpc.InferenceServerClient(server.grpc) as over_grpc,
    ):
        ways = [(triton_http, over_http, {"binary_data": True}), (triton_http, over_http, {"binary_data": False})]
        for module, client, options in [*ways, (triton_grpc, over_grpc, {})]:
            for first in range(0, rows, AT_ONCE):
                part = slice(first, first + AT_ONCE)
                columns = {
                    one.name: np.asarray(whole[one.name][part], dtype=np.float64)
                    if one.type == "Number"
                    else np.array(whole[one.name][part].to_pylist(), dtype=np.object_)
                    for one in signature.features
                }
                if options.get("binary_data") is False:  # as JSON tritonclient has no way to write a null
                    whole_rows = ~np.isnan([columns[one.name] for one in signature.features if one.type == "Number"])
                    known = whole_rows.all(axis=0)
                else:
                    known = np.ones(len(wanted[part]), dtype=np.bool_)
                answer = client.infer(
                    "late", list(tensors(module, {name: one[known] for name, one in columns.items()}, **options))
                )
                got = answer.as_numpy("probability")
                np.testing.assert_allclose(got, wanted[part][known], rtol=0, atol=1e-12)
                decided = (wanted[part][known] >= signature.cut_off).astype(np.int64)
                np.testing.assert_array_equal(answer.as_numpy("prediction"), decided)

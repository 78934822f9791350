"""Transformers on a cluster: a Model with steps, the event's own time among its features, trained and served.
Clients send raw features, and the answers are those of the pipeline in the artifact. What can't be is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.e2e.shop import BEGINS, DAYS, REQUEST, ROWS_PER_DAY, Shop, open_shop, small_model
from tests.story.kube import Json, Kube, KubectlError
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples import fraud
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.features import encode
from truekeep.features.trust import load_pipeline
from truekeep.storage import artifacts
from truekeep.trainer.recipe.pipeline import probabilities

NAMESPACE = "truekeep-e2e-features"
NAME = "payments"
STEPS: list[Json] = [
    {"name": "cut", "columns": ["amount"], "clip": {"low": "0", "highQuantile": "0.999"}},
    {"name": "log", "columns": ["amount", "distance_km"], "log": {}},
    {"name": "each", "ratio": {"numerator": "amount", "denominator": "card_age_days"}},
    {"name": "fill", "columns": ["each"], "impute": {"strategy": "Median", "indicator": "Add"}},
    {
        "name": "clock",
        "columns": ["paid_at"],
        "dateParts": {"parts": ["Hour", "DayOfWeek"], "encoding": "Cyclic", "timeZone": "Europe/Berlin"},
    },
    {"name": "risk", "columns": ["merchant", "country"], "targetEncode": {}},
    {"name": "hot", "columns": ["channel"], "oneHot": {"minFrequency": 20}},
]


def model(*steps: Json, **spec: Any) -> Json:
    """The small Model of the shop with steps, and with the event's time among its features."""
    made = small_model(NAME, **spec)
    made["spec"]["data"]["features"].append({"name": "paid_at", "type": "Time"})
    made["spec"]["training"]["recipe"]["transformers"] = list(steps)
    return made


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    with open_shop(kube, NAMESPACE, {}) as shop:  # without its probe, which sends no time
        yield shop


def test_the_served_answers_are_those_of_the_pipeline_on_raw_rows(shop: Shop) -> None:
    shop.apply(model(*STEPS))
    shop.ready(NAME, 1)
    (run,) = shop.runs(NAME)
    status = run["status"]
    message = next(one["message"] for one in status["conditions"] if one["type"] == "Complete")
    assert "scikit-learn serves it" not in message, message

    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        bucket = stage.bucket("models")
        files = artifacts.read(bucket, status["artifact"]["digest"])
        record = json.loads(bucket.get(layout.record(status["record"]["id"])))
    told = record["training"]["pipeline"]
    assert told["digest"].startswith("sha256:")
    assert [step["name"] for step in told["steps"]] == [step["name"] for step in STEPS if "oneHot" not in step]
    assert layout.ONNX_FILE in files

    rows = fraud.tables(BEGINS, DAYS, ROWS_PER_DAY, BEGINS, seed=7)["payments"].slice(0, 200)
    signature = Signature.model_validate_json(files[layout.SIGNATURE])
    pipeline = load_pipeline(files[layout.MODEL_FILE], signature.estimator)
    matrix = encode.matrix({name: rows[name] for name in rows.column_names}, signature.features)
    np.testing.assert_allclose(answers(shop, rows.to_pandas()), probabilities(pipeline, matrix), rtol=0, atol=1e-9)


def answers(shop: Shop, rows: pd.DataFrame) -> Any:
    """The served probabilities, a request for all rows."""
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": kind, "data": rows[name].tolist()}
        for name, (kind, _) in REQUEST.items()
    ]
    moments = [one.isoformat() for one in rows["paid_at"]]
    inputs.append({"name": "paid_at", "shape": [len(rows)], "datatype": "BYTES", "data": moments})
    with shop.kube.forward(NAMESPACE, NAME, 80) as port:
        url = f"http://127.0.0.1:{port}/v2/models/{NAME}/infer"
        reply = httpx.post(url, json={"inputs": inputs}, timeout=30)
    assert reply.status_code == 200, reply.text
    (found,) = (one["data"] for one in reply.json()["outputs"] if one["name"] == "probability")
    return np.array(found)


def test_steps_that_can_not_be_are_refused_at_admission(shop: Shop) -> None:
    clock = STEPS[4]
    for steps, words in (
        ([], "a feature of type Time needs a transformer dateParts"),
        ([clock, {"name": "log", "columns": ["amounts"], "log": {}}], "correct the column's name"),
        ([clock, {"name": "hot", "columns": ["amount"], "oneHot": {}}], "take features of type Category"),
    ):
        with pytest.raises(KubectlError, match=words):
            shop.apply(model(*steps))

"""Every example manifest is taken by the API server as it is; the made-up one is trained and served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.story.kube import ROOT, Json, Kube, condition, holds, image_names, load, load_folder
from tests.story.narrator import Narrator
from tests.story.stage import EXAMPLES, Stage
from truekeep.cli.examples import fraud, world
from truekeep.cli.examples.upload import make_bucket, upload

NAMESPACE = "truekeep-e2e-examples"
BEGINS = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    document = load(EXAMPLES / "namespace.yaml")[0]
    document["metadata"]["name"] = NAMESPACE
    kube.fresh_namespace(document)
    yield NAMESPACE
    kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.parametrize("folder", ["s3", "flight-delay", "fraud"])
def test_the_api_server_takes_an_example_whole(kube: Kube, namespace: str, folder: str) -> None:
    """Strictly validated, so that a field which nobody knows is an error; and Pod Security has no warning."""
    said = kube.kubectl("apply", "-k", str(EXAMPLES / folder), "-n", namespace, "--dry-run=server", "--validate=strict")
    assert "(server dry run)" in said
    assert "Warning" not in said


def test_the_api_server_takes_the_replay(kube: Kube, namespace: str) -> None:
    job = EXAMPLES / "flight-delay" / "replay" / "job.yaml"
    said = kube.kubectl("apply", "-f", str(job), "-n", namespace, "--dry-run=server", "--validate=strict")
    assert said.strip() == "job.batch/replay created (server dry run)"


@pytest.mark.full
def test_the_made_up_fraud_is_learnt_and_answered(kube: Kube, namespace: str, tmp_path: Path) -> None:
    kube.apply(namespace, load_folder(EXAMPLES / "s3", image_names()))
    with Stage(kube, namespace, Narrator()) as stage:
        stage.until(
            "the store",
            120,
            lambda: kube.get(namespace, "deployments", "s3") or {},
            lambda deployment: deployment.get("status", {}).get("readyReplicas"),
        )
        stage.open_store()
        for bucket in (world.LAKE, world.FUTURE, "models"):
            make_bucket(bucket, stage.endpoint, versions=False)
        tables = fraud.tables(BEGINS, 120, 1000, BEGINS + timedelta(days=60), seed=7)
        world.write(world.FRAUD, tables, tmp_path, BEGINS + timedelta(days=45))
        upload(tmp_path, stage.endpoint, lambda done, of: None)
    kube.kubectl("apply", "-k", str(EXAMPLES / "fraud"), "-n", namespace)

    def look() -> Json | None:
        model = kube.get(namespace, "models", "fraud")
        return model if holds(model, "Ready") else None

    model = kube.wait("the Model fraud Ready", 300, look)
    assert condition(model, "Serving")["status"] == "True"
    with kube.forward(namespace, "fraud", 80) as port:
        url = f"http://127.0.0.1:{port}/v2/models/fraud/infer"
        night = answer(url, hour=3, amount=180.0, merchant="jewellery", card_age_days=30, distance_km=220)
        day = answer(url, hour=12, amount=9.0, merchant="groceries", card_age_days=900, distance_km=2)
    assert night > 5 * day, "a dear night payment far from home is to be the more suspicious one"


def answer(url: str, **changed: object) -> float:
    """The probability that this payment is fraud."""
    row = {"hour": 12, "amount": 20.0, "channel": "terminal", "merchant": "food", "country": "DE"}
    row |= {"card_age_days": 500, "distance_km": 5, "payments_24h": 1} | changed
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}
        for name, value in row.items()
    ]
    response = httpx.post(url, content=json.dumps({"inputs": inputs}))
    response.raise_for_status()
    return float(response.json()["outputs"][0]["data"][0])


def test_every_yaml_below_the_examples_is_an_example_that_is_tested() -> None:
    known = {"s3", "flight-delay", "flight-delay/replay", "flight-delay/changes", "fraud", "."}
    folders = {path.parent.relative_to(EXAMPLES).as_posix() for path in (ROOT / "manifests/examples").rglob("*.yaml")}
    assert folders == known

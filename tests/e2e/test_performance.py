"""Labels that come late show a revision worse than its gates did, and the policy answers: once, with the reason."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.shop import Shop, merged, open_shop, small_model
from tests.story.kube import Json, Kube, NotInTime, condition
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples import fraud, world
from truekeep.contract import layout
from truekeep.contract.layout import CaptureName
from truekeep.storage.s3 import Bucket

NAMESPACE = "truekeep-e2e-performance"
MODEL = "payments"
DAY = timedelta(days=1)
# The probe's requests are events of today, and a window is given up when its labels are due for thirty windows.
FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 6 * DAY
ROWS = 700
CAPTURED = {"serving": {"capture": {"s3": {"uri": "s3://lake/captures/"}, "flushSeconds": 1}}}
POLICY: Json = {
    "apiVersion": "truekeep.dev/v1alpha1",
    "kind": "DriftPolicy",
    "metadata": {"name": MODEL},
    "spec": {
        "modelRef": {"name": MODEL},
        "schedule": "* * * * *",
        "window": {"hours": 24, "minRows": 300, "idleSeconds": 10},
        "data": {"minimumEffect": "1"},
        "performance": {"metric": "roc_auc", "maxDrop": "0.05", "minLabels": 300},
        "consecutiveWindows": 2,
        "responses": [{"finding": "Performance", "action": "Retrain"}],
        "cooldownSeconds": 3600,
    },
}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """A Model that serves, with captures."""
    spec = merged(CAPTURED, {"data": {"label": {"maturesAfterSeconds": 0}}})
    with open_shop(kube, NAMESPACE, {MODEL: small_model(MODEL, **spec)}) as shop:
        yield shop


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def predictions(lake: Bucket, day: int) -> np.ndarray:
    """What the revision predicted on a day, written as the server writes it. Nothing of it moved."""
    random = np.random.default_rng(day)
    begin = FIRST + day * DAY
    micro = np.sort(random.integers(0, 86_400_000_000, ROWS)) + round(begin.timestamp() * 1e6)
    probability = random.beta(1, 4, ROWS)
    columns: dict[str, Any] = {
        "truekeep.request_id": [f"r{day}-{row}" for row in range(ROWS)],
        "truekeep.row": pa.array(np.zeros(ROWS), pa.int32()),
        "truekeep.revision": pa.array(np.ones(ROWS), pa.int32()),
        "truekeep.received_at": pa.array(micro).cast(pa.timestamp("us", "UTC")),
        "truekeep.event_time": pa.array(micro).cast(pa.timestamp("us", "UTC")),
        "truekeep.key": [f"late-{day}-{row}" for row in range(ROWS)],
        "truekeep.probability": probability,
        "truekeep.prediction": (probability > 0.5).astype(np.int64),
        "truekeep.cut_off": np.full(ROWS, 0.5),
        "hour": random.integers(0, 24, ROWS).astype(float),
        "amount": random.lognormal(3, 1, ROWS),
        "channel": random.choice(fraud.CHANNELS, ROWS),
        "merchant": random.choice(fraud.MERCHANTS, ROWS),
        "country": random.choice(fraud.COUNTRIES, ROWS),
        "card_age_days": random.integers(0, 900, ROWS).astype(float),
        "distance_km": random.lognormal(2, 1, ROWS),
    }
    name = CaptureName(int(micro[0]) // 1000, int(micro[-1]) // 1000, "pod-a", day)
    key = layout.captures(NAMESPACE, MODEL) + layout.capture_file(1, begin, name)
    lake.put(f"captures/{key}", parquet(columns))
    return probability


def labels(lake: Bucket, predicted: list[np.ndarray]) -> None:
    """What became of them: the opposite of what was predicted."""
    ids = [f"late-{day}-{row}" for day, probability in enumerate(predicted) for row in range(len(probability))]
    turned = (np.concatenate(predicted) < 0.1).astype(np.int64)
    lake.put("fraud/chargebacks/late.parquet", parquet({"payment_id": ids, "fraud": turned}))


def policy(shop: Shop) -> Json:
    found: Json = (shop.kube.get(NAMESPACE, "driftpolicies", MODEL) or {}).get("status", {})
    return found


def until(shop: Shop, what: str, true: Callable[[], object]) -> None:
    """Waits; where it does not come, the policy's status tells why."""
    try:
        shop.until(what, 200, true)
    except NotInTime as error:
        raise AssertionError(f"{error}: {json.dumps(policy(shop), indent=1)}") from error


def told(shop: Shop, kind: str) -> tuple[str, str]:
    conditions = policy(shop).get("conditions", [])
    return next(((each["status"], each["reason"]) for each in conditions if each["type"] == kind), ("", ""))


def test_silent_decay_is_estimated_then_measured_then_answered_once(shop: Shop) -> None:
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        lake, models = stage.bucket(world.LAKE), stage.bucket("models")
        predicted = [predictions(lake, day) for day in range(4)]
        shop.apply(POLICY)
        shop.until("an estimate", 150, lambda: policy(shop).get("performance"))
        assert told(shop, "PerformanceDecayed") == ("Unknown", "InsufficientData")
        first = policy(shop)["performance"][0]
        assert first["verdict"] == "InsufficientData"
        assert float(first["estimate"]) > 0.6, "the probabilities look as they should"
        assert len(shop.runs(MODEL)) == 1

        labels(lake, predicted[:3])
        until(shop, "a run", lambda: len(shop.runs(MODEL)) == 2)
        assert told(shop, "PerformanceDecayed") == ("True", "Decayed")
        newest = next(one for one in policy(shop)["performance"] if "value" in one)
        assert float(newest["value"]) < 0.1
        assert (newest["labelled"], newest["coverage"]) == (ROWS, "1.0000")
        trigger = shop.runs(MODEL)[1]["spec"]["trigger"]
        assert trigger["policy"]["kind"] == "Performance"
        assert trigger["policy"]["finding"].startswith("roc_auc 0.")
        assert any(event["reason"] == "Decayed" for event in shop.events("DriftPolicy", MODEL))
        assert condition(shop.model(MODEL), "Ready")["status"] == "True"
        shop.until("the end of the run", 150, lambda: told(shop, "RetrainHeld")[1] not in ("Started", ""))
        assert len(shop.runs(MODEL)) == 2, "one breach, one run"

        keys = [info.key for info in models.list(f"{NAMESPACE}/{MODEL}/monitor/")]
        measured = [key for key in keys if key.endswith(".performance.json")]
        assert len(measured) == 3
        page = next(key for key in reversed(keys) if key.endswith(".html"))
        assert b"<h2>Columns" in models.get(page)

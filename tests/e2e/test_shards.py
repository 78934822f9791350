"""A window that several pods count is the window that one counts; labels that know only whose they are, and when, find
their events. Each on captures of a Model of its own, which nothing retrains."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.e2e.captured import CAPTURED, DAY, ROWS, Day, first_day, parquet, write_day
from tests.e2e.shop import Shop, merged, open_shop, small_model
from tests.story.kube import Json, Kube, NotInTime
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples import world
from truekeep.storage.s3 import Bucket

NAMESPACE = "truekeep-e2e-shards"
MODEL = "payments"
DAYS = 4
FIRST = first_day()
ACCOUNTS = [f"account-{number}" for number in range(25)]
TOLERANCE = 60
POLICY: Json = {
    "apiVersion": "truekeep.dev/v1alpha1",
    "kind": "DriftPolicy",
    "spec": {
        "modelRef": {"name": MODEL},
        "schedule": "* * * * *",
        "window": {"hours": 24, "minRows": 300, "idleSeconds": 10},
        "data": {"minimumEffect": "0.03"},
    },
}
BY_TIME: Json = {
    "performance": {
        "metric": "roc_auc",
        "maxDrop": "0.05",
        "minLabels": 300,
        "join": "EntityTime",
        "entity": {
            "column": "payment_id",
            "timeColumn": "settled_at",
            "toleranceSeconds": TOLERANCE,
        },
    }
}
pytestmark = pytest.mark.full  # CronJobs, once a minute each


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """A Model that serves, whose captures name a few accounts again and again; and what three policies watch of it."""
    spec = merged(CAPTURED, {"data": {"label": {"maturesAfterSeconds": 0}}})
    with open_shop(kube, NAMESPACE, {MODEL: small_model(MODEL, **spec)}) as shop:
        with Stage(kube, NAMESPACE, Narrator()) as stage:
            stage.open_store()
            lake = stage.bucket(world.LAKE)
            days = [
                write_day(lake, NAMESPACE, MODEL, FIRST + day * DAY, seed=day, files=7, keys=ACCOUNTS)
                for day in range(DAYS)
            ]
            settle(lake, days)
        for name, more in (("whole", {}), ("shared", {"shards": 3}), ("by-time", BY_TIME)):
            shop.apply(merged(POLICY, {"metadata": {"name": name}, "spec": more}))
        yield shop


def settle(lake: Bucket, days: list[Day]) -> None:
    """What became of each: fraud where it was said to be likely, settled within seconds; and of a third of them, by
    mistake, the opposite, half way to the account's next event: those are of no event."""
    random = np.random.default_rng(5)
    keys = [key for day in days for key in day.keys]
    micro = np.concatenate([day.micro for day in days])
    likely = np.concatenate([day.probability for day in days]) > 0.15
    settled = micro + random.integers(-5_000_000, 5_000_000, len(micro))
    wrong = np.arange(0, len(micro), 3)
    columns = {
        "payment_id": [*keys, *(keys[at] for at in wrong)],
        "settled_at": pa.array(np.concatenate([settled, beside(keys, micro, wrong)])).cast(pa.timestamp("us", "UTC")),
        "fraud": np.concatenate([likely, ~likely[wrong]]).astype(np.int64),
    }
    lake.put("fraud/chargebacks/settled.parquet", parquet(columns))


def beside(keys: list[str], micro: np.ndarray, which: np.ndarray) -> np.ndarray:
    """For each of those events a time after it, before the account's next, that is of no event."""
    found = []
    for at in which:
        later = micro[[other for other, key in enumerate(keys) if key == keys[at] and micro[other] > micro[at]]]
        following = int(later.min()) if len(later) else int(micro[at]) + 86_400_000_000
        found.append((int(micro[at]) + following) // 2)
    return np.array(found)


def status(shop: Shop, name: str) -> Json:
    found: Json = (shop.kube.get(NAMESPACE, "driftpolicies", name) or {}).get("status", {})
    return found


def windows(shop: Shop, name: str) -> dict[str, Json]:
    """Those that a policy judged, by start."""
    return {one["start"]: one for one in status(shop, name).get("windows", []) if one["revision"] == 1}


def until(shop: Shop, what: str, name: str, true: Callable[[], object]) -> None:
    """Waits; where it does not come, the policy's status tells why."""
    try:
        shop.until(what, 300, true)
    except NotInTime as error:
        raise AssertionError(f"{error}: {json.dumps(status(shop, name), indent=1)}") from error


def stored(models: Bucket, uri: str) -> Json:
    """A JSON object of the store."""
    body: Json = json.loads(models.get(uri.removeprefix(models.uri())))
    return body


SUMMED = ("mean", "standardDeviation")


def exact(report: Json) -> Json:
    """All of a report but what is a sum of floating-point numbers."""
    return json.loads(json.dumps(report), object_pairs_hook=lambda pairs: {k: v for k, v in pairs if k not in SUMMED})


def moments(report: Json) -> list[float]:
    """Mean and standard deviation of each column of numbers."""
    return [column["window"][name] for column in report["columns"] for name in SUMMED if name in column["window"]]


def test_three_pods_count_a_window_together_and_find_what_one_finds(shop: Shop) -> None:
    for name in ("whole", "shared"):
        until(shop, f"windows of {name}", name, lambda name=name: len(windows(shop, name)) >= DAYS - 1)
    jobs = shop.kube.list(NAMESPACE, "jobs", "truekeep.dev/policy=shared,app.kubernetes.io/component=monitor")
    assert {(job["spec"].get("completionMode"), job["spec"]["completions"]) for job in jobs} == {("Indexed", 3)}
    whole, shared = windows(shop, "whole"), windows(shop, "shared")
    both = sorted(set(whole) & set(shared))
    assert len(both) >= DAYS - 1
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        models = stage.bucket("models")
        for start in both:
            one, three = (stored(models, found[start]["report"]) for found in (whole, shared))
            assert (one["skippedFiles"], three["skippedFiles"]) == (0, 0)
            assert one["report"]["rows"] == ROWS
            assert len(one["report"]["columns"]) > 5
            assert exact(one["report"]) == exact(three["report"])
            assert moments(one["report"]) == pytest.approx(moments(three["report"]), rel=1e-9), "sums in another order"
            assert whole[start]["verdict"] == shared[start]["verdict"]


def test_labels_that_know_only_whose_and_when_find_their_events(shop: Shop) -> None:
    def measured() -> list[Any]:
        return [one for one in status(shop, "by-time").get("performance", []) if "value" in one]

    until(shop, "windows with labels", "by-time", lambda: len(measured()) >= DAYS - 1)
    for one in measured():
        assert float(one["value"]) > 0.99, "each label is of its own event"
        assert float(one["coverage"]) > 0.97, "events of one account within the tolerance may share a label"
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        models = stage.bucket("models")
        found = [
            json.loads(models.get(info.key))
            for info in models.list(f"{NAMESPACE}/{MODEL}/monitor/")
            if info.key.endswith(".performance.json")
        ]
    assert len(found) >= DAYS - 1
    assert min(each["unmatched"] for each in found) >= ROWS // 4, "the mistaken ones are of no event, and are told"

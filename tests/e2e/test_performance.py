"""Labels that come late show a revision worse than its gates did, and the policy answers: once, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.captured import CAPTURED, DAY, ROWS, Day, first_day, parquet, write_day
from tests.e2e.scraped import asked, names, scrapes
from tests.e2e.shop import Shop, merged, open_shop, small_model
from tests.prometheus import running
from tests.prometheus import until as within
from tests.story.kube import Json, Kube, NotInTime, condition
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from tests.unit.manifests.test_monitoring import alerts, expressions, groups, plain
from truekeep.cli.examples import world
from truekeep.storage.s3 import Bucket

NAMESPACE = "truekeep-e2e-performance"
MODEL = "payments"
FIRST = first_day()
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
# Looks at the same windows more sharply, and only tells.
WATCH = merged(
    POLICY,
    {
        "metadata": {"name": "watch"},
        "spec": {"data": {"minimumEffect": "0.01"}, "performance": None, "responses": []},
    },
)
# Waits for a Model that there is not.
NOBODY = merged(POLICY, {"metadata": {"name": "nobody"}, "spec": {"modelRef": {"name": "nobody"}, "responses": []}})


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """A Model that serves, with captures."""
    spec = merged(CAPTURED, {"data": {"label": {"maturesAfterSeconds": 0}}})
    with open_shop(kube, NAMESPACE, {MODEL: small_model(MODEL, **spec)}) as shop:
        yield shop


def labels(lake: Bucket, days: list[Day]) -> None:
    """What became of them: the opposite of what was predicted."""
    ids = [key for day in days for key in day.keys]
    turned = (np.concatenate([day.probability for day in days]) < 0.1).astype(np.int64)
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
        predicted = [write_day(lake, NAMESPACE, MODEL, FIRST + day * DAY, seed=day) for day in range(4)]
        shop.apply(POLICY, WATCH, NOBODY)
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


def test_a_real_prometheus_reads_what_runs_and_answers_every_alert_and_panel(shop: Shop, tmp_path: Path) -> None:
    """After the test before: a policy that measured, one that found drift, and one that waits for its Model."""
    until(shop, "findings", lambda: (shop.kube.get(NAMESPACE, "driftpolicies", "watch") or {})["status"]["findings"])
    configuration = scrapes(shop.kube, NAMESPACE, tmp_path)
    with running(tmp_path, configuration, groups()) as prometheus:
        within(lambda: asked() <= names(prometheus), 60, lambda: {"missing": asked() - names(prometheus)})
        assert {each["metric"]["job"] for each in prometheus.query("up == 1")} == {
            "truekeep-operator",
            "truekeep-servers",
        }
        for expression in expressions():
            if not expression.startswith("label_values("):
                prometheus.query(plain(expression))

        mine = f'{{namespace="{NAMESPACE}",policy="{MODEL}",basis="labels"}}'
        (measured,) = prometheus.query(f"truekeep_policy_performance{mine}")
        assert float(measured["value"][1]) < 0.1
        (late,) = prometheus.query(f'truekeep_operator_unsettled_seconds{{namespace="{NAMESPACE}",name="nobody"}}')
        assert late["metric"]["kind"] == "DriftPolicy"
        served = prometheus.query("truekeep_server_ready")
        assert {each["metric"]["truekeep_dev_model"] for each in served} == {MODEL}
        assert {each["metric"]["namespace"] for each in served} == {NAMESPACE}
        assert prometheus.query("sum(truekeep_operator_leader)")[0]["value"][1] == "1"
        within(
            lambda: (
                "TruekeepPerformanceDecayed" in {a["labels"]["alertname"] for a in prometheus.ask("alerts")["alerts"]}
            )
        )
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in rules if rule["health"] == "ok"} == {rule["alert"] for rule in alerts()}
        series = int(prometheus.query('count({job="truekeep-operator"})')[0]["value"][1])
        assert series < 3000, "the operator's own, whatever other tests left in the cluster"

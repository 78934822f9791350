"""A run that an auditor can replay: the same record on another number of CPUs, in another pod and on another machine's
terms, bit for bit; asked for by a person."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import environment
from tests.e2e.shop import Shop, merged, open_shop, small_model
from tests.story.kube import ROOT, Kube
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.contract import layout

NAMESPACE = "truekeep-e2e-reproduce"
MODEL = "payments"


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """A Model whose first run had two CPUs, live."""
    with open_shop(kube, NAMESPACE, {MODEL: small_model(MODEL)}) as shop:
        yield shop


def truekeep(*words: str, only_cpu: str = "") -> subprocess.CompletedProcess[str]:
    """The command on this machine; on one CPU of it, where one is named."""
    bound = ["taskset", "-c", only_cpu] if only_cpu else []
    return subprocess.run(
        [*bound, sys.executable, "-m", "truekeep.cli", *words, "-n", NAMESPACE],
        env={**os.environ, **environment(), "PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_person_asks_for_a_run_and_it_is_bit_equal_on_another_number_of_cpus(shop: Shop) -> None:
    limits = {"training": {"resources": {"limits": {"cpu": "1"}}}}
    shop.patch(MODEL, merged({}, limits))
    asked = truekeep("retrain", MODEL, "--reason", "one CPU instead of two")
    assert asked.returncode == 0, asked.stderr
    name = asked.stdout.strip().removeprefix("trainingrun/")
    shop.until("the run that was asked for", 60, lambda: len(shop.runs(MODEL)) == 2)
    again = truekeep("retrain", MODEL)
    assert again.returncode == 2
    assert f"has a run under way, {name}" in again.stderr
    assert truekeep("wait", f"run/{name}", "--timeout", "180").returncode == 0
    first, second = shop.runs(MODEL)
    assert second["metadata"]["name"] == name
    assert second["spec"]["trigger"]["type"] == "Manual"
    assert second["spec"]["trigger"]["message"].endswith(": one CPU instead of two")
    assert second["status"]["artifact"]["digest"] == first["status"]["artifact"]["digest"]
    assert second["status"]["revision"] == 2
    records = [record_of(shop, run) for run in (first, second)]
    assert [record["training"]["threads"]["trees"] for record in records] == [2, 1]
    for record in records:
        made = record["environment"]
        assert made["lockDigest"].startswith("sha256:")
        assert made["cpu"]["model"]
        assert made["image"] == first["status"]["image"]
        assert record["training"]["seed"] == 7


def record_of(shop: Shop, run: Any) -> Any:
    """The record of a run."""
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        return json.loads(stage.bucket("models").get(layout.record(run["status"]["record"]["id"])))


def test_whoever_has_the_stores_keys_does_it_again_bit_for_bit(shop: Shop) -> None:
    """On this machine's own libraries, which are those of the lock; on one CPU; from the pins of the record."""
    for run in shop.runs(MODEL):
        with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
            stage.open_store()
            done = truekeep("reproduce", run["metadata"]["name"], "--endpoint", stage.endpoint, only_cpu="0")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"bit-equal: {run['status']['artifact']['digest']}" in done.stdout
        assert "verdict: the same, Succeeded" in done.stdout


def test_an_object_that_is_another_one_now_is_named(shop: Shop) -> None:
    name = shop.runs(MODEL)[0]["metadata"]["name"]
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        lake = stage.bucket("lake")
        kept = lake.get("fraud/chargebacks/all.parquet")
        lake.put("fraud/chargebacks/all.parquet", lake.get("fraud/payments/all.parquet"))
        try:
            done = truekeep("reproduce", name, "--endpoint", stage.endpoint)
        finally:
            lake.put("fraud/chargebacks/all.parquet", kept)
    assert done.returncode == 2
    assert "s3://lake/fraud/chargebacks/all.parquet was read with sha256:" in done.stderr

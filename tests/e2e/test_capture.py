"""Captures on the real cluster: while the store is away, after a restart of the container, hashed, swept and erased."""

from __future__ import annotations

import io
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.e2e.shop import REQUEST, Shop, merged, open_shop, script_pod, small_model
from tests.story.kube import Json, Kube, KubectlError, image_names, name_of
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.main import app
from truekeep.contract.hashing import hashed
from truekeep.storage.s3 import Bucket

NAMESPACE = "truekeep-e2e-capture"
MODEL = "kept"
POD = "keyed"
HASH_KEY = "an e2e key of more than 16 bytes"
CAPTURE = {
    "s3": {"uri": "s3://lake/captures/"},
    "flushSeconds": 1,
    "hash": ["payment_id", "merchant"],
    "hashKeySecretRef": {"name": "capture-hash"},
    "retentionDays": 1,
}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """One Model with one pod, and a client whose requests have keys."""
    with open_shop(kube, NAMESPACE, {}) as shop:
        shop.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "capture-hash"},
                "stringData": {"HASH_KEY": HASH_KEY},
            },
            merged(small_model(MODEL), {"spec": {"serving": {"capture": CAPTURE}}}),
        )
        shop.ready(MODEL, 1)
        inputs = [{"name": n, "shape": [1], "datatype": kind, "data": [value]} for n, (kind, value) in REQUEST.items()]
        environment = {"MODEL": MODEL, "KEY": "payment_id", "PAUSE_SECONDS": "0.05"}
        script = Path(__file__).with_name("keyed.py")
        (files, pod) = script_pod(
            POD, image_names()["tools"], script, environment, {"request.json": json.dumps({"inputs": inputs})}
        )
        pod["spec"]["volumes"].append({"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}})
        pod["spec"]["containers"][0]["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"})
        shop.apply(files, pod)
        shop.until("the client", 90, lambda: shop.running(POD) and len(replies(shop)) > 20)
        yield shop


def replies(shop: Shop) -> list[tuple[str, float, str]]:
    """Id, milliseconds and error of every request so far."""
    lines = shop.kube.logs(NAMESPACE, POD, lines=100_000).splitlines()
    return [tuple(json.loads(line)) for line in lines if line.startswith("[")]


def server(shop: Shop) -> Json:
    (pod,) = (pod for pod in shop.pods(MODEL, "server") if not pod["metadata"].get("deletionTimestamp"))
    return pod


def metric(shop: Shop, name: str) -> float:
    """A metric of the serving pod, as it says it itself."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name_of(server(shop))}:8080/proxy/metrics"
    try:
        text = shop.kube.kubectl("get", "--raw", path)
    except KubectlError:
        return -1
    found = re.search(rf"^truekeep_server_capture_{name} (\S+)$", text, re.M)
    assert found, text
    return float(found[1])


def restarts(shop: Shop) -> int:
    return sum(status["restartCount"] for status in server(shop)["status"].get("containerStatuses", ()))


def scale_store(shop: Shop, replicas: int) -> None:
    shop.kube.kubectl("scale", "deployment/s3", f"--replicas={replicas}", "-n", NAMESPACE)
    store = "app.kubernetes.io/name=s3"
    shop.until(
        f"{replicas} pods of the store",
        90,
        lambda: (
            len([pod for pod in shop.kube.list(NAMESPACE, "pods", store) if pod["status"]["phase"] == "Running"])
            == replicas
        ),
    )
    if replicas:
        shop.until("the store", 60, lambda: _deployment(shop).get("status", {}).get("readyReplicas"))


def _deployment(shop: Shop) -> Json:
    return shop.kube.get(NAMESPACE, "deployments", "s3") or {}


@pytest.fixture(scope="module")
def captured(shop: Shop) -> Iterator[tuple[Stage, pa.Table, list[str]]]:
    """What is captured after the store was away for a while, in the middle of which the container was restarted, and
    the ids that were answered. The store is reachable from here."""
    before = [milliseconds for _, milliseconds, _ in replies(shop)]
    scale_store(shop, 0)
    asked = len(replies(shop))
    shop.until("captures on disk", 60, lambda: metric(shop, "spooled_rows") > 200)
    answers = replies(shop)
    assert [error for _, _, error in answers if error] == []
    during = [milliseconds for _, milliseconds, _ in answers[asked:]]
    print(f"median: {statistics.median(before):.1f} ms before, {statistics.median(during):.1f} ms without the store")
    assert metric(shop, "dropped_rows_total") == 0
    assert 0 <= metric(shop, "buffered_rows") < 400
    shop.kube.kubectl("exec", POD, "-n", NAMESPACE, "--", "python3", "-c", "open('/tmp/stop', 'w')")
    shop.until("the client to stop", 30, lambda: "stopped" in shop.kube.logs(NAMESPACE, POD, lines=1))
    shop.until("all of it on disk", 30, lambda: metric(shop, "buffered_rows") == 0)
    # The container ends and starts again, while there is no store: pod, folder and artifact's copy stay.
    kill = "import os, signal; os.kill(1, signal.SIGTERM)"
    shop.kube.kubectl("exec", name_of(server(shop)), "-n", NAMESPACE, "--", "python3", "-c", kill)
    shop.until("a restarted container", 90, lambda: restarts(shop) == 1 and metric(shop, "spooled_rows") > 200)
    scale_store(shop, 1)
    shop.until("the disk to be empty", 120, lambda: metric(shop, "spooled_rows") == 0)
    ids = [identifier for identifier, _, error in replies(shop) if not error]
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        yield stage, rows(stage), ids


def rows(stage: Stage) -> pa.Table:
    bucket = stage.bucket("lake")
    keys = [info.key for info in bucket.list(f"captures/{NAMESPACE}/{MODEL}/") if info.key.endswith(".parquet")]
    return pa.concat_tables([pq.read_table(io.BytesIO(bucket.get(key))) for key in keys])


def test_every_answer_is_captured_once_whatever_became_of_the_store(
    captured: tuple[Stage, pa.Table, list[str]],
) -> None:
    _, table, ids = captured
    assert len(ids) > 200
    assert sorted(table["truekeep.request_id"].to_pylist()) == sorted(ids)


def test_keys_and_columns_are_hashes_that_the_key_holder_can_make(captured: tuple[Stage, pa.Table, list[str]]) -> None:
    _, table, _ = captured
    key = HASH_KEY.encode()
    assert set(table["truekeep.key"].to_pylist()) == {hashed(key, "payment_id", f"person-{n}") for n in range(50)}
    assert set(table["merchant"].to_pylist()) == {hashed(key, "merchant", "games")}
    assert set(table["channel"].to_pylist()) == {"web"}


def test_the_sweep_runs_in_the_cluster_and_says_what_it_did(
    shop: Shop, captured: tuple[Stage, pa.Table, list[str]]
) -> None:
    stage, table, _ = captured
    bucket: Bucket = stage.bucket("lake")
    old = f"captures/{NAMESPACE}/{MODEL}/revision=1/date=2020-01-01/hour=03/1_2_pod_000000.parquet"
    bucket.put(old, b"x")
    shop.kube.kubectl("create", "job", "sweep-now", f"--from=cronjob/{MODEL}-retention", "-n", NAMESPACE)

    def ended() -> bool:
        job = shop.kube.get(NAMESPACE, "jobs", "sweep-now") or {}
        return any(each["type"] == "Complete" for each in job.get("status", {}).get("conditions", ()))

    shop.until("the sweep", 60, ended)
    (pod,) = shop.kube.list(NAMESPACE, "pods", "job-name=sweep-now")
    said = shop.kube.logs(NAMESPACE, name_of(pod))
    assert f"{NAMESPACE}/{MODEL}: 1 capture files (1 bytes)" in said
    assert not bucket.exists(old)
    assert rows(stage).num_rows == table.num_rows


def test_a_person_is_erased(shop: Shop, captured: tuple[Stage, pa.Table, list[str]], tmp_path: Path) -> None:
    stage, table, _ = captured
    (tmp_path / "key").write_text(HASH_KEY)
    done = CliRunner().invoke(
        app,
        [
            "erase", MODEL, "--namespace", NAMESPACE, "--captures", "s3://lake/captures/",
            "--endpoint", stage.endpoint, "--key", "person-7", "--hash-key-file", str(tmp_path / "key"), "--yes",
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    gone = hashed(HASH_KEY.encode(), "payment_id", "person-7")
    assert gone in set(table["truekeep.key"].to_pylist())
    left = rows(stage)
    assert gone not in set(left["truekeep.key"].to_pylist())
    assert left.num_rows == sum(key != gone for key in table["truekeep.key"].to_pylist())


def test_without_the_field_the_cronjob_goes(shop: Shop) -> None:
    assert shop.kube.get(NAMESPACE, "cronjobs", f"{MODEL}-retention")
    shop.patch(MODEL, {"serving": {"capture": {"retentionDays": None}}})
    shop.until("the CronJob to go", 30, lambda: shop.kube.get(NAMESPACE, "cronjobs", f"{MODEL}-retention") is None)
    assert shop.model(MODEL)["status"]["active"]["revision"] == 1

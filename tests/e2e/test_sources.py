"""Where rows may lie, each trained from in the cluster: Hive partitions of packed files in a bucket with versions, a
volume, an output of DVC; and what is refused. Several Models of one namespace, all at once."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml

from tests import dvc
from tests.e2e.shop import BEGINS, DAYS, ROWS_PER_DAY, Shop, open_shop, script_pod, small_model
from tests.story.kube import Json, Kube, condition, image_names, name_of
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples import fraud
from truekeep.cli.examples.upload import make_bucket

NAMESPACE = "truekeep-e2e-sources"
SECONDS = 150
TABLES = fraud.tables(BEGINS, DAYS, ROWS_PER_DAY, BEGINS + timedelta(days=3660), seed=7)
ROWS = len(TABLES["payments"])


def csv_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pacsv.write_csv(table, sink)
    return sink.getvalue()


def parquet_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@dataclass
class Lake:
    """The namespace, and a plain client of its store."""

    shop: Shop
    endpoint: str

    @property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")

    def put(self, bucket: str, files: dict[str, bytes]) -> None:
        for key, data in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def record(self, run: Json) -> Any:
        """The run's record, as it lies in the store."""
        bucket, _, key = run["status"]["record"]["uri"].removeprefix("s3://").partition("/")
        return json.loads(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def ended(self, model: str, reason: str = "Succeeded") -> Json:
        """The Model's first run, once it ended for this reason."""

        def last() -> Json:
            return (self.shop.runs(model) or [{}])[0]

        self.shop.until(f"the run of {model} to end", SECONDS, lambda: last().get("status", {}).get("completionTime"))
        kind = "Complete" if reason == "Succeeded" else "Failed"
        found = condition(last(), "Ready")
        assert (condition(last(), kind)["status"], found["reason"]) == ("True", reason), found["message"]
        return last()


def reading(name: str, source: Json, label: Json | None = None, **data: Any) -> Json:
    """A small Model of payments that lie there, labels too unless they lie in the bucket of all."""
    patch: Json = {"source": {"s3": None, **source}, **data}
    if label is not None:
        patch["label"] = {"source": {"s3": None, **label}}
    return small_model(name, data=patch)


def partitions() -> dict[str, bytes]:
    """The payments of each channel in a folder of its own, without that column, each packed otherwise."""
    payments = TABLES["payments"]
    packers = [
        (".csv.gz", lambda table: gzip.compress(csv_of(table))),
        (".csv.zst", lambda table: bytes(pa.compress(csv_of(table), codec="zstd", asbytes=True))),
        (".parquet", parquet_of),
    ]
    files = {}
    for number, channel in enumerate(sorted(set(payments["channel"].to_pylist()))):
        suffix, pack = packers[number % 3]
        part = payments.filter(pc.equal(payments["channel"], channel)).drop_columns(["channel"])
        files[f"payments/channel={channel}/all{suffix}"] = pack(part)
    assert len(files) >= 3
    return files


def pushed(files: dict[str, bytes]) -> tuple[dict[str, bytes], str]:
    """The objects of a remote as DVC 3 pushes them (tests/unit/sources has ones of its own), and the folder's MD5."""
    listed = json.dumps([{"md5": md5(data), "relpath": path} for path, data in sorted(files.items())]).encode()
    named = {md5(data): data for data in files.values()} | {md5(listed) + ".dir": listed}
    return {f"files/md5/{name[:2]}/{name[2:]}": data for name, data in named.items()}, md5(listed) + ".dir"


PAYMENTS = {"a.parquet": TABLES["payments"].slice(0, ROWS // 2), "b.parquet": TABLES["payments"].slice(ROWS // 2)}
REMOTE, FOLDER = pushed({name: parquet_of(table) for name, table in PAYMENTS.items()})
BROKEN, BROKEN_FOLDER = pushed({"broken.parquet": parquet_of(TABLES["payments"].slice(0, 100))})
MODELS = {
    "hive": reading(
        "hive",
        {"s3": {"uri": "s3://versioned/payments/"}},
        {"s3": {"uri": "s3://versioned/chargebacks/"}},
        sample={"fraction": "0.5", "seed": 11},
    ),
    "volume": reading(
        "volume",
        {"pvc": {"claimName": "lake", "path": "payments"}},
        {"pvc": {"claimName": "lake", "path": "labels"}},
    ),
    "dvc": reading("dvc", {"dvc": {"remote": {"uri": "s3://dvc/store/"}, "md5": FOLDER, "path": "payments"}}),
    "escape": reading("escape", {"pvc": {"claimName": "lake", "path": "escape"}}),
    "altered": reading(
        "altered", {"dvc": {"remote": {"uri": "s3://dvc/store/"}, "md5": BROKEN_FOLDER, "path": "payments"}}
    ),
}
MODELS["identity"] = small_model("identity", pods={"serviceAccountName": "reader"})
MODELS["volume"]["spec"]["retraining"] = {"newData": {"minRows": 100, "cron": "0 0 1 1 *"}}


def fill_volume(shop: Shop) -> None:
    """The claim `lake` with payments, labels, and a link that leads out of it."""
    packed = {"payments": TABLES["payments"], "labels": TABLES["chargebacks"]}
    files = {name: base64.b64encode(gzip.compress(csv_of(table))).decode() for name, table in packed.items()}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "lake"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}},
    }
    script = Path(__file__).with_name("write_volume.py")
    config, pod = script_pod("writer", image_names()["tools"], script, {}, files)
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "volume", "mountPath": "/volume"})
    pod["spec"]["volumes"].append({"name": "volume", "persistentVolumeClaim": {"claimName": "lake"}})
    shop.apply(claim, config, pod)
    shop.until("the volume to be written", 60, lambda: "written" in shop.kube.logs(NAMESPACE, "writer"))


@pytest.fixture(scope="module")
def lake(kube: Kube) -> Iterator[Lake]:
    with open_shop(kube, NAMESPACE, {}) as shop, Stage(kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        lake = Lake(shop, stage.endpoint)
        for bucket, versions in (("versioned", True), ("dvc", False)):
            make_bucket(bucket, stage.endpoint, versions=versions)
        lake.put("versioned", {**partitions(), "chargebacks/all.parquet": parquet_of(TABLES["chargebacks"])})
        lake.put("versioned", {"payments/channel=web/gone.csv": b"no,payments\n"})
        lake.client.delete_object(Bucket="versioned", Key="payments/channel=web/gone.csv")
        remote = {**REMOTE, **BROKEN}
        name = next(key for key in BROKEN if not key.endswith(".dir"))
        remote[name] = BROKEN[name] + b" "
        lake.put("dvc", {f"store/{key}": data for key, data in remote.items()})
        shop.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}})
        fill_volume(shop)
        shop.apply(*MODELS.values())
        yield lake


def test_a_service_account_that_nobody_labelled_is_not_taken(lake: Lake) -> None:
    """The API server takes no pod of the Model, and the run says why."""
    kube, shop = lake.shop.kube, lake.shop

    def said() -> Json:
        return condition(shop.runs("identity")[0], "Ready") if shop.runs("identity") else {}

    shop.until("the pod to be refused", 60, lambda: said().get("reason") == "PodRefused")
    words = "serviceAccountName reader is not for models: it does not carry the label truekeep.dev/pods=Allowed"
    assert words in said()["message"]
    assert not shop.pods("identity", "trainer")
    kube.kubectl("-n", NAMESPACE, "label", "serviceaccount", "reader", "truekeep.dev/pods=Allowed")


def test_partitions_of_packed_files_in_a_bucket_with_versions_train_on_a_sample(lake: Lake) -> None:
    run = lake.ended("hive")
    read = run["status"]["data"]
    assert (read["sampling"], read["replayable"]) == ("ByKeyHash", "True")
    assert 0.4 * read["sampledFrom"] < read["rows"] + read["unripe"] + read["unlabelled"] < 0.6 * read["sampledFrom"]
    record = lake.record(run)
    assert record["data"]["schema"]["source"]["channel"] == "partition"
    assert record["data"]["declared"]["sample"] == {"fraction": "0.5", "seed": 11}
    assert not [pin for pin in record["data"]["objects"] if "gone.csv" in pin["uri"]]


def test_what_was_pinned_is_there_when_it_was_overwritten_and_deleted_since(lake: Lake) -> None:
    pins = [pin for pin in lake.record(lake.ended("hive"))["data"]["objects"] if pin["source"] == "source"]
    assert len(pins) == len(partitions())
    for number, pin in enumerate(pins):
        key = pin["uri"].removeprefix("s3://versioned/")
        if number % 2:
            lake.client.delete_object(Bucket="versioned", Key=key)
        else:
            lake.put("versioned", {key: b"something else"})
        again = lake.client.get_object(Bucket="versioned", Key=key, VersionId=pin["versionId"])["Body"].read()
        assert f"sha256:{hashlib.sha256(again).hexdigest()}" == pin["sha256"]


def test_a_volume_trains(lake: Lake) -> None:
    run = lake.ended("volume")
    record = lake.record(run)
    assert {pin["uri"] for pin in record["data"]["objects"]} == {
        "pvc://lake/payments/all.csv.gz",
        "pvc://lake/labels/all.csv.gz",
    }
    assert run["status"]["data"]["replayable"] == "False"
    (job,) = lake.shop.jobs("volume")
    claims = [
        v["persistentVolumeClaim"] for v in job["spec"]["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v
    ]
    assert claims == [{"claimName": "lake", "readOnly": True}]


def test_new_rows_of_a_volume_are_counted(lake: Lake) -> None:
    """The CronJob's own pod, begun by hand: the volume is mounted there, too."""
    kube, shop = lake.shop.kube, lake.shop
    shop.ready("volume", 1)
    (cron,) = [one for one in kube.list(NAMESPACE, "cronjobs") if "volume" in name_of(one)]
    kube.kubectl("-n", NAMESPACE, "create", "job", "by-hand", f"--from=cronjob/{name_of(cron)}")

    def counted() -> str:
        pods = kube.list(NAMESPACE, "pods", "job-name=by-hand")
        return kube.logs(NAMESPACE, name_of(pods[0])) if pods else ""

    shop.until("the count", 60, lambda: "Counted: 0 new labelled rows" in counted())


def test_a_link_out_of_a_volume_is_refused_by_name(lake: Lake) -> None:
    message = condition(lake.ended("escape", "DataInvalid"), "Ready")["message"]
    assert "pvc://lake/escape/all.csv is a link that leads out of the volume" in message


def test_an_output_of_dvc_trains(lake: Lake) -> None:
    run = lake.ended("dvc")
    pins = [pin for pin in lake.record(run)["data"]["objects"] if pin["source"] == "source"]
    assert [pin["uri"] for pin in pins] == [f"dvc+s3://dvc/store/payments/{name}" for name in PAYMENTS]
    assert [pin["versionId"] for pin in pins] == [md5(parquet_of(table)) for table in PAYMENTS.values()]


def test_an_output_of_dvc_with_another_md5_is_refused_by_name(lake: Lake) -> None:
    message = condition(lake.ended("altered", "DataInvalid"), "Ready")["message"]
    assert "dvc+s3://dvc/store/payments/broken.parquet has not the MD5" in message


def test_a_service_account_is_taken_once_the_namespaces_admin_labelled_it(lake: Lake) -> None:
    lake.ended("identity")
    (pod,) = lake.shop.pods("identity", "trainer")
    assert pod["spec"]["serviceAccountName"] == "reader"
    assert not [volume for volume in pod["spec"]["volumes"] if "projected" in volume]


@pytest.mark.full
def test_what_dvc_pushed_trains_when_its_repository_is_gone(lake: Lake, tmp_path: Path) -> None:
    """DVC itself, and no Git: add, push, copy two lines of the .dvc file, delete everything here, train there."""
    team = tmp_path / "team"
    (team / "payments").mkdir(parents=True)
    for name, table in PAYMENTS.items():
        (team / "payments" / name).write_bytes(parquet_of(table))
    (team / "chargebacks.csv").write_bytes(csv_of(TABLES["chargebacks"]))
    environment = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    dvc.run(team, "init", "--no-scm")
    dvc.run(team, "remote", "add", "--default", "store", "s3://dvc/pushed")
    dvc.run(team, "remote", "modify", "store", "endpointurl", lake.endpoint)
    dvc.run(team, "add", "payments", "chargebacks.csv")
    dvc.run(team, "push", environment=environment)
    outs = {
        name: yaml.safe_load((team / f"{name}.dvc").read_text())["outs"][0] for name in ("payments", "chargebacks.csv")
    }
    shutil.rmtree(team)
    places = {
        name: {"dvc": {"remote": {"uri": "s3://dvc/pushed/"}, "md5": out["md5"], "path": out["path"]}}
        for name, out in outs.items()
    }
    lake.shop.apply(reading("pushed", places["payments"], places["chargebacks.csv"]))
    run = lake.ended("pushed")
    assert run["status"]["data"]["replayable"] == "True"
    uris = [pin["uri"] for pin in lake.record(run)["data"]["objects"]]
    assert uris == [
        *(f"dvc+s3://dvc/pushed/payments/{name}" for name in PAYMENTS),
        "dvc+s3://dvc/pushed/chargebacks.csv",
    ]

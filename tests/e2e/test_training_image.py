"""A team's own training image on the cluster: the docs' LightGBM becomes a served revision, and whoever lies, crashes,
looks for credentials or leaves nothing does not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from images.places import IMAGES, Cache
from images.tool import last_built

from tests import cluster, teamimage
from tests.e2e.shop import REQUEST, Shop, open_shop, small_model
from tests.story.kube import Json, Kube, condition, holds, name_of
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.contract import layout
from truekeep.contract.canonical import sha256

NAMESPACE = "truekeep-e2e-training-image"
GATE = [{"name": "auc", "metric": "roc_auc", "minimum": "0.55"}]
HIGH = [{"name": "auc", "metric": "roc_auc", "minimum": "0.999"}]
SUMS = "import sums; sums.fit()"
# The docs' program, and then the best that it could say of itself.
LIE = """
import json, os, runpy
runpy.run_path("/opt/team/fit.py", run_name="__main__")
with open(os.environ["TRUEKEEP_OUT"] + "/metrics.json", "w") as file:
    json.dump({"roc_auc": 1.0, "auc": 1.0}, file)
"""
CRASH = "import sys; print('no licence for this CPU', file=sys.stderr); sys.exit(7)"
# What a curious program finds: printed, because its last words come into the run's condition.
SPY = """
import json, os, sys, urllib.request
import pyarrow.parquet as pq
def writes(path):
    try: open(path, "w")
    except OSError: return 0
    return 1
def asks(url):
    try: return urllib.request.urlopen(url, timeout=5).status
    except Exception as error: return getattr(error, "code", 0)
rows = pq.read_table("/in/train.parquet")
print(json.dumps({
    "token": os.path.exists("/var/run/secrets"), "ours": os.path.exists("/var/run/truekeep"), "uid": os.getuid(),
    "env": [n for n in os.environ if n.startswith("AWS") or "REQUEST" in n], "in": sorted(os.listdir("/in")),
    "w": [p for p in ("/x", "/in/x", "/in/train.parquet", "/opt/x") if writes(p)], "out": writes("/out/x"),
    "rows": rows.num_rows, "newest": str(max(rows["paid_at"].to_pylist())), "s3": asks("http://s3:7070/lake/"),
}))
sys.exit(9)
"""


def command(text: str) -> Json:
    return {"command": ["python3", "-c", text]}


def model_of(name: str, reference: str, image: Json | None = None, gates: Any = None, **spec: Any) -> Json:
    """A Model that this image trains."""
    training = {
        "recipe": None,
        "image": {"reference": reference, "format": "ONNX", "seed": 7, **(image or {})},
        "retries": {"limit": 0},
        "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}},
    }
    evaluation = {"refit": None, "champion": None, "gates": gates or GATE}
    return small_model(name, training=training, evaluation=evaluation, **spec)


@pytest.fixture(scope="module")
def reference() -> str:
    """The name of the image, which the cluster has."""
    (trainer,) = last_built([image for image in IMAGES if image.name == "trainer"], Cache.default())
    name, archive = teamimage.image(trainer.archive)
    if not any(there.endswith(f"/{name}") for there in cluster.image_names()):
        cluster.load_archives([archive])
    return name


@pytest.fixture(scope="module")
def shop(kube: Kube, reference: str) -> Iterator[Shop]:
    """All of them at once: what each comes to is asked below."""
    own = {"format": "Opaque", **command(SUMS)}
    with open_shop(kube, NAMESPACE, {}) as shop:
        shop.apply(
            model_of("boosted", reference),
            model_of("liar", reference, command(LIE), HIGH),
            model_of("crash", reference, command(CRASH)),
            model_of("empty", reference, command("pass")),
            model_of("spy", reference, command(SPY)),
            model_of("sums", reference, own, serving={"image": {"reference": reference}}),
        )
        yield shop


@pytest.fixture(scope="module")
def stage(shop: Shop) -> Iterator[Stage]:
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        yield stage


def record_of(stage: Stage, run: Json) -> Any:
    digest = run["status"]["record"]["id"]
    content = stage.bucket("models").get(layout.record(digest))
    assert sha256(content) == digest
    return json.loads(content)


def asked(shop: Shop, name: str, rows: int) -> list[float]:
    inputs = [
        {"name": n, "shape": [rows], "datatype": kind, "data": [value] * rows} for n, (kind, value) in REQUEST.items()
    ]
    with shop.kube.forward(NAMESPACE, name, 80) as port:
        reply = httpx.post(f"http://127.0.0.1:{port}/v2/models/{name}/infer", json={"inputs": inputs}, timeout=30)
    assert reply.status_code == 200, reply.text
    return next(one["data"] for one in reply.json()["outputs"] if one["name"] == "probability")


def test_lightgbm_of_the_docs_becomes_a_served_revision(shop: Shop, stage: Stage) -> None:
    shop.ready("boosted", 1)
    (run,) = shop.runs("boosted")
    assert "by spec.training.image" in condition(run, "Ready")["message"]
    (gate,) = run["status"]["gates"]
    assert (gate["result"], gate["rows"] > 300) == ("Passed", True)
    assert len(set(np.round(asked(shop, "boosted", 3), 12))) == 1
    jobs = {name_of(job): job["metadata"]["labels"]["truekeep.dev/stage"] for job in shop.jobs("boosted")}
    assert jobs == {name_of(run): "Train", f"{name_of(run)}-fit": "Fit"}
    assert run["status"]["artifact"]["format"] == "onnx"


def test_the_record_has_image_files_and_its_own_words(shop: Shop, stage: Stage, reference: str) -> None:
    shop.ready("boosted", 1)
    (run,) = shop.runs("boosted")
    record = record_of(stage, run)
    told = record["evaluation"]["image"]
    assert record["training"]["declared"]["image"]["reference"] == told["reference"] == reference
    assert [file["path"] for file in told["delivered"]] == ["model.onnx"]
    assert set(told["reported"]) == {"accuracy_on_its_own_rows"}
    assert re.search(r"sha256:[0-9a-f]{64}", told["imageId"] or "")
    assert {one["source"] for one in record["data"]["objects"]} == {"source", "label"}


def test_a_liar_is_judged_by_us(shop: Shop, stage: Stage) -> None:
    said = shop.reason("liar", "GatesFailed", 200)
    assert "is below 0.999" in said["message"]
    (run,) = shop.runs("liar")
    assert record_of(stage, run)["evaluation"]["image"]["reported"] == {"roc_auc": 1.0, "auc": 1.0}
    assert not shop.model("liar")["status"].get("latestRevision")


def test_a_crash_ends_the_run_with_its_last_words(shop: Shop) -> None:
    said = shop.reason("crash", "ImageCrashed", 200)
    assert "spec.training.image in pod" in said["message"]
    assert "ended with code 7" in said["message"]
    assert "no licence for this CPU" in said["message"]
    (run,) = shop.runs("crash")
    assert holds(run, "Failed")
    assert len(shop.jobs("crash")) == 1, "nothing was judged"


def test_one_that_leaves_nothing_is_told_so(shop: Shop, stage: Stage) -> None:
    said = shop.reason("empty", "DeliveryInvalid", 200)
    assert "must leave model.onnx in /out" in said["message"]
    (run,) = shop.runs("empty")
    assert record_of(stage, run)["data"]["objects"]


def test_a_spy_finds_no_credentials_and_no_row_of_the_holdout(shop: Shop, stage: Stage) -> None:
    said = shop.reason("spy", "ImageCrashed", 200)
    found = json.loads(re.findall(r"\{.*\}", said["message"])[0])
    assert (found["token"], found["ours"], found["env"], found["uid"]) == (False, False, [], 65532)
    assert (found["w"], found["out"]) == ([], 1)
    assert found["in"] == ["features.json", "train.parquet"]
    assert found["s3"] in (401, 403), "the store asks who it is"
    shop.ready("boosted", 1)
    (run,) = shop.runs("boosted")  # of the same data
    told = record_of(stage, run)["evaluation"]
    assert found["rows"] == told["train"]["rows"]
    assert found["newest"].replace(" ", "T")[:19] == told["train"]["until"][:19] < told["holdout"]["since"][:19]
    (fitting,) = (job for job in shop.jobs("spy") if name_of(job).endswith("-fit"))
    pod = fitting["spec"]["template"]["spec"]
    (theirs,) = (each for each in pod["initContainers"] if each["name"] == "fit")
    assert {each["mountPath"] for each in theirs["volumeMounts"]} == {"/tmp", "/in", "/out"}


def test_files_that_its_own_server_knows_are_judged_and_served_by_it(shop: Shop, stage: Stage) -> None:
    shop.ready("sums", 1)
    (run,) = shop.runs("sums")
    (gate,) = run["status"]["gates"]
    assert gate["result"] == "Passed"
    digest = run["status"]["artifact"]["digest"]
    weights = json.loads(stage.bucket("models").get(layout.artifact_file(digest, "weights.json")))
    from tests.teamimage import sums

    expected = sums.scores(weights, {name: [value] for name, (_, value) in REQUEST.items()})
    assert asked(shop, "sums", 1) == pytest.approx(expected, abs=1e-9)
    (judging,) = (job for job in shop.jobs("sums") if not name_of(job).endswith("-fit"))
    pod = judging["spec"]["template"]["spec"]
    (beside,) = (each for each in pod["initContainers"] if each["name"] == "backend")
    assert {each["mountPath"] for each in beside["volumeMounts"]} == {"/tmp", "/mnt/models"}
    assert not [each for each in beside["env"] if "REQUEST" in each["name"]]

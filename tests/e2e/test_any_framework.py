"""A team's own server, of any framework: MLServer from its own package, under a rollout that has to look through it."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from images.places import IMAGES, Cache
from images.tool import last_built

from tests import cluster, frameworks
from tests.e2e.shop import BEGINS, DAYS, REQUEST, ROWS_PER_DAY, Shop, open_shop, small_model
from tests.story.kube import Json, Kube, KubectlError, condition, image_names, name_of
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples import fraud
from truekeep.contract.layout import MODEL_FILE, SIGNATURE
from truekeep.features.encode import Encoder, matrix
from truekeep.features.models import read_signature
from truekeep.features.trust import load_pipeline
from truekeep.storage import artifacts

pytestmark = pytest.mark.full  # an image with MLServer is made for it
NAMESPACE = "truekeep-e2e-frameworks"
NAME = "sums"
ROWS = 400
READY = 240
NULLS = ("amount", "merchant")  # features that may be missing


def own(reference: str, implementation: str = "runtime.Artifact") -> Json:
    """`serving.image` with MLServer in it."""
    env = {
        "MLSERVER_HTTP_PORT": "$(PORT)",
        "MLSERVER_GRPC_PORT": "9001",
        "MLSERVER_METRICS_PORT": "9002",
        "MLSERVER_MODEL_NAME": "$(MODEL_NAME)",
        "MLSERVER_MODEL_IMPLEMENTATION": implementation,
    }
    return {"reference": reference, "env": [{"name": name, "value": value} for name, value in env.items()]}


@pytest.fixture(scope="module")
def reference() -> str:
    """The name of the image, which the cluster has."""
    (server,) = last_built([image for image in IMAGES if image.name == "server"], Cache.default())
    name, archive = frameworks.image(server.archive)
    if not any(there.endswith(f"/{name}") for there in cluster.image_names()):
        cluster.load_archives([archive])
    return name


@pytest.fixture(scope="module")
def shop(kube: Kube, reference: str) -> Iterator[Shop]:
    serving = {
        "image": own(reference),
        "capture": {"s3": {"uri": "s3://lake/captures/"}, "flushSeconds": 2},
        "rollout": {"rehearsalRows": 20},
        "connectionMaxAgeSeconds": 5,
        "rollbackWindowSeconds": 5,
    }
    model = small_model(NAME, serving=serving)
    for feature in model["spec"]["data"]["features"]:
        if feature["name"] in NULLS:
            feature.pop("nulls", None)
    with open_shop(kube, NAMESPACE, {NAME: model}) as shop:
        yield shop


@pytest.fixture(scope="module")
def stage(shop: Shop) -> Iterator[Stage]:
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        yield stage


def payments() -> dict[str, list[Any]]:
    """Rows as a client has them, some of them with nulls."""
    table = fraud.tables(BEGINS, DAYS, ROWS_PER_DAY, BEGINS + timedelta(days=3660), seed=11)["payments"].slice(0, ROWS)
    columns: dict[str, list[Any]] = {name: table[name].to_pylist() for name in REQUEST}
    for name in NULLS:
        columns[name] = [None if row % 9 == 3 else value for row, value in enumerate(columns[name])]
    return columns


def question(columns: dict[str, list[Any]]) -> Json:
    rows = len(columns["hour"])
    kinds = {name: kind for name, (kind, _) in REQUEST.items()}
    inputs = [{"name": n, "shape": [rows], "datatype": kinds[n], "data": values} for n, values in columns.items()]
    return {"inputs": inputs, "outputs": [{"name": "probability"}]}


def backend(shop: Shop) -> tuple[str, Json]:
    """The newest serving pod, and its container with the team's image."""
    pod = shop.pods(NAME, "server")[-1]
    (container,) = (each for each in pod["spec"]["initContainers"] if each["name"] == "backend")
    return name_of(pod), container


def inside(shop: Shop, program: str) -> str:
    """What a line of Python prints in the team's container."""
    pod, _ = backend(shop)
    return shop.kube.kubectl("exec", pod, "-n", NAMESPACE, "-c", "backend", "--", "python3", "-c", program)


def test_it_answers_as_the_pipeline_does_for_every_row(shop: Shop, stage: Stage) -> None:
    active = shop.model(NAME)["status"]["active"]
    files = artifacts.read(stage.bucket("models"), active["artifactDigest"], {MODEL_FILE, SIGNATURE})
    signature = read_signature(files[SIGNATURE])
    columns = payments()
    encoded = Encoder(signature.features).encode(columns, ROWS)
    expected = load_pipeline(files[MODEL_FILE], signature.estimator).predict_proba(encoded)[:, 1]
    with (
        shop.kube.forward(NAMESPACE, active["deployment"], 80) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/v2/models/{NAME}", timeout=30) as client,
    ):
        assert client.get("").json()["platform"] == "image"
        got: list[float] = []
        for first in (*range(20), *range(20, ROWS, 95)):
            part = slice(first, first + (1 if first < 20 else 95))
            answer = client.post("/infer", json=question({name: values[part] for name, values in columns.items()}))
            assert answer.status_code == 200, answer.text
            got += answer.json()["outputs"][0]["data"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    assert np.unique(np.round(expected, 6)).size > 20


def test_what_was_asked_and_answered_arrives_in_the_store(shop: Shop, stage: Stage) -> None:
    lake = stage.bucket("lake")
    prefix = f"captures/{NAMESPACE}/{NAME}/revision=1/"

    def captured() -> Any:
        tables = [pq.read_table(io.BytesIO(lake.get(info.key))) for info in lake.list(prefix)]
        found = pa.concat_tables(tables) if tables else None
        return found if found is not None and found.num_rows >= ROWS else None

    table = shop.kube.wait("captured rows", 60, captured)
    assert set(REQUEST) < set(table.column_names)
    digest = shop.model(NAME)["status"]["active"]["artifactDigest"]
    files = artifacts.read(stage.bucket("models"), digest, {MODEL_FILE, SIGNATURE})
    signature = read_signature(files[SIGNATURE])
    rows = matrix({name: table[name] for name in REQUEST}, signature.features)
    expected = load_pipeline(files[MODEL_FILE], signature.estimator).predict_proba(rows)[:, 1]
    np.testing.assert_allclose(table["truekeep.probability"].to_numpy(), expected, rtol=0, atol=1e-9)


def test_its_container_holds_nothing_of_ours(shop: Shop, reference: str) -> None:
    _, container = backend(shop)
    assert container["image"] == reference
    look = (
        "import os, json; print(json.dumps({'env': sorted(os.environ), 'run': os.path.exists('/var/run/truekeep'),"
        "'token': os.path.exists('/var/run/secrets/kubernetes.io'), 'uid': os.getuid(),"
        "'model': sorted(os.listdir(os.environ['TRUEKEEP_MODEL_DIR']))}))"
    )
    seen = json.loads(inside(shop, look))
    assert not [name for name in seen["env"] if name.startswith(("AWS_", "TRUEKEEP_REQUEST"))]
    assert (seen["run"], seen["token"], seen["uid"]) == (False, False, 65532)
    assert {"manifest.json", "model.onnx", "signature.json"} <= set(seen["model"])
    for path in ("/here", "/mnt/models/here", "/mnt/models/model.onnx"):
        with pytest.raises(KubectlError, match=r"Read-only file system|Permission denied"):
            inside(shop, f"open({path!r}, 'w')")
    # From outside the pod our server alone takes its traffic.
    address = shop.pods(NAME, "server")[-1]["status"]["podIP"]
    ask = f"import urllib.request as u; u.urlopen('http://{address}:9000/v2/health/ready', timeout=5)"
    with pytest.raises(KubectlError, match="refused"):
        shop.kube.kubectl("exec", "probe", "-n", NAMESPACE, "--", "python3", "-c", ask)


def test_a_good_change_of_it_is_promoted_without_a_failed_request(shop: Shop, reference: str) -> None:
    before = shop.model(NAME)["status"]["active"]["deployment"]
    with shop.unharmed(NAME):
        shop.patch(NAME, {"serving": {"image": {"timeoutSeconds": 6}}})
        shop.until("the promotion", READY, lambda: shop.model(NAME)["status"]["active"]["deployment"] != before)
        shop.ready(NAME, 1)


def test_one_that_ends_is_started_again_and_tested_again(shop: Shop) -> None:
    def restarts() -> int:
        statuses = shop.pods(NAME, "server")[-1]["status"]["initContainerStatuses"]
        return sum(each["restartCount"] for each in statuses if each["name"] == "backend")

    # Within the window a revision whose replies fail is rolled back, whatever made them fail.
    shop.until("the end of the rollback window", 60, lambda: not shop.model(NAME)["status"].get("previous"))
    before, answers = restarts(), shop.model(NAME)["status"]["active"]["deployment"]
    with contextlib.suppress(KubectlError):  # the connection may end with it
        inside(shop, "import os, signal; os.kill(1, signal.SIGTERM)")
    shop.until("the restart", 60, lambda: restarts() > before)
    pod, _ = backend(shop)
    log = ("logs", pod, "-n", NAMESPACE, "-c", "server")
    shop.until("the second test", 90, lambda: shop.kube.kubectl(*log).count("the team's server is ready") == 2)

    def all_answered() -> bool:
        """For longer than kubelet and kube-proxy may take to notice that it had ended, and that it is back."""
        first = shop.probed(NAME)
        time.sleep(10)
        last = shop.probed(NAME)
        return bool(last["failed"] == first["failed"] and last["requests"] > first["requests"] + 3)

    shop.until("all requests to be answered", 60, all_answered)
    shop.ready(NAME, 1)
    assert shop.model(NAME)["status"]["active"]["deployment"] == answers


def test_one_that_can_not_be_pulled_is_waited_for(shop: Shop, reference: str) -> None:
    with shop.unharmed(NAME):
        shop.patch(NAME, {"serving": {"image": {"reference": "registry.invalid/team/mlserver:1"}}})
        message = shop.reason(NAME, "ImagePullFailed", 90)["message"]
        assert "registry.invalid/team/mlserver:1" in message
        shop.patch(NAME, {"serving": {"image": {"reference": reference}}})
        shop.ready(NAME, 1)
    assert not shop.model(NAME)["status"].get("lastFailure")


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"implementation": "broken.Liar"}, "ServerRefused", "the self-test failed: example"),
        ({"implementation": "broken.Moody"}, "RehearsalFailed", "not today"),
        ({"implementation": "broken.Moody", "rehearsalRows": 0}, "ErrorRate", "replies failed"),
        pytest.param({"image": "tools"}, "ServerCrashed", "spec.serving.image in pod", marks=pytest.mark.full),
    ],
)
def test_a_broken_one_is_rolled_back(
    shop: Shop, reference: str, change: dict[str, Any], reason: str, words: str
) -> None:
    before = shop.model(NAME)["status"]["active"]["deployment"]
    named = image_names()[change["image"]] if "image" in change else reference
    image = own(named, change.get("implementation", "runtime.Artifact"))
    good = own(reference)
    rows = {"rehearsalRows": change.get("rehearsalRows", 20)}
    harmless = reason != "ErrorRate"  # that one is found out by those who ask
    with shop.unharmed(NAME) if harmless else contextlib.nullcontext():
        shop.patch(NAME, {"serving": {"image": image, "rollout": rows}})
        shop.until(
            f"the rollback for {reason}",
            READY,
            lambda: (shop.model(NAME)["status"].get("lastFailure") or {}).get("reason") == reason,
        )
    failure = shop.model(NAME)["status"]["lastFailure"]
    assert words in failure["message"]
    assert condition(shop.model(NAME), "Ready")["reason"] == "RolledBack"
    assert shop.model(NAME)["status"]["active"]["deployment"] == before
    shop.patch(NAME, {"serving": {"image": good, "rollout": {"rehearsalRows": 20}}})
    shop.ready(NAME, 1)

"""docs/first-model.md on the real cluster: its commands and its YAML, with the store, rows and digest of this test."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.cluster import environment
from tests.e2e.shop import Shop, open_shop
from tests.story.kube import ROOT, Json, Kube, holds
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples.upload import make_bucket

pytestmark = pytest.mark.full
NAMESPACE = "truekeep-e2e-first-model"
PAGE = (ROOT / "docs/first-model.md").read_text()
IMPORT_PAGE = (ROOT / "docs/import.md").read_text()
DOCUMENTS: list[Json] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.M)
SMALL = {"requests": {"cpu": "20m", "memory": "256Mi"}}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    with open_shop(kube, NAMESPACE, {}) as shop:
        yield shop


class Reader:
    """Somebody who follows the page in a folder, with a store that is reached through a forwarded port."""

    def __init__(self, shop: Shop, folder: Path, endpoint: str) -> None:
        self.shop = shop
        self.folder = folder
        self.endpoint = endpoint

    def run(self, command: str) -> str:
        """A command of the page. AssertionError, with what it said, unless it ends with 0."""
        assert command in COMMANDS, f"the page does not say: {command}"
        words = shlex.split(command.replace("http://s3.example:7070", self.endpoint))
        config = self.folder / "kubeconfig"
        cluster = environment()
        path = f"{Path(sys.executable).parent}:{cluster.get('PATH', os.environ['PATH'])}"
        env = {**os.environ, **cluster, "PATH": path, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(config)}
        done = subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
        return done.stdout

    def write(self, name: str, number: int, digest: str = "") -> None:
        """A YAML of the page into a file: store and digest are this test's, and its pods ask for little."""
        text = yaml.safe_dump(DOCUMENTS[number]).replace("http://s3.example:7070", "http://s3:7070")
        document = yaml.safe_load(text.replace(f"sha256:{'0' * 64}", digest))
        document["spec"]["training"]["resources"] = SMALL
        document["spec"]["serving"] |= {"replicas": 1, "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}}
        (self.folder / name).write_text(yaml.safe_dump(document))


@pytest.fixture(scope="module")
def reader(shop: Shop, kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    config = yaml.safe_load(Path(environment()["KUBECONFIG"]).read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = NAMESPACE
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    script = re.findall(r"```python\n(.*?)```", IMPORT_PAGE, re.S)[0]
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=120)
    rows = pd.concat([pd.read_parquet(folder / "rows.parquet")] * 3, ignore_index=True)
    begins = datetime.now(UTC) - timedelta(days=20)
    rows["payment_id"] = [f"p{number}" for number in range(len(rows))]
    rows["paid_at"] = [begins + timedelta(minutes=8 * number) for number in range(len(rows))]
    lake = folder / "lake" / "payments"
    lake.mkdir(parents=True)
    rows.to_parquet(lake / "rows.parquet")
    with Stage(kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        make_bucket("imports", stage.endpoint, versions=False)
        stage.bucket("lake").put("payments/rows.parquet", (lake / "rows.parquet").read_bytes())
        yield Reader(shop, folder, stage.endpoint)


def test_a_model_that_a_script_trained_serves(reader: Reader) -> None:
    said = reader.run(next(one for one in COMMANDS if one.startswith("truekeep import")))
    (digest,) = re.findall(r"^    digest: (sha256:[0-9a-f]{64})$", said, re.M)
    reader.write("my-model.yaml", 0, digest)
    reader.run("truekeep check -f my-model.yaml")
    reader.run("kubectl apply -f my-model.yaml")
    reader.run("truekeep wait fraud")
    assert "revision 1" in reader.run("truekeep status fraud")
    assert reader.shop.model("fraud")["status"]["active"]["artifactDigest"] == digest


def test_it_is_watched(reader: Reader) -> None:
    reader.shop.apply(DOCUMENTS[1])

    def watching() -> bool:
        policy = reader.shop.kube.get(NAMESPACE, "driftpolicies", "fraud") or {}
        return holds(policy, "Ready")

    reader.shop.until("the policy watches", 60, watching)


def test_a_recipe_takes_over(reader: Reader) -> None:
    reader.write("recipe.yaml", 2)
    reader.run("truekeep train -f recipe.yaml --data ./lake --out ./artifact")
    (reader.folder / "recipe.yaml").replace(reader.folder / "my-model.yaml")
    reader.run("kubectl apply -f my-model.yaml")
    model = reader.shop.ready("fraud", 2)
    assert model["status"]["active"]["revision"] == 2

"""From the version before to this one and back, with what is stored: serving pods stay, what was written is read.

The version before is its commit, its images made by its own tool; it is installed by its own installer. At the end this
checkout is installed again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster import environment, install
from tests.e2e.captured import CAPTURED, DAY, first_day, write_day
from tests.e2e.shop import Shop, open_shop, small_model
from tests.story.kube import Json, Kube, holds
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples import world

pytestmark = pytest.mark.full
ROOT = Path(__file__).resolve().parents[2]
PREVIOUS = "232419ab869f33cc6563c45f6436c77ee0150561"  # v0.1.0
NAMESPACE = "truekeep-e2e-upgrade"
STAYS, FOLLOWS = "payments", "tabs"
FIRST = first_day()
WINDOW_SECONDS = 300
POLICY: Json = {
    "apiVersion": "truekeep.dev/v1alpha1",
    "kind": "DriftPolicy",
    "metadata": {"name": STAYS},
    "spec": {
        "modelRef": {"name": STAYS},
        "schedule": "* * * * *",
        "window": {"hours": 24, "minRows": 300, "idleSeconds": 10},
        "data": {"minimumEffect": "1"},
    },
}


class Previous:
    """The version before, as a folder beside this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        archive = subprocess.run(["git", "archive", PREVIOUS], cwd=ROOT, capture_output=True, check=False)
        assert archive.returncode == 0, f"{PREVIOUS} is not in this clone: git fetch --unshallow"
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        self.run("images", "build", "operator", "trainer", "server", "monitor", timeout=1200)

    def run(self, *module: str, timeout: float = 240) -> str:
        env = {**os.environ, **environment(), "PYTHONPATH": f"{self.folder / 'operator'}:{self.folder}"}
        done = subprocess.run(
            [sys.executable, "-m", *module], cwd=self.folder, env=env, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def images(self) -> dict[str, str]:
        return install.images(self.folder / "build" / "images.env")

    def install(self) -> None:
        self.run("images", "load", "operator", "trainer", "server", "monitor")
        self.run("tests.cluster.install")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Previous:
    return Previous(tmp_path_factory.mktemp("previous"))


@pytest.fixture(scope="module")
def shop(kube: Kube, previous: Previous) -> Iterator[Shop]:
    """Two Models that the version before trained and serves."""
    with ExitStack() as stack:
        stack.callback(install.install)
        previous.install()
        models = {STAYS: small_model(STAYS, **CAPTURED), FOLLOWS: small_model(FOLLOWS)}
        yield stack.enter_context(open_shop(kube, NAMESPACE, models))


def pods(shop: Shop, model: str) -> dict[str, int]:
    """The serving pods: uid, and how often a container of theirs was restarted."""
    return {
        pod["metadata"]["uid"]: sum(each["restartCount"] for each in pod["status"]["containerStatuses"])
        for pod in shop.pods(model, "server")
        if "deletionTimestamp" not in pod["metadata"]
    }


def images(shop: Shop, model: str) -> set[str]:
    """Of the live revision's pods."""
    active = shop.model(model)["status"]["active"]["deployment"]
    found = shop.kube.get(NAMESPACE, "deployments", active) or {}
    return {each["image"] for each in found["spec"]["template"]["spec"]["containers"]}


def judged(shop: Shop) -> int:
    """Windows that the policy has a verdict on."""
    status = (shop.kube.get(NAMESPACE, "driftpolicies", STAYS) or {}).get("status", {})
    return len([each for each in status.get("windows", []) if each["verdict"] != "InsufficientData"])


def day(shop: Shop, number: int, expected: int, monitor: str) -> None:
    """One more day of predictions, which the monitor of that image judges by the profile that training kept."""
    job = (shop.kube.get(NAMESPACE, "cronjobs", f"{STAYS}-monitor") or {})["spec"]["jobTemplate"]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == monitor
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        write_day(stage.bucket(world.LAKE), NAMESPACE, STAYS, FIRST + number * DAY, seed=number)
    shop.until(f"day {number} to be judged by {monitor}", WINDOW_SECONDS, lambda: judged(shop) >= expected)


def monitor_is(shop: Shop, image: str) -> bool:
    job = (shop.kube.get(NAMESPACE, "cronjobs", f"{STAYS}-monitor") or {}).get("spec", {}).get("jobTemplate", {})
    return bool(job) and job["spec"]["template"]["spec"]["containers"][0]["image"] == image


def test_up_and_back_with_all_that_is_stored(shop: Shop, previous: Previous) -> None:
    old, new = previous.images(), install.images()
    assert old["TRUEKEEP_SERVER_IMAGE"] != new["TRUEKEEP_SERVER_IMAGE"]
    monitors = [each["TRUEKEEP_MONITOR_IMAGE"] for each in (old, new)]
    shop.apply(POLICY)
    shop.until("the monitor", 60, lambda: monitor_is(shop, monitors[0]))
    day(shop, 0, 1, monitors[0])
    stays, follows = pods(shop, STAYS), pods(shop, FOLLOWS)
    runs = {name: shop.runs(name) for name in (STAYS, FOLLOWS)}
    assert len(stays) == len(follows) == 1

    with shop.unharmed(STAYS), shop.unharmed(FOLLOWS):
        install.install()
        shop.until("this version's monitor", 90, lambda: monitor_is(shop, monitors[1]))
        day(shop, 1, 2, monitors[1])
        assert pods(shop, STAYS) == stays
        assert pods(shop, FOLLOWS) == follows
        assert images(shop, STAYS) == images(shop, FOLLOWS) == {old["TRUEKEEP_SERVER_IMAGE"]}
        assert all(holds(shop.model(name), "Ready") for name in (STAYS, FOLLOWS))

    # A newer server for the same revision: its artifact was written by the version before.
    with shop.unharmed(FOLLOWS):
        shop.patch(FOLLOWS, {"serving": {"serverImage": "Follow"}})
        shop.until("the new server", 120, lambda: images(shop, FOLLOWS) == {new["TRUEKEEP_SERVER_IMAGE"]})
    model = shop.ready(FOLLOWS, 1)
    assert model["status"]["active"]["serverImage"] == new["TRUEKEEP_SERVER_IMAGE"]
    assert [each["revision"] for each in model["status"]["history"]][:2] == [1, 1]

    with shop.unharmed(STAYS), shop.unharmed(FOLLOWS):
        previous.install()
        shop.until("the former version's monitor", 90, lambda: monitor_is(shop, monitors[0]))
        day(shop, 2, 3, monitors[0])
        assert pods(shop, STAYS) == stays
        shop.ready(FOLLOWS, 1)
    after = {name: shop.runs(name) for name in (STAYS, FOLLOWS)}
    assert {name: [run["metadata"]["uid"] for run in each] for name, each in after.items()} == {
        name: [run["metadata"]["uid"] for run in each] for name, each in runs.items()
    }, "nothing was trained"

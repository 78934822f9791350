"""What befalls a cluster: its API server and etcd are killed, its clock is set, and somebody writes into a status. The
live revision answers all the while, every run is there once, the Model is Ready in the end, and another look at it
writes nothing.

Order matters in so far as each test begins with the Model at rest that the one before left."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.cluster import engine, without
from tests.e2e import operators
from tests.e2e.replies import Loaded, Reply, under_load
from tests.e2e.shop import Shop, merged, open_shop, parameters, small_model
from tests.e2e.test_kills import account, undisturbed
from tests.story.kube import Json, Kube, holds, name_of

NAMESPACE = "truekeep-e2e-mishaps"
MODEL = "steady"
HOUR = 3600
AWAY_SECONDS = 18.0  # of the API server: longer than a Lease lasts
QUIET_SECONDS = 10.0  # the longest time without an answer: what hangs as long as a client waits is no answer
SPEC = {
    "serving": {
        "replicas": 2,
        "rollbackWindowSeconds": 5,
        "rollout": {"steps": [{"weightPercent": 50, "durationSeconds": 8}], "minRequests": 20},
    }
}
KINDS = (
    "models",
    "trainingruns",
    "driftpolicies",
    "deployments",
    "services",
    "jobs",
    "cronjobs",
    "poddisruptionbudgets",
)

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """One Model with two pods."""
    if engine() != "one-node":
        pytest.skip("the daemons and processes of kind's node are not ours to stop")
    with open_shop(kube, NAMESPACE, {MODEL: merged(small_model(MODEL), {"spec": SPEC})}) as shop:
        yield shop


@pytest.fixture(scope="module")
def loaded(shop: Shop) -> Iterator[Loaded]:
    """The load, all the while."""
    with under_load(shop, MODEL, seconds=1200) as loaded:
        yield loaded


@dataclass
class Steady:
    """The Model, at rest, and what is asked of it."""

    shop: Shop
    loaded: Loaded

    @property
    def kube(self) -> Kube:
        return self.shop.kube

    @property
    def status(self) -> Json:
        status: Json = self.shop.model(MODEL)["status"]
        return status

    @property
    def latest(self) -> int:
        return int(self.status["latestRevision"])

    @property
    def live(self) -> str:
        """The Deployment that answers."""
        return str(self.status["active"]["deployment"])

    def retrain(self) -> int:
        """Ask for a revision; its number."""
        number = self.latest + 1
        self.shop.patch(MODEL, parameters(max_iter=str(40 + number)))
        return number

    def until(self, moment: Callable[[Steady], object], seconds: float = 240) -> None:
        """Return at that moment of a run or rollout."""
        self.shop.until(f"the moment that {moment.__doc__}", seconds, lambda: moment(self))

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Within this every request is answered, and the answers never cease."""
        began = time.time()
        yield
        self.answers(began)

    def answers(self, since: float) -> list[Reply]:
        """All replies from then on: none failed, and there was none missing. AssertionError otherwise."""
        ended = time.time()
        self.shop.until("answers", 30, lambda: self.loaded.replies(ended))
        replies = self.loaded.replies(since)
        failed = [f"{reply.time - since:+.2f} s {reply.client}: {reply.error}" for reply in replies if reply.failed]
        assert not failed, f"{len(failed)} of {len(replies)} failed: {failed[:8]}"
        times = [since, *(reply.time for reply in replies)]
        longest = max(later - earlier for earlier, later in itertools.pairwise(times))
        assert longest < QUIET_SECONDS, f"nobody was answered for {longest:.1f} s"
        return replies

    def told_once(self, tries: dict[str, int] | None = None) -> None:
        """As many runs, revisions, Jobs and promotions as were asked for, each made once. `tries`: of runs whose Job
        had to be made so often. Jobs of finished runs may be retired, so that those count which were ever made."""

        def seen() -> Json:
            jobs = Counter(
                write["name"]
                for write in operators.writes(NAMESPACE)
                if write["resource"] == "jobs" and write["code"] == 201
            )
            made = {name_of(run): jobs[name_of(run)] for run in self.shop.runs(MODEL)}
            return {**account(self.shop, MODEL), "jobs": made}

        runs = [name_of(run) for run in self.shop.runs(MODEL)]
        wanted = {**undisturbed(self.latest), "jobs": dict.fromkeys(runs, 1) | (tries or {})}
        try:
            self.shop.until("", 20, lambda: seen() == wanted)
        except Exception as error:
            raise AssertionError(f"there is {seen()}, and there should be {wanted}") from error
        said = [run["status"].get("attempts") for run in self.shop.runs(MODEL)]
        assert not any(said), f"tries failed: {said}"

    def at_rest(self) -> None:
        """Ready; and a look at it, of which there is a cause, writes nothing."""
        self.shop.ready(MODEL, self.latest, seconds=60)
        seen: list[dict[str, str]] = []

        def calm() -> bool:
            seen.append(self._versions())
            return len(seen) > 8 and all(each == seen[-1] for each in seen[-8:])  # one in half a second

        self.shop.until("the Model to be at rest", 90, calm)
        words = ("annotate", "models.truekeep.dev", MODEL, f"example.com/look={time.time()}", "--overwrite")
        version = self.kube.kubectl(*words, "-n", NAMESPACE, "-o", "jsonpath={.metadata.resourceVersion}")
        time.sleep(5)
        now = self._versions()
        before = {**seen[-1], f"models/{MODEL}": version}
        assert now == before, {name for name in {*now, *before} if now.get(name) != before.get(name)}

    def _versions(self) -> dict[str, str]:
        return {
            f"{kind}/{name_of(item)}": item["metadata"]["resourceVersion"]
            for kind in KINDS
            for item in self.kube.list(NAMESPACE, kind)
        }


@pytest.fixture
def steady(shop: Shop, loaded: Loaded) -> Steady:
    """Ready, and asked all the while."""
    steady = Steady(shop, loaded)
    shop.ready(MODEL, seconds=20)
    return steady


def training(steady: Steady) -> bool:
    """a trainer is at work"""
    return any(pod["status"]["phase"] == "Running" for pod in steady.shop.pods(MODEL, "trainer"))


def starting(steady: Steady) -> bool:
    """a candidate's pods are starting"""
    return bool(steady.status.get("candidate"))


def on_trial(steady: Steady) -> bool:
    """a canary has live traffic"""
    return (steady.status.get("candidate") or {}).get("step", -1) >= 0


def test_api_server_and_etcd_are_killed(steady: Steady) -> None:
    """The one in the middle of training, for longer than a Lease lasts; the other in the middle of a canary."""
    with steady.unharmed():
        number = steady.retrain()
        steady.until(training)
        with without("kube-apiserver"):
            time.sleep(AWAY_SECONDS)
        steady.until(on_trial)
        with without("etcd"):
            time.sleep(4)
        steady.shop.ready(MODEL, number, seconds=240)
    steady.told_once()
    steady.at_rest()


def test_the_operators_clock_is_set_by_an_hour(steady: Steady) -> None:
    """Forth and back in the middle of a run and its rollout, then back and forth: nothing is given up for being late,
    and nothing waits for an hour."""
    with operators.late(steady.kube) as clock, steady.unharmed():
        for ahead, moment in ((HOUR, on_trial), (-HOUR, starting)):
            number = steady.retrain()
            steady.until(training)
            clock.move(ahead)
            steady.until(moment)
            clock.move(0)
            steady.shop.ready(MODEL, number, seconds=180)
            assert not steady.status.get("rejected")
        steady.told_once()
        steady.at_rest()


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(
            {
                "active": {
                    "revision": 77,
                    "run": "gone",
                    "artifactDigest": f"sha256:{'0' * 64}",
                    "deployment": "gone",
                },
                "history": [],
            },
            id="a live revision that never was",
        ),
        pytest.param(None, id="nothing"),
    ],
)
def test_a_status_that_somebody_else_wrote(steady: Steady, garbage: Json | None) -> None:
    """What serves goes on, and the status tells of it again."""
    before = steady.status
    with steady.unharmed():
        patch = f"--patch={json.dumps({'status': garbage})}"
        words = ("patch", "models.truekeep.dev", MODEL, "-n", NAMESPACE, "--subresource=status", "--type=merge", patch)
        steady.kube.kubectl(*words)
        time.sleep(2)
        steady.shop.ready(MODEL, before["active"]["revision"], seconds=90)
    for name in ("revision", "run", "deployment", "artifactDigest"):
        assert steady.status["active"][name] == before["active"][name]
    assert len(steady.shop.runs(MODEL)) == before["latestRevision"]
    steady.at_rest()


def test_an_annotation_that_is_garbage(steady: Steady) -> None:
    """It is said, and what serves goes on; when it is taken back, nothing is left of it."""
    live = steady.status["active"]
    words = ("annotate", "models.truekeep.dev", MODEL, "-n", NAMESPACE)
    with steady.unharmed():
        steady.kube.kubectl(*words, "truekeep.dev/rollback=../../etc")
        steady.shop.until(
            "the Model to say so",
            20,
            lambda: any(each["reason"] == "RollbackUnclear" for each in steady.status["conditions"]),
        )
        assert steady.status["active"] == live
        steady.kube.kubectl(*words, "truekeep.dev/rollback-")
        steady.shop.until("the Model to be Ready", 20, lambda: holds(steady.shop.model(MODEL), "Ready"))
    assert steady.status["active"] == live
    steady.at_rest()

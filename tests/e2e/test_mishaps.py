"""What befalls a cluster: its API server and etcd are killed, its clock is set, two operators are there at once, and
people delete and change what the operator made. The live revision answers all the while, every run is there once, the
Model is Ready in the end, and another look at it writes nothing.

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
from tests.story.kube import Json, Kube, condition, holds, name_of

NAMESPACE = "truekeep-e2e-mishaps"
AGAIN = f"{NAMESPACE}-again"
MODEL = "steady"
HOUR = 3600
SOON_SECONDS = 30.0  # within which what was changed by hand is as before
AWAY_SECONDS = 18.0  # of the API server: longer than a Lease lasts
QUIET_SECONDS = 10.0  # the longest time without an answer: what hangs as long as a client waits is no answer
UNDERWAY_SECONDS = 5.0  # a request that was on its way to a pod that is killed may fail for so long
SPEC = {
    "serving": {
        "replicas": 2,
        "rollbackWindowSeconds": 5,
        "rollout": {"steps": [{"weightPercent": 50, "durationSeconds": 8}], "minRequests": 20},
    }
}
BUDGETS = "poddisruptionbudgets"
KINDS = (
    "models",
    "trainingruns",
    "driftpolicies",
    "deployments",
    "services",
    "jobs",
    "cronjobs",
    BUDGETS,
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
        # Jobs of finished runs are retired ten minutes after their end, which may be just now.
        retired = {name for name in seen[-1].keys() - now.keys() if name.startswith("jobs/")}
        before = {name: each for name, each in seen[-1].items() if name not in retired}
        before[f"models/{MODEL}"] = version
        assert now == before, {name for name in {*now, *before} if now.get(name) != before.get(name)}

    def _versions(self) -> dict[str, str]:
        return {
            # A budget's status is the cluster's, which counts pods a while after they came.
            f"{kind}/{name_of(item)}": str(item["metadata"]["generation" if kind == BUDGETS else "resourceVersion"])
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


def test_a_leader_that_sleeps_past_its_lease_has_lost_it_when_it_wakes(steady: Steady) -> None:
    """It sleeps while a trainer is at work: the other one leads from then on, and the first one writes nothing more."""
    kube = steady.kube
    with operators.replicas(kube, 2):
        before = operators.lease(kube)
        (leader,) = (pod for pod in operators.pods(kube) if name_of(pod) == before["holderIdentity"])
        with steady.unharmed():
            number = steady.retrain()
            steady.until(training)
            with operators.stopped(leader):
                asleep = time.time()
                other = lambda: operators.lease(kube)["holderIdentity"] != name_of(leader) or None  # noqa: E731
                kube.wait("the other operator to lead", 25, other)
                steady.shop.patch(MODEL, {"serving": {"rollbackWindowSeconds": 6}})  # news for the one that sleeps
                time.sleep(2)
            steady.shop.ready(MODEL, number, seconds=240)
        after = operators.lease(kube)
        (awake,) = (pod for pod in operators.pods(kube) if name_of(pod) == name_of(leader))
        assert [each["restartCount"] for each in awake["status"]["containerStatuses"]] == [0], "it never woke"
        assert after["holderIdentity"] != name_of(leader)
        assert after["leaseTransitions"] == before["leaseTransitions"] + 1
        wrote = Counter(write["pod"] for write in operators.writes(NAMESPACE, asleep))
        assert set(wrote) == {after["holderIdentity"]}, wrote
        steady.told_once()
        steady.at_rest()
    kube.wait("an operator to lead", 30, lambda: operators.lease(kube)["holderIdentity"] or None)
    steady.at_rest()


def test_a_result_whose_pod_and_message_are_gone(steady: Steady) -> None:
    """While no operator is there, the trainer ends, and its pod goes with what it said: the same run has its result."""
    shop = steady.shop
    with steady.unharmed():
        number = steady.retrain()
        steady.until(training)
        run = name_of(shop.runs(MODEL)[-1])
        with operators.replicas(steady.kube, 0):
            of_the_run = lambda: shop.kube.get(NAMESPACE, "jobs", run) or {}  # noqa: E731
            shop.until("the Job to be done", 240, lambda: condition(of_the_run(), "Complete").get("status") == "True")
            pods = [name_of(pod) for pod in shop.pods(MODEL, "trainer") if name_of(pod).startswith(f"{run}-")]
            shop.kube.kubectl("delete", "pods", *pods, "-n", NAMESPACE, "--force", "--grace-period=0")
        shop.ready(MODEL, number, seconds=240)
    assert [run["status"].get("revision") for run in shop.runs(MODEL)] == list(range(1, number + 1))
    steady.told_once({run: 2})
    steady.at_rest()


def test_a_training_job_that_somebody_deletes(steady: Steady) -> None:
    """It is made again, and the run is the same."""
    shop = steady.shop
    with steady.unharmed():
        number = steady.retrain()
        steady.until(training)
        run = name_of(shop.runs(MODEL)[-1])
        uid = (shop.kube.get(NAMESPACE, "jobs", run) or {})["metadata"]["uid"]
        shop.kube.kubectl("delete", "job", run, "-n", NAMESPACE, "--cascade=background", "--wait=false")

        def again() -> bool:
            job = shop.kube.get(NAMESPACE, "jobs", run)
            return job is not None and job["metadata"]["uid"] != uid

        shop.until("another Job", SOON_SECONDS, again)
        shop.ready(MODEL, number, seconds=240)
    assert len(shop.runs(MODEL)) == number
    steady.at_rest()


ANOTHER_IMAGE = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "localhost/another:1"}]}}}}


def deployment(steady: Steady, name: str) -> Json:
    """What of a Deployment is the operator's."""
    found = steady.kube.get(NAMESPACE, "deployments", name) or {"spec": {}}
    containers = found["spec"].get("template", {}).get("spec", {}).get("containers", [])
    return {
        "replicas": found["spec"].get("replicas"),
        "images": [each["image"] for each in containers],
        "ready": found.get("status", {}).get("readyReplicas"),
        "new": found.get("status", {}).get("updatedReplicas"),
    }


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        pytest.param(("delete", "--cascade=orphan"), True, id="deleted without its pods"),
        pytest.param(("scale", "--replicas=4"), True, id="scaled up"),
        pytest.param(("patch", "--type=strategic", f"--patch={json.dumps(ANOTHER_IMAGE)}"), True, id="another image"),
        pytest.param(("delete", "--cascade=background", "--wait=false"), False, id="deleted with its pods"),
        pytest.param(("scale", "--replicas=0"), False, id="scaled to nothing"),
    ],
)
def test_the_live_deployment_changed_by_hand(steady: Steady, words: tuple[str, ...], answers: bool) -> None:
    """It is as before within 30 s. Nobody notices, unless its pods are taken away, too: then it answers again."""
    name, before, began = steady.live, deployment(steady, steady.live), time.time()
    assert before["ready"] == before["new"] == 2
    verb, *options = words
    steady.kube.kubectl(verb, f"deployment/{name}", "-n", NAMESPACE, *options)
    time.sleep(0.5)
    steady.shop.until(f"{name} as it was", SOON_SECONDS, lambda: deployment(steady, name) == before)
    print(f"\nas before after {time.time() - began:.1f} s")
    if answers:
        steady.answers(began)
    else:
        replies = steady.loaded.replies
        steady.shop.until("answers", 30, lambda: any(not reply.failed for reply in replies(time.time() - 2)))
    assert steady.live == name
    steady.at_rest()


def test_serving_pods_that_are_deleted_by_force(steady: Steady) -> None:
    """One after the other, without any grace: another takes its place, and but for what was on its way nothing is
    lost."""
    shop, live = steady.shop, steady.live
    deleted: list[float] = []

    def serving() -> dict[str, str]:
        pods = [pod for pod in shop.pods(MODEL, "server") if name_of(pod).startswith(f"{live}-")]
        return {pod["metadata"]["uid"]: name_of(pod) for pod in pods if condition(pod, "Ready").get("status") == "True"}

    before = serving()
    assert len(before) == 2
    for uid, name in before.items():
        deleted.append(time.time())
        steady.kube.kubectl("delete", "pod", name, "-n", NAMESPACE, "--force", "--grace-period=0")
        shop.until("another pod in its place", 90, lambda gone=uid: len(serving()) == 2 and gone not in serving())
    assert not before.keys() & serving().keys()
    replies = steady.loaded.replies(deleted[0])
    late = [
        f"{reply.time - deleted[0]:+.2f} s: {reply.error}"
        for reply in replies
        if reply.failed and not any(0 <= reply.time - moment < UNDERWAY_SECONDS for moment in deleted)
    ]
    assert not late, late[:8]
    times = [deleted[0], *(reply.time for reply in replies if not reply.failed)]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < QUIET_SECONDS
    assert steady.live == live
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


def test_a_namespace_that_goes_and_comes_again(steady: Steady) -> None:
    """While no operator is there, and with the store outliving it: its Model is a new one, whose first revision is made
    anew, and nothing is made twice. The other namespace's Model answers on."""
    kube = steady.kube
    endpoint = f"http://s3.{NAMESPACE}:7070"
    model = merged(
        small_model("phoenix"),
        {"metadata": {"namespace": AGAIN}, "spec": {"store": {"s3": {"endpoint": endpoint}}}},
    )
    again = Shop(kube, AGAIN)
    try:
        with steady.unharmed():
            began = time.time()
            _furnish(steady, model)
            again.ready("phoenix", 1, seconds=240)
            (first,) = again.runs("phoenix")
            with operators.replicas(kube, 0):
                kube.kubectl("delete", "namespace", AGAIN, "--timeout=90s", timeout=100)
                _furnish(steady, model)
                gone = time.time()
            again.ready("phoenix", 1, seconds=240)
            (run,) = again.runs("phoenix")
        assert run["metadata"]["uid"] != first["metadata"]["uid"]
        assert run["status"]["artifact"]["digest"] == first["status"]["artifact"]["digest"], "the data are the same"
        assert account(again, "phoenix") == undisturbed(1)
        made = [write for write in operators.writes(AGAIN, gone) if write["code"] == 201]
        runs = Counter((write["resource"], write["name"]) for write in made if write["resource"] != "events")
        assert runs, "the API server's log tells of no write"
        assert max(runs.values()) == 1, runs
        print(f"\n{time.time() - began:.0f} s")
    finally:
        kube.kubectl("delete", "namespace", AGAIN, "--ignore-not-found", "--wait=false")
    steady.at_rest()


def _furnish(steady: Steady, model: Json) -> None:
    """The second namespace, with the keys of the first one's store."""
    kube = steady.kube
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGAIN}}
    secret = kube.get(NAMESPACE, "secrets", "lake") or {}
    copy = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "lake"}, "data": secret["data"]}
    kube.apply(AGAIN, [space, copy])
    Shop(kube, AGAIN).apply(model)

"""The operator is killed in the middle of its work, and nothing is lost or done twice.

SIGKILL: the pod is deleted without grace, so the process gets no chance to finish or to release its Lease."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.shop import Shop, merged, open_shop, parameters, small_model
from tests.story.kube import Json, Kube, condition, name_of

NAMESPACE = "truekeep-e2e-kills"
OPERATOR = "truekeep-system"
SELECTOR = "app.kubernetes.io/name=truekeep,app.kubernetes.io/component=operator"
MODEL = "phoenix"
SLOW_CANARY = {"serving": {"rollout": {"steps": [{"weightPercent": 50, "durationSeconds": 15}], "minRequests": 5}}}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """One Model, live, and the probe that asks it all the while."""
    model = merged(small_model(MODEL), {"spec": SLOW_CANARY})
    with open_shop(kube, NAMESPACE, {MODEL: model}) as shop:
        yield shop


def kill_operator(kube: Kube) -> None:
    """All of its pods, without grace; returns when another one is ready."""
    old = {name_of(pod) for pod in kube.list(OPERATOR, "pods", SELECTOR)}
    assert old, f"no pod of the operator has the label {SELECTOR}"
    kube.kubectl("delete", "pods", "-n", OPERATOR, *old, "--grace-period=0", "--force")

    def back() -> bool | None:
        pods = [pod for pod in kube.list(OPERATOR, "pods", SELECTOR) if name_of(pod) not in old]
        ready = [condition(pod, "Ready").get("status") == "True" for pod in pods]
        return True if any(ready) else None

    kube.wait("the operator to be back", 90, back)


def account(shop: Shop, name: str = MODEL) -> Json:
    """What was made so far: each of it exactly once, or something was doubled or lost."""
    runs, events = shop.runs(name), shop.events("Model", name)
    status = shop.model(name)["status"]
    return {
        "runs": len(runs),
        "revisions": [run["status"].get("revision") for run in runs],
        "jobs": len(shop.jobs(name)),
        "latest": status["latestRevision"],
        "active": status["active"]["revision"],
        "promotions": sum(
            (e.get("series") or {}).get("count", e.get("count") or 1) for e in events if e["reason"] == "Promoted"
        ),
    }


def undisturbed(revisions: int) -> Json:
    """The account of so many revisions, trained and promoted one after the other."""
    numbers = list(range(1, revisions + 1))
    return {
        "runs": revisions,
        "revisions": numbers,
        "jobs": revisions,
        "latest": revisions,
        "active": revisions,
        "promotions": revisions,
    }


def training(shop: Shop) -> bool:
    """Whether a trainer is at work."""
    return any(pod["status"]["phase"] == "Running" for pod in shop.pods(MODEL, "trainer"))


def on_trial(shop: Shop) -> bool:
    """Whether a canary has live traffic."""
    return ((shop.model(MODEL)["status"].get("candidate") or {}).get("step", -1)) >= 0


def starting(shop: Shop) -> bool:
    """Whether a candidate's pods are starting."""
    return bool(shop.model(MODEL)["status"].get("candidate"))


def retrain_by_spec(shop: Shop) -> None:
    shop.patch(MODEL, parameters(max_iter="13"))


def retrain_by_hand(shop: Shop) -> None:
    words = ("annotate", "models.truekeep.dev", MODEL, "truekeep.dev/retrain=now", "-n", shop.namespace)
    shop.kube.kubectl(*words)


def retrain_again(shop: Shop) -> None:
    shop.patch(MODEL, parameters(max_iter="14"))


@pytest.mark.parametrize(
    ("revision", "cause", "moments"),
    [
        pytest.param(2, retrain_by_spec, (training,), id="while-training"),
        pytest.param(3, retrain_by_hand, (training, on_trial), id="retrain-asked-for-once"),
        pytest.param(4, retrain_again, (starting, on_trial), id="while-rolling-out"),
    ],
)
def test_killed_in_the_middle(
    shop: Shop, revision: int, cause: Callable[[Shop], None], moments: tuple[Callable[[Shop], bool], ...]
) -> None:
    assert account(shop) == undisturbed(revision - 1)
    with shop.unharmed(MODEL):
        cause(shop)
        for moment in moments:
            shop.until(f"the moment to kill: {moment.__doc__}", 120, lambda at=moment: at(shop))
            kill_operator(shop.kube)
        shop.ready(MODEL, revision, seconds=180)
    shop.until("the account of an undisturbed life", 30, lambda: account(shop) == undisturbed(revision))


def test_pinned_it_goes_back_and_forth(shop: Shop) -> None:
    """To a kept revision and home again, without a failed request and without training."""
    before = account(shop)
    with shop.unharmed(MODEL):
        shop.patch(MODEL, {"serving": {"pinnedRevision": 2}})
        pinned = shop.ready(MODEL, 2, seconds=120)
        assert condition(pinned, "Ready")["reason"] == "Pinned"
        shop.patch(MODEL, {"serving": {"pinnedRevision": None}})
        shop.ready(MODEL, before["latest"], seconds=120)
    after = account(shop)
    assert (after["runs"], after["jobs"]) == (before["runs"], before["jobs"])


def test_a_pin_to_nothing_is_said_and_changes_nothing(shop: Shop) -> None:
    live = shop.model(MODEL)["status"]["active"]
    with shop.unharmed(MODEL):
        shop.patch(MODEL, {"serving": {"pinnedRevision": 99}})
        ready = shop.reason(MODEL, "PinnedRevisionMissing", 30)
    assert "99" in ready["message"]
    assert shop.model(MODEL)["status"]["active"] == live
    shop.patch(MODEL, {"serving": {"pinnedRevision": None}})
    shop.ready(MODEL, seconds=60)


def test_an_image_that_cannot_be_pulled(shop: Shop) -> None:
    """The operator is told of a trainer image that is nowhere; the run says so, the live revision goes on."""
    nowhere = "localhost/truekeep/nowhere:absent"
    deployment = ("set", "env", "deployment/truekeep-operator", "-n", OPERATOR)
    rolled = ("rollout", "status", "deployment/truekeep-operator", "-n", OPERATOR, "--timeout=90s")
    live = shop.model(MODEL)["status"]["active"]
    shop.kube.kubectl(*deployment, f"TRUEKEEP_TRAINER_IMAGE={nowhere}")
    try:
        shop.kube.kubectl(*rolled, timeout=100)
        with shop.unharmed(MODEL):
            shop.patch(MODEL, parameters(max_iter="16"))
            ready = shop.reason(MODEL, "ImagePullFailed", 90)
            assert nowhere in ready["message"]
            run = shop.runs(MODEL)[-1]
            shop.until(
                "an Event ImagePullFailed",
                30,
                lambda: any(e["reason"] == "ImagePullFailed" for e in shop.events("TrainingRun", name_of(run))),
            )
        assert shop.model(MODEL)["status"]["active"] == live
        assert not shop.model(MODEL)["status"].get("rejected"), "a failure of infrastructure rejects nothing"
    finally:
        shop.kube.kubectl(*deployment, "TRUEKEEP_TRAINER_IMAGE-")
        shop.kube.kubectl(*rolled, timeout=100)

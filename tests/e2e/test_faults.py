"""Whatever goes wrong, the named condition and an Event say so, and the live revision goes on answering.

All faults are made at once, each on a Model of its own, while a probe asks every one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.e2e.shop import DAYS, REQUEST, ROWS_PER_DAY, Shop, merged, open_shop, parameters, small_model
from tests.story.kube import Json, Kube, condition, holds, name_of

NAMESPACE = "truekeep-e2e-faults"
PRIORITY = "truekeep-e2e-no-quota"
MORE_TRAINING = parameters(max_iter="13")  # another recipe: a run is asked for


@dataclass(frozen=True)
class Fault:
    """A change that goes wrong, and what is to be said of it."""

    reason: str
    spec: Json
    words: tuple[str, ...] = ()  # of the message: field or place, value, remedy
    event: bool = True
    seconds: float = 120
    condition: str = "Trained"
    objects: tuple[Json, ...] = field(default=())


FAULTS = {
    "bad-file": Fault(
        "DataInvalid",
        {"data": {"source": {"s3": {"uri": "s3://lake/broken/payments/"}}}},
        ("amount", "-12.5", "minimum"),
        condition="DataValid",
    ),
    "bad-parameter": Fault("ParametersInvalid", parameters(max_iter="-3"), ("max_iter", "-3")),
    "gate": Fault(
        "GatesFailed",
        {"evaluation": {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.9999"}]}},
        ("auc", "0.9999"),
        condition="GatesPassed",
    ),
    "no-store": Fault(
        "StoreUnreachable",
        {"data": {"source": {"s3": {"endpoint": "http://s3-is-gone:7070", "credentialsSecretRef": {"name": "lake"}}}}},
        ("s3-is-gone:7070",),
        seconds=180,
    ),
    "no-memory": Fault(
        "OutOfMemory",
        merged(
            MORE_TRAINING,
            {"training": {"resources": {"requests": {"memory": "48Mi"}, "limits": {"memory": "48Mi"}}}},
        ),
        ("48Mi", "spec.training.resources.limits.memory"),
    ),
    "no-node": Fault(
        "Unschedulable",
        merged(MORE_TRAINING, {"pods": {"nodeSelector": {"disk": "nowhere"}}}),
        ("nodeSelector",),
    ),
    "no-quota": Fault(
        "QuotaExceeded",
        merged(MORE_TRAINING, {"pods": {"priorityClassName": PRIORITY}}),
        ("quota",),
        objects=(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "none"},
                "spec": {
                    "hard": {"pods": "0"},
                    "scopeSelector": {
                        "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [PRIORITY]}]
                    },
                },
            },
        ),
    ),
}
PRIORITY_CLASS = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": PRIORITY},
    "value": 0,
    "description": "For the end-to-end tests of Truekeep: a quota of no pods is on it.",
}
CANARY = "canary"
NEW_FEATURE = {
    "data": {
        "features": [
            *small_model("x")["spec"]["data"]["features"],
            {"name": "payments_24h", "type": "Number", "nulls": "Refuse"},
        ]
    }
}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """All Models live, and then every fault at once."""
    models = {name: small_model(name) for name in (*FAULTS, CANARY)}
    kube.apply("default", [PRIORITY_CLASS])
    try:
        with open_shop(kube, NAMESPACE, models) as shop:
            yield shop
    finally:
        kube.kubectl("delete", "priorityclass", PRIORITY, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def before(shop: Shop) -> dict[str, Json]:
    """What the probe had counted before anything went wrong."""
    return {name: shop.probed(name) for name in (*FAULTS, CANARY)}


@pytest.fixture(scope="module")
def broken(shop: Shop, before: dict[str, Json]) -> Shop:
    """Every fault is made."""
    for name, fault in FAULTS.items():
        shop.apply(*fault.objects) if fault.objects else None
        shop.patch(name, fault.spec)
    shop.patch(CANARY, NEW_FEATURE)
    return shop


@pytest.mark.parametrize("name", FAULTS)
def test_the_condition_and_an_event_name_it_and_the_live_revision_goes_on(
    broken: Shop, before: dict[str, Json], name: str
) -> None:
    fault = FAULTS[name]
    ready = broken.reason(name, fault.reason, fault.seconds)
    for word in fault.words:
        assert word in ready["message"], f"{word!r} is not in: {ready['message']}"
    model = broken.model(name)
    said = condition(model, fault.condition)
    assert (said["status"], said["reason"]) == ("False", fault.reason)
    assert holds(model, "Serving")
    assert model["status"]["active"]["revision"] == 1
    run = broken.runs(name)[-1]
    broken.until(
        f"an Event {fault.reason} about the run",
        30,
        lambda: any(
            e["reason"] == fault.reason and e["type"] == "Warning" for e in broken.events("TrainingRun", name_of(run))
        ),
    )
    with broken.unharmed(name):
        pass
    assert broken.probed(name)["failed"] == before[name]["failed"], broken.probed(name)["failures"]
    assert set(broken.probed(name)["versions"]) == {"1"}


def test_bad_data_is_told_by_file_row_and_count(broken: Shop) -> None:
    broken.reason("bad-file", "DataInvalid", 120)
    run = broken.runs("bad-file")[-1]
    assert (condition(run, "DataValid")["status"], condition(run, "DataValid")["reason"]) == ("False", "DataInvalid")
    data = run["status"]["data"]
    (found,) = data["violations"]
    rows = DAYS * ROWS_PER_DAY
    assert (found["check"], found["column"], found["severity"], found["count"]) == ("range", "amount", "Fail", 1)
    assert (found["file"], found["row"]) == ("s3://lake/broken/payments/all.parquet", rows - 6)
    assert data["failedChecks"] == 1
    assert data["unripe"] > 0, "those that are too young for a label are counted"
    assert data["rows"] + data["unripe"] + data["unlabelled"] == rows
    assert "artifact" not in run["status"]
    good = broken.runs("bad-file")[0]["status"]["data"]
    assert good["positives"] > 0
    assert condition(broken.runs("bad-file")[0], "DataValid")["reason"] == "Validated"


def test_a_candidate_that_answers_with_errors_is_rolled_back(broken: Shop) -> None:
    """The new revision wants a feature that callers do not send: its replies fail, the live one's do not."""
    ready = broken.reason(CANARY, "RolledBack", 180)
    model = broken.model(CANARY)
    failure = model["status"]["lastFailure"]
    assert (failure["revision"], failure["reason"], failure["location"]) == (2, "ErrorRate", "Rollout")
    assert "maxErrorFraction" in failure["message"]
    assert "revision 2" in ready["message"]
    assert model["status"]["active"]["revision"] == 1
    assert [rejection["revision"] for rejection in model["status"]["rejected"]] == [2]
    with broken.unharmed(CANARY):
        pass  # the errors of the trial are over
    broken.until(
        "an Event RolledBack", 30, lambda: any(e["reason"] == "RolledBack" for e in broken.events("Model", CANARY))
    )


def test_what_failed_is_not_tried_again_and_a_mended_spec_is(broken: Shop) -> None:
    """Callers cannot be changed, so the feature goes: that is the former spec, and its revision is there already."""
    broken.reason(CANARY, "RolledBack", 180)
    broken.patch(CANARY, {"data": {"features": small_model(CANARY)["spec"]["data"]["features"]}})
    model = broken.ready(CANARY, 1, seconds=60)
    assert len(broken.runs(CANARY)) == 2, "the former spec was trained already: no further run is needed"
    assert holds(model, "Stalled", "False")


def test_a_bad_parameter_that_is_mended_is_trained(broken: Shop) -> None:
    broken.reason("bad-parameter", "ParametersInvalid", 120)
    with broken.unharmed("bad-parameter"):
        broken.patch("bad-parameter", parameters(max_iter="14"))
        model = broken.ready("bad-parameter", 2, seconds=180)
    assert model["status"]["latestRevision"] == 2, "a failed run takes no revision number"
    outcomes = [condition(run, "Ready")["reason"] for run in broken.runs("bad-parameter")]
    assert outcomes == ["Succeeded", "ParametersInvalid", "Succeeded"]


@pytest.mark.full
def test_the_store_that_comes_back_is_tried_again_by_itself(broken: Shop) -> None:
    """A Service of the missing name appears: the run, or the next try, finds the data; nobody touches the Model."""
    broken.reason("no-store", "StoreUnreachable", 180)
    service = broken.kube.get(broken.namespace, "services", "s3") or {}
    spec = {"selector": service["spec"]["selector"], "ports": [{"port": 7070, "targetPort": "s3"}]}
    broken.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s3-is-gone"}, "spec": spec})
    with broken.unharmed("no-store"):
        broken.ready("no-store", seconds=180)
    assert REQUEST  # the probe's requests fit the new revision, or `unharmed` had failed


def test_a_run_that_no_node_took_begins_anew_when_the_spec_is_mended(broken: Shop) -> None:
    """Not after the old Job's deadline, which is an hour: its pod never ran, so nothing is lost with it."""
    broken.reason("no-node", "Unschedulable", 120)
    with broken.unharmed("no-node"):
        broken.patch("no-node", {"pods": {"nodeSelector": None}})
        broken.ready("no-node", 2, seconds=120)
    assert len(broken.runs("no-node")) == 2, "the same run began anew: there is no third"


@pytest.mark.full
def test_a_deadline_ends_a_run_that_no_node_takes(broken: Shop) -> None:
    late = merged(FAULTS["no-node"].spec, parameters(max_iter="15"))
    broken.patch("no-node", merged(late, {"training": {"timeoutSeconds": 30}}))
    ready = broken.reason("no-node", "DeadlineExceeded", 120)
    assert "spec.training.timeoutSeconds (30)" in ready["message"]
    assert holds(broken.model("no-node"), "Serving")

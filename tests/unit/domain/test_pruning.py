"""What of the history goes: never what serves, what is measured by, nor what was answered."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.domain.world import POLICY, spec
from truekeep.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus
from truekeep.api.model import ModelSpec, ModelStatus
from truekeep.api.names import ANNOTATION_PAUSED, ANNOTATION_RETRAIN, ANNOTATION_ROLLBACK, deployment_name, run_name
from truekeep.api.trainingrun import TrainingRunSpec, TrainingRunStatus
from truekeep.contract.decisions import told
from truekeep.domain.breaches import Breach, rejected, restraint
from truekeep.domain.data import last_valid
from truekeep.domain.decisions import decisions, unkept
from truekeep.domain.fingerprints import serving_key, training_fingerprint
from truekeep.domain.model import decide
from truekeep.domain.newdata import trained_until
from truekeep.domain.observed import Meta, ModelObserved, ModelView, PolicyView, RunView
from truekeep.domain.plan import ModelPlan, Settings
from truekeep.domain.pruning import LEAST_AGE, history, needed_runs
from truekeep.domain.triggers import training

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEEP = 10
POLICIES = ("p", "q")


@cache
def fingerprint(seed: int) -> str:
    return training_fingerprint(spec(seed=seed))


@cache
def deployment(revision: int) -> str:
    return deployment_name("m", revision, serving_key(spec()))


def run(
    number: int,
    days: float,
    reason: str = "Succeeded",
    revision: int | None = None,
    seed: int = 1,
    trigger: dict[str, Any] | None = None,
    **more: Any,
) -> RunView:
    """A run that the operator made and that ended so many days ago. `reason` Training: it is under way."""
    moment = NOW - timedelta(days=days)
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    flags = {"Ready": reason == "Succeeded", "Complete": reason == "Succeeded"}
    flags["Failed"] = reason not in ("Succeeded", "Training")
    conditions = [
        {"type": kind, "status": str(flag), "reason": reason, "message": "", "lastTransitionTime": stamp}
        for kind, flag in flags.items()
    ]
    status: dict[str, Any] = {"conditions": conditions, "trainingFingerprint": fingerprint(seed), **more}
    if reason != "Training":
        status["completionTime"] = stamp
        status["data"] = {"objects": 1, "rows": 9, "windowEnd": stamp}
    if revision is not None:
        digest = f"sha256:{revision:064x}"
        status |= {"revision": revision, "artifact": {"digest": digest, "uri": "s3://m/", "sizeBytes": 1}}
    body = TrainingRunSpec.model_validate({"modelRef": {"name": "m"}, "trigger": trigger or {"type": "Schedule"}})
    name = run_name("m", "uid-m", str(number))
    meta = Meta("ns", name, f"uid-{number}", moment - timedelta(minutes=number % 7))
    return RunView(meta, body, TrainingRunStatus.model_validate(status), made_for="uid-m")


def served(one: RunView, days: float = 1) -> dict[str, Any]:
    assert one.status.artifact is not None
    since = (NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "revision": one.status.revision,
        "run": one.meta.name,
        "artifactDigest": one.status.artifact.digest,
        "deployment": deployment(one.status.revision or 0),
        "since": since,
    }


def seen(runs: Iterable[RunView], annotations: dict[str, str] | None = None, **more: Any) -> ModelObserved:
    """A Model at rest, whose newest revision serves and whose decisions are all in the store."""
    runs = tuple(sorted(runs, key=lambda each: (each.meta.created, each.meta.name)))
    wanted: ModelSpec = more.pop("spec", spec(seed=1, retraining={"keepRuns": KEEP}))
    policies = more.pop("policies", ())
    revisions = [each for each in runs if each.status.revision]
    status: dict[str, Any] = {}
    if revisions:
        newest = max(revisions, key=lambda each: each.status.revision or 0)
        status = {"active": served(newest), "history": [served(newest)], "latestRevision": newest.status.revision}
    model = ModelView(
        Meta("ns", "m", "uid-m", NOW - timedelta(days=999), annotations=annotations or {}),
        wanted,
        ModelStatus.model_validate(status | more),
    )
    return all_told(ModelObserved(model, runs, policies))


def all_told(observed: ModelObserved) -> ModelObserved:
    kept = {"told": told(decisions(observed)), "pages": 1}
    return with_status(observed, ModelStatus.model_validate({**observed.model.status.dump(), "decisions": kept}))


def with_status(observed: ModelObserved, status: ModelStatus) -> ModelObserved:
    return replace(observed, model=replace(observed.model, status=status))


def look(observed: ModelObserved) -> ModelPlan:
    return decide(observed, Settings(), NOW)


def settled(observed: ModelObserved) -> ModelObserved:
    """What is asked for was done: what is to serve does, an annotation is handled, and all of it is told."""
    for _ in range(6):
        status = look(observed).status
        if (candidate := status.candidate) is not None:
            (one,) = (each for each in observed.runs if each.meta.name == candidate.run)
            body = {key: value for key, value in status.dump().items() if key != "candidate"}
            status = ModelStatus.model_validate({**body, "active": served(one)})
        observed = all_told(with_status(observed, status))
    return observed


def to_rest(observed: ModelObserved) -> tuple[ModelObserved, list[RunView]]:
    """Look after look, each with what the one before left, until nothing goes any more. What went, in order."""
    gone = []
    observed = settled(observed)
    for _ in range(len(observed.runs) + 1):
        plan = look(observed)
        observed = with_status(observed, plan.status)
        if plan.delete_run is None:
            return observed, gone
        (one,) = (each for each in observed.runs if each.meta == plan.delete_run)
        gone.append(one)
        observed = replace(observed, runs=tuple(each for each in observed.runs if each is not one))
        assert not unkept(observed), "a Job would take to the store what it has"
    raise AssertionError("it never ends")


def failures(count: int, days: float = 40) -> list[RunView]:
    return [run(100 + each, days + each, "GatesFailed", trigger={"type": "Schedule"}) for each in range(count)]


def test_the_oldest_go_one_at_a_look_and_the_newest_stay() -> None:
    observed = seen([run(1, 900, revision=1), *failures(30)])
    rest, gone = to_rest(observed)
    assert [each.meta.created for each in gone] == sorted(each.meta.created for each in gone)
    assert len(gone) == 20
    assert [each.status.revision for each in rest.runs].count(1) == 1, "what serves stays, however old it is"
    assert look(rest).delete_run is None
    assert look(rest).look_again_seconds is None


def test_an_event_says_what_went_and_where_it_is() -> None:
    note = look(seen([run(1, 900, revision=1), *failures(11)])).notes[-1]
    assert (note.type, note.reason) == ("Normal", "RunPruned")
    assert "spec.retraining.keepRuns" in note.message
    assert "stays in the store" in note.message


def test_without_the_field_fifty_are_kept() -> None:
    observed = seen([run(1, 900, revision=1), *failures(60)], spec=spec(seed=1))
    assert len(to_rest(observed)[1]) == 10


def test_a_young_run_waits_for_its_age() -> None:
    observed = seen([run(1, 900, revision=1), *failures(12, days=29.5 - 11)])
    plan = look(observed)
    assert plan.delete_run is None
    assert plan.look_again_seconds == pytest.approx(timedelta(days=0.5).total_seconds())
    later = decide(observed, Settings(), NOW + timedelta(days=0.5))
    assert later.delete_run is not None


@pytest.mark.parametrize(
    "theirs",
    [
        lambda one: replace(one, made_for=None),
        lambda one: replace(one, made_for="uid-of-an-earlier-m"),
        lambda one: replace(one, meta=replace(one.meta, name="nightly-7")),
        lambda one: replace(one, meta=replace(one.meta, deleting=True)),
        lambda one: replace(one, spec=one.spec.model_copy(update={"trigger": TrainingRunSpec.model_validate(
            {"modelRef": {"name": "m"}}).trigger})),
        lambda one: replace(one, spec=TrainingRunSpec.model_validate(
            {**one.spec.dump(), "restore": {"runUid": "a", "modelUid": "b"}})),
    ],
)  # fmt: skip
def test_what_somebody_else_made_is_left_alone(theirs: Any) -> None:
    mine = [run(1, 900, revision=1), *failures(30)]
    assert look(seen([mine[0], *(theirs(each) for each in mine[1:])])).delete_run is None


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": {ANNOTATION_PAUSED: "ann looks into it"}},
        {"candidate": {**served(run(1, 900, revision=1)), "startedAt": "2026-11-23T11:00:00Z"}},
        {"active": None},
    ],
)
def test_nothing_goes_while_somebody_looks_or_the_status_does_not_say_what_is_needed(more: dict[str, Any]) -> None:
    assert look(seen([run(1, 900, revision=1), *failures(30)], **more)).delete_run is None


def test_nothing_goes_whose_decisions_are_not_in_the_store_or_whose_status_was_garbage() -> None:
    observed = seen([*(run(n, 900 - n, revision=n) for n in range(1, 20))])
    assert look(observed).delete_run is not None
    assert look(replace(observed, problem="the stored status was not readable")).delete_run is None
    never = with_status(observed, observed.model.status.model_copy(update={"decisions": None}))
    assert look(never).delete_run is None


def revisions(count: int = 30) -> list[RunView]:
    return [run(n, 900 - n, revision=n) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    "more",
    [
        {"spec": spec(seed=1, retraining={"keepRuns": KEEP}, serving={"pinnedRevision": 3})},
        {"annotations": {ANNOTATION_ROLLBACK: "3/ann"}},
        {"former": served(revisions()[2])},
        {"history": [served(revisions()[29]), served(revisions()[2], 99)]},
        {"annotations": {ANNOTATION_RETRAIN: "again"}, "handledRetrain": "again"},
    ],
)
def test_what_may_be_gone_back_to_stays(more: dict[str, Any]) -> None:
    mine = revisions()
    mine[2] = replace(
        mine[2], spec=TrainingRunSpec.model_validate(
            {"modelRef": {"name": "m"}, "trigger": {"type": "Manual", "value": "again"}}))  # fmt: skip
    mine[28] = replace(
        mine[28], spec=TrainingRunSpec.model_validate(
            {"modelRef": {"name": "m"}, "trigger": {"type": "Manual", "value": "newest"}}))  # fmt: skip
    rest, gone = to_rest(seen(mine, **more))
    assert 3 in {each.status.revision for each in rest.runs}
    assert gone or "annotations" in more
    assert 3 not in {each.status.revision for each in to_rest(seen(mine))[0].runs}, "else nothing would need it"


@pytest.mark.parametrize("place", ["previous", "candidate", "awaiting"])
def test_what_is_warm_on_its_way_or_waits_for_a_person_stays(place: str) -> None:
    third = served(revisions()[2])
    more = {"startedAt": third["since"]} if place == "candidate" else {}
    keys = ("revision", "run", "artifactDigest") if place == "awaiting" else third.keys() - {"since"}
    observed = seen(revisions(), **{place: {**{key: third[key] for key in keys}, **more}})
    assert third["run"] in needed_runs(observed)
    assert third["run"] not in needed_runs(seen(revisions()))


def test_a_spec_that_git_goes_back_to_has_its_revision_and_is_not_trained_again() -> None:
    mine = [run(n, 900 - n, revision=n, seed=1 + n % 2) for n in range(1, 30)]
    mine += [run(50 + n, 1000 - n, "GatesFailed", seed=7) for n in range(5)]
    rest, gone = to_rest(seen(mine, spec=spec(seed=2, retraining={"keepRuns": KEEP})))
    assert len(gone) > 10
    for seed in (1, 2, 7):
        wanted = training(rest, fingerprint(seed), False, NOW)
        assert (wanted.settled, wanted.wanted) == (True, None), seed


def test_the_answers_in_a_row_that_made_nothing_better_stay_for_the_pause_they_make() -> None:
    end = NOW - timedelta(days=300)
    window = {"windowStart": end.isoformat(), "windowEnd": end.isoformat(), "finding": "x"}
    about = {"type": "DriftPolicy", "policy": {"name": "p", "uid": "uid-p", "revision": 1, **window}}
    answers = [run(10 + each, 200 + each, "ChampionKept", trigger=about) for each in range(5)]
    policy = PolicyView(
        Meta("ns", "p", "uid-p", NOW), DriftPolicySpec.model_validate(POLICY), DriftPolicyStatus(watchedRevision=1)
    )
    before = seen([run(1, 900, revision=1), *answers, *failures(20)], policies=(policy,))
    after, gone = to_rest(before)
    assert len(gone) == 10
    assert rejected(policy, 1, after.runs) == answers


def test_what_is_said_of_a_run_now_stays_true() -> None:
    """No rule names these revisions, but the status lists them."""
    lists = spec(seed=1, retraining={"keepRuns": KEEP}, serving={"pinnedRevision": 99})
    observed = settled(seen(revisions(), spec=lists))
    assert history(observed, NOW).spare
    assert look(observed).delete_run is None


# whatever there is -------------------------------------------------------------------------------------------------

REASONS = ("Succeeded", "Succeeded", "Succeeded", "GatesFailed", "ChampionKept", "StoreUnreachable", "SpecChanged",
           "DataInvalid", "Training")  # fmt: skip


def cause(chance: random.Random, day: float, latest: int) -> dict[str, Any]:
    kind = chance.choice(["Spec", "DriftPolicy", "DriftPolicy", "Schedule", "NewData", "Manual"])
    if kind == "Manual":
        return {"type": kind, "value": f"v{chance.randrange(6)}"}
    if kind != "DriftPolicy":
        return {"type": kind}
    end = (NOW - timedelta(days=day + 1)).replace(microsecond=0)
    about = {"name": chance.choice(POLICIES), "revision": max(1, latest - chance.choice([0, 0, 0, 1, 4]))}
    window = {"windowStart": (end - timedelta(hours=24)).isoformat(), "windowEnd": end.isoformat(), "finding": "x"}
    return {"type": kind, "policy": {**about, "uid": f"uid-{about['name']}", **window}}


def whatever(seed: int) -> ModelObserved:
    """A Model with some history: drawn, but of the kind that can come about."""
    chance = random.Random(seed)
    count, latest, runs = chance.randrange(8, 45), 0, []
    for number in range(count):
        day = (count - number) * chance.choice([1.0, 2.0, 4.0])
        reason = "Succeeded" if number == 0 else chance.choice(REASONS)
        latest += reason == "Succeeded"
        one = run(
            number, day, reason, latest if reason == "Succeeded" else None, chance.choice([1, 1, 1, 2, 3]),
            cause(chance, day, latest),
        )  # fmt: skip
        runs.append(one if chance.random() < 0.85 else replace(one, made_for=None))
    known = [each for each in runs if each.status.revision]
    active, former = chance.choice(known[-3:]), chance.choice(known)
    wanted: dict[str, Any] = {"seed": chance.choice([1, 2, 3]), "retraining": {"keepRuns": KEEP}}
    if chance.random() < 0.2:
        wanted["serving"] = {"pinnedRevision": chance.choice(known).status.revision}
    policies = tuple(
        PolicyView(
            Meta("ns", name, f"uid-{name}", NOW - timedelta(days=500)),
            DriftPolicySpec.model_validate({**POLICY, "cooldownSeconds": chance.choice([0, 100, 31536000])}),
            DriftPolicyStatus(),
        )
        for name in POLICIES
    )
    passed_over = [
        each.status.revision for each in known if (each.status.revision or 0) > (active.status.revision or 0)
    ]
    rejected_ones = [
        {
            "fingerprint": f"sha256:{number:064x}",
            "revision": number,
            "reason": "PerformanceRegressed",
            "time": NOW.isoformat(),
        }
        for number in passed_over
    ]
    return seen(
        runs,
        {ANNOTATION_RETRAIN: "v0"} if chance.random() < 0.5 else {},
        spec=spec(**wanted),
        policies=policies,
        active=served(active),
        former=served(former) if chance.random() < 0.5 else None,
        history=[served(active), served(former, 50)],
        latestRevision=latest,
        rejected=rejected_ones,
        handledRetrain=chance.choice(["v0", "v1", None]),
    )


def would_answer(observed: ModelObserved, policy: PolicyView, revision: int, end: datetime) -> bool:
    """Whether a window that was judged would start a run, were that revision live."""
    found = Breach("DataDrift", revision, end - timedelta(hours=24), end, 2, "x")
    return restraint(policy, found, observed.runs, NOW) is None


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_whatever_there_is_nothing_goes_that_is_needed(seed: int) -> None:
    before = settled(whatever(seed))
    after, gone = to_rest(before)
    names = {each.meta.name for each in after.runs}
    ended = [each for each in before.runs if each.made_for and each.status.completion_time]
    newest = sorted(ended, key=lambda each: (each.meta.created, each.meta.name))[-KEEP:]
    assert {each.meta.name for each in newest} <= names
    for each in gone:
        assert each.made_for == "uid-m"
        assert each.status.completion_time is not None
        assert each.status.completion_time <= NOW - LEAST_AGE
    status = before.model.status
    for kept in (status.active, status.former, *status.history):
        assert kept is None or kept.run in names
    pinned = before.model.spec.serving.pinned_revision
    numbers = {each.status.revision for each in after.runs if each.status.revision}
    assert pinned is None or pinned in numbers
    assert max(numbers) == max(each.status.revision or 0 for each in before.runs)
    # What the next run is measured by, and what was answered, is the same.
    assert last_valid(after.runs) == last_valid(before.runs)
    assert trained_until(after) == trained_until(before)
    for spec_seed in (1, 2, 3):
        then, now = (training(each, fingerprint(spec_seed), False, NOW) for each in (before, after))
        assert (then.settled, then.satisfied, then.wanted) == (now.settled, now.satisfied, now.wanted)
    for policy in before.policies:
        assert status.active is not None
        live = status.active.revision
        assert rejected(policy, live, after.runs) == rejected(policy, live, before.runs)
        for each in before.runs:
            asked = each.spec.trigger.policy
            if asked is not None and asked.uid == policy.meta.uid and asked.revision in numbers:
                assert not would_answer(after, policy, asked.revision, asked.window_end), each.meta.name
    # And a second look finds nothing to do.
    assert look(after).delete_run is None
    assert not history(after, NOW).spare or look(after).run is not None
    assert look(after).status == after.model.status


def test_the_drawn_histories_are_worth_it() -> None:
    gone = [len(to_rest(whatever(seed))[1]) for seed in range(12)]
    assert sum(each > 0 for each in gone) > 4
    assert max(gone) > 6

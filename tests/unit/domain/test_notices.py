"""What a webhook is told: each turn for the worse and the turn back, once, whatever is lost in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.domain.test_loop import served
from tests.unit.domain.world import World
from truekeep.api.driftpolicy import DriftPolicySpec
from truekeep.domain import notices
from truekeep.domain.conditions import find
from truekeep.domain.observed import PolicyView

WEBHOOK = {"url": "https://alerts.example.com/truekeep"}
ALERT = [{"finding": "DataDrift", "action": "Alert"}, {"finding": "DataQuality", "action": "Alert"}]


def watched(**changes: Any) -> World:
    world = World()
    world.watch(**({"responses": ALERT, "webhook": WEBHOOK} | changes))
    world.calm()
    assert served(world) == 1
    return world


def policy(world: World) -> PolicyView:
    assert world.policy is not None
    return world.policy


def rest(world: World, words: str = "") -> None:
    for _ in range(6):
        world.reconcile()
        world.end_notices(words)
        world.pass_time(20)


def told(world: World) -> list[tuple[str, str]]:
    return [(due.condition, due.turned.status) for due in world.told]


def condition(world: World) -> tuple[str, str, str]:
    found = find(policy(world).status.conditions, notices.KIND)
    assert found is not None
    return found.status, found.reason, found.message


def test_that_all_is_well_is_not_told() -> None:
    world = watched()
    world.report(6, verdict="NoDrift")
    rest(world)
    assert told(world) == []
    assert condition(world)[:2] == ("True", "NothingToTell")


def test_a_breach_and_its_end_are_told_once_each() -> None:
    world = watched()
    world.report(6)
    rest(world)
    assert told(world) == []  # one window of two
    world.report(7)
    world.report(8)
    rest(world)
    assert told(world) == [("DriftDetected", "True")]
    assert condition(world)[:2] == ("True", "Delivered")
    world.report(9, verdict="NoDrift")
    rest(world)
    assert told(world) == [("DriftDetected", "True"), ("DriftDetected", "False")]
    world.report(10, verdict="NoDrift")
    rest(world)
    assert len(world.told) == 2
    assert len({due.event for due in world.told}) == 2
    assert world.reconcile() == 0


def test_broken_data_is_told_too() -> None:
    world = watched()
    world.report(6, verdict="DataQuality")
    rest(world)
    assert told(world) == [("DataValid", "False")]


def test_without_a_webhook_nobody_is_told() -> None:
    world = watched(webhook=None)
    world.report(6, 7)
    rest(world)
    assert told(world) == []
    assert condition(world)[:2] == ("Unknown", "NoWebhook")


def test_a_suspended_policy_tells_nothing() -> None:
    world = watched()
    world.report(6, 7)
    world.policy = replace(policy(world), spec=policy(world).spec.model_copy(update={"suspend": "Now"}))
    rest(world)
    assert told(world) == []


def test_what_was_not_taken_says_why_and_is_sent_again_once_it_is_mended() -> None:
    world = watched()
    world.report(6, 7)
    rest(world, words="alerts.example.com answers 403: it does not take the event; mend the address or the token")
    assert told(world) == [("DriftDetected", "True")]
    status, reason, message = condition(world)
    assert (status, reason) == ("False", "NotDelivered")
    assert "answers 403" in message
    assert "mend spec.webhook" in message
    assert world.reasons().count("NotDelivered") == 1
    mended = DriftPolicySpec.model_validate(
        policy(world).spec.dump() | {"webhook": {"url": "https://other.example.com/"}}
    )
    world.policy = replace(policy(world), spec=mended)
    rest(world)
    assert told(world) == [("DriftDetected", "True")] * 2
    assert world.told[0].event == world.told[1].event  # the receiver knows it for the same
    assert condition(world)[:2] == ("True", "Delivered")


@pytest.mark.parametrize("dies_after", range(8))
def test_killed_after_any_write_each_turn_is_told_once(dies_after: int) -> None:
    world = watched()
    world.report(6, 7)
    world.reconcile(dies_after)
    rest(world)
    world.report(8, verdict="NoDrift")
    world.reconcile(dies_after)
    rest(world)
    assert told(world) == [("DriftDetected", "True"), ("DriftDetected", "False")]


def test_a_job_that_is_gone_before_its_end_was_seen_is_made_again_under_the_same_name() -> None:
    world = watched()
    world.report(6, 7)
    world.reconcile()
    world.reconcile()
    (name,) = world.notice_jobs
    del world.notice_jobs[name]
    rest(world)
    assert list(world.notice_jobs) == [name]
    assert len({due.event for due in world.told}) == 1


def test_the_event_is_a_cloudevent() -> None:
    world = watched()
    world.report(6, 7)
    rest(world)
    body = notices.event(policy(world), world.told[0])
    assert {key: body[key] for key in ("specversion", "type", "subject", "datacontenttype")} == {
        "specversion": "1.0",
        "type": "dev.truekeep.policy.alert",
        "subject": "m",
        "datacontenttype": "application/json",
    }
    assert body["source"] == "/apis/truekeep.dev/namespaces/ns/driftpolicies/p"
    assert body["time"].endswith("Z")
    assert body["data"]["condition"] == "DriftDetected"
    assert body["data"]["revision"] == 1
    assert body["data"]["findings"][0]["column"] == "hour"

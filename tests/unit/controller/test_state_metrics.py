from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.unit.controller.test_policy_metrics import status
from tests.unit.controller.world import NAMESPACE, POLICY, SPEC, World
from truekeep.api.common import Condition
from truekeep.cluster import kinds
from truekeep.cluster.lease import Elector
from truekeep.controller.health import Metrics
from truekeep.controller.policy_metrics import Policy
from truekeep.controller.queue import Key
from truekeep.controller.state_metrics import NAMED, OTHER, REASONS, StateMetrics
from truekeep.domain.plan import Settings
from truekeep.operator_main import LEASE, Config, Operator

BEGIN = datetime(2026, 1, 6, tzinfo=UTC)


class Shown:
    """A clock, a registry, and whether this operator leads."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.leads = True
        self.states = StateMetrics(lambda: self.now, lambda: self.leads)
        self.metrics = Metrics()
        self.metrics.registry.register(self.states)

    def tell(
        self, name: str, reason: str, ready: str = "False", kind: str = "Model", ended: str = "", at: datetime = BEGIN
    ) -> None:
        said = {"observedGeneration": 1, "lastTransitionTime": at}
        conditions = [Condition.model_validate({"type": "Ready", "status": ready, "reason": reason, **said})]
        if ended:
            conditions.append(Condition.model_validate({"type": ended, "status": "True", "reason": reason, **said}))
        self.states.tell(kind, "shop", name, conditions)

    def lines(self, word: str = "") -> set[str]:
        text = self.metrics.text().decode()
        names = ("truekeep_operator_objects", "truekeep_operator_unsettled", "truekeep_operator_state")
        return {line for line in text.splitlines() if line.startswith(names) and word in line}


def test_the_time_in_a_state_counts_from_its_reason() -> None:
    shown = Shown()
    shown.tell("late", "Training")
    shown.now += timedelta(seconds=40)
    shown.tell("late", "GatesFailed")
    shown.now += timedelta(seconds=70)
    shown.tell("late", "GatesFailed")
    assert shown.lines("unsettled") == {
        'truekeep_operator_unsettled_seconds{kind="Model",name="late",namespace="shop",reason="GatesFailed"} 70.0'
    }
    left = 'kind="Model",reason="Training"'
    assert f"truekeep_operator_state_seconds_bucket{{{left.replace(',', f',le={chr(34)}60.0{chr(34)},')}}} 1.0" in (
        shown.lines("state_seconds")
    )
    assert f"truekeep_operator_state_seconds_sum{{{left}}} 40.0" in shown.lines()
    assert f"truekeep_operator_state_seconds_count{{{left}}} 1.0" in shown.lines()


def test_what_was_so_before_the_operator_began_counts_from_then() -> None:
    shown = Shown()
    shown.tell("late", "Training", at=BEGIN - timedelta(hours=1))
    (line,) = shown.lines("unsettled")
    assert line.endswith(" 3600.0")


def test_who_waits_for_nothing_is_not_named_and_a_run_that_ended_is_not_kept() -> None:
    shown = Shown()
    shown.tell("late-3", "Training", kind="TrainingRun")
    assert len(shown.lines("unsettled")) == 1
    shown.tell("late", "Serving", ready="True")
    shown.tell("late-1", "Succeeded", ready="True", kind="TrainingRun", ended="Complete")
    shown.tell("late-2", "GatesFailed", kind="TrainingRun", ended="Failed")
    shown.tell("late-3", "GatesFailed", kind="TrainingRun", ended="Failed")
    assert not shown.lines("unsettled")
    assert shown.lines("objects") == {
        'truekeep_operator_objects{kind="Model",ready="True",reason="Serving"} 1.0',
    }


def test_what_is_gone_is_not_shown() -> None:
    shown = Shown()
    for name in ("a", "b", "c"):
        shown.tell(name, "Training")
    shown.states.forget("Model", "shop", "a")
    shown.states.keep([Key("Model", "shop", "c", "c"), Key("TrainingRun", "shop", "b", "b")])
    assert [line.split('name="')[1][0] for line in shown.lines("unsettled")] == ["c"]


def test_a_standby_shows_nothing() -> None:
    shown = Shown()
    shown.tell("late", "Training")
    shown.leads = False
    assert not shown.lines()


def test_ten_thousand_objects_and_any_words_make_a_bounded_page() -> None:
    shown = Shown()
    for turn in range(2):
        shown.now += timedelta(minutes=5)
        for number in range(10_000):
            shown.tell(f"m{number}", f"Reason{(number + turn) % 700}", at=BEGIN + timedelta(seconds=number))
    assert len(shown.lines("unsettled")) == NAMED
    assert len(shown.lines("objects")) == REASONS + 1
    assert len(shown.lines("_count{")) == REASONS + 1
    assert shown.lines(f'reason="{OTHER}"')
    assert len(shown.metrics.text().splitlines()) < NAMED + (REASONS + 1) * 15 + 100


async def test_reconcilers_tell_of_each_object_and_of_its_end() -> None:
    world = World()
    world.apply(kinds.MODEL, "m", SPEC)
    world.apply(kinds.DRIFT_POLICY, "p", POLICY)
    await world.rounds(2)
    assert {who.kind for who in world.states._stays} == {"Model", "TrainingRun", "DriftPolicy"}
    world.apply(kinds.MODEL, "m", {**SPEC, "store": {"nonsense": True}})
    await world.rounds(1)
    stays = {who.kind: stay for who, stay in world.states._stays.items()}
    assert (stays["Model"].ready, stays["Model"].reason) == ("False", "SpecUnreadable")
    for key in [key for key in world.api.objects if key[0] in stays]:
        del world.api.objects[key]
    for who in list(world.states._stays):
        world.queue.add(Key(who.kind, who.namespace, who.name, "m"))
    await world.work()
    assert not world.states._stays


async def test_a_list_of_everything_forgets_what_went_while_nobody_watched() -> None:
    world, metrics = World(), Metrics()
    world.apply(kinds.MODEL, "m", SPEC)
    api: Any = world.api
    elector = Elector(api, "truekeep-system", LEASE, "operator-0")
    operator = Operator(Config(Settings()), api, metrics, elector, asyncio.Event())
    await elector.step()
    ready = Condition.model_validate(
        {"type": "Ready", "status": "False", "reason": "Training", "observedGeneration": 1, "lastTransitionTime": BEGIN}
    )
    for name in ("m", "gone"):
        operator._states.tell("Model", NAMESPACE, name, [ready])
    operator._policies.tell(Policy(NAMESPACE, "gone", "m"), status())
    assert 'name="gone"' in metrics.text().decode()
    assert 'policy="gone"' in metrics.text().decode()
    await operator._list()
    text = metrics.text().decode()
    assert f'name="m",namespace="{NAMESPACE}"' in text
    assert '"gone"' not in text

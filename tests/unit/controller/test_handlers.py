from __future__ import annotations

import asyncio
import queue
import threading
from types import SimpleNamespace
from typing import Any

import kopf
import pytest

from truekeep import handlers
from truekeep.controller.queue import Cause, Key
from truekeep.handlers import CHILDREN, OWN, Watch, settings


async def call(watch: Watch, plural: str, event: dict[str, Any]) -> None:
    """What kopf does with one event, in small."""
    registry = watch._registry()
    (handler,) = (each for each in registry._watching.get_all_handlers() if each.id == plural)
    await handler.fn(event=event, param=handler.param, resource=SimpleNamespace(plural=plural))  # type: ignore[call-arg]


def test_kopf_may_write_nothing() -> None:
    configured = settings()
    assert configured.posting.enabled is False
    assert configured.peering.standalone is True
    assert configured.scanning.disabled is True


def test_every_watch_ends_in_time() -> None:
    configured = settings()
    assert configured.watching.server_timeout
    assert configured.watching.client_timeout
    assert configured.watching.client_timeout > configured.watching.server_timeout


def test_only_events_are_watched_for() -> None:
    registry = Watch(lambda keys, cause: None)._registry()
    assert isinstance(registry, kopf.OperatorRegistry)
    assert len(registry._watching.get_all_handlers()) == len(OWN) + 1 + len(CHILDREN), "one for approvals"
    for other in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert not other.get_all_handlers()


async def test_events_become_keys() -> None:
    woken: list[Key] = []
    watch = Watch(lambda keys, cause: woken.extend(keys))
    about = {"namespace": "demo", "name": "r", "resourceVersion": "5"}
    run = {"metadata": about, "spec": {"modelRef": {"name": "m"}}}
    await call(watch, "trainingruns", {"type": "ADDED", "object": run})
    assert woken == [Key("TrainingRun", "demo", "r", "m"), Key("Model", "demo", "m", "m")]
    assert watch.versions == {Key("TrainingRun", "demo", "r", "m"): "5"}
    await call(watch, "trainingruns", {"type": "DELETED", "object": run})
    assert watch.versions == {}
    woken.clear()
    labels = {"app.kubernetes.io/component": "server", "truekeep.dev/model": "m"}
    await call(watch, "pods", {"type": None, "object": {"metadata": {**about, "labels": labels}}})
    assert woken == [Key("Model", "demo", "m", "m")]
    assert set(watch.ages()) == {"trainingruns", "pods"}, "the others told nothing yet"
    assert all(0 <= age < 60 for age in watch.ages().values())
    assert watch.events == 3


async def test_what_is_listed_again_as_it_was_wakes_nobody() -> None:
    woken: list[tuple[Key, Cause]] = []
    watch = Watch(lambda keys, cause: woken.extend((key, cause) for key in keys))
    labels = {"app.kubernetes.io/component": "server", "truekeep.dev/model": "m"}
    about = {"namespace": "demo", "name": "p", "uid": "u", "resourceVersion": "5", "labels": labels}
    model = {"metadata": {"namespace": "demo", "name": "m", "resourceVersion": "3"}}
    key = Key("Model", "demo", "m", "m")
    for _ in range(2):  # a watch that is renewed lists everything
        await call(watch, "pods", {"type": None, "object": {"metadata": about}})
        await call(watch, "models", {"type": None, "object": model})
    assert woken == [(key, Cause.ROUTINE), (key, Cause.ROUTINE)], "the first list is news, without a cause"
    woken.clear()
    await call(watch, "pods", {"type": None, "object": {"metadata": {**about, "resourceVersion": "6"}}})
    await call(watch, "pods", {"type": "MODIFIED", "object": {"metadata": {**about, "resourceVersion": "7"}}})
    await call(watch, "pods", {"type": "DELETED", "object": {"metadata": {**about, "resourceVersion": "7"}}})
    assert woken == [(key, Cause.ROUTINE), (key, Cause.HAPPENED), (key, Cause.HAPPENED)]


async def test_a_run_that_ended_before_wakes_nobody_when_it_is_listed() -> None:
    woken: list[Key] = []
    watch = Watch(lambda keys, cause: woken.extend(keys))
    about = {"namespace": "demo", "name": "r", "resourceVersion": "5"}
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    run = {"metadata": about, "spec": {"modelRef": {"name": "m"}}, "status": done}
    await call(watch, "trainingruns", {"type": None, "object": run})
    assert woken == []
    assert watch.versions == {Key("TrainingRun", "demo", "r", "m"): "5"}
    again = {**run, "metadata": {**about, "resourceVersion": "6"}}
    await call(watch, "trainingruns", {"type": "MODIFIED", "object": again})
    assert woken == [Key("TrainingRun", "demo", "r", "m"), Key("Model", "demo", "m", "m")]


async def test_the_status_that_others_write_wakes_nobody() -> None:
    woken: list[Cause] = []
    watch = Watch(lambda keys, cause: woken.append(cause))
    labels = {"app.kubernetes.io/component": "server", "truekeep.dev/model": "m"}
    about = {"namespace": "demo", "name": "m", "uid": "u", "resourceVersion": "5", "labels": labels}
    plural, scaled = "horizontalpodautoscalers", {"maxReplicas": 4}
    await call(watch, plural, {"type": "ADDED", "object": {"metadata": about, "spec": scaled}})
    assert woken == [Cause.HAPPENED]
    later = {"metadata": {**about, "resourceVersion": "6"}, "spec": scaled, "status": {"currentReplicas": 3}}
    await call(watch, plural, {"type": "MODIFIED", "object": later})
    assert woken == [Cause.HAPPENED]
    for change in ({"spec": {"maxReplicas": 5}}, {"metadata": {**about, "ownerReferences": []}}):
        await call(watch, plural, {"type": "MODIFIED", "object": {**later, **change}})
    assert len(woken) == 3
    await call(watch, plural, {"type": "DELETED", "object": later})
    assert len(woken) == 4
    await call(watch, "pods", {"type": "MODIFIED", "object": later})
    await call(watch, "pods", {"type": "MODIFIED", "object": {**later, "status": {}}})
    assert len(woken) == 6, "a pod's status is what counts"


def test_routes_are_watched_once_somebody_could_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for kopf, whose own loop is tried on a real API server in tests/e2e/test_watches.py."""
    turns: queue.Queue[bool] = queue.Queue()
    breaks = threading.Event()

    async def operator(*, registry: kopf.OperatorRegistry, stop_flag: threading.Event, **_: object) -> None:
        waiter = asyncio.get_running_loop().run_in_executor(None, stop_flag.wait)
        turns.put("httproutes" in {str(each.id) for each in registry._watching.get_all_handlers()})
        while not waiter.done():
            if breaks.is_set():
                breaks.clear()
                raise RuntimeError("a watch broke")
            await asyncio.sleep(0.005)

    monkeypatch.setattr(kopf, "operator", operator)
    monkeypatch.setattr(handlers, "RESTART_SECONDS", 0.01)
    watch = Watch(lambda keys, cause: None)
    watch.start()
    assert turns.get(timeout=20) is False
    for _ in range(3):
        watch.routes_are_served()
    assert turns.get(timeout=20) is True
    assert watch.restarts == 0, "nothing broke"
    breaks.set()
    assert turns.get(timeout=20) is False, "the kind may have gone"
    assert watch.restarts == 1
    watch.routes_are_served()
    assert turns.get(timeout=20) is True
    watch.stop()
    watch._thread.join(20)
    assert not watch.alive()
    assert turns.empty()

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest

from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, LABEL_POLICY, LABEL_RUN
from truekeep.cluster.errors import Conflict, NotLeader, Refused, Unavailable
from truekeep.controller.health import Metrics, MissedEvents
from truekeep.controller.keys import Relations, keys_of_child
from truekeep.controller.loop import Loop, Resync
from truekeep.controller.queue import Key, WorkQueue
from truekeep.operator_main import JsonLines, configuration

MODEL = Key("Model", "demo", "m", "m")


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A reconciler that does what it is told, one thing after the other."""

    def __init__(self, *answers: float | BaseException | None) -> None:
        self.answers = list(answers)

    async def reconcile(self, key: Key) -> float | None:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def loop_of(time: Time, *answers: float | BaseException | None) -> tuple[Loop, Metrics]:
    meter = Metrics()
    return Loop(WorkQueue(time), {"Model": Scripted(*answers)}, asyncio.Event(), meter, time), meter


async def look(loop: Loop) -> None:
    key = loop.queue.pop()
    assert key is not None
    await loop.look_at(key)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (Conflict("x"), "conflict"),
        (Refused("x"), "refused"),
        (Unavailable("x"), "unavailable"),
        (TimeoutError(), "unavailable"),
        (ZeroDivisionError("x"), "error"),
    ],
)
async def test_nothing_that_goes_wrong_ends_a_worker(
    error: Exception, result: str, caplog: pytest.LogCaptureFixture
) -> None:
    time = Time()
    loop, meter = loop_of(time, error, None)
    loop.queue.add(MODEL)
    with caplog.at_level(logging.DEBUG):
        await look(loop)
    assert loop.queue.pop() is None  # it waits
    time.now += 1
    await look(loop)
    assert f'truekeep_operator_reconciles_total{{kind="Model",result="{result}"}} 1.0' in meter.text().decode()
    said = caplog.records[0]
    assert (said.kind, said.namespace, said.object) == ("Model", "demo", "m")  # type: ignore[attr-defined]


async def test_it_looks_again_when_asked_to() -> None:
    time = Time()
    loop, _ = loop_of(time, 30.0, None)
    loop.queue.add(MODEL)
    await look(loop)
    time.now += 29
    assert loop.queue.pop() is None
    time.now += 1
    assert loop.queue.pop() == MODEL


async def test_who_does_not_lead_leaves_it_to_who_does() -> None:
    loop, _ = loop_of(Time(), NotLeader("x"))
    loop.queue.add(MODEL)
    await look(loop)
    assert len(loop.queue) == 0


async def test_a_reconcile_that_hangs_is_ended() -> None:
    class Hanging:
        async def reconcile(self, key: Key) -> float | None:
            await asyncio.Event().wait()
            return None

    queue = WorkQueue(Time())
    loop = Loop(queue, {"Model": Hanging()}, asyncio.Event(), Metrics(), Time(), timeout_seconds=0.01)
    queue.add(MODEL)
    await look(loop)
    assert queue.retrying == 1


async def test_a_worker_waits_for_the_lead() -> None:
    loop, _ = loop_of(Time(), None)
    loop.queue.add(MODEL)
    worker = asyncio.create_task(loop.work())
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(loop.queue) == 1
    loop.leading.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(loop.queue) == 0
    worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker


async def test_how_late_an_object_was_looked_at_counts_from_when_the_lead_was_taken() -> None:
    time = Time()
    loop, meter = loop_of(time, None, None)
    loop.queue.add(MODEL)
    worker = asyncio.create_task(loop.work())
    await asyncio.sleep(0)
    time.now = 1000.0  # a standby so far
    loop.leading.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert 'truekeep_operator_queue_seconds_sum{kind="Model"} 0.0' in meter.text().decode()
    loop.queue.add(MODEL)
    time.now += 7.0
    for _ in range(10):
        await asyncio.sleep(0)
    assert 'truekeep_operator_queue_seconds_sum{kind="Model"} 7.0' in meter.text().decode()
    worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker


async def test_everything_is_listed_again_when_the_lead_is_taken_again() -> None:
    listed = asyncio.Queue[int]()
    count = 0

    async def keys() -> list[Key]:
        nonlocal count
        count += 1
        listed.put_nowait(count)
        if count == 1:
            raise Unavailable("the API server rests")
        return [MODEL]

    leading, queue = asyncio.Event(), WorkQueue(Time())
    leading.set()
    resync = Resync(keys, queue, leading, Time(), every_seconds=3600)
    task = asyncio.create_task(resync.run())
    assert await listed.get() == 1
    await asyncio.sleep(0)
    resync.soon.set()
    assert await listed.get() == 2
    await asyncio.sleep(0)
    assert queue.pop() == MODEL
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_change_that_the_watch_never_told_of_is_noticed() -> None:
    time = Time()
    missed = MissedEvents(time)
    missed.compare({MODEL: "7"}, {MODEL: "6"})
    assert missed.seconds() == 0  # it may be on its way
    time.now += 60
    missed.compare({MODEL: "8"}, {MODEL: "7"})
    assert missed.seconds() == 0  # it was, and so is the next
    missed.compare({MODEL: "8"}, {MODEL: "7"})
    time.now += 60
    assert missed.seconds() == 60
    missed.compare({MODEL: "8"}, {MODEL: "8"})
    assert missed.seconds() == 0


def item(name: str, model: str | None = None, **status: str) -> dict[str, object]:
    spec = {"modelRef": {"name": model}} if model else {}
    conditions = [{"type": kind, "status": flag} for kind, flag in status.items()]
    return {"metadata": {"namespace": "demo", "name": name}, "spec": spec, "status": {"conditions": conditions}}


def test_a_change_of_a_model_wakes_who_looks_at_it() -> None:
    relations = Relations()
    run, policy = Key("TrainingRun", "demo", "m-1", "m"), Key("DriftPolicy", "demo", "p", "m")
    assert relations.keys("TrainingRun", item("m-1", "m"), gone=False) == [run, MODEL]
    assert relations.keys("DriftPolicy", item("p", "m"), gone=False) == [policy, MODEL]
    assert relations.keys("Model", item("m"), gone=False) == [MODEL, policy, run]
    assert relations.keys("TrainingRun", item("m-1", "m", Complete="True"), gone=False) == [run, MODEL]
    assert relations.keys("Model", item("m"), gone=False) == [MODEL, policy]
    relations.keys("DriftPolicy", item("p", "m"), gone=True)
    assert relations.keys("Model", item("m"), gone=False) == [MODEL]


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({LABEL_COMPONENT: "trainer", LABEL_RUN: "r", LABEL_MODEL: "m"}, "TrainingRun"),
        ({LABEL_COMPONENT: "monitor", LABEL_POLICY: "p", LABEL_MODEL: "m"}, "DriftPolicy"),
        ({LABEL_COMPONENT: "server", LABEL_MODEL: "m"}, "Model"),
        ({LABEL_COMPONENT: "server"}, None),
        ({LABEL_COMPONENT: "trainer", LABEL_MODEL: "m"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_child_wakes_its_owner(labels: dict[str, str] | None, kind: str | None) -> None:
    keys = keys_of_child({"metadata": {"namespace": "demo", "name": "x", "labels": labels}})
    assert [key.kind for key in keys] == ([kind] if kind else [])


def test_the_configuration_comes_from_the_environment() -> None:
    config = configuration(
        {
            "TRUEKEEP_SERVER_IMAGE": "a/server:1",
            "TRUEKEEP_WATCH_NAMESPACES": "b, a,,b",
            "TRUEKEEP_IMAGE_PULL_SECRETS": "mirror, other",
            "POD_NAME": "operator-0",
            "POD_NAMESPACE": "truekeep-system",
            "TRUEKEEP_WORKERS": "2",
        }
    )
    assert config.settings.server_image == "a/server:1"
    assert config.namespaces == ("a", "b")
    assert config.settings.image_pull_secrets == ("mirror", "other")
    assert (config.pod_name, config.pod_namespace, config.workers) == ("operator-0", "truekeep-system", 2)


CHECKS = 'ad.datadoghq.com/server.checks={"openmetrics": {"a": "b=c"}}'


def test_annotations_of_serving_pods_are_lines() -> None:
    lines = f"\n  {CHECKS}\nprometheus.io/scrape=true\n"
    assert configuration({"TRUEKEEP_SERVING_ANNOTATIONS": lines}).settings.serving_annotations == (
        ("ad.datadoghq.com/server.checks", '{"openmetrics": {"a": "b=c"}}'),
        ("prometheus.io/scrape", "true"),
    )
    assert configuration({}).settings.serving_annotations == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("scrape", "PREFIX/NAME=VALUE"),
        ("scrape=true", "PREFIX/NAME=VALUE"),
        ("a/b/c=d", "PREFIX/NAME=VALUE"),
        ("prometheus.io/=x", "PREFIX/NAME=VALUE"),
        ("truekeep.dev/template={}", "not for settings"),
        ("container.apparmor.security.beta.kubernetes.io/server=unconfined", "not for settings"),
        ("seccomp.security.alpha.kubernetes.io/pod=unconfined", "not for settings"),
    ],
)
def test_an_annotation_that_can_t_be_or_may_not_be_is_refused(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"TRUEKEEP_SERVING_ANNOTATIONS .*{words}"):
        configuration({"TRUEKEEP_SERVING_ANNOTATIONS": f"prometheus.io/port=8080\n{line}"})


@pytest.mark.parametrize("variable", ["TRUEKEEP_WATCH_NAMESPACES", "TRUEKEEP_IMAGE_PULL_SECRETS"])
def test_what_can_be_no_name_is_refused(variable: str) -> None:
    with pytest.raises(ValueError, match=f"{variable} names 'Team A'"):
        configuration({variable: "a,Team A"})


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_is_refused_by_name(value: str) -> None:
    with pytest.raises(ValueError, match=f"TRUEKEEP_WORKERS is '{value}'"):
        configuration({"TRUEKEEP_WORKERS": value})


def test_a_log_line_names_the_object() -> None:
    record = logging.LogRecord("truekeep", logging.WARNING, "f", 1, "it %s", ("failed",), None)
    record.kind, record.namespace, record.object = "Model", "demo", "m"
    line = json.loads(JsonLines().format(record))
    assert (line["kind"], line["namespace"], line["name"]) == ("Model", "demo", "m")
    assert (line["message"], line["level"]) == ("it failed", "warning")


async def test_the_first_list_is_looked_at_at_once_and_later_ones_by_and_by() -> None:
    time = Time()
    keys = [Key("Model", "demo", f"m-{number:04d}", f"m-{number:04d}") for number in range(1000)]

    async def everything() -> list[Key]:
        return keys

    queue = WorkQueue(time)
    resync = Resync(everything, queue, asyncio.Event(), time, every_seconds=30)

    def taken() -> int:
        count = 0
        while (found := queue.pop()) is not None:
            queue.done(found)
            count += 1
        return count

    assert await resync.once() == 100.0
    assert taken() == 1000
    assert await resync.once() == 100.0
    assert taken() <= 1
    time.now += 50
    assert 490 <= taken() <= 510
    time.now += 50
    assert taken() >= 490

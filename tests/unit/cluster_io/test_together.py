"""Reads that are shared: how many there are, when they begin, and whom a failure meets."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.controller.fake_cluster import Clock, FakeApi
from tests.unit.controller.world import SPEC, FakeMetrics, World
from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL
from truekeep.cluster import kinds
from truekeep.cluster.api import Labels
from truekeep.cluster.errors import Refused, Unavailable
from truekeep.cluster.kinds import Kind
from truekeep.cluster.observe import Observer
from truekeep.cluster.together import Together
from truekeep.controller.queue import Key
from truekeep.domain.plan import Settings

NAMESPACE = "demo"
Json = dict[str, Any]


class CountedApi(FakeApi):
    """Counts requests. Each begins with what there is then, and ends when it is let through."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.requests: list[str] = []
        self.through = asyncio.Event()
        self.through.set()
        self.fails: list[Exception] = []  # of the next requests, one each
        self.whole_refused = False

    async def _counted(self, words: str) -> None:
        self.requests.append(words)
        failure = self.fails.pop(0) if self.fails else None
        await self.through.wait()
        if failure:
            raise failure

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        found = await super().get(kind, namespace, name)
        await self._counted(f"get {kind.kind} {name}")
        return found

    async def list(
        self, kind: Kind, namespace: str | None, labels: Labels | None = None, fields: str | None = None
    ) -> list[Json]:
        found = await super().list(kind, namespace, labels, fields)
        await self._counted(f"list {kind.kind} {dict(labels or {})} {fields or ''}".strip())
        return found

    async def each(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Labels | None = None,
        fields: str | None = None,
        page: int = 500,
    ) -> AsyncIterator[Json]:
        found = await FakeApi.list(self, kind, namespace, labels, fields)
        for start in range(0, max(1, len(found)), page):
            await self._counted(f"page {kind.kind}")
            if self.whole_refused:
                raise Refused("may not list")
            for item in found[start : start + page]:
                yield item


def model(name: str) -> Json:
    return {"metadata": {"namespace": NAMESPACE, "name": name}, "spec": {}}


def run(name: str, of: str) -> Json:
    return {"metadata": {"namespace": NAMESPACE, "name": name}, "spec": {"modelRef": {"name": of}}}


def pod(name: str, of: str, component: str = "server") -> Json:
    labels = {LABEL_MODEL: of, LABEL_COMPONENT: component}
    return {"metadata": {"namespace": NAMESPACE, "name": name, "labels": labels}, "spec": {}}


@pytest.fixture
def api() -> CountedApi:
    made = CountedApi(Clock())
    for number in range(50):
        made.put(kinds.MODEL, model(f"m-{number:02d}"))
        for each in range(3):
            made.put(kinds.TRAINING_RUN, run(f"m-{number:02d}-{each}", f"m-{number:02d}"))
        made.put(kinds.POD, pod(f"m-{number:02d}-x", f"m-{number:02d}"))
        made.put(kinds.POD, pod(f"m-{number:02d}-y", f"m-{number:02d}", "monitor"))
    return made


def names(items: list[Json]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


async def test_one_alone_asks_for_what_it_wants_and_no_more(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    found = await asyncio.gather(
        reads.get(kinds.MODEL, NAMESPACE, "m-07"),
        reads.naming(kinds.TRAINING_RUN, NAMESPACE, "m-07"),
        reads.list(kinds.POD, NAMESPACE, {LABEL_MODEL: "m-07", LABEL_COMPONENT: "server"}),
    )
    assert found[0] is not None
    assert names(found[1]) == ["m-07-0", "m-07-1", "m-07-2"]
    assert names(found[2]) == ["m-07-x"]
    labels = {LABEL_COMPONENT: "server", LABEL_MODEL: "m-07"}
    assert sorted(api.requests) == [
        "get Model m-07",
        f"list Pod {labels}",
        "list TrainingRun {} spec.modelRef.name=m-07",
    ]


async def test_fifty_at_once_are_answered_by_one_request_a_kind(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    asked = [f"m-{number:02d}" for number in range(50)]
    labels = [{LABEL_MODEL: name, LABEL_COMPONENT: "server"} for name in asked]
    models, runs, pods = await asyncio.gather(
        asyncio.gather(*(reads.get(kinds.MODEL, NAMESPACE, name) for name in asked)),
        asyncio.gather(*(reads.naming(kinds.TRAINING_RUN, NAMESPACE, name) for name in asked)),
        asyncio.gather(*(reads.list(kinds.POD, NAMESPACE, each) for each in labels)),
    )
    assert [item and item["metadata"]["name"] for item in models] == asked
    assert [names(found) for found in runs] == [[f"{name}-{each}" for each in range(3)] for name in asked]
    assert [names(found) for found in pods] == [[f"{name}-x"] for name in asked]
    assert len(api.requests) == 3


async def test_the_same_question_is_asked_once(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    found = await asyncio.gather(*(reads.list(kinds.AUTOSCALER, NAMESPACE) for _ in range(9)))
    assert found == [[]] * 9
    assert len(api.requests) == 1


async def test_what_is_not_there_is_none(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    asked = [f"m-{number}" for number in range(45, 55)]
    found = await asyncio.gather(*(reads.get(kinds.MODEL, NAMESPACE, name) for name in asked))
    assert [item is not None for item in found] == [True] * 5 + [False] * 5


async def test_a_read_that_began_before_answers_nobody_who_asked_later(api: CountedApi) -> None:
    """Whoever asks while a read is under way sees what was written before it asked."""
    reads = Together(api)  # type: ignore[arg-type]
    api.through.clear()
    early = asyncio.create_task(reads.get(kinds.MODEL, NAMESPACE, "m-01"))
    await asyncio.sleep(0.01)
    assert api.requests == ["get Model m-01"], "it began at once"
    changed = api.put(kinds.MODEL, {**model("m-01"), "spec": {"paused": True}})
    late = [asyncio.create_task(reads.get(kinds.MODEL, NAMESPACE, name)) for name in ("m-01", "m-02", "m-01")]
    await asyncio.sleep(0.01)
    assert len(api.requests) == 1, "they wait for each other"
    api.through.set()
    before, (now, _, same) = await early, await asyncio.gather(*late)
    assert before is not None
    assert now is not None
    assert before["spec"] == {}
    assert now["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
    assert same == now
    again = await reads.get(kinds.MODEL, NAMESPACE, "m-01")
    assert again == now
    assert api.requests[-1] == "get Model m-01", "nothing is kept"


async def test_a_failure_meets_those_who_asked_and_nobody_else(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    labels = [{LABEL_MODEL: f"m-{number:02d}"} for number in range(5)]
    api.fails = [Unavailable("gone")]
    first = [asyncio.create_task(reads.list(kinds.POD, NAMESPACE, each)) for each in labels]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = [asyncio.create_task(reads.list(kinds.POD, NAMESPACE, each)) for each in labels]
    failed = await asyncio.gather(*first, return_exceptions=True)
    assert [type(each) for each in failed] == [Unavailable] * 5
    assert [len(each) for each in await asyncio.gather(*second)] == [2] * 5
    assert len(api.requests) == 2


async def test_of_requests_side_by_side_one_may_fail(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    api.fails = [Unavailable("gone")]
    other, events = await asyncio.gather(
        reads.list(kinds.POD, NAMESPACE, {LABEL_MODEL: "m-01"}),
        reads.list(kinds.POD, NAMESPACE, fields="status.phase=Running"),
        return_exceptions=True,
    )
    assert isinstance(other, Unavailable)
    assert events == []


async def test_who_gives_up_takes_nobody_along(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    api.through.clear()
    one, other = (asyncio.create_task(reads.get(kinds.MODEL, NAMESPACE, f"m-0{number}")) for number in (1, 2))
    await asyncio.sleep(0.01)
    one.cancel()
    api.through.set()
    found = await other
    assert found is not None
    assert found["metadata"]["name"] == "m-02"
    assert await reads.get(kinds.MODEL, NAMESPACE, "m-01") is not None


async def test_a_namespace_with_many_more_is_not_read_whole(api: CountedApi) -> None:
    """Two of fifty Models: one page shows that there are more, and from then on nobody tries."""
    reads = Together(api)  # type: ignore[arg-type]
    for _ in range(2):
        api.requests.clear()
        found = await asyncio.gather(*(reads.get(kinds.MODEL, NAMESPACE, name) for name in ("m-01", "m-02")))
        assert [item and item["metadata"]["name"] for item in found] == ["m-01", "m-02"]
    assert sorted(api.requests) == ["get Model m-01", "get Model m-02"]
    await asyncio.gather(*(reads.get(kinds.MODEL, NAMESPACE, f"m-{number:02d}") for number in range(20)))
    assert api.requests[2:] == ["page Model"], "of twenty it is worth while"


async def test_who_may_get_and_not_list_gets_each(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    api.whole_refused = True
    for _ in range(2):
        api.requests.clear()
        found = await asyncio.gather(*(reads.get(kinds.MODEL, NAMESPACE, f"m-{n:02d}") for n in range(20)))
        assert None not in found
    assert len(api.requests) == 20


async def test_where_kubernetes_cannot_select_by_our_field_all_are_read(api: CountedApi) -> None:
    reads = Together(api)  # type: ignore[arg-type]
    api.fails = [Refused("field label not supported: spec.modelRef.name")]
    for _ in range(2):
        found = await reads.naming(kinds.TRAINING_RUN, NAMESPACE, "m-03")
        assert names(found) == ["m-03-0", "m-03-1", "m-03-2"]
    assert api.requests[1:] == ["page TrainingRun", "page TrainingRun"], "it is not tried again"


async def test_looks_together_see_what_each_sees_alone() -> None:
    """Ten Models, all brought up, each observed alone and then all at once."""
    world = World()
    for number in range(10):
        world.apply(kinds.MODEL, f"m{number}", SPEC)
        policy = {"modelRef": {"name": f"m{number}"}, "schedule": "* * * * *", "window": {"hours": 24}}
        world.apply(kinds.DRIFT_POLICY, f"m{number}", policy)
    await world.rounds(12)
    api = CountedApi(world.clock)
    api.objects = world.api.objects

    def observer() -> Observer:
        return Observer(api, FakeMetrics(), Settings(), world.clock)  # type: ignore[arg-type]

    alone: list[object] = []
    for number in range(10):
        alone += [await observer().model("demo", f"m{number}"), await observer().policy("demo", f"m{number}")]
    apart, api.requests = len(api.requests), []
    shared = observer()
    looks = [look for n in range(10) for look in (shared.model("demo", f"m{n}"), shared.policy("demo", f"m{n}"))]
    together: list[object] = list(await asyncio.gather(*looks))
    assert None not in alone
    assert together == alone
    assert len(api.requests) * 4 < apart


async def test_what_is_compared_before_it_is_written_is_read_with_the_rest_and_once() -> None:
    world = World()
    world.api = api = CountedApi(world.clock)
    world.nodes = type(world.nodes)(api)
    world.start()
    world.apply(kinds.MODEL, "m", SPEC)
    await world.rounds(8)
    name = world.status()["active"]["deployment"]
    spec = copy.deepcopy(SPEC)
    spec["serving"]["replicas"] = 3
    world.apply(kinds.MODEL, "m", spec)
    world.queue.add(Key("Model", NAMESPACE, "m", "m"))
    api.through.clear()
    api.requests.clear()
    key = world.queue.pop()
    assert key is not None
    look = asyncio.create_task(world.loop.look_at(key))
    for _ in range(50):
        await asyncio.sleep(0)
    asked = list(api.requests)
    api.through.set()
    writes = len(api.writes)
    await look
    assert api.writes[writes] == f"apply Deployment {name}"
    assert api.requests == asked, "nothing was waited for twice"
    assert f"get Deployment {name}" not in asked

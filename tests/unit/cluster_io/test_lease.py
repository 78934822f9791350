from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from truekeep.cluster.errors import AlreadyExists, Conflict, NotLeader, Unavailable
from truekeep.cluster.lease import Elector, Timing

Json = dict[str, Any]


@dataclass
class Server:
    """One Lease."""

    lease: Json | None = None
    version: int = 0
    down: bool = False

    async def get(self, kind: Any, namespace: str, name: str) -> Json | None:
        self._up()
        return copy.deepcopy(self.lease)

    async def create(self, kind: Any, manifest: Json) -> Json:
        self._up()
        if self.lease is not None:
            raise AlreadyExists("there")
        return self._store(manifest)

    async def replace(self, kind: Any, manifest: Json) -> Json:
        self._up()
        assert self.lease is not None
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        return self._store(manifest)

    def _up(self) -> None:
        if self.down:
            raise Unavailable("no answer")

    def _store(self, manifest: Json) -> Json:
        self.version += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Pair:
    """Two operators, each with a clock of its own: they need not agree."""

    server: Server = field(default_factory=Server)
    clocks: tuple[Clock, Clock] = field(default_factory=lambda: (Clock(), Clock(5.0)))

    def __post_init__(self) -> None:
        self.a, self.b = self.elector("a", self.clocks[0]), self.elector("b", self.clocks[1])

    def elector(self, identity: str, clock: Clock) -> Elector:
        timing = Timing(duration=15, margin=3)
        return Elector(self.server, "system", "lease", identity, timing=timing, clock=clock)  # type: ignore[arg-type]

    def pass_(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.now += seconds


async def test_the_first_takes_it_and_the_second_waits() -> None:
    pair = Pair()
    await pair.a.step()
    await pair.b.step()
    assert (pair.a.holds(), pair.b.holds()) == (True, False)
    pair.a.must_hold()
    with pytest.raises(NotLeader):
        pair.b.must_hold()


async def test_a_leader_that_renews_keeps_it() -> None:
    pair = Pair()
    for _ in range(20):
        await pair.a.step()
        await pair.b.step()
        pair.pass_(4)
    assert pair.server.holder() == "a"
    assert not pair.b.holds()


async def test_a_standby_takes_over_when_it_saw_no_change_for_the_leases_length() -> None:
    pair = Pair()
    await pair.a.step()
    taken = None
    for second in range(30):
        await pair.b.step()
        if pair.b.holds():
            taken = second
            break
        pair.pass_(1)
    assert taken == 16
    assert not pair.a.holds()  # it stopped before that, by its own clock


async def test_the_time_written_in_the_lease_counts_for_nothing() -> None:
    pair = Pair()
    await pair.a.step()
    assert pair.server.lease is not None
    pair.server.lease["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"
    await pair.b.step()
    assert not pair.b.holds()


async def test_a_leader_that_cannot_renew_stops_before_anybody_else_may_start() -> None:
    pair = Pair()
    await pair.a.step()
    await pair.b.step()
    pair.server.down = True
    for second in range(40):
        for elector in (pair.a, pair.b):
            with pytest.raises(Unavailable):
                await elector.step()
        assert pair.a.holds() == (second < 12)
        pair.pass_(1)
    pair.server.down = False
    await pair.b.step()
    assert pair.b.holds()
    assert not pair.a.holds()


async def test_a_leader_that_was_stopped_finds_the_new_one() -> None:
    pair = Pair()
    await pair.a.step()
    await pair.b.step()
    pair.pass_(20)  # SIGSTOP
    await pair.b.step()
    assert pair.b.holds()
    assert not pair.a.holds()
    await pair.a.step()
    assert not pair.a.holds()
    assert pair.server.holder() == "b"


async def test_what_is_released_is_taken_at_once() -> None:
    pair = Pair()
    await pair.a.step()
    await pair.b.step()
    await pair.a.release()
    assert not pair.a.holds()
    await pair.b.step()
    assert pair.b.holds()


async def test_a_container_that_was_killed_has_it_again_at_once() -> None:
    pair = Pair()
    await pair.a.step()
    again = pair.elector("a", Clock(0.0))
    await again.step()
    assert again.holds()


async def test_of_two_that_take_it_at_the_same_moment_one_has_it() -> None:
    pair = Pair()
    old = pair.elector("old", Clock())
    await old.step()
    await old.release()
    seen = copy.deepcopy(pair.server.lease)
    await pair.a.step()

    class Late(Server):
        async def get(self, kind: Any, namespace: str, name: str) -> Json | None:
            return copy.deepcopy(seen)

    late = Late(pair.server.lease, pair.server.version)
    loser = Elector(late, "system", "lease", "b", clock=pair.clocks[1])  # type: ignore[arg-type]
    await loser.step()
    assert not loser.holds()


async def test_taking_the_lead_is_told() -> None:
    told: list[str] = []
    pair = Pair()
    elector = Elector(
        pair.server, "system", "lease", "a", clock=pair.clocks[0], taken=lambda: told.append("taken"), sleep=pair_stop
    )  # type: ignore[arg-type]
    with pytest.raises(StopAsyncIteration):
        await elector.run()
    assert told == ["taken"]
    assert elector.leading.is_set()
    pair.clocks[0].now += 100
    pair.server.down = True
    with pytest.raises(StopAsyncIteration):
        await elector.run()
    assert not elector.leading.is_set()


async def pair_stop(seconds: float) -> None:
    """Instead of sleeping: one turn is enough."""
    raise StopAsyncIteration

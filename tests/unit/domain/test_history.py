"""Which revision answered when."""

from __future__ import annotations

from tests.unit.domain.world import World, spec
from truekeep.domain.history import KEPT


def served(world: World) -> list[int]:
    return [each.revision for each in world.status.history]


def test_every_switch_is_noted_once_the_newest_first() -> None:
    world = World()
    world.calm()
    assert served(world) == [1]
    world.change(spec(seed=1))
    world.calm()
    assert served(world) == [2, 1]
    assert world.status.history[0].since == world.status.active.since
    assert world.status.history[1].since < world.status.history[0].since
    world.change(spec(seed=1, serving={"pinnedRevision": 1}))
    world.calm()
    assert served(world) == [1, 2, 1]
    world.reconcile()
    assert served(world) == [1, 2, 1]


def test_it_is_bounded() -> None:
    world = World()
    world.calm()
    entry = world.status.history[0]
    world.status = world.status.model_copy(update={"history": [entry] * KEPT})
    world.change(spec(seed=1))
    world.calm()
    assert len(world.status.history) == KEPT
    assert world.status.history[0].revision == 2

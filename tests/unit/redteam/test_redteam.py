"""0 escapes, and every attack succeeds where its guard is away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.redteam.attack import Attack, Scene
from tests.unit.redteam.every import CLASSES, every

ALL = list(every())
Tried = Callable[[str, str], None]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


@pytest.mark.parametrize("attack", ALL, ids=str)
def test_it_does_not_get_through(attack: Attack, scene: Scene, tried: Tried) -> None:
    tried(attack.group, "guarded")
    assert not attack.attempt(scene)


@pytest.mark.parametrize("attack", ALL, ids=str)
def test_it_would_without_its_guard(attack: Attack, scene: Scene, tried: Tried) -> None:
    tried(attack.group, "bare")
    attack.unguard(scene)
    assert attack.attempt(scene), "an attack that fails without its guard proves nothing of the guard"


def test_every_class_has_at_least_five_cases() -> None:
    cases = Counter(attack.group for attack in ALL)
    assert set(cases) == set(CLASSES)
    assert min(cases.values()) >= 5, cases
    assert len({str(attack) for attack in ALL}) == len(ALL)

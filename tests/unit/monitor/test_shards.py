"""Several pods count a window together: the same report as of one pod, whoever comes last."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.conftest import Versitygw
from tests.unit.monitor.test_decay import Place, told
from tests.unit.monitor.test_look import MONDAY, NOW, WEEK, Scene, quiet
from truekeep.monitor.look import look
from truekeep.monitor.shards import INDEX_ENV, Shard, shard_of
from truekeep.storage.s3 import Bucket


@pytest.fixture
def scene(versitygw: Versitygw) -> Scene:
    scene = Scene(versitygw)
    for day in range(14):
        start = MONDAY + timedelta(days=day)
        moved = {"normal": lambda x: x + 1} if day > 6 else {}
        scene.capture(start, start + timedelta(days=1), 200, seed=day, **moved)
    scene.capture(MONDAY + 2 * WEEK, MONDAY + 3 * WEEK, 200, seed=99)
    return scene


def report(scene: Scene, key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Bucket.open(scene.store).get(key))["report"]
    return found


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_make_the_report_that_one_pod_makes(scene: Scene, order: tuple[int, ...]) -> None:
    alone = look(scene.request().model_copy(update={"policy_uid": "alone"}), NOW, quiet)
    request = scene.request().model_copy(update={"shards": 3})
    results = [look(request, NOW, quiet, Shard(index, 3)) for index in order]
    assert [len(result.windows) for result in results] == [0, 0, 2]
    assert [(one.start, one.rows, one.verdict, one.kinds) for one in results[2].windows] == [
        (one.start, one.rows, one.verdict, one.kinds) for one in alone.windows
    ]
    assert [one.verdict for one in alone.windows] == ["Drift", "NoDrift"]
    single = [key for key in scene.reports() if "/alone/" in key]
    shared = [key for key in scene.reports() if "/uid-1/" in key]
    for one, other in zip(single, shared, strict=True):
        ours, theirs = report(scene, one), report(scene, other)
        assert ours["findings"] == theirs["findings"]
        for mine, yours in zip(ours["columns"], theirs["columns"], strict=True):
            assert mine["statistics"] == yours["statistics"]
            assert mine["effect"] == yours["effect"]
            assert mine["window"].get("mean", 0.0) == pytest.approx(yours["window"].get("mean", 0.0), rel=1e-9)
    assert not [key for key in scene.everything() if ".part-" in key], "what is put together is not kept twice"
    assert look(request, NOW, quiet, Shard(0, 3)).windows == results[2].windows


def test_a_file_that_came_in_between_is_counted_by_the_next_look(scene: Scene) -> None:
    request = scene.request().model_copy(update={"shards": 2})
    look(request, NOW, quiet, Shard(0, 2))
    scene.capture(MONDAY, MONDAY + WEEK, 50, seed=1000)
    assert [window.rows for window in look(request, NOW, quiet, Shard(1, 2)).windows] == [1400]
    assert [window.rows for window in look(request, NOW, quiet, Shard(0, 2)).windows] == [1400, 1450]


def test_the_first_pod_looks_at_performance(versitygw: Versitygw) -> None:
    place = Place(versitygw)
    place.served(0)
    place.served(1, rows=20)
    place.landed(0)
    request = place.request(matures=0).model_copy(update={"shards": 2})
    look(request, NOW, quiet, Shard(0, 2))
    assert look(request, NOW, quiet, Shard(1, 2)).performance == ()
    assert told(look(request, NOW, quiet, Shard(0, 2)))[0] == ("Holds", "Holds")


def test_every_file_has_one_shard_and_kubernetes_says_which_a_pod_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from truekeep.monitor.look import list_captures

    files = list_captures(Bucket.open(scene.lake), scene.request(), NOW).files
    parts = [Shard(index, 4).mine(files) for index in range(4)]
    assert sorted(file.key for part in parts for file in part) == sorted(file.key for file in files)
    monkeypatch.setenv(INDEX_ENV, "3")
    assert shard_of(4) == Shard(3, 4)
    assert shard_of(1) is None

"""The training bench in small, for `make bench`: that it measures, not how fast anything is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.training import __main__ as bench
from tests.bench.training import measure
from tests.bench.training.measure import Cost
from tests.unit.conftest import running_store


def test_medians_and_ratios_of_pairs() -> None:
    assert measure.middle([Cost(1, 5, 0, 9), Cost(3, 4, 1, 8), Cost(2, 6, 2, 7)]) == Cost(2, 5, 1, 8)
    found = measure.ratio([3.0, 4.0, 10.0], [2.0, 4.0, 5.0])
    assert found == measure.Ratio(1.0, 1.0, 2.0)


def test_a_process_is_measured_whole() -> None:
    code = "x = bytearray(96 << 20); x[::4096] = b'1' * len(x[::4096]); print('said')"
    said, wall, cpu, peak = measure.ended([sys.executable, "-c", code], {})
    assert said == "said\n"
    assert wall > 0
    assert cpu > 0
    assert 96 < peak < 300
    with pytest.raises(SystemExit, match="ended with 3"):
        measure.ended([sys.executable, "-c", "raise SystemExit(3)"], {})


def test_goals_are_met_and_missed() -> None:
    plain = [Cost(10, 15, 8, 500)] * 3
    assert "goal <= 1.15: met" in "\n".join(bench.told("one", [Cost(11.4, 15, 8, 500)] * 3, plain))
    assert "goal <= 1.15: MISSED" in "\n".join(bench.told("one", [Cost(11.6, 15, 8, 500)] * 3, plain))
    assert list(bench.parts([(0.5, "begun"), (0.52, "read"), (2.0, "fitted")])) == [
        "      0.50 s  until   0.50 s: begun",
        "      1.48 s  until   2.00 s: fitted",
    ]


@pytest.mark.parametrize("recipe", bench.RECIPES)
def test_both_sides_train_the_same(tmp_path: Path, recipe: str) -> None:
    """The same rows, split and estimator: the same roc_auc on the newest fifth."""
    with running_store(tmp_path / "store") as store:
        store.client().create_bucket(Bucket=bench.BUCKET)
        bench.prepared(store, 12_000, tmp_path)
        run, script = bench.requests(store, 12_000, recipe, 1)
        cost, lines = bench.ours(store, run, "1", tmp_path / "log")
        other, auc = bench.plain(store, script, "1")
    (said,) = (words for _, words in lines if words.startswith("judged on 2,400 rows"))
    ours = float(said.split("roc_auc ")[1].split(",")[0])
    # Categories get their codes in another order, and so a forest draws other features.
    assert ours == pytest.approx(auc, abs=0.02 if recipe == "forest" else 2e-3)
    assert 0 < cost.fit < cost.wall
    assert 0 < other.fit < other.wall

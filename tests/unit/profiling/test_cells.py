from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from truekeep.profiling import cells
from truekeep.profiling.grid import Grid

Draw = Any


def shapes(rng: np.random.Generator, n: int) -> dict[str, Any]:
    return {
        "normal": rng.normal(size=n),
        "heavy tails": rng.standard_cauchy(n),
        "log-normal": np.exp(rng.normal(size=n)),
        "mostly zero": np.where(rng.random(n) < 0.9, 0.0, rng.random(n)),
        "hours": rng.integers(0, 24, n).astype(float),
        "rounded": np.round(rng.normal(50, 20, n), 1),
        "two values": rng.integers(0, 2, n).astype(float),
        "one value": np.full(n, 7.0),
        "mixed": np.concatenate([np.zeros(n // 3), np.round(rng.random(n - n // 3) * 100)]),
    }


def binned_distance(reference: Any, window: Any) -> tuple[float, float]:
    at = cells.edges(np.sort(reference))
    then, now = Grid(at).count(reference), Grid(at).count(window)
    distance = np.abs(np.cumsum(then) / len(reference) - np.cumsum(now) / len(window)).max()
    return float(distance), cells.resolution(then, at)


@pytest.mark.parametrize("n", [3, 50, 600, 20_000])
def test_distance_on_cells_is_the_true_one_up_to_the_resolution(n: int) -> None:
    rng = np.random.default_rng(n)
    for name, reference in shapes(rng, n).items():
        for other, window in shapes(rng, 700).items():
            found, resolution = binned_distance(reference, window)
            true = stats.ks_2samp(reference, window, method="asymp").statistic
            assert resolution <= 1 / cells.CELLS, name
            assert found - 1e-12 <= true <= found + resolution + 1e-12, (name, other)


def test_distance_is_exact_where_the_reference_has_few_values() -> None:
    rng = np.random.default_rng(1)
    for name in ("hours", "two values", "one value"):
        reference = shapes(rng, 5000)[name]
        for window in shapes(rng, 900).values():  # also values between the reference's
            found, resolution = binned_distance(reference, window)
            assert resolution == 0.0
            assert found == pytest.approx(stats.ks_2samp(reference, window, method="asymp").statistic, abs=1e-12)


def test_a_tie_has_a_cell_of_its_own_and_cells_are_few() -> None:
    rng = np.random.default_rng(2)
    reference = np.concatenate([np.full(5000, 3.0), rng.normal(3.0, 1.0, 5000)])
    at = cells.edges(np.sort(reference))
    counts = Grid(at).count(reference)
    place = int(np.searchsorted(at, 3.0))
    assert counts[place] == (reference == 3.0).sum()
    assert at[place - 1] == cells.below(3.0)
    for values in shapes(rng, 50_000).values():
        assert len(cells.edges(np.sort(values))) <= 2100


@pytest.mark.parametrize(
    "values",
    [
        [1.7e308, -1.7e308, 0.0],
        [5e-324, 0.0, -5e-324],
        [-0.0, 0.0],
        [np.finfo(float).max, np.finfo(float).min],
        [],
    ],
)
def test_extreme_values_make_finite_ascending_edges(values: list[float]) -> None:
    array = np.array(values, dtype=float)
    at = cells.edges(np.sort(array), (-1e300, None, 2.0))
    assert np.isfinite(at).all()
    assert (np.diff(at) > 0).all()
    assert Grid(at).count(array).sum() == len(values)
    quantiles = cells.exact_quantiles(np.sort(array))
    assert len(quantiles) == (len(cells.QUANTILES) if values else 0)


def test_quantiles_of_a_window_are_near_the_true_ones() -> None:
    rng = np.random.default_rng(3)
    reference, window = rng.normal(size=20_000), rng.normal(0.5, 1.3, size=20_000)
    at = cells.edges(np.sort(reference))
    found = cells.interpolated_quantiles(Grid(at).count(window), at, float(window.min()), float(window.max()))
    for quantile in found:
        share = float((window <= quantile.value).mean())
        assert abs(share - quantile.q) < 0.02 if quantile.q in (0.01, 0.99) else abs(share - quantile.q) < 0.004


def test_quantiles_of_ties_are_the_ties() -> None:
    window = np.array([0.0] * 90 + [5.0] * 10)
    at = cells.edges(np.sort(window))
    found = cells.interpolated_quantiles(Grid(at).count(window), at, 0.0, 5.0)
    assert [quantile.value for quantile in found] == [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 5.0]

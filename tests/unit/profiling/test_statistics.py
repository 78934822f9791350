from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from truekeep.profiling import cells, statistics
from truekeep.profiling.grid import Grid


def counts(seed: int, k: int = 12) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(k))
    return rng.multinomial(4000, shares), rng.multinomial(700, rng.dirichlet(np.ones(k) * 3))


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scipy_on_counts(seed: int) -> None:
    then, now = counts(seed)
    table = np.stack([then, now])[:, (then + now) > 0]
    pearson = stats.chi2_contingency(table, correction=False)
    found = statistics.chi_square(then, now)
    assert found.value == pytest.approx(pearson.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(pearson.pvalue, rel=1e-9, abs=1e-300)
    assert found.degrees == pearson.dof
    likelihood = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    assert statistics.g_test(then, now).value == pytest.approx(likelihood.statistic, rel=1e-9)
    assert statistics.g_test(then, now).p_value == pytest.approx(likelihood.pvalue, rel=1e-9, abs=1e-300)
    p, q = then / then.sum(), now / now.sum()
    assert statistics.jensen_shannon(then, now) == pytest.approx(distance.jensenshannon(p, q, base=2), rel=1e-9)
    p, q = (then + 0.5) / (then + 0.5).sum(), (now + 0.5) / (now + 0.5).sum()
    both = stats.entropy(p, q) + stats.entropy(q, p)
    assert statistics.population_stability(then, now) == pytest.approx(both, rel=1e-9)
    assert statistics.total_variation(then, now) == pytest.approx(
        distance.cityblock(then / then.sum(), now / now.sum()) / 2, rel=1e-9
    )


@pytest.mark.parametrize("seed", range(5))
def test_kolmogorov_smirnov_is_scipys_where_the_reference_has_few_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    then, now = rng.integers(0, 30, 3000).astype(float), rng.integers(1, 33, 500) + rng.choice([0.0, 0.5], 500)
    at = cells.edges(np.sort(then))
    found = statistics.kolmogorov_smirnov(Grid(at).count(then), Grid(at).count(now))
    scipys = stats.ks_2samp(then, now, method="asymp")
    assert found.value == pytest.approx(scipys.statistic, abs=1e-12)
    limit = stats.kstwobign.sf(math.sqrt(3000 * 500 / 3500) * scipys.statistic)
    assert found.p_value == pytest.approx(limit, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("seed", range(5))
def test_wasserstein_is_scipys_where_all_values_are_edges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    then, now = rng.integers(0, 20, 900).astype(float), rng.integers(2, 20, 400).astype(float)
    at = cells.edges(np.sort(then))
    found = statistics.wasserstein(Grid(at).count(then), Grid(at).count(now), at, 0.0, 19.0)
    assert found == pytest.approx(stats.wasserstein_distance(then, now), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5, 3.0])
def test_wasserstein_on_cells_keeps_its_bound(shift: float) -> None:
    rng = np.random.default_rng(4)
    then, now = rng.normal(size=30_000), rng.normal(shift, size=5000)
    at = cells.edges(np.sort(then))
    a, b = Grid(at).count(then), Grid(at).count(now)
    low, high = float(at[0]), float(at[-1])
    true = stats.wasserstein_distance(then.clip(low, high), now.clip(low, high))
    found = statistics.wasserstein(a, b, at, low, high)
    bound = float((np.diff(at) * (a[1:-1] / a.sum() + b[1:-1] / b.sum())).sum())
    assert abs(found - true) <= bound
    assert found == pytest.approx(true, rel=0.01, abs=0.002)


@pytest.mark.parametrize(
    ("now", "of", "before", "among"),
    [(3, 10, 2, 30), (100, 5000, 0, 50_000), (1, 50, 0, 5), (0, 5, 1, 7), (40, 40, 3, 9)],
)
def test_excess_is_fishers_exact_test(now: int, of: int, before: int, among: int) -> None:
    exact = stats.fisher_exact([[now, of - now], [before, among - before]], alternative="greater").pvalue
    assert statistics.excess(now, of, before, among) == pytest.approx(exact, rel=1e-7, abs=1e-300)


def test_excess_of_many_is_close_to_fishers() -> None:
    exact = stats.hypergeom.sf(20_300 - 1, 1_500_000, 30_000 + 30_300, 500_000)
    assert statistics.excess(20_300, 500_000, 40_000, 1_000_000) == pytest.approx(exact, rel=0.05)
    assert statistics.excess(30_000, 30_000, 10_000, 10_000) == 1.0  # nothing else was possible


def test_holm_is_the_textbooks() -> None:
    found = statistics.holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert found.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm(np.array([])).tolist() == []
    assert statistics.holm(np.array([0.9, 0.8])).max() == 1.0


def test_the_correction_of_total_variation_takes_the_noise_and_leaves_the_shift() -> None:
    rng = np.random.default_rng(5)
    shares = np.full(500, 1 / 500)
    quiet, raw = [], []
    for _ in range(300):
        then, now = rng.multinomial(50_000, shares), rng.multinomial(5000, shares)
        quiet.append(statistics.corrected_total_variation(then, now))
        raw.append(statistics.total_variation(then, now))
    assert np.mean(raw) > 0.1  # what noise alone makes of it
    assert np.mean(quiet) < 0.015
    assert max(quiet) < 0.04
    moved = np.array([0.35, 0.35, 0.3])
    then, now = rng.multinomial(1_000_000, [0.4, 0.3, 0.3]), rng.multinomial(1_000_000, moved)
    assert statistics.corrected_total_variation(then, now) == pytest.approx(0.05, abs=0.003)
    shares[:] = (1 - 0.06) / 500  # one value gains what five hundred lose
    shares[7] += 0.06
    then, now = rng.multinomial(50_000, np.full(500, 1 / 500)), rng.multinomial(5000, shares)
    assert statistics.corrected_total_variation(then, now) == pytest.approx(0.06, abs=0.015)


@pytest.mark.parametrize(("n", "m"), [(500, 5000), (5000, 50_000), (1_000_000, 1_000_000)])
def test_corrected_divergences_mean_the_same_at_any_number_of_rows(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    then = np.full(10, 0.1)
    now = then + np.array([0.05, -0.05] + [0.0] * 8)
    true_psi = float(((now - then) * np.log(now / then)).sum())
    true_js = float(distance.jensenshannon(then, now, base=2))
    psi, js, null = [], [], []
    for _ in range(300):
        a, b, c = rng.multinomial(m, then), rng.multinomial(n, now), rng.multinomial(n, then)
        psi.append(statistics.corrected_population_stability(a, b))
        js.append(statistics.corrected_jensen_shannon(a, b))
        null.append(statistics.population_stability(a, c) - statistics.chance(a, c))
    assert np.mean(psi) == pytest.approx(true_psi, rel=0.1)
    assert np.mean(js) == pytest.approx(true_js, rel=0.1)
    assert abs(np.mean(null)) < 0.1 * statistics.chance(a, c) + 1e-12  # no bias where nothing moved
    assert max(statistics.corrected_population_stability(a, a), statistics.corrected_jensen_shannon(a, a)) == 0.0


@pytest.mark.parametrize(
    ("k", "power", "n", "m"), [(500, 1.1, 5000, 50_000), (2000, 1.0, 500, 5000), (40, 0.0, 500, 500)]
)
def test_pooled_chi_square_rings_as_often_as_promised(k: int, power: float, n: int, m: int) -> None:
    rng = np.random.default_rng(k)
    shares = 1 / np.arange(1, k + 1) ** power
    shares /= shares.sum()
    p_values = np.array(
        [
            statistics.chi_square(*statistics.pool(rng.multinomial(m, shares), rng.multinomial(n, shares))).p_value
            for _ in range(1000)
        ]
    )
    assert 0.07 < (p_values < 0.1).mean() < 0.13
    assert (p_values < 0.01).mean() < 0.022


def test_pooling_keeps_all_rows_and_expects_enough() -> None:
    then, now = counts(1, 300)
    a, b = statistics.pool(then, now)
    assert (a.sum(), b.sum()) == (then.sum(), now.sum())
    assert ((a + b) * now.sum() / (then.sum() + now.sum())).min() >= statistics.EXPECTED
    few = statistics.pool(np.array([1, 1, 0]), np.array([0, 1, 1]))
    assert statistics.chi_square(*few).p_value == 1.0


def test_tenths_are_about_a_tenth_each_and_ties_stay_whole() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=10_000)
    counted = Grid(cells.edges(np.sort(values))).count(values)
    assert np.allclose(statistics.tenths(counted, counted)[0] / 10_000, 0.1, atol=0.005)
    tied = np.concatenate([np.zeros(9000), rng.random(1000)])
    counted = Grid(cells.edges(np.sort(tied))).count(tied)
    assert statistics.tenths(counted, counted)[0].max() >= 9000


@pytest.mark.parametrize("empty", [(np.zeros(3, int), np.ones(3, int)), (np.ones(3, int), np.zeros(3, int))])
def test_an_empty_side_says_nothing(empty: tuple[Any, Any]) -> None:
    assert statistics.kolmogorov_smirnov(*empty) == (0.0, 1.0, 0)
    assert statistics.chi_square(*empty).p_value == statistics.g_test(*empty).p_value == 1.0
    assert statistics.jensen_shannon(*empty) == statistics.total_variation(*empty) == 0.0
    assert statistics.corrected_total_variation(*empty) == 0.0
    assert statistics.wasserstein(*empty, np.array([0.0, 1.0]), 0.0, 1.0) == 0.0

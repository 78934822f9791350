"""Two-sample statistics on counts: how far a window is from its reference, and how sure that is.

Both are finite samples. Counts are of the same cells in the same order: `reference` and `window`, shape (k,). For
numbers the cells are those of `profiling.cells`, and the edges `at`, shape (k - 1,), are theirs; for categories they
are values. Sources stand with each function.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
from scipy import special

Counts = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
EXACT_SUCCESSES = 10_000
EXPECTED = 5.0  # least expected count of a cell for which the chi-square distribution is a fair approximation


class Test(NamedTuple):
    """A statistic and the probability of one as large where nothing moved."""

    value: float
    p_value: float
    degrees: int = 0


class Sample(NamedTuple):
    """What is known of some values."""

    rows: int
    mean: float
    deviation: float  # standard deviation, of the population


def kolmogorov_smirnov(reference: Counts, window: Counts) -> Test:
    """Largest distance of the two distribution functions at the cells' edges, 0 to 1 (Smirnov 1939).

    Exact where every cell is a single number or empty in the reference, else short of the distance of the raw values
    by at most the reference's resolution (`profiling.cells`). Its significance is Kolmogorov's limit, which errs on
    the safe side for ties and small samples."""
    n, m = float(reference.sum()), float(window.sum())
    if not n or not m:
        return Test(0.0, 1.0)
    distance = float(np.abs(np.cumsum(reference) / n - np.cumsum(window) / m).max())
    return Test(distance, float(special.kolmogorov(np.sqrt(n * m / (n + m)) * distance)))


def chi_square(reference: Counts, window: Counts) -> Test:
    """Pearson's chi-square of the table of both samples (homogeneity), without correction (Pearson 1900).

    Give it pooled counts: see `pool`."""
    observed, expected = _table(reference, window)
    if observed.shape[1] < 2:
        return Test(0.0, 1.0)
    value = float((np.square(observed - expected) / expected).sum())
    degrees = observed.shape[1] - 1
    return Test(value, float(special.chdtrc(degrees, value)), degrees)


def g_test(reference: Counts, window: Counts) -> Test:
    """The likelihood-ratio statistic of the same table, in nats (Woolf 1957). Give it pooled counts: see `pool`."""
    observed, expected = _table(reference, window)
    if observed.shape[1] < 2:
        return Test(0.0, 1.0)
    value = max(0.0, 2.0 * float(special.xlogy(observed, observed / expected).sum()))
    degrees = observed.shape[1] - 1
    return Test(value, float(special.chdtrc(degrees, value)), degrees)


def population_stability(reference: Counts, window: Counts) -> float:
    """Population stability index in nats: the sum of both Kullback-Leibler divergences (Siddiqi 2006; Jeffreys 1946).

    Half a row is added to every cell, so that an empty cell is no infinity."""
    p, q = (reference + 0.5) / (reference + 0.5).sum(), (window + 0.5) / (window + 0.5).sum()
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(reference: Counts, window: Counts) -> float:
    """Jensen-Shannon distance, base 2, 0 to 1: the root of the divergence (Endres and Schindelin 2003)."""
    if not reference.sum() or not window.sum():
        return 0.0
    p, q = reference / reference.sum(), window / window.sum()
    middle = (p + q) / 2
    divergence = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum() / 2 / np.log(2)
    return float(np.sqrt(min(1.0, max(0.0, divergence))))


def chance(reference: Counts, window: Counts) -> float:
    """What sampling alone makes of the population stability index in the mean where nothing moved, in nats.

    For k cells in use and n and m rows (k - 1)·(1/n + 1/m), because then the index is that much per degree of a
    chi-square (Yurdakul 2018). The Jensen-Shannon divergence, an eighth of the index for small changes, gets an eighth
    of it. A good approximation where cells expect five rows, as `pool` makes them."""
    n, m = float(reference.sum()), float(window.sum())
    cells = int(np.count_nonzero(reference + window))
    return (cells - 1) * (1 / n + 1 / m) if n and m and cells else 0.0


def corrected_population_stability(reference: Counts, window: Counts) -> float:
    """Population stability index less `chance`, in nats, never below 0: it means the same at any number of rows."""
    return max(0.0, population_stability(reference, window) - chance(reference, window))


def corrected_jensen_shannon(reference: Counts, window: Counts) -> float:
    """Jensen-Shannon distance, base 2, of a divergence less an eighth of `chance`; 0 to 1."""
    divergence = jensen_shannon(reference, window) ** 2 - chance(reference, window) / (8 * np.log(2))
    return float(np.sqrt(max(0.0, divergence)))


def total_variation(reference: Counts, window: Counts) -> float:
    """Half the sum of the differences of shares, 0 to 1: the share of rows that is elsewhere now. No correction."""
    if not reference.sum() or not window.sum():
        return 0.0
    return float(np.abs(reference / reference.sum() - window / window.sum()).sum() / 2)


def corrected_total_variation(reference: Counts, window: Counts) -> float:
    """Total variation less what sampling alone makes of it, 0 to 1, so that it means the same at any number of rows.

    A difference d of shares with standard error s has, where nothing moved, the mean |d| of s·√(2/π) (half-normal).
    From each |d| we take (2/√π)·s·exp(-(d/s)²/2): the same in the mean where nothing moved, nothing where d is far
    beyond s, and too much in between. Gains and losses are summed apart, because in truth they are equal, and the
    larger sum counts: what one value gains is plain while a hundred others each lose less than their noise. Likewise
    what is plain by itself (beyond the greatest of k normal deviates, and one more) counts as it is, free of the noise
    of all the rest, if that is more. That leaves 0.01 to 0.03 in the mean where nothing moved, for 5,000 rows of
    hundreds of categories; whether it is chance is for the test to say."""
    n, m = float(reference.sum()), float(window.sum())
    if not n or not m:
        return 0.0
    pooled = (reference + window) / (n + m)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    difference = window / m - reference / n
    z = np.divide(difference, error, out=np.zeros_like(difference), where=error > 0)
    left = np.abs(difference) - 2 / np.sqrt(np.pi) * error * np.exp(-z * z / 2)
    plain = np.where(np.abs(z) > np.sqrt(2 * np.log(len(z))) + 1, np.abs(difference), 0.0)
    gains, losses = difference > 0, difference < 0
    return float(max(0.0, *(part[side].sum() for part in (left, plain) for side in (gains, losses))))


def wasserstein(reference: Counts, window: Counts, at: Floats, low: float, high: float) -> float:
    """Area between the two distribution functions from `low` to `high`, in the column's unit (Vallender 1974).

    Inside a cell both are taken as straight lines: off by at most Σ width·(p + q) over the cells, p and q their
    masses; exact where all values are edges. What lies beyond `low` and `high` counts as lying there, so that a wild
    value weighs no more than any other."""
    if not reference.sum() or not window.sum() or not low < high:
        return 0.0
    distance = (np.cumsum(reference) / reference.sum() - np.cumsum(window) / window.sum())[:-1]
    inside = (at >= low) & (at <= high)
    edges, distance = at[inside], distance[inside]
    width = np.diff(edges)
    left, right = distance[:-1], distance[1:]
    # The area under |line|: a trapezium, or two triangles where the sign changes.
    total = np.abs(left) + np.abs(right)
    crossed = np.divide(left * left + right * right, total, out=np.zeros_like(total), where=total > 0)
    return float((width * np.where(left * right < 0, crossed, total) / 2).sum())


def excess(now: int, of: int, before: int, among: int) -> float:
    """Significance of more successes in the window (`now` of `of`) than the reference (`before` of `among`) explains.

    Fisher's exact test, one-sided; beyond 10,000 successes its normal limit with Yates' correction."""
    if not of or not among or not now:
        return 1.0
    successes, total = now + before, of + among
    if successes <= EXACT_SUCCESSES:
        drawn = np.arange(now, min(successes, of) + 1, dtype=np.float64)
        log = _choose(successes, drawn) + _choose(total - successes, of - drawn) - _choose(total, of)
        return float(min(1.0, np.exp(log[np.isfinite(log)]).sum()))
    expected = of * successes / total
    variance = expected * (among / total) * ((total - successes) / max(1, total - 1))
    return float(special.ndtr(-(now - 0.5 - expected) / np.sqrt(variance))) if variance > 0 else 1.0


def pool(reference: Counts, window: Counts) -> tuple[Counts, Counts]:
    """Cells for a chi-square test: rare ones are put together until each expects 5 rows in the smaller sample.

    Which cells go together depends on the sums of both samples alone, never on how they differ, so the test stays
    valid; for the same reason the order in which cells come must not depend on the counts of one side. Rare cells make
    many small groups rather than one, so that they still can show a shift."""
    both = reference + window
    n, m = int(reference.sum()), int(window.sum())
    if not n or not m:
        return reference[:0], window[:0]
    least = EXPECTED * (n + m) / min(n, m)
    order = np.argsort(both, kind="stable")
    until: list[int] = np.cumsum(both[order]).tolist()
    starts = []
    position = 0
    while position < len(until):
        starts.append(position)
        full = (until[position - 1] if position else 0) + least
        position = bisect_left(until, full, position) + 1
    if len(starts) > 1 and until[-1] - until[starts[-1] - 1] < least:
        starts.pop()
    if not starts:
        return reference[:0], window[:0]
    return np.add.reduceat(reference[order], starts), np.add.reduceat(window[order], starts)


def tenths(reference: Counts, window: Counts, *, tails: bool = False) -> tuple[Counts, Counts]:
    """Cells of numbers put together into at most ten groups, each about a tenth of the reference.

    `tails`: what lies below and above all of the reference makes a group each, else it belongs to the outer ones."""
    total = int(reference.sum())
    if not total:
        return reference[:0], window[:0]
    until = np.cumsum(reference)
    group = np.minimum(9, (10 * (until - reference / 2) / total).astype(np.int64))
    if tails:
        group = np.where(until == 0, -1, np.where(until - reference == total, 10, group))
    starts = np.flatnonzero(np.diff(group, prepend=-2))
    return np.add.reduceat(reference, starts), np.add.reduceat(window, starts)


def means(then: Sample, now: Sample) -> Test:
    """How far two means are apart, in the first sample's standard deviations, and the significance of it, two-sided.

    Welch's test (1947) with its normal limit: for values that are bounded, of samples of fifty and more."""
    if min(then.rows, now.rows) < 2 or not then.deviation > 0:
        return Test(0.0, 1.0)
    apart = now.mean - then.mean
    error = np.sqrt(then.deviation**2 / then.rows + now.deviation**2 / now.rows)
    return Test(abs(apart) / then.deviation, float(2 * special.ndtr(-abs(apart) / error)))


def holm(p_values: Floats) -> Floats:
    """p-values corrected for their number, shape (k,): those at most alpha hold with family-wise error alpha
    (Holm 1979), however the tests depend on each other."""
    if not len(p_values):
        return p_values
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return corrected


def _choose(n: float, k: Any) -> Any:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def _table(reference: Counts, window: Counts) -> tuple[Floats, Floats]:
    """Observed and expected counts, shape (2, cells that are not empty)."""
    observed = np.stack([reference, window]).astype(np.float64)
    observed = observed[:, observed.sum(axis=0) > 0]
    rows = observed.sum(axis=1, keepdims=True)
    if not rows.all():
        return observed[:, :0], observed[:, :0]
    return observed, rows @ observed.sum(axis=0, keepdims=True) / observed.sum()

"""How sure a metric is: its standard error and 95 % interval on a finite sample of rows.

`roc_auc` by DeLong, DeLong and Clarke-Pearson (Biometrics 1988), in n·log(n) as Sun and Xu (2014) have it; metrics
that are means of rows by the central limit; all others by the bootstrap (Efron and Tibshirani 1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from truekeep.api.evaluation import Metric
from truekeep.scores.metrics import Floats, Scored, gains, value, weighted

NORMAL_95 = 1.959963984540054
RESAMPLES = 200
BOOTSTRAP_ROWS = 50_000  # beyond them so many rows are resampled, and their error is scaled to all
_CHUNK = 2_000_000  # weights held at a time
_RANGE = {"neg_log_loss": (-math.inf, 0.0), "neg_brier_score": (-1.0, 0.0)}


class Measured(NamedTuple):
    """A metric, its standard error, and the ends of its 95 % interval. NaN where it is not defined."""

    value: float
    error: float
    low: float
    high: float


def measured(metric: Metric, scored: Scored, seed: int = 0) -> Measured:
    """The metric on these rows with its interval. The same input gives the same numbers."""
    found = value(metric, scored)
    return interval(metric, found, standard_error(metric, scored, seed))


def interval(metric: Metric, found: float, error: float) -> Measured:
    """Value and error with the ends of the 95 % interval, cut to what the metric can be."""
    least, most = _RANGE.get(metric, (0.0, 1.0))
    return Measured(found, error, max(least, found - NORMAL_95 * error), min(most, found + NORMAL_95 * error))


def standard_error(metric: Metric, scored: Scored, seed: int = 0) -> float:
    """Of the metric on these rows; NaN where it is not defined."""
    return standard_errors([metric], scored, seed)[metric]


def standard_errors(metrics: Sequence[Metric], scored: Scored, seed: int = 0) -> dict[Metric, float]:
    """Of each of them, on the same resamples; as of each alone."""
    rows = len(scored.labels)
    if rows < 2:
        return dict.fromkeys(metrics, math.nan)
    found: dict[Metric, float] = {}
    for metric in metrics:
        if metric == "roc_auc":
            found[metric] = _delong(scored)
        elif metric in ("neg_log_loss", "neg_brier_score", "accuracy"):
            found[metric] = float(gains(metric, scored).std(ddof=1)) / math.sqrt(rows)
    return {**found, **_bootstrap([metric for metric in metrics if metric not in found], scored, seed)}


def _delong(scored: Scored) -> float:
    """Root of S10/m + S01/n: variances of each positive's share of negatives below it, and the reverse."""
    positive = scored.labels == 1
    above, below = scored.probabilities[positive], scored.probabilities[~positive]
    m, n = len(above), len(below)
    if m < 2 or n < 2:
        return math.nan
    ranks = _midranks(np.concatenate([above, below]))
    share_below = (ranks[:m] - _midranks(above)) / n
    share_above = 1.0 - (ranks[m:] - _midranks(below)) / m
    return math.sqrt(float(share_below.var(ddof=1)) / m + float(share_above.var(ddof=1)) / n)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, the mean of them for equal values; shape (rows,)."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    until = np.cumsum(counts)
    middle: Floats = until - (counts - 1) / 2
    return middle[position]


def _bootstrap(metrics: Sequence[Metric], scored: Scored, seed: int) -> dict[Metric, float]:
    if not metrics:
        return {}
    random = np.random.default_rng(seed)
    rows = len(scored.labels)
    part = scored
    if rows > BOOTSTRAP_ROWS:
        part = chosen(scored, np.sort(random.choice(rows, BOOTSTRAP_ROWS, replace=False)))
    used = len(part.labels)
    of = {metric: weighted(metric, part) for metric in metrics}
    found: dict[Metric, list[Floats]] = {metric: [] for metric in metrics}
    size = max(1, _CHUNK // used)
    for start in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - start)
        drawn = random.integers(used, size=(count, used)) + np.arange(count)[:, None] * used
        weights = np.bincount(drawn.ravel(), minlength=count * used).reshape(count, used).astype(np.float64)
        for metric in metrics:
            found[metric].append(of[metric](weights))
    errors: dict[Metric, float] = {}
    for metric in metrics:
        values = np.concatenate(found[metric])
        known = values[~np.isnan(values)]
        errors[metric] = float(known.std(ddof=1)) * math.sqrt(used / rows) if len(known) > 1 else math.nan
    return errors


def chosen(scored: Scored, rows: npt.NDArray[Any]) -> Scored:
    """These rows of it, by positions or a mask."""
    return Scored(scored.labels[rows], scored.probabilities[rows], scored.cut_off)


def lower(before: Measured, now: Measured) -> float:
    """Probability of a value as low as now's where nothing became worse: one-sided, both samples' errors counted."""
    error = math.hypot(before.error, now.error)
    if not error > 0:  # NaN too: what has no error says nothing
        return 1.0
    return 0.5 * math.erfc((before.value - now.value) / error / math.sqrt(2))

"""The metrics that gates name, by scikit-learn's names, for many weightings of the same rows at once.

A bootstrap resample is a weighting by counts, so one sort of the scores serves all resamples; that is what makes the
comparison with the champion fast. Values equal scikit-learn's (a test compares them).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from truekeep.api.evaluation import Metric

Floats = npt.NDArray[np.float64]
METRICS: tuple[Metric, ...] = get_args(Metric)


class Scored(NamedTuple):
    """What one model says of some rows: labels 0 or 1, probabilities of 1, both of shape (rows,), and its cut-off."""

    labels: npt.NDArray[Any]
    probabilities: Floats
    cut_off: float


def value(metric: Metric, scored: Scored) -> float:
    """The metric, NaN where it is not defined (of one class only, for most)."""
    return float(weighted(metric, scored)(np.ones((1, len(scored.labels))))[0])


def weighted(metric: Metric, scored: Scored) -> Callable[[Floats], Floats]:
    """A function from weights, shape (weightings, rows), to the metric's values, shape (weightings,)."""
    if metric == "roc_auc":
        return _roc_auc(scored)
    if metric == "average_precision":
        return _average_precision(scored)
    if metric in ("neg_log_loss", "neg_brier_score"):
        return mean(gains(metric, scored))
    return _confusion(metric, scored)


class _Sorted:
    """Rows by descending score, rows of equal score brought together."""

    def __init__(self, scored: Scored) -> None:
        self.order = np.argsort(-scored.probabilities, kind="stable")
        scores = scored.probabilities[self.order]
        self.positive = (scored.labels[self.order] == 1).astype(np.float64)
        starts = np.flatnonzero(np.append(True, np.diff(scores) != 0)) if len(scores) else np.empty(0, np.int64)
        self.starts = starts if len(starts) < len(scores) else None

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of positives and of negatives at each distinct score, shape (weightings, scores)."""
        ordered = weights[:, self.order]
        positive = ordered * self.positive
        negative = ordered - positive
        if self.starts is not None:
            positive = np.add.reduceat(positive, self.starts, axis=1)
            negative = np.add.reduceat(negative, self.starts, axis=1)
        return positive, negative


def _roc_auc(scored: Scored) -> Callable[[Floats], Floats]:
    """Mann-Whitney: the share of (positive, negative) pairs in which the positive has the higher score, ties half."""
    rows = _Sorted(scored)

    def of(weights: Floats) -> Floats:
        positive, negative = rows.counts(weights)
        positives, negatives = positive.sum(axis=1), negative.sum(axis=1)
        above = np.cumsum(positive, axis=1)
        above -= positive / 2
        return _ratio(np.einsum("ij,ij->i", negative, above), positives * negatives, np.nan)

    return of


def _average_precision(scored: Scored) -> Callable[[Floats], Floats]:
    """Sum over distinct scores of (recall gained there) x (precision there)."""
    rows = _Sorted(scored)

    def of(weights: Floats) -> Floats:
        positive, negative = rows.counts(weights)
        true = np.cumsum(positive, axis=1)
        precision = _ratio(true, true + np.cumsum(negative, axis=1), 0.0)
        return _ratio(np.einsum("ij,ij->i", positive, precision), positive.sum(axis=1), np.nan)

    return of


def gains(metric: Metric, scored: Scored) -> Floats:
    """Each row's share in neg_log_loss, neg_brier_score or accuracy, which are means over rows. Shape (rows,)."""
    positive = scored.labels == 1
    if metric == "accuracy":
        return np.asarray((scored.probabilities >= scored.cut_off) == positive, dtype=np.float64)
    if metric == "neg_brier_score":
        return np.asarray(-((scored.probabilities - positive) ** 2))
    least = np.finfo(np.float64).eps
    likely = np.clip(np.where(positive, scored.probabilities, 1 - scored.probabilities), least, 1 - least)
    return np.asarray(np.log(likely))


def mean(gains: Floats) -> Callable[[Floats], Floats]:
    """The weighted mean of what each row gives, shape (rows,)."""
    return lambda weights: _ratio(weights @ gains, weights.sum(axis=1), np.nan)


def _confusion(metric: Metric, scored: Scored) -> Callable[[Floats], Floats]:
    """Metrics of the decision: probability >= cut-off."""
    positive = scored.labels == 1
    taken = scored.probabilities >= scored.cut_off
    cells = np.stack([positive & taken, ~positive & taken, positive & ~taken, ~positive & ~taken], axis=1)

    def of(weights: Floats) -> Floats:
        hit, false_alarm, miss, calm = (weights @ cells.astype(np.float64)).T
        if metric == "accuracy":
            return _ratio(hit + calm, hit + calm + false_alarm + miss, np.nan)
        if metric == "precision":
            return _ratio(hit, hit + false_alarm, 0.0)
        if metric == "recall":
            return _ratio(hit, hit + miss, 0.0)
        if metric == "f1":
            return _ratio(2 * hit, 2 * hit + false_alarm + miss, 0.0)
        return (_ratio(hit, hit + miss, np.nan) + _ratio(calm, calm + false_alarm, np.nan)) / 2

    return of


def _ratio(above: Floats, below: Floats, otherwise: float) -> Floats:
    result: Floats = np.divide(above, below, out=np.full(np.shape(below), otherwise), where=below != 0)
    return result

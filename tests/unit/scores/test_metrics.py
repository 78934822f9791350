"""Metrics equal scikit-learn's, also of weighted rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from truekeep.api.evaluation import Metric
from truekeep.scores.metrics import METRICS, Scored, value, weighted


def theirs(metric: Metric, scored: Scored, weights: Any = None) -> float:
    labels, scores = scored.labels, scored.probabilities
    taken = (scores >= scored.cut_off).astype(int)
    by_name = {
        "roc_auc": lambda: sk.roc_auc_score(labels, scores, sample_weight=weights),
        "average_precision": lambda: sk.average_precision_score(labels, scores, sample_weight=weights),
        "accuracy": lambda: sk.accuracy_score(labels, taken, sample_weight=weights),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(labels, taken, sample_weight=weights),
        "f1": lambda: sk.f1_score(labels, taken, sample_weight=weights, zero_division=0),
        "precision": lambda: sk.precision_score(labels, taken, sample_weight=weights, zero_division=0),
        "recall": lambda: sk.recall_score(labels, taken, sample_weight=weights, zero_division=0),
        "neg_log_loss": lambda: -sk.log_loss(labels, scores, sample_weight=weights, labels=[0, 1]),
        "neg_brier_score": lambda: -sk.brier_score_loss(labels, scores, sample_weight=weights),
    }
    return float(by_name[metric]())


def scored(seed: int, rows: int, ties: bool, cut_off: float = 0.5) -> Scored:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    scores = np.clip(random.normal(0.4 + 0.2 * labels, 0.3), 0, 1)
    return Scored(labels, np.round(scores, 1) if ties else scores, cut_off)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ties", [False, True])
def test_equal_to_scikit_learn(metric: Metric, ties: bool) -> None:
    for seed in range(20):
        one = scored(seed, 2 + seed * 7, ties, cut_off=0.1 * (seed % 11))
        if len(set(one.labels)) == 2:
            assert value(metric, one) == pytest.approx(theirs(metric, one), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ties", [False, True])
def test_many_weightings_at_once(metric: Metric, ties: bool) -> None:
    """Weights of zero included: rows that a resample does not have."""
    one = scored(3, 200, ties)
    weights = np.random.default_rng(4).poisson(1, (30, 200)).astype(float)
    expected = [theirs(metric, one, row) for row in weights]
    np.testing.assert_allclose(weighted(metric, one)(weights), expected, atol=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_of_one_class_ranking_is_not_defined(label: int) -> None:
    one = Scored(np.full(5, label), np.linspace(0, 1, 5), 0.5)
    assert math.isnan(value("roc_auc", one))
    assert math.isnan(value("balanced_accuracy", one))
    assert not math.isnan(value("accuracy", one))
    assert math.isnan(value("average_precision", one)) == (label == 0)


def test_of_no_rows_nothing_is_defined() -> None:
    none = Scored(np.empty(0, int), np.empty(0), 0.5)
    assert all(math.isnan(value(metric, none)) or value(metric, none) == 0 for metric in METRICS)


def test_the_extremes() -> None:
    right = Scored(np.array([0, 0, 1, 1]), np.array([0.0, 0.0, 1.0, 1.0]), 0.5)
    assert [value(metric, right) for metric in METRICS[:7]] == [1.0] * 7
    assert value("neg_log_loss", right) == pytest.approx(0, abs=1e-12)
    wrong = right._replace(probabilities=1 - right.probabilities)
    assert value("roc_auc", wrong) == 0
    assert value("neg_log_loss", wrong) < -30
    assert value("neg_brier_score", wrong) == -1


def test_a_row_at_the_cut_off_counts_as_positive() -> None:
    assert value("recall", Scored(np.array([1]), np.array([0.25]), 0.25)) == 1

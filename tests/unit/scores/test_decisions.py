"""The metrics of a team that acts on scores, against scikit-learn's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, roc_curve

from truekeep.api.evaluation import Costs
from truekeep.scores.decisions import calibration_error, cheapest_cut_off, expected_cost, precision_at, recall_at
from truekeep.scores.metrics import Scored

COSTS = Costs(false_positive="3", false_negative="50", true_positive="4", true_negative="-1")
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 30)), min_size=4, max_size=80).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def scored(rows: Any, cut_off: float = 0.5) -> Scored:
    labels = np.array([int(label) for label, _ in rows], dtype=np.int8)
    return Scored(labels, np.array([score / 30 for _, score in rows]), cut_off)


def random_scores(rows: int = 5000, seed: int = 3) -> Scored:
    random = np.random.default_rng(seed)
    probabilities = random.beta(0.4, 6, rows)
    return Scored((random.random(rows) < probabilities).astype(np.int8), probabilities, 0.2)


@given(ROWS, st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5, 1.0]))
def test_recall_is_that_of_the_roc_curve(rows: Any, rate: float) -> None:
    given_ = scored(rows)
    false, true, _ = roc_curve(given_.labels, given_.probabilities, drop_intermediate=False)
    assert recall_at(given_, rate) == pytest.approx(true[false <= rate].max(), abs=1e-12)


@given(ROWS, st.integers(1, 100))
def test_precision_is_that_of_the_rows_of_highest_score(rows: Any, k: int) -> None:
    """Whatever order rows of one score come in: the mean over orders."""
    given_ = scored(rows)
    taken = min(k, len(rows))
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        order = random.permutation(len(rows))
        best = order[np.argsort(-given_.probabilities[order], kind="stable")][:taken]
        found.append(given_.labels[best].mean())
    assert precision_at(given_, k) == pytest.approx(np.mean(found), abs=0.12)
    lowest = np.sort(given_.probabilities)[::-1][taken - 1]
    if (given_.probabilities >= lowest).sum() == taken:  # no tie at the edge
        assert precision_at(given_, k) == pytest.approx(found[0], abs=1e-12)


@given(ROWS, st.integers(0, 30))
def test_cost_is_the_confusion_matrix_times_the_prices(rows: Any, cut: int) -> None:
    given_ = scored(rows, cut / 30)
    (quiet, alarm), (miss, hit) = confusion_matrix(given_.labels, given_.probabilities >= given_.cut_off, labels=[0, 1])
    want = (quiet * -1 + alarm * 3 + miss * 50 + hit * 4) / len(rows)
    assert expected_cost(given_, COSTS) == pytest.approx(want)


@given(ROWS, st.sampled_from([("1", "10"), ("5", "1"), ("2.5", "0"), ("1", "1000")]))
def test_no_cut_off_is_cheaper_than_the_cheapest(rows: Any, prices: tuple[str, str]) -> None:
    costs = Costs(false_positive=prices[0], false_negative=prices[1])
    labels, probabilities, _ = scored(rows)
    best = cheapest_cut_off(labels, probabilities, costs)
    assert 0 <= best <= 1
    paid = expected_cost(Scored(labels, probabilities, best), costs)
    every = [expected_cost(Scored(labels, probabilities, cut), costs) for cut in np.unique(probabilities)]
    nobody = expected_cost(Scored(labels, probabilities, math.inf), costs)
    assert paid <= min(every) + 1e-12
    if probabilities.max() < 1:
        assert paid <= nobody + 1e-12


def test_costs_that_are_far_apart_move_the_cut_off_to_where_they_balance() -> None:
    """Of calibrated probabilities: price of an alarm over both prices together (Elkan, 2001)."""
    rows = random_scores(200_000)
    for missed, expected in (("4", 0.2), ("1", 0.5), ("19", 0.05)):
        found = cheapest_cut_off(rows.labels, rows.probabilities, Costs(false_positive="1", false_negative=missed))
        assert found == pytest.approx(expected, abs=0.06)


def test_calibration_error_is_that_of_the_calibration_curve() -> None:
    rows = random_scores()
    true, told = calibration_curve(rows.labels, rows.probabilities, n_bins=10, strategy="quantile")
    assert calibration_error(rows) == pytest.approx(np.abs(true - told).mean(), abs=1e-3)  # ten bins of 500 rows
    assert calibration_error(rows) < 0.02
    bold = Scored(rows.labels, np.sqrt(rows.probabilities), 0.5)
    assert calibration_error(bold) > 0.1


def test_no_rows_have_no_value() -> None:
    nothing = Scored(np.empty(0, np.int8), np.empty(0), 0.5)
    for value in (recall_at(nothing, 0.1), precision_at(nothing, 5), expected_cost(nothing, COSTS),
                  calibration_error(nothing)):  # fmt: skip
        assert math.isnan(value)
    ones = Scored(np.ones(3, np.int8), np.ones(3), 0.5)
    assert math.isnan(recall_at(ones, 0.1))

"""Standard errors are those that repeated samples show; DeLong's equals its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from truekeep.scores.intervals import Measured, lower, measured, standard_error, standard_errors
from truekeep.scores.metrics import METRICS, Scored, value


def draw(random: np.random.Generator, rows: int, shift: float = 1.0) -> Scored:
    labels = (random.random(rows) < 0.2).astype(int)
    scores = 1 / (1 + np.exp(-(random.normal(shift * labels, 1.0) - 1.8)))
    return Scored(labels, scores, 0.25)


def test_delong_is_its_definition() -> None:
    scored = draw(np.random.default_rng(1), 60)
    scored = Scored(scored.labels, np.round(scored.probabilities, 1), 0.5)  # ties
    x, y = scored.probabilities[scored.labels == 1], scored.probabilities[scored.labels == 0]
    psi = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    expected = math.sqrt(psi.mean(axis=1).var(ddof=1) / len(x) + psi.mean(axis=0).var(ddof=1) / len(y))
    assert standard_error("roc_auc", scored) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_standard_error_is_what_samples_show(metric: str) -> None:
    random = np.random.default_rng(2)
    samples = [draw(random, 1500) for _ in range(120)]
    shown = np.std([value(metric, scored) for scored in samples], ddof=1)  # type: ignore[arg-type]
    said = np.mean([standard_error(metric, scored) for scored in samples[:20]])  # type: ignore[arg-type]
    assert said == pytest.approx(shown, rel=0.25)


def test_errors_of_several_metrics_are_those_of_each() -> None:
    scored = draw(np.random.default_rng(5), 900)
    assert standard_errors(METRICS, scored) == {metric: standard_error(metric, scored) for metric in METRICS}


def test_intervals_stay_within_what_the_metric_can_be() -> None:
    labels = np.array([0, 1] * 20)
    almost = np.where(labels == 1, 0.9, 0.1)
    almost[0] = 0.95
    found = measured("roc_auc", Scored(labels, almost, 0.5))
    assert found.low < found.value < found.high == 1.0
    assert measured("neg_brier_score", Scored(labels, almost, 0.5)).high <= 0.0


@pytest.mark.parametrize("labels", [[], [1], [1, 1, 1], [0, 0, 1]])
def test_what_is_not_defined_is_nan_and_never_lower(labels: list[int]) -> None:
    found = measured("roc_auc", Scored(np.array(labels), np.linspace(0, 1, len(labels)), 0.5))
    assert math.isnan(found.error)
    assert lower(Measured(0.9, 0.01, 0.88, 0.92), found) == 1.0


def test_chance_is_not_lower_and_a_fall_is() -> None:
    random = np.random.default_rng(3)
    before = measured("roc_auc", draw(random, 5000))
    same = [lower(before, measured("roc_auc", draw(random, 5000))) for _ in range(40)]
    worse = [lower(before, measured("roc_auc", draw(random, 5000, shift=0.7))) for _ in range(10)]
    assert min(same) > 0.002
    assert max(worse) < 0.001


def test_many_rows_are_resampled_in_part_and_scaled() -> None:
    random = np.random.default_rng(4)
    part, whole = draw(random, 30_000), draw(random, 120_000)
    assert standard_error("f1", part) == pytest.approx(2 * standard_error("f1", whole), rel=0.25)

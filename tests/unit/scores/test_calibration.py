"""The estimate before labels: right where its assumption holds, with an honest interval, else blind."""

from __future__ import annotations

import numpy as np
import pytest

from truekeep.contract.artifact import Performance
from truekeep.scores import calibration
from truekeep.scores.metrics import METRICS, Scored, value
from truekeep.scores.results import results


def world(random: np.random.Generator, rows: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the probabilities of a model that is too bold; `shift` moves the inputs, not their meaning."""
    x = random.normal(shift, 1.0, rows)
    truth = 1 / (1 + np.exp(-(x - 1.5)))
    labels = (random.random(rows) < truth).astype(int)
    return labels, 1 / (1 + np.exp(-2.0 * (x - 1.2)))


def test_isotonic_is_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.isotonic")
    random = np.random.default_rng(0)
    values, weights = random.random(40) + np.arange(40) / 40, random.random(40) + 0.1
    expected = sklearn.IsotonicRegression().fit(np.arange(40), values, sample_weight=weights).predict(np.arange(40))
    assert calibration._isotonic(values, weights) == pytest.approx(expected, abs=1e-12)


def test_calibrated_probabilities_are_honest() -> None:
    random = np.random.default_rng(1)
    fitted = calibration.fit(*world(random, 10_000))
    assert fitted is not None
    labels, bold = world(random, 50_000)
    honest = calibration.apply(fitted, bold)
    assert abs(bold.mean() - labels.mean()) > 0.02
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 1.0)):
        inside = (honest >= low) & (honest < high)
        assert honest[inside].mean() == pytest.approx(labels[inside].mean(), abs=0.03)
    assert calibration.apply(fitted, np.array([0.0, 1.0])) == pytest.approx([0.0, 1.0])
    assert (np.diff(calibration.apply(fitted, np.linspace(0, 1, 999))) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_holds_what_labels_show_after_the_inputs_moved(metric: str) -> None:
    """Of 40 windows some 38 should be inside; the inputs moved by 0.6 sd, which changes every metric."""
    random = np.random.default_rng(2)
    fitted = calibration.fit(*world(random, 20_000))
    assert fitted is not None
    inside = 0
    for seed in range(40):
        labels, scores = world(random, 2000, shift=0.6)
        estimated = calibration.estimate(metric, fitted, scores, 0.4, seed)  # type: ignore[arg-type]
        found = value(metric, Scored(labels, scores, 0.4))  # type: ignore[arg-type]
        assert estimated.low <= estimated.value <= estimated.high
        inside += estimated.low <= found <= estimated.high
    assert inside >= 33


def test_it_is_blind_to_a_change_of_what_the_inputs_mean() -> None:
    random = np.random.default_rng(3)
    fitted = calibration.fit(*world(random, 20_000))
    assert fitted is not None
    labels, scores = world(random, 20_000)
    shuffled = random.permutation(labels)
    estimated = calibration.estimate("roc_auc", fitted, scores, 0.4)
    assert value("roc_auc", Scored(shuffled, scores, 0.4)) < 0.52
    assert estimated.low > 0.7


def test_the_same_input_gives_the_same_numbers_and_few_rows_no_map() -> None:
    labels, scores = world(np.random.default_rng(4), 30_000)
    first = results(Scored(labels, scores, 0.5))
    assert Performance.model_validate(first.dump()) == first == results(Scored(labels, scores, 0.5))
    assert first.calibration is not None
    assert len(first.calibration.maps) == calibration.MAPS
    assert {metric.name for metric in first.metrics} == set(METRICS)
    assert calibration.fit(labels[:150], scores[:150]) is None
    assert calibration.fit(np.zeros(500), scores[:500]) is None
    tied = calibration.fit(labels[:500], np.full(500, 0.3))
    assert tied is not None
    assert calibration.apply(tied, np.array([0.3])) == pytest.approx([labels[:500].mean()], abs=0.01)


def test_no_rows_have_no_estimate() -> None:
    fitted = calibration.fit(*world(np.random.default_rng(5), 1000))
    assert fitted is not None
    assert np.isnan(calibration.estimate("roc_auc", fitted, np.empty(0), 0.5).value)

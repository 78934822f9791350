"""What a team that acts on scores asks besides scikit-learn's names: how much is found at a price that it can pay.

`recall_at` is the largest recall of scikit-learn's `roc_curve` where its false-positive rate is at most so much;
`expected_cost` is the confusion matrix at the cut-off times the cost matrix, a row; `calibration_error` is the expected
calibration error over bins of equal size (Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian
Binning, 2015, with quantile bins, because fraud scores crowd near 0).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from truekeep.api.evaluation import Costs, Gate
from truekeep.scores.metrics import METRICS, Floats, Scored, value

BINS = 10


def gate_value(gate: Gate, scored: Scored, costs: Costs | None) -> float:
    """The gate's metric, NaN where it is not defined. ValueError where the gate lacks what its metric needs."""
    if gate.metric in METRICS:
        return value(gate.metric, scored)
    if gate.metric == "recall_at_false_positive_rate" and gate.at is not None:
        return recall_at(scored, float(gate.at))
    if gate.metric == "precision_at_k" and gate.k is not None:
        return precision_at(scored, gate.k)
    if gate.metric == "expected_cost" and costs is not None:
        return expected_cost(scored, costs)
    if gate.metric == "calibration_error":
        return calibration_error(scored)
    raise ValueError(f"gate {gate.name}: {gate.metric} lacks its setting (at, k, or evaluation.costs); add it")


def recall_at(scored: Scored, rate: float) -> float:
    """The largest share of positives that is found while at most the share `rate` of the negatives is taken; rows of
    equal probability are taken together."""
    positive, negative, _ = _by_score(scored)
    found, taken = np.cumsum(positive), np.cumsum(negative)
    if not (len(found) and found[-1] and taken[-1]):
        return float("nan")
    affordable = np.flatnonzero(taken / taken[-1] <= rate)
    return float(found[affordable[-1]] / found[-1]) if len(affordable) else 0.0


def precision_at(scored: Scored, k: int) -> float:
    """The share of positives among the k rows of highest probability (all rows, where there are fewer). Of rows that
    share the lowest probability among them, the share that is positive counts."""
    positive, negative, _ = _by_score(scored)
    total = positive + negative
    if not len(total):
        return float("nan")
    rows = min(k, int(total.sum()))
    before = np.cumsum(total) - total
    taken = np.clip(rows - before, 0, total)
    return float((positive * taken / total).sum() / rows)


def row_costs(scored: Scored, costs: Costs) -> Floats:
    """What the decision at the cut-off costs, shape (rows,)."""
    positive, taken = scored.labels == 1, scored.probabilities >= scored.cut_off
    found, missed = float(costs.true_positive), float(costs.false_negative)
    alarmed, quiet = float(costs.false_positive), float(costs.true_negative)
    return np.where(positive, np.where(taken, found, missed), np.where(taken, alarmed, quiet))


def expected_cost(scored: Scored, costs: Costs) -> float:
    """The mean cost of a decision at the cut-off, NaN without rows."""
    return float(row_costs(scored, costs).mean()) if len(scored.labels) else float("nan")


def calibration_error(scored: Scored, bins: int = BINS) -> float:
    """The mean distance of mean probability and share of positives over bins of equal size, by their rows."""
    probabilities = scored.probabilities
    if not len(probabilities):
        return float("nan")
    edges = np.percentile(probabilities, np.linspace(0, 100, bins + 1))
    which = np.searchsorted(edges[1:-1], probabilities)
    sums = np.bincount(which, weights=probabilities - (scored.labels == 1), minlength=bins)
    return float(np.abs(sums).sum() / len(probabilities))


def cheapest_cut_off(labels: npt.NDArray[np.int8], probabilities: Floats, costs: Costs) -> float:
    """The cut-off, one of the probabilities, from which on rows are taken at the least cost together; the highest of
    several. Above all of them, where taking nobody is cheaper than any of these."""
    positive, negative, scores = _by_score(Scored(labels, probabilities, 0.5))
    gain = float(costs.false_negative) - float(costs.true_positive)
    price = float(costs.false_positive) - float(costs.true_negative)
    saved = np.cumsum(positive) * gain - np.cumsum(negative) * price  # against taking nobody
    best = int(np.argmax(saved)) if len(saved) else -1
    highest = float(scores[0]) if len(scores) else 0.0
    if best >= 0 and (saved[best] > 0 or highest >= 1.0):  # nothing is above a probability of 1: somebody is taken
        return float(scores[best])
    return float(np.nextafter(highest, np.inf))


def _by_score(scored: Scored) -> tuple[Floats, Floats, Floats]:
    """Positives and negatives at each distinct probability, and these, the highest first."""
    scores, which = np.unique(scored.probabilities, return_inverse=True)
    positive = np.bincount(which, weights=scored.labels == 1, minlength=len(scores))[::-1]
    total = np.bincount(which, minlength=len(scores))[::-1]
    return np.asarray(positive, np.float64), np.asarray(total - positive, np.float64), scores[::-1]

"""What a metric probably is before labels come: confidence-based performance estimation (CBPE).

Probabilities are made honest by a map that was fitted on rows with labels which the model had not seen: isotonic
regression by pool-adjacent-violators (Ayer et al. 1955) on the means of equal shares of the rows, straight lines
between. Then a row counts as positive with its calibrated probability and as negative with the rest, and the metric of
these halves of rows is the estimate (NannyML's CBPE is the same idea; Kivimäki et al. 2024 say when it holds).

It sees what a change of the inputs does to a model whose calibration still holds. Where the relation of inputs and
label itself changed, it can't know; so it is always called an estimate, and its interval is one given that assumption.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.api.evaluation import Metric
from truekeep.contract.artifact import Calibration
from truekeep.scores.intervals import Measured, interval
from truekeep.scores.metrics import Floats, Scored, weighted

SHARES = 50  # equal shares of the rows that the map is fitted on
SHARE_ROWS = 50  # least rows of a share
MAPS = 25  # the map of all rows, and of resamples: how sure the map itself is
LEAST_ROWS = 200
SPREAD_ROWS = 20_000  # rows that the estimate's own error is measured on
DRAWS = 25


def fit(labels: npt.NDArray[Any], probabilities: Floats, seed: int = 0) -> Calibration | None:
    """The map of these rows, and of resamples of them. None with fewer than 200 rows, or where all are of one class.

    labels: 0 or 1, probabilities: of 1, of rows that the model was not fitted on; shape (rows,)."""
    rows = len(labels)
    positives = int((labels == 1).sum())
    if rows < LEAST_ROWS or positives in (0, rows):
        return None
    order = np.argsort(probabilities, kind="stable")
    known, truth = probabilities[order], (labels[order] == 1).astype(np.float64)
    shares = min(SHARES, rows // SHARE_ROWS)
    starts = np.unique(np.searchsorted(known, known[np.linspace(0, rows, shares, endpoint=False).astype(np.int64)]))
    at = np.add.reduceat(known, starts) / np.diff(starts, append=rows)
    random = np.random.default_rng(seed)
    maps = []
    for number in range(MAPS):
        weights = np.bincount(random.integers(rows, size=rows), minlength=rows) if number else np.ones(rows)
        seen = np.add.reduceat(weights.astype(np.float64), starts)
        hits = np.add.reduceat(weights * truth, starts)
        # Half a row of each kind, in the proportion of all, so that no share is sure of anything.
        base = positives / rows
        maps.append(_isotonic((hits + base) / (seen + 1), seen + 1))
    return Calibration(
        at=tuple(float(round(x, 9)) for x in at), maps=tuple(tuple(float(round(y, 9)) for y in one) for one in maps)
    )


def apply(calibration: Calibration, probabilities: Floats, which: int = 0) -> Floats:
    """Calibrated probabilities, shape (rows,); beyond the outermost shares in proportion to the odds there."""
    at, to = np.array(calibration.at), np.array(calibration.maps[which])
    inner = np.interp(probabilities, at, to)
    low, high = probabilities < at[0], probabilities > at[-1]
    inner[low] = to[0] * probabilities[low] / at[0]
    if high.any():
        inner[high] = 1 - (1 - to[-1]) * (1 - probabilities[high]) / (1 - at[-1])
    return np.asarray(np.clip(inner, 0.0, 1.0))


def estimate(
    metric: Metric, calibration: Calibration, probabilities: Floats, cut_off: float, seed: int = 0
) -> Measured:
    """The metric as it probably is on rows without labels, and the interval in which labels would show it.

    Its error is that of labels drawn from the calibrated probabilities and that of the map; what is outside of it is a
    change of the relation of inputs and label. The same input gives the same numbers."""
    rows = len(probabilities)
    if not rows:
        return Measured(math.nan, math.nan, math.nan, math.nan)
    found = float(_halves(metric, probabilities, cut_off)(apply(calibration, probabilities)[None, :])[0])
    random = np.random.default_rng(seed)
    part = probabilities
    if rows > SPREAD_ROWS:
        part = probabilities[np.sort(random.choice(rows, SPREAD_ROWS, replace=False))]
    of = _halves(metric, part, cut_off)
    others = np.stack([apply(calibration, part, which) for which in range(1, len(calibration.maps))])
    honest = apply(calibration, part)
    drawn = (random.random((DRAWS, len(part))) < honest).astype(np.float64)
    by_map, by_draw = of(others), of(drawn)
    sampling = float(np.nanstd(by_draw, ddof=1)) * math.sqrt(len(part) / rows)
    return interval(metric, found, math.hypot(float(np.nanstd(by_map, ddof=1)), sampling))


def _halves(metric: Metric, probabilities: Floats, cut_off: float) -> Any:
    """The metric of rows that are positive by so much each, as a function of shape (cases, rows) -> (cases,)."""
    rows = len(probabilities)
    labels = np.repeat(np.array([1, 0], dtype=np.int8), rows)
    of = weighted(metric, Scored(labels, np.concatenate([probabilities, probabilities]), cut_off))
    return lambda share: of(np.concatenate([share, 1 - share], axis=1))


def _isotonic(values: Floats, weights: Floats) -> Floats:
    """The non-decreasing sequence that is closest by weighted squares, shape (k,)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, heavy, length = blocks.pop()
            total = heavy + block[1]
            block = ((mean * heavy + block[0] * block[1]) / total, total, length + block[2])
        blocks.append(block)
    return np.repeat([mean for mean, _, _ in blocks], [length for _, _, length in blocks])

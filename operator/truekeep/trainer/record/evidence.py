"""What a run's report shows beyond its record: intervals, calibration, the decision's counts, importance of features.

Permutation importance (Breiman 2001; Fisher, Rudin and Dominici 2019): what the metric loses when one feature's values
change places among the rows that judged the model. It is bounded in rows and time, because nothing is decided by it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from truekeep.api.evaluation import Evaluation, Metric
from truekeep.contract.artifact import Performance, SignatureFeature
from truekeep.scores.intervals import NORMAL_95
from truekeep.scores.metrics import Floats, Scored, value
from truekeep.scores.results import results

GROUPS = 10
IMPORTANCE_ROWS = 5000
IMPORTANCE_ROUNDS = 3  # shuffles of each feature
IMPORTANCE_SECONDS = (0.25, 3.0)  # least and most; between them a share of what fitting took
IMPORTANCE_SHARE = 0.01
STACKED_CELLS = 4_000_000  # of shuffled copies that are scored at once


class Judged(NamedTuple):
    """The model that was judged, and the rows that judged it."""

    scored: Scored
    features: Sequence[SignatureFeature]
    matrix: Floats  # shape (rows, features)
    predict: Callable[[Floats], Floats]  # shape (rows, features) -> (rows,)


class Group(NamedTuple):
    """Rows of similar probability: their mean, the share that is positive, and its 95 % interval (Wilson 1927)."""

    rows: int
    predicted: float
    seen: float
    low: float
    high: float


class Loss(NamedTuple):
    """What the metric loses without a feature: the mean over the shuffles, and how far these were apart."""

    name: str
    mean: float
    spread: float  # standard deviation over the shuffles; NaN of one


class Importance(NamedTuple):
    """The most important feature first. `unmeasured`: for which there was no time."""

    metric: Metric
    rows: int
    whole: float  # the metric on these rows
    losses: tuple[Loss, ...]
    unmeasured: tuple[str, ...]


class Decided(NamedTuple):
    """Rows by truth and by the decision at the cut-off."""

    found: int
    missed: int
    alarmed: int
    quiet: int


class Evidence(NamedTuple):
    """All of it."""

    features: Sequence[SignatureFeature]
    performance: Performance
    groups: tuple[Group, ...]
    decided: Decided
    importance: Importance


def gather(
    judged: Judged, evaluation: Evaluation, known: Performance | None = None, fit_seconds: float | None = None
) -> Evidence:
    """`known`: the holdout's results where they were made already. `fit_seconds`: None of what was fitted elsewhere."""
    least, most = IMPORTANCE_SECONDS
    seconds = min(most, max(least, IMPORTANCE_SHARE * fit_seconds)) if fit_seconds else most
    metric = next((gate.metric for gate in evaluation.gates if gate.metric in get_args(Metric)), "roc_auc")
    return Evidence(
        judged.features,
        known or results(judged.scored),
        groups(judged.scored),
        decided(judged.scored),
        importance(judged, metric, seconds=seconds),  # type: ignore[arg-type]
    )


def groups(scored: Scored, most: int = GROUPS) -> tuple[Group, ...]:
    """Groups of about equal size by probability, the lowest first; rows of equal probability stay together."""
    probabilities = scored.probabilities
    if not len(probabilities):
        return ()
    inner = np.percentile(probabilities, np.linspace(0, 100, most + 1))[1:-1]
    which = np.searchsorted(inner, probabilities)
    found = []
    for number in np.unique(which):
        part = which == number
        rows, hits = int(part.sum()), int((scored.labels[part] == 1).sum())
        low, high = wilson(hits, rows)
        found.append(Group(rows, float(probabilities[part].mean()), hits / rows, low, high))
    return tuple(found)


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """95 % interval of a share."""
    share, square = hits / rows, NORMAL_95**2
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / rows + square / (4 * rows**2)) / (1 + square / rows)
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))  # rounding aside


def decided(scored: Scored) -> Decided:
    """A row is taken where its probability is at least the cut-off."""
    positive, taken = scored.labels == 1, scored.probabilities >= scored.cut_off
    cells = (positive & taken, positive & ~taken, ~positive & taken, ~positive & ~taken)
    return Decided(*(int(cell.sum()) for cell in cells))


def importance(
    judged: Judged,
    metric: Metric,
    *,
    seconds: float = IMPORTANCE_SECONDS[1],
    clock: Callable[[], float] = time.monotonic,
    most: int = IMPORTANCE_ROWS,
) -> Importance:
    """By rounds over all features, until the time is up; rows are taken evenly spread. The same rows are shuffled the
    same way each time."""
    rows = np.unique(np.linspace(0, len(judged.matrix) - 1, min(len(judged.matrix), most)).astype(np.int64))
    part = judged.matrix[rows]
    scored = judged.scored._replace(labels=judged.scored.labels[rows], probabilities=judged.scored.probabilities[rows])
    whole = value(metric, scored)
    random = np.random.default_rng(0)
    drops: list[list[float]] = [[] for _ in judged.features]
    until = clock() + seconds
    at_once = 1  # features; more and more, because a call costs something, and what it costs is not known before
    for _ in range(IMPORTANCE_ROUNDS):
        order = random.permutation(len(rows))
        place = 0
        while place < len(drops) and clock() < until:
            places = range(place, min(place + at_once, len(drops)))
            for one, probabilities in zip(places, _without(judged, part, order, places), strict=True):
                drops[one].append(whole - value(metric, scored._replace(probabilities=probabilities)))
            place = places.stop
            at_once = max(1, min(2 * at_once, STACKED_CELLS // max(1, part.size)))
    losses = [
        Loss(feature.name, float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else math.nan)
        for feature, found in zip(judged.features, drops, strict=True)
        if found
    ]
    return Importance(
        metric,
        len(rows),
        whole,
        tuple(sorted(losses, key=lambda one: (-one.mean if not math.isnan(one.mean) else math.inf, one.name))),
        tuple(feature.name for feature, found in zip(judged.features, drops, strict=True) if not found),
    )


def _without(judged: Judged, part: Floats, order: npt.NDArray[np.int64], places: range) -> Floats:
    """Probabilities of the rows with one feature's values in another order, for each of `places`; shape (places, rows).
    All are asked for at once."""
    stacked = np.tile(part, (len(places), 1)).reshape(len(places), *part.shape)
    for number, place in enumerate(places):
        stacked[number, :, place] = part[order, place]
    return judged.predict(stacked.reshape(-1, part.shape[1])).reshape(len(places), len(part))

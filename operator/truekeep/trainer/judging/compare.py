"""Challenger against champion: the same rows, new to both, and a paired bootstrap of the difference.

Rows are resampled in pairs (both models' scores of a row together), so that what makes a row hard for both cancels out;
the interval is the percentile interval (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from truekeep.api.evaluation import ChampionMetric, ChampionRule, Costs
from truekeep.api.trainingrun import ChampionResult
from truekeep.scores.decisions import row_costs
from truekeep.scores.metrics import Floats, Scored, mean, weighted
from truekeep.trainer.faults import ParametersInvalid
from truekeep.trainer.text import counted, decimal

RESAMPLES = 400
LEAST_RESAMPLES = 200
MANY_ROWS = 50_000  # beyond that the interval is narrow, and fewer resamples are enough
LEAST_ROWS = 200
CONFIDENCE = 0.95
_CHUNK = 1_000_000  # weights that are held at a time


@dataclass(frozen=True)
class Interval:
    """The difference challenger - champion, and the ends of its 95 % interval."""

    difference: float
    low: float
    high: float


def bootstrap(
    metric: ChampionMetric, challenger: Scored, champion: Scored, seed: int, costs: Costs | None = None
) -> Interval:
    """Percentile interval of the difference over resamples of pairs. The same input gives the same numbers.

    Resamples in which the metric is not defined (one class only) are left out."""
    rows = len(challenger.labels)
    resamples = RESAMPLES if rows <= MANY_ROWS else max(LEAST_RESAMPLES, RESAMPLES * MANY_ROWS // rows)
    first, second = _weigher(metric, challenger, costs), _weigher(metric, champion, costs)
    random = np.random.default_rng(seed)
    differences: list[Floats] = []
    size = max(1, _CHUNK // rows)
    for start in range(0, resamples, size):
        weights = _counts(random, min(size, resamples - start), rows)
        differences.append(first(weights) - second(weights))
    known = np.concatenate(differences)
    known = known[~np.isnan(known)]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(known, [tail, 100 - tail]) if len(known) else (math.nan, math.nan)
    alone = np.ones((1, rows))
    return Interval(float((first(alone) - second(alone))[0]), float(low), float(high))


def _weigher(metric: ChampionMetric, scored: Scored, costs: Costs | None) -> Callable[[Floats], Floats]:
    """From weights, shape (weightings, rows), to the metric's values. ParametersInvalid where costs are not known."""
    if metric != "neg_expected_cost":
        return weighted(metric, scored)
    if costs is None:
        raise ParametersInvalid("evaluation.champion.metric neg_expected_cost needs evaluation.costs; add it")
    return mean(-row_costs(scored, costs))


def _counts(random: np.random.Generator, resamples: int, rows: int) -> Floats:
    """How often each row occurs in each resample, shape (resamples, rows)."""
    drawn = random.integers(rows, size=(resamples, rows)) + np.arange(resamples)[:, None] * rows
    return np.bincount(drawn.ravel(), minlength=resamples * rows).reshape(resamples, rows).astype(np.float64)


def judge(
    rule: ChampionRule, revision: int, challenger: Scored, champion: Scored, seed: int, costs: Costs | None = None
) -> ChampionResult:
    """The verdict by the declared rule; NotJudged where the rows are too few or of one class."""
    rows = len(challenger.labels)
    positives = int((challenger.labels == 1).sum())
    if rows < LEAST_ROWS or positives in (0, rows):
        few = f"{counted(rows, 'row')} new to both, fewer than {LEAST_ROWS}"
        return not_judged(rule, revision, few if rows < LEAST_ROWS else f"all {rows:,} rows are of one class", rows)
    interval = bootstrap(rule.metric, challenger, champion, seed, costs)
    if math.isnan(interval.low):
        return not_judged(rule, revision, f"{rule.metric} is not defined on resamples of {rows:,} rows", rows)
    passes, words = _verdict(rule, interval)
    return ChampionResult(
        revision=revision,
        metric=rule.metric,
        challenger=decimal(_value(rule.metric, challenger, costs)),
        champion=decimal(_value(rule.metric, champion, costs)),
        low=decimal(interval.low),
        high=decimal(interval.high),
        rows=rows,
        result="Passed" if passes else "Failed",
        rule=words,
    )


def _value(metric: ChampionMetric, scored: Scored, costs: Costs | None) -> float:
    return float(_weigher(metric, scored, costs)(np.ones((1, len(scored.labels))))[0])


def not_judged(rule: ChampionRule, revision: int, why: str, rows: int = 0) -> ChampionResult:
    """No verdict: the gates decide alone."""
    unknown = decimal(math.nan)
    return ChampionResult(
        **{"revision": revision, "metric": rule.metric, "rows": rows, "result": "NotJudged"},
        **{"challenger": unknown, "champion": unknown, "low": unknown, "high": unknown},
        rule=f"{rule.rule} was not judged, the gates decide alone: {why}"[:512],
    )


def _verdict(rule: ChampionRule, interval: Interval) -> tuple[bool, str]:
    """Whether the challenger passes, and the rule in words.

    NotWorse asks for evidence against the challenger: the whole interval lies below -tolerance. Better asks for
    evidence for it: the whole interval lies above 0."""
    if rule.rule == "Better":
        return interval.low > 0, "Better: the 95 % interval of the difference must lie above 0"
    words = f"NotWorse: the 95 % interval of the difference must not lie below -{rule.tolerance}"
    return interval.high >= -float(rule.tolerance), words

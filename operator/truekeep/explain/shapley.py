"""Shapley values of a model's answer for one row against background rows.

The game (Lundberg and Lee 2017, "interventional"): a coalition S of features has the worth v(S), the mean over the
background rows z of f(x with S's features, z with the others). A feature's value is its Shapley value (1953) in it, so
that the values add up to f(x) minus the mean of f over the background.

Shapes: `row` (features,), `background` (rows, features), float64; a model takes (n, features) and answers (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Model: TypeAlias = Callable[[Floats], Floats]

AT_ONCE = 8192  # rows that a model is asked at once
ADDITIVE = 1e-9  # largest difference, in log-odds, at which a model counts as a sum over its features


class Values(NamedTuple):
    """What each feature added, shape (features,), to the background's mean; both in the model's unit.

    `errors`: standard errors of `values` where they were sampled, else None."""

    base: float
    values: Floats
    errors: Floats | None = None


def log_odds(probability: Floats) -> Floats:
    """ln(p / (1 - p)); infinite at 0 and 1."""
    with np.errstate(divide="ignore"):
        odds: Floats = np.log(probability) - np.log1p(-probability)
    return odds


def asked(model: Model, rows: Floats) -> Floats:
    """The model's answers, a few thousand rows at a time."""
    parts = [model(np.ascontiguousarray(rows[start : start + AT_ONCE])) for start in range(0, len(rows), AT_ONCE)]
    return np.concatenate(parts)


def additive(model: Model, row: Floats, background: Floats) -> Values | None:
    """Exact values of a model that is a sum over its features, as a linear model is in log-odds: coefficient times
    (value minus the background's mean). None where the answers contradict that it is one.

    Each feature is taken from the row into the background, and from the background into the row; in a sum, both differ
    from where they came from by the same."""
    features = len(row)
    known = asked(model, np.concatenate([background, row[None]]))
    there, here = known[:-1], known[-1]
    if not np.isfinite(known).all():
        return None
    into, out = np.empty(features), np.empty(features)
    for feature in range(features):
        taken, left = background.copy(), np.tile(row, (len(background), 1))
        taken[:, feature], left[:, feature] = row[feature], background[:, feature]
        forth, back = asked(model, taken) - there, here - asked(model, left)
        if not (np.isfinite(forth).all() and np.isfinite(back).all()):
            return None
        if np.abs(forth - back).max() > ADDITIVE * max(1.0, np.abs(forth).max()):
            return None
        into[feature], out[feature] = forth.mean(), back.mean()
    base = float(there.mean())
    values = (into + out) / 2
    if abs(values.sum() - (here - base)) > ADDITIVE * features * max(1.0, np.abs(values).max()):
        return None
    return Values(base, values)


def exact(model: Model, row: Floats, background: Floats) -> Values:
    """All 2^features coalitions: 2^features times background rows are asked."""
    features = len(row)
    worths = np.empty(1 << features)
    each = max(1, AT_ONCE // len(background))
    bits = np.arange(features)
    for start in range(0, len(worths), each):
        coalitions = np.arange(start, min(start + each, len(worths)))
        inside = (coalitions[:, None] >> bits & 1).astype(bool)
        mixed = np.where(inside[:, None, :], row, background)
        answers = model(np.ascontiguousarray(mixed.reshape(-1, features)))
        worths[coalitions] = answers.reshape(len(coalitions), -1).mean(axis=1)
    sizes = np.array([number.bit_count() for number in range(len(worths))])
    weights = np.array([1 / (features * math.comb(features - 1, size)) for size in range(features)])
    values = np.empty(features)
    every: npt.NDArray[np.int64] = np.arange(len(worths))
    for feature in range(features):
        without = every[(every >> feature & 1) == 0]
        values[feature] = (weights[sizes[without]] * (worths[without | 1 << feature] - worths[without])).sum()
    return Values(float(worths[0]), values)


def sampled(model: Model, row: Floats, background: Floats, *, budget: int, seed: int = 0) -> Values:
    """By random orders of the features, each with its reverse (Mitchell et al. 2022, antithetic), and all background
    rows in each; at least two pairs, and then as many as ask at most `budget` rows. The values add up exactly, whatever
    the number of orders; their standard errors come from how far the pairs are apart."""
    features = len(row)
    chain = 2 * (features + 1) * len(background)
    pairs = max(2, budget // chain)
    random = np.random.default_rng(seed)
    gains = np.zeros((pairs, features))
    base = 0.0
    for pair in range(pairs):
        order = random.permutation(features)
        for way in (order, order[::-1]):
            steps = np.tile(background, (features + 1, 1, 1))
            for place, feature in enumerate(way):
                steps[place + 1 :, :, feature] = row[feature]
            worths = asked(model, steps.reshape(-1, features)).reshape(features + 1, -1).mean(axis=1)
            base = float(worths[0])
            gains[pair, way] += np.diff(worths) / 2
    return Values(base, gains.mean(axis=0), gains.std(axis=0, ddof=1) / math.sqrt(pairs))


def coalition_weights(most: int) -> tuple[Floats, Floats]:
    """For a path that asks `a` features of the row and `b` of the background: what its end adds to each of the first
    and takes from each of the second; shape (most + 1, most + 1), by a and b. (a-1)! b! / (a+b)! and a! (b-1)! / (a+b)!
    """
    gained, lost = np.zeros((most + 1, most + 1)), np.zeros((most + 1, most + 1))
    for a in range(most + 1):
        for b in range(most + 1 - a):
            if a:
                gained[a, b] = 1 / (a * math.comb(a + b, a))
            if b:
                lost[a, b] = 1 / (b * math.comb(a + b, b))
    return gained, lost

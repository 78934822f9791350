"""Hints that a feature knows the label: it alone ranks the rows almost as the label does.

A feature is judged by itself, on at most 10,000 rows of each class, spread evenly: the ROC AUC is the same whatever the
share of positives is. Two rankings are tried, and the better one counts. By the value itself, in either direction,
missing values first or last: finds what orders the rows. By the share of positives in the row's cell (a category, one
of 256 spans of a number, or no value), learned on every other row and judged on the rest: finds what tells the label in
no order, such as a field that is filled in only afterwards, and learns no identifier by heart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.api.data import Data
from truekeep.api.rules import Rule
from truekeep.scores.metrics import Floats
from truekeep.sources.columns import NO_TIME, Kind, Values, Want, codes, select
from truekeep.trainer.data.violations import Mask, Rows, Unjudged, Violation, broken
from truekeep.trainer.text import against, counted

MOST_ROWS = 10_000  # of each class
FEWEST_ROWS = 50  # likewise
CELLS = 256

Integers = npt.NDArray[np.int64]


def judge(rows: Rows, data: Data, rule: Rule, names: Sequence[str]) -> Iterator[Violation | Unjudged]:
    """What these features alone tell of the label."""
    if rule.leakage is None:
        return
    limit = float(rule.leakage.max_auc)
    if limit >= 1 or not names:
        return  # no AUC is greater
    chosen = sample(rows)
    labels = rows.labels[chosen]
    fewest = int(min((labels == 0).sum(), (labels == 1).sum()))
    if fewest < FEWEST_ROWS:
        yield Unjudged(rule.name, f"the rarer label has {counted(fewest, 'row')}, it takes {FEWEST_ROWS}")
        return
    kinds: dict[str, Kind] = {feature.name: feature.type for feature in data.features}
    for name in names:
        want = Want(name, kinds[name])
        if want not in rows.columns:
            continue  # missing, and told so already
        values = select(rows.columns[want], chosen)
        found = auc(values, labels)
        if found > limit:
            text = f"this feature alone tells {data.label.column} with a ROC AUC of {against(found, limit, upper=True)}"
            how = f", more than maxAuc {rule.leakage.max_auc}"
            if _single(values, labels):
                how += ": it has one value where the label is 0, and another where it is 1"
            remedy = "a value that is known only after the outcome is no feature; see when it is written, or remove it"
            yield broken(rule, name, text + how, f"{remedy} (maxAuc 1 takes it at its word)", count=len(chosen))


def sample(rows: Rows) -> Integers:
    """Positions of rows that can train, at most 10,000 of each class, in order."""
    used = np.flatnonzero(rows.used)
    parts = []
    for label in (0, 1):
        mine = used[rows.labels[used] == label]
        parts.append(mine[np.unique(np.linspace(0, len(mine) - 1, min(len(mine), MOST_ROWS)).astype(np.int64))])
    return np.sort(np.concatenate(parts))


def auc(values: Values, labels: npt.NDArray[Any]) -> float:
    """The ROC AUC that a column reaches alone, 0 to 1. Both of shape (rows,)."""
    positive = labels == 1
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "i":  # times
            values = np.where(values == NO_TIME, np.nan, values)
        return max(*(_directed(ranks, positive) for ranks in _ranks(values)), _learned(_spans(values), positive))
    cells, _ = codes(values)
    return _learned(cells + 1, positive)


def _directed(ranks: Integers, positive: Mask) -> float:
    count = int(ranks.max(initial=0)) + 1
    found = _by_rank(np.bincount(ranks[positive], minlength=count), np.bincount(ranks, minlength=count))
    return max(found, 1 - found)


def _by_rank(positives: Integers, rows: Integers) -> float:
    """Mann-Whitney, from counts by rank: the share of pairs in which the positive has the higher one, ties half."""
    negatives = rows - positives
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / (positives.sum() * negatives.sum()))


def _ranks(values: Floats) -> list[Integers]:
    """The order of the values, missing ones last, and first where there are any."""
    _, ranks = np.unique(values, return_inverse=True)  # NaN sorts last, and is one
    missing = np.isnan(values)
    return [ranks, np.where(missing, 0, ranks + 1)] if missing.any() else [ranks]


def _spans(values: Floats) -> Integers:
    """One of 256 spans with about as many rows each; 0 where there is no value."""
    missing = np.isnan(values)
    ordered = np.sort(values)[: len(values) - int(missing.sum())]
    places = (np.arange(1, CELLS) * len(ordered)) // CELLS
    edges = np.unique(ordered[places]) if len(ordered) else np.empty(0)
    return np.where(missing, 0, np.searchsorted(edges, values, side="left") + 1)


def _learned(cells: Integers, positive: Mask) -> float:
    """Rows are ranked by the share of positives that the other half of the rows has in their cell."""
    count = int(cells.max(initial=0)) + 1
    half = _halves(positive)
    reached = []
    for mine in (half, ~half):
        learned = ~mine
        rows = np.bincount(cells[learned], minlength=count)
        positives = np.bincount(cells[learned & positive], minlength=count)
        prior = positives.sum() / rows.sum()
        share = (positives + prior) / (rows + 1)  # where the other half has no row, its share of all
        shares, rank = np.unique(share, return_inverse=True)
        ranks = rank[cells]
        reached.append(
            _by_rank(
                np.bincount(ranks[mine & positive], minlength=len(shares)),
                np.bincount(ranks[mine], minlength=len(shares)),
            )
        )
    return float(np.mean(reached))


def _halves(positive: Mask) -> Mask:
    """Every other row of each label."""
    half = np.zeros(len(positive), dtype=np.bool_)
    for label in (positive, ~positive):
        half[np.flatnonzero(label)[::2]] = True
    return half


def _single(values: Values, labels: npt.NDArray[Any]) -> bool:
    """Whether all rows of a label have the same value, a missing one included."""
    cells = np.unique(values, return_inverse=True)[1] if isinstance(values, np.ndarray) else codes(values)[0]
    return all(len(np.unique(cells[labels == label])) == 1 for label in (0, 1))

"""Silent decay on the flights of 2013: which window labels found, which the estimate, and how late each was.

`python -m tests.bench.drift.decay [--hours 168] [--json FILE]`. A gradient-boosted model is trained on January and
February, judged on their last fifth, and watched from March on by the monitor's own code. Labels are ripe a day after a
window's end. The onset is the first window from which on, with all labels, two in a row lie lower by `maxDrop` or more
than what the holdout showed; a window is found when its own verdict is `Decayed`. Late: windows from the onset's to the
one that was found, and days from the onset's end until it was known (an estimate is known at a window's end).
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from threadpoolctl import threadpool_limits

from tests.unit.monitor import flights
from truekeep.api.driftpolicy import PerformancePolicy
from truekeep.api.evaluation import Metric
from truekeep.contract.artifact import Performance
from truekeep.features.encode import matrix
from truekeep.monitor.performance import Case, Ripe, judge
from truekeep.monitor.predictions import Predicted
from truekeep.scores.metrics import Scored
from truekeep.scores.results import results
from truekeep.sources.columns import NO_LABEL
from truekeep.trainer.recipe.bundle import signature_features

LATE_MINUTES = 30
LEAST_ROWS = 2000
DELAY = timedelta(days=1)
DROPS: dict[Metric, str] = {
    "roc_auc": "0.03",
    "average_precision": "0.05",
    "accuracy": "0.02",
    "neg_brier_score": "0.01",
    "neg_log_loss": "0.03",
}


@dataclass
class Watched:
    """One metric over the year."""

    metric: str
    max_drop: str
    baseline: float
    starts: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    estimate: list[float] = field(default_factory=list)
    by_labels: list[bool] = field(default_factory=list)
    by_estimate: list[bool] = field(default_factory=list)

    def onset(self) -> int | None:
        """The first of two windows in a row that are lower by `max_drop` or more."""
        low = [self.baseline - value >= float(self.max_drop) for value in self.value]
        return next((i for i in range(len(low) - 1) if low[i] and low[i + 1]), None)

    def found(self, flags: list[bool]) -> int | None:
        """The first window from the onset on that was found."""
        onset = self.onset()
        return None if onset is None else next((i for i in range(onset, len(flags)) if flags[i]), None)

    def false(self, flags: list[bool]) -> int:
        """Windows that were called decayed and were not lower by `max_drop`."""
        return sum(
            flag and self.baseline - value < float(self.max_drop) for flag, value in zip(flags, self.value, strict=True)
        )


def model() -> tuple[pd.DataFrame, Performance, float]:
    """The flights with a label and their probabilities, what the holdout showed, and the cut-off."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    table = flights.table()
    table = table.assign(
        late=np.where(table.arr_delay.isna(), NO_LABEL, table.arr_delay > LATE_MINUTES).astype(np.int8)
    )
    training = table[(table.scheduled_at < "2013-03-01") & (table.late != NO_LABEL)]
    at = int(0.8 * len(training))
    known = features(training[:at])

    def encoded(rows: pd.DataFrame) -> Any:
        return matrix(_columns(rows), known)

    fitted = HistGradientBoostingClassifier(
        max_iter=120, random_state=7, categorical_features=[one.type == "Category" for one in known]
    )
    with threadpool_limits(1):  # on a busy machine two threads wait for each other
        fitted.fit(encoded(training[:at]), training.late[:at])
    scores = fitted.predict_proba(encoded(training[at:]))[:, 1]
    shown = results(Scored(training.late[at:].to_numpy(), scores, 0.5))
    later = table[table.scheduled_at >= "2013-03-04"]
    return later.assign(probability=fitted.predict_proba(encoded(later))[:, 1]), shown, 0.5


def features(rows: pd.DataFrame) -> Any:
    """The features of the flight-delay example that the table has, with the categories of these rows."""
    from truekeep.api.data import Feature

    declared = [Feature(name=one.name, type=one.type) for one in flights.FEATURES]
    return signature_features(declared, _columns(rows))


def _columns(rows: pd.DataFrame) -> dict[str, Any]:
    found = flights.columns(rows)
    return {name: pa.array(found[name], pa.string()) if name in flights.CATEGORIES else found[name] for name in found}


def watch(hours: int, metrics: dict[Metric, str]) -> list[Watched]:
    """Every window from March on, by every metric."""
    table, shown, _ = model()
    weeks = hours // 168
    windows = [rows for _, rows in table.groupby(table.week // weeks) if len(rows) >= LEAST_ROWS]  # the year ends early
    start = flights.MONDAY.to_pydatetime()
    watched = []
    for metric, drop in metrics.items():
        policy = PerformancePolicy(metric=metric, max_drop=drop)
        baseline = next(one.value for one in shown.metrics if one.name == metric)
        one = Watched(metric, drop, baseline)
        for rows in windows:
            begin = start + timedelta(hours=hours) * int(rows.week.iloc[0] // weeks)
            case = Case(
                begin, begin + timedelta(hours=hours), 1, "bench", "sha256:" + "0" * 64, policy, shown, 0.01, LEAST_ROWS
            )
            keys: Any = pa.array([str(key) for key in rows.index])
            predicted = Predicted(keys, rows.probability.to_numpy(), {}, seen=len(rows))
            ripe = Ripe(rows.late.to_numpy(), "", int(DELAY.total_seconds()))
            stored = judge(case, predicted, ripe, datetime.now(UTC))
            assert stored.measured is not None and stored.estimated is not None, stored.why_not  # noqa: PT018
            one.starts.append(f"{begin:%Y-%m-%d}")
            one.rows.append(len(rows))
            one.value.append(stored.measured.value)
            one.estimate.append(stored.estimated.value)
            one.by_labels.append(stored.verdict.verdict == "Decayed")
            one.by_estimate.append(stored.verdict.estimated == "Decayed")
        watched.append(one)
    return watched


def told(watched: list[Watched], hours: int) -> str:
    """As a table."""
    lines = [
        f"windows of {hours} hours, {len(watched[0].starts)} of them from {watched[0].starts[0]}",
        f"{'metric':<18} {'gates':>7} {'maxDrop':>7} {'onset':<11} {'by labels':<25} {'by estimate':<25} false",
    ]
    for one in watched:
        onset = one.onset()
        line = f"{one.metric:<18} {one.baseline:>7.4f} {one.max_drop:>7} "
        line += f"{one.starts[onset] if onset is not None else '–':<11} "
        for flags, wait in ((one.by_labels, DELAY), (one.by_estimate, timedelta(0))):
            line += f"{lateness(one, flags, wait, hours):<25} "
        lines.append(f"{line}{one.false(one.by_labels)} / {one.false(one.by_estimate)}")
    return "\n".join(lines)


def lateness(one: Watched, flags: list[bool], wait: timedelta, hours: int) -> str:
    """When it was found, and how late that was."""
    onset, found = one.onset(), one.found(flags)
    if onset is None:
        return "no decay"
    if found is None:
        return "not found"
    days = ((found - onset) * timedelta(hours=hours) + wait) / timedelta(days=1)
    return f"{one.starts[found]}, late {found - onset} ({days:g} d)"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, action="append", help="length of a window, a multiple of 168")
    parser.add_argument("--json", type=Path, help="file for every window's figures")
    arguments = parser.parse_args()
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for hours in arguments.hours or [168, 672]:
            found[hours] = watch(hours, DROPS)
            print(told(found[hours], hours), end="\n\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({hours: [asdict(one) for one in rows] for hours, rows in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

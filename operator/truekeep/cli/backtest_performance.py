"""Performance in a backtest: the recorded predictions against their labels, window after window, judged by the
monitor's own code.

What a model that was retrained on the way would have predicted is not recorded. After a run the recorded predictions
are held against what they themselves showed in the windows that asked for it (as many as must breach in a row): so a
loss counts once, and then only a further one.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from truekeep.api.driftpolicy import DriftPolicySpec, PerformancePolicy, PerformanceVerdict
from truekeep.cli.history import History
from truekeep.cli.laptop import InputError
from truekeep.contract.artifact import Performance
from truekeep.monitor.performance import Case, Ripe, decided, judge
from truekeep.monitor.predictions import Predicted
from truekeep.monitor.report import StoredPerformance
from truekeep.monitor.windows import HOUR, Cut, moment
from truekeep.scores.metrics import Scored
from truekeep.scores.results import results
from truekeep.sources.columns import NO_LABEL, convert

CUT_OFF = 0.5  # where nobody gives the model's own
DAY_MS = 86_400_000
NO_DIGEST = "sha256:" + 64 * "0"
LEAST_ROWS = 50


class Performances:
    """Labels and predictions of a history by their time, and what the policy makes of them."""

    def __init__(
        self, history: History, spec: DriftPolicySpec, settings: PerformancePolicy, columns: tuple[str, str],
        first: Performance | None, begin: int, days: int, delay: int,
    ) -> None:  # fmt: skip
        """`columns`: of the labels and of the probabilities. `first`: the baseline; None: made of the rows of so many
        days before `begin` (ms). `delay`: ms after a window's end when its labels are known. InputError."""
        self.settings = settings
        self.delay = delay
        self._cut_off = first.cut_off if first else CUT_OFF
        self._spec, self._days, self._begin = spec, days, begin
        self._cut = Cut(spec.window.hours)
        times = np.concatenate(history.times)
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        self._labels = _read(history, columns[0], "Label")[order]
        self._probabilities = _read(history, columns[1], "Number")[order]
        known = self._probabilities[np.isfinite(self._probabilities)]
        if not len(known) or known.min() < 0 or known.max() > 1:
            raise InputError(f"the history's {columns[1]} is no probability from 0 to 1; name its column")
        self._baselines: dict[int | None, Performance | None] = {None: first or self._shown(begin)}
        self._judged: dict[tuple[int, int | None, bool], StoredPerformance] = {}
        self._verdicts: dict[tuple[int, int | None, int, str | None, bool], PerformanceVerdict] = {}
        if self.first is None or not any(one.name == settings.metric for one in self.first.metrics):
            raise InputError(
                f"{settings.metric} has no baseline: give --performance, or a --begin that leaves labelled rows of "
                "both classes in the --train-days before it"
            )

    @property
    def first(self) -> Performance | None:
        """The baseline of the windows before the first run."""
        return self._baselines[None]

    def verdict(
        self, index: int, basis: int | None, revision: int, max_drop: str | None, ripe: bool
    ) -> PerformanceVerdict:
        """Of a window, by its number. `basis`: end of the last run's window (ms), None before the first; `ripe`:
        whether its labels are known."""
        key = (index, basis, revision, max_drop, ripe)
        if key not in self._verdicts:
            stored = self._stored(index, basis, ripe)
            case = self._case(index, basis, max_drop)
            self._verdicts[key] = decided(case, stored).model_copy(update={"revision": revision})
        return self._verdicts[key]

    def _stored(self, index: int, basis: int | None, ripe: bool) -> StoredPerformance:
        key = (index, basis, ripe)
        if key not in self._judged:
            rows, labels = self._between(self._cut.start(index), self._cut.end(index))
            known = Ripe(labels, "", self.delay // 1000) if ripe else None
            self._judged[key] = judge(self._case(index, basis, None), rows, known, self._end(index))
        return self._judged[key]

    def _end(self, index: int) -> datetime:
        return moment(self._cut.end(index))

    def _case(self, index: int, basis: int | None, max_drop: str | None) -> Case:
        if basis not in self._baselines:
            assert basis is not None
            self._baselines[basis] = self._shown(basis)
        nothing = Performance(rows=0, positives=0, cut_off=self._cut_off, metrics=())
        settings = self.settings if max_drop is None else self.settings.model_copy(update={"max_drop": max_drop})
        return Case(
            start=moment(self._cut.start(index)), end=self._end(index), revision=1, policy_uid="", settings=settings,
            artifact_digest=NO_DIGEST, baseline=self._baselines[basis] or nothing,
            alpha=self._spec.data.false_alarms_per_thousand_windows / 1000, min_rows=self._spec.window.min_rows,
        )  # fmt: skip

    def _shown(self, end: int) -> Performance | None:
        """What the predictions showed before a time (ms), on the labels that were known by then: in the days before the
        first window, or in the last windows before a run."""
        until, span = end, self._days * DAY_MS
        if end != self._begin:
            until, span = end - self.delay, self._spec.consecutive_windows * self._spec.window.hours * HOUR
        rows, labels = self._between(until - span, until)
        there = labels != NO_LABEL
        if int(there.sum()) < LEAST_ROWS:
            return None
        return results(Scored(labels[there], rows.probabilities[there], self._cut_off))

    def _between(self, start: int, end: int) -> tuple[Predicted, Any]:
        first, last = np.searchsorted(self._times, [max(0, start), max(0, end)])
        probabilities, labels = self._probabilities[first:last], self._labels[first:last]
        kept = np.isfinite(probabilities)
        keys = pa.array(np.zeros(int(kept.sum()), dtype=np.int8))  # each row is joined already
        return Predicted(keys, probabilities[kept], {}, seen=int(last - first)), labels[kept]


def read_performance(path: Path) -> Performance:
    """`performance.json` of an artifact. InputError where it is none."""
    try:
        return Performance.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give performance.json of an artifact") from error
    except ValidationError as error:
        raise InputError(f"{path}: is no performance.json of an artifact ({error.error_count()} faults)") from error


def _read(history: History, name: str, kind: Any) -> Any:
    """A column of all tables, one after the other. InputError where it is missing, or holds other values."""
    parts: list[Any] = []
    for table in history.tables:
        if name not in table.names:
            raise InputError(f"{table.path}: has no column {name!r}; name another, or leave --label-column out")
        for batch in table.batches(name):
            known: Any = batch
            raw = pa.array(known) if isinstance(batch, np.ndarray) else known
            values, bad = convert(name, raw, kind, False)
            if bad is not None:
                shown = f", such as {bad.values[0]}" if bad.values else ""
                raise InputError(f"{table.path}: {name} {bad.problem}{shown}; {bad.remedy}")
            parts.append(values)
    return np.concatenate(parts) if parts else np.empty(0)

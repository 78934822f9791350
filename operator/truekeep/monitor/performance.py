"""How good a revision was in a window: by labels, and before they come by an estimate. Pure.

It has decayed where the metric is lower than on its holdout by `maxDrop` or more *and* chance does not explain it: a
one-sided test of the two values with both their standard errors (`scores.intervals`). Of the false alarms that the
policy allows, two tenths are spent on labels and one on estimates, one test a window each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from truekeep.api.driftpolicy import PerformancePolicy, PerformanceVerdict
from truekeep.api.evaluation import Metric, Slice
from truekeep.contract.artifact import Performance
from truekeep.monitor import words
from truekeep.monitor.labels import Found
from truekeep.monitor.predictions import Predicted
from truekeep.monitor.report import GroupShown, Shown, StoredPerformance
from truekeep.scores import calibration
from truekeep.scores.intervals import Measured, chosen, lower, measured
from truekeep.scores.metrics import Scored
from truekeep.sources.columns import NO_LABEL
from truekeep.sources.columns import codes as coded

LABELS_PART = 0.2  # of the false alarms allowed
ESTIMATE_PART = 0.1
MOST_GROUPS = 50  # of a slice, the largest ones


@dataclass(frozen=True)
class Case:
    """What is judged, and by what."""

    start: datetime
    end: datetime
    revision: int
    policy_uid: str
    artifact_digest: str
    settings: PerformancePolicy
    baseline: Performance
    alpha: float  # false alarms allowed, of all kinds together
    min_rows: int  # of the window, for an estimate
    slices: tuple[Slice, ...] = ()

    @property
    def shown(self) -> Measured | None:
        """The metric on the holdout; None where it was not defined there."""
        for one in self.baseline.metrics:
            if one.name == self.settings.metric:
                error = math.nan if one.standard_error is None else one.standard_error
                return Measured(one.value, error, math.nan, math.nan)
        return None


@dataclass(frozen=True)
class Ripe:
    """Labels that were looked for. `known_after_seconds`: event time that had passed since the window's end."""

    labels: Found
    files: str
    known_after_seconds: int | None
    problems: tuple[str, ...] = ()
    unmatched: int | None = None  # labels of the window's time that belong to no event; None: not known by this join


def judge(case: Case, rows: Predicted, ripe: Ripe | None, now: datetime) -> StoredPerformance:
    """The verdict on a window. `ripe`: None while labels can't all be there yet; then only the estimate is made."""
    before = case.shown
    settings = case.settings
    estimated = _estimated(case, rows, before)
    found, why_not = _measured(case, rows, ripe, before)
    labelled = 0 if ripe is None else int((ripe.labels != NO_LABEL).sum())
    verdict = PerformanceVerdict(
        start=case.start,
        end=case.end,
        revision=case.revision,
        metric=settings.metric,
        baseline=_text(before.value) if before else "NaN",
        verdict=_verdict(case, before, found, LABELS_PART) if found else "InsufficientData",
        value=_text(found.value) if found else None,
        low=_text(found.low) if found else None,
        high=_text(found.high) if found else None,
        labelled=labelled,
        coverage=_text(labelled / len(rows)) if len(rows) else "0",
        known_after_seconds=ripe.known_after_seconds if ripe and found else None,
        estimated=_verdict(case, before, estimated, ESTIMATE_PART) if estimated else "NotEstimated",
        estimate=_text(estimated.value) if estimated else None,
        estimate_low=_text(estimated.low) if estimated else None,
        estimate_high=_text(estimated.high) if estimated else None,
    )
    return StoredPerformance(
        policy_uid=case.policy_uid,
        artifact_digest=case.artifact_digest,
        verdict=verdict,
        settings=settings,
        final=found is not None,
        label_files=ripe.files if ripe else "",
        judged_at=now,
        rows=len(rows),
        repeated=rows.repeated,
        without_key=rows.keys.null_count,
        baseline_rows=case.baseline.rows,
        baseline_error=None if before is None or math.isnan(before.error) else before.error,
        alpha=case.alpha * LABELS_PART,
        measured=found,
        estimated=estimated,
        groups=tuple(_groups(case, rows, ripe)) if ripe and found else (),
        unmatched=ripe.unmatched if ripe else None,
        problems=ripe.problems if ripe else (),
        why_not=why_not,
    )


def decided(case: Case, stored: StoredPerformance) -> PerformanceVerdict:
    """The verdict on what was measured and estimated, by settings that differ in `maxDrop` alone."""
    before, found, estimated = case.shown, stored.measured, stored.estimated
    return stored.verdict.model_copy(
        update={
            "verdict": _verdict(case, before, found, LABELS_PART) if found else "InsufficientData",
            "estimated": _verdict(case, before, estimated, ESTIMATE_PART) if estimated else "NotEstimated",
        }
    )


def _estimated(case: Case, rows: Predicted, before: Measured | None) -> Shown | None:
    """None with too few rows, or a holdout that was too small to calibrate on."""
    known = case.baseline.calibration
    if known is None or before is None or len(rows) < case.min_rows:
        return None
    cut_off = case.baseline.cut_off
    return _shown(before, calibration.estimate(case.settings.metric, known, rows.probabilities, cut_off))


def _measured(case: Case, rows: Predicted, ripe: Ripe | None, before: Measured | None) -> tuple[Shown | None, str]:
    """The metric on the labelled rows, or why there is none."""
    settings = case.settings
    if before is None:
        return None, f"{settings.metric} was not defined on the holdout, so there is nothing to compare with"
    if ripe is None:
        return None, "labels are not ripe yet"
    scored = _scored(case, rows, ripe)
    if why_not := _too_few(settings, rows, len(scored.labels)):
        unmatched = f"; {ripe.unmatched:,} labels belong to no captured row" if ripe.unmatched else ""
        return None, why_not + unmatched
    found = _shown(before, measured(settings.metric, scored))
    return (found, "") if found else (None, f"{settings.metric} is not defined on these labels")


def _too_few(settings: PerformancePolicy, rows: Predicted, labelled: int) -> str:
    if not len(rows):
        return "no row has a prediction"
    if rows.keys.null_count == len(rows):
        if settings.entity is not None:
            return f"no captured row has {settings.entity.column}, which performance.entity names"
        return "no request carried the key that joins labels"
    if labelled < settings.min_labels:
        return f"{labelled:,} rows have a label, minLabels is {settings.min_labels:,}"
    if labelled < float(settings.min_label_fraction) * len(rows):
        share = words.percent(labelled / len(rows))
        return f"{share} of the rows have a label, minLabelFraction is {settings.min_label_fraction}"
    return ""


def _scored(case: Case, rows: Predicted, ripe: Ripe) -> Scored:
    there = ripe.labels != NO_LABEL
    return chosen(Scored(ripe.labels, rows.probabilities, case.baseline.cut_off), there)


def _shown(before: Measured, found: Measured) -> Shown | None:
    if not (math.isfinite(found.value) and math.isfinite(found.error)):
        return None
    return Shown(value=found.value, error=found.error, low=found.low, high=found.high, p_value=lower(before, found))


def _verdict(case: Case, before: Measured | None, found: Shown, part: float) -> Any:
    assert before is not None
    fell = before.value - found.value >= float(case.settings.max_drop)
    return "Decayed" if fell and found.p_value <= case.alpha * part else "Holds"


def _groups(case: Case, rows: Predicted, ripe: Ripe) -> Iterator[GroupShown]:
    """The metric by the Model's slices, the largest groups of each, where they have the slice's least rows."""
    scored = Scored(ripe.labels, rows.probabilities, case.baseline.cut_off)
    there = ripe.labels != NO_LABEL
    for one in case.slices:
        column = rows.groups.get(one.column)
        if column is None:
            continue
        codes, distinct = coded(column)
        names = distinct.to_pylist()
        sizes = np.bincount(codes[there & (codes >= 0)], minlength=len(names))
        for place in _largest(sizes, names):
            if sizes[place] >= one.min_rows:
                yield from _group(one.name, str(names[place]), one.metric, chosen(scored, there & (codes == place)))


def _largest(sizes: Any, names: Sequence[Any]) -> list[int]:
    return sorted(range(len(names)), key=lambda place: (-int(sizes[place]), str(names[place])))[:MOST_GROUPS]


def _group(name: str, group: str, metric: Metric, scored: Scored) -> Iterator[GroupShown]:
    found = measured(metric, scored)
    if math.isfinite(found.value) and math.isfinite(found.error):
        yield GroupShown(
            slice=name, group=group[:100], metric=metric, rows=len(scored.labels), value=found.value, low=found.low,
            high=found.high,
        )  # fmt: skip


def _text(value: float) -> str:
    return f"{value + 0.0:.4f}"

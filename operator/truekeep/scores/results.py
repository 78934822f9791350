"""What a model showed on its holdout, as it is kept in the artifact."""

from __future__ import annotations

import math

from truekeep.contract.artifact import MetricResult, Performance
from truekeep.scores import calibration
from truekeep.scores.intervals import standard_errors
from truekeep.scores.metrics import METRICS, Scored, value

DIGITS = 9  # so that the same input gives the same bytes on another processor too


def results(scored: Scored) -> Performance:
    """Every metric with its standard error, and the calibration of the probabilities. Metrics that are not defined on
    these rows are left out."""
    errors = standard_errors(METRICS, scored)
    found = [(name, value(name, scored), errors[name]) for name in METRICS]
    return Performance(
        rows=len(scored.labels),
        positives=int((scored.labels == 1).sum()),
        cut_off=scored.cut_off,
        metrics=tuple(
            MetricResult(
                name=name,
                value=round(number, DIGITS),
                standard_error=None if math.isnan(error) else round(error, DIGITS),
            )
            for name, number, error in found
            if not math.isnan(number)
        ),
        calibration=calibration.fit(scored.labels, scored.probabilities),
    )

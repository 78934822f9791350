"""What a run says of its data, and which earlier run's data it is compared with."""

from __future__ import annotations

from collections.abc import Iterable

from truekeep.api.trainingrun import DataRead
from truekeep.contract.requests import LastRun
from truekeep.domain.conditions import Finding, find
from truekeep.domain.observed import RunView

REFUSED = ("DataInvalid", "DataTooLarge")


def data_finding(reason: str, message: str, data: DataRead | None) -> Finding:
    """The condition DataValid of a run that stands so, or of the Model whose newest run it is."""
    if reason in REFUSED:
        return Finding("DataValid", "False", reason, message)
    if data is None:
        return Finding("DataValid", "Unknown", reason, message)
    words = f"{data.rows} rows, {data.unlabelled} without a label, {data.unripe} too young for one"
    warned = "; ".join(data.warnings)
    if data.warned_checks > len(data.warnings):
        warned = "; ".join([*data.warnings, f"{data.warned_checks - len(data.warnings)} more, all in the record"])
    if warned:
        return Finding("DataValid", "True", "Warned", f"{words}; warned: {warned}")
    return Finding("DataValid", "True", "Validated", words)


def last_valid(runs: Iterable[RunView]) -> LastRun | None:
    """The newest of these runs that ended and whose data was in order, whatever became of its model.

    A run whose data was refused is none: what broke once must not be the measure of the next."""
    ended = [
        run
        for run in runs
        if run.status.completion_time is not None
        and run.status.data is not None
        and run.status.data.rows
        and not _refused(run)
    ]
    newest = max(ended, key=lambda run: (run.status.completion_time, run.meta.name), default=None)
    if newest is None or newest.status.data is None:
        return None
    data = newest.status.data
    return LastRun(run=newest.meta.name, rows=data.rows, positives=data.positives, rows_digest=data.rows_digest)


def _refused(run: RunView) -> bool:
    ready = find(run.status.conditions, "Ready")
    return ready is not None and ready.reason in REFUSED

"""What a window is compared with where the week has a shape, and when nothing that is found counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from truekeep.api.driftpolicy import Blackout
from truekeep.monitor.report import ReportFinding, WindowReport
from truekeep.profiling.schema import PREDICTION, ColumnProfile, Profile
from truekeep.profiling.sketch import ColumnSketch
from truekeep.profiling.space import added

WEEK_HOURS = 168
WEEK = timedelta(hours=WEEK_HOURS)


def before(index: int, hours: int, weeks: int) -> list[int]:
    """Numbers of the windows at the same hours of the week in so many weeks before window `index`, the newest first.

    A window that is longer than a week is compared with the windows before it that make up so many weeks, one at
    least. `hours` divides 168, or is a multiple of it."""
    step = max(1, WEEK_HOURS // hours)
    count = weeks if hours <= WEEK_HOURS else max(1, weeks * WEEK_HOURS // hours)
    return [index - step * back for back in range(1, count + 1)]


def merged(reference: Profile, windows: Sequence[Profile], *, prediction: bool) -> Profile:
    """One profile of several windows that were counted on the reference's cells, to be compared with in its place.

    `prediction`: whether they are all of one revision; else what it predicts is compared with the reference."""
    columns = []
    for then in reference.columns:
        if then.name == PREDICTION and not prediction:
            columns.append(then)
            continue
        whole = ColumnSketch.like(then)
        for window in windows:
            part = window.column(then.name)
            if part is not None:
                whole.merge(ColumnSketch.of(part))
        columns.append(_as_reference(then, whole.profile()))
    found = [window.errors for window in windows if window.errors]
    return Profile(
        rows=sum(window.rows for window in windows),
        columns=tuple(columns),
        errors=added(found) if len(found) == len(windows) and found else None,
    )


def _as_reference(then: ColumnProfile, counted: ColumnProfile) -> ColumnProfile:
    """With what the Model says of the column."""
    number = counted.number
    if number is not None:
        bounds = {"declared_minimum": then.numeric.declared_minimum, "declared_maximum": then.numeric.declared_maximum}
        number = number.model_copy(update=bounds)
    return counted.model_copy(update={"number": number, "importance": then.importance})


def blackout(blackouts: Iterable[Blackout], start: datetime, end: datetime) -> str | None:
    """The name of the first one that touches the window from `start` to `end`, by name; None where none does."""
    return next((one.name for one in sorted(blackouts, key=lambda one: one.name) if _touches(one, start, end)), None)


def _touches(one: Blackout, start: datetime, end: datetime) -> bool:
    if one.repeats == "Never":
        return one.start < end and start < one.end
    if one.repeats == "Weekly":
        weeks = max(0, (start - one.end) // WEEK)  # the last one that ended before, or the first
        return any(one.start + n * WEEK < end and start < one.end + n * WEEK for n in range(weeks, weeks + 3))
    length = one.end - one.start
    years = range(max(one.start.year, start.year - 1 - length.days // 365), end.year + 1)
    return any(first < end and start < first + length for first in (_in_year(one.start, year) for year in years))


def _in_year(moment: datetime, year: int) -> datetime:
    """The same date in another year; the 28th for a 29th of February."""
    try:
        return moment.replace(year=year)
    except ValueError:
        return moment.replace(year=year, day=28)


def excused(report: WindowReport, name: str) -> WindowReport:
    """The report on a window in a blackout: all is told, nothing counts."""
    findings: tuple[ReportFinding, ...] = tuple(
        finding.model_copy(update={"severity": "Notice"}) for finding in report.findings
    )
    return report.model_copy(update={"verdict": "Blackout", "kinds": (), "findings": findings, "blackout": name})

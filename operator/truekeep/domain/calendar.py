"""Retraining by the clock: which time of a schedule is due, answered or passed over.

Times that nobody was there for are made up for by one run, because one run trains on all data that there is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from truekeep.api.names import run_name
from truekeep.api.retraining import Schedule, SchedulePlan
from truekeep.api.trainingrun import Trigger
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.observed import ModelObserved
from truekeep.domain.plan import RunIntent
from truekeep.domain.pods import Trouble

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Due:
    """What the clock asks for."""

    plan: SchedulePlan | None = None  # None: there is no schedule, or one that can't be read
    run: RunIntent | None = None  # the run that is due
    wait_seconds: float | None = None  # until the next time
    problem: Trouble | None = None


def due(observed: ModelObserved, now: datetime) -> Due:
    """What spec.retraining.schedule asks for now."""
    retraining = observed.model.spec.retraining
    if retraining is None or retraining.schedule is None:
        return Due()
    schedule = retraining.schedule
    try:
        newest, following = _around(schedule, now)
    except (CronSimError, ZoneInfoNotFoundError, ValueError) as error:
        where = "timeZone" if isinstance(error, ZoneInfoNotFoundError) else "cron"
        value = schedule.time_zone if where == "timeZone" else schedule.cron
        message = (
            f"spec.retraining.schedule.{where} is {value!r}, which is none ({error}); mend it: until then the clock "
            "starts no run"
        )
        return Due(problem=Trouble("ScheduleInvalid", message))
    plan = _plan(observed, schedule, following, now)
    wait = (following - now).total_seconds()
    if newest is None or newest <= max(plan.since, plan.last or plan.since):
        return Due(plan, None, wait)
    meta = observed.model.meta
    answered = any(run.meta.created >= newest for run in observed.runs)  # it trained on what there was by then
    if answered or retraining.suspend == "Now":
        return Due(plan.model_copy(update={"last": newest}), None, wait)
    name = run_name(meta.name, meta.uid, "schedule", newest.isoformat())
    message = f"spec.retraining.schedule: {schedule.cron} ({schedule.time_zone}) was due at {newest:%Y-%m-%d %H:%M} UTC"
    return Due(plan, RunIntent(name, Trigger(type="Schedule", message=message)), wait)


def _around(schedule: Schedule, now: datetime) -> tuple[datetime | None, datetime]:
    """The newest time that is not after now, and the next one."""
    zone = ZoneInfo(schedule.time_zone)
    local = now.astimezone(zone)
    # Backwards from the minute that has not begun yet, so that the minute that just began counts.
    earlier = next(CronSim(schedule.cron, (local + MINUTE).replace(second=0, microsecond=0), reverse=True), None)
    later = next(CronSim(schedule.cron, local))
    return (earlier.astimezone(UTC) if earlier else None), later.astimezone(UTC)


def _plan(observed: ModelObserved, schedule: Schedule, following: datetime, now: datetime) -> SchedulePlan:
    text = f"{schedule.cron} {schedule.time_zone}"
    before = observed.model.status.schedule
    if before is None or before.schedule != text:
        return SchedulePlan(schedule=text, since=whole_seconds(now), next=following)
    return before.model_copy(update={"next": following})

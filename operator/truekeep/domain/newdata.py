"""Retraining when enough new rows came: what a small Job counted in the sources, and whether that is enough."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from truekeep.api.names import run_name
from truekeep.api.retraining import NewDataCount
from truekeep.api.trainingrun import Trigger
from truekeep.contract.results import CountResult
from truekeep.domain.observed import JobView, ModelObserved
from truekeep.domain.plan import RunIntent
from truekeep.domain.stand import finished


@dataclass(frozen=True)
class News:
    """What came since the last run."""

    count: NewDataCount | None = None  # None: nobody is to look
    since: datetime | None = None  # rows that are newer than this count; None: nothing was trained yet
    run: RunIntent | None = None


def news(observed: ModelObserved) -> News:
    """What spec.retraining.newData asks for now."""
    retraining = observed.model.spec.retraining
    if retraining is None or retraining.new_data is None:
        return News()
    since = trained_until(observed)
    if since is None:
        return News(observed.model.status.new_data)
    result = _newest(observed.counts, observed.model.meta.uid, since)
    if result is None:
        stored = observed.model.status.new_data
        kept = stored if stored is not None and stored.since == since else NewDataCount(since=since)
        return News(kept, since)
    message = result.message if result.reason != "Counted" else ""
    count = NewDataCount(since=since, rows=result.rows, newest=result.newest, message=message)
    if result.reason != "Counted" or result.rows < retraining.new_data.min_rows or retraining.suspend == "Now":
        return News(count, since)
    meta = observed.model.meta
    # The listing is part of the cause: what was asked for and failed is asked for again when other files are there.
    name = run_name(meta.name, meta.uid, "data", since.isoformat(), result.listing)
    if any(run.meta.name == name for run in observed.runs):
        return News(count, since)
    words = (
        f"{result.rows:,} labelled rows are newer than {since:%Y-%m-%d %H:%M} UTC, the newest that was trained on; "
        f"spec.retraining.newData.minRows is {retraining.new_data.min_rows:,}"
    )
    return News(count, since, RunIntent(name, Trigger(type="NewData", message=words)))


def trained_until(observed: ModelObserved) -> datetime | None:
    """The newest event that the newest run used, whether it passed its gates or not."""
    ended = [run for run in observed.runs if finished(run) and run.status.data and run.status.data.window_end]
    newest = max(ended, key=lambda run: (run.meta.created, run.meta.name), default=None)
    return newest.status.data.window_end if newest and newest.status.data else None


def _newest(jobs: tuple[JobView, ...], model_uid: str, since: datetime) -> CountResult | None:
    """What the newest pod handed over that counted from the same moment."""
    pods = [pod for job in jobs for pod in job.pods if pod.exit_code is not None and pod.exit_message.startswith("{")]
    for pod in sorted(pods, key=lambda pod: (pod.finished or pod.created, pod.name), reverse=True):
        try:
            result = CountResult.model_validate_json(pod.exit_message)
        except ValidationError:
            continue
        if result.model_uid == model_uid and result.since == since:
            return result
    return None

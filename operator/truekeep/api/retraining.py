"""When a model is trained again without anybody asking, besides what a DriftPolicy finds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import Schema, Text

CRON = r"^[0-9*/,\-]+( [0-9A-Za-z*/,\-#]+){4}$"
KEEP_RUNS = 50  # where spec.retraining says nothing
TIME_ZONE = r"^[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+){0,2}$"


class Schedule(Schema):
    """Retraining by the clock."""

    cron: Annotated[str, StringConstraints(pattern=CRON, max_length=100)] = Field(
        description="When, as cron with five fields. Example: 0 3 * * 1."
    )
    time_zone: Annotated[str, StringConstraints(pattern=TIME_ZONE, max_length=63)] = Field(
        default="Etc/UTC", description="Time zone of cron, by its IANA name. Default: Etc/UTC. Example: Europe/Berlin."
    )


class NewData(Schema):
    """Retraining when enough new rows came."""

    min_rows: Annotated[int, Field(ge=1, le=1000000000)] = Field(
        description="Fewest new rows: newer than all that the last run used, with a label that is known and final. "
        "Example: 10000."
    )
    cron: Annotated[str, StringConstraints(pattern=CRON, max_length=100)] = Field(
        default="*/15 * * * *",
        description="When to look, as cron with five fields, UTC. Default: every 15 minutes.",
    )


class Retraining(Schema):
    """When a model is trained again. Of several causes one makes a run; runs of one Model go one after the other,
    unless `concurrency` allows more."""

    suspend: Literal["Never", "Now"] = Field(
        default="Never",
        description="Now: neither the clock nor new data nor a DriftPolicy starts a run; what the spec or a "
        "person asks for still does. Default: Never.",
    )
    schedule: Schedule | None = Field(default=None, description="By the clock. Default: not.")
    new_data: NewData | None = Field(default=None, description="When enough new rows came. Default: not.")
    cooldown_seconds: Annotated[int, Field(ge=0, le=31536000)] = Field(
        default=3600,
        description="Fewest seconds from the last run until the clock or new data starts another. Default: 3600.",
    )
    max_runs_per_week: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=21, description="Most runs in seven days that the clock and new data start together. Default: 21."
    )

    concurrency: Literal["Forbid", "Allow"] = Field(
        default="Forbid",
        description="Allow: a TrainingRun that somebody creates begins though another one is under way. What the "
        "operator starts by itself waits for the others' end all the same. Default: Forbid, one after the other.",
    )
    keep_runs: Annotated[int, Field(ge=10, le=1000)] = Field(
        default=KEEP_RUNS,
        description="How many finished TrainingRuns that the operator made stay in the cluster, the newest. Older ones "
        "are deleted 30 days after their end, except those that are still needed; the store keeps what they made. "
        "Default: 50.",
    )


class NewDataCount(Schema):
    """What came since the last run, as spec.retraining.newData counts it."""

    since: datetime = Field(description="The newest event that the last run used; newer rows count.")
    rows: int = Field(default=0, ge=0, description="Rows since then whose label is known and final.")
    newest: datetime | None = Field(default=None, description="The newest event in the data.")
    message: Text = Field(default="", description="Why nothing could be counted, if so.")


class SchedulePlan(Schema):
    """Where spec.retraining.schedule stands."""

    schedule: Text = Field(description="Cron and time zone that this speaks of.")
    since: datetime = Field(description="When they were first seen: earlier times are not made up for.")
    last: datetime | None = Field(default=None, description="The newest time that was answered, or passed over.")
    next: datetime | None = Field(default=None, description="The next time.")

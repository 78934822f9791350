"""How a new revision takes over: by which steps, and what is judged at each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from truekeep.api.common import ATOMIC, Fraction, Schema


class Step(Schema):
    """One step of a canary."""

    weight_percent: Annotated[int, Field(ge=1, le=99)] = Field(
        description="Share of the traffic for the candidate, in percent. Example: 33."
    )
    duration_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        description="Seconds to watch at this weight. Example: 30."
    )


class Rollout(Schema):
    """How a new revision takes over."""

    CEL = (
        (
            "!has(self.steps) || self.steps.size() < 2 || self.steps.map(s, s.weightPercent).isSorted()",
            "the weights of steps must not fall from step to step; put them in growing order",
        ),
    )

    strategy: Literal["Canary", "BlueGreen"] = Field(
        default="Canary",
        description="Canary: by steps of growing weight. BlueGreen: at once, when the new pods are ready. "
        "Default: Canary.",
    )
    steps: list[Step] = Field(
        default=[Step(weight_percent=33, duration_seconds=30)],
        max_length=10,
        description="Steps of the canary, weights growing. Default: one step of 33 % for 30 s.",
        json_schema_extra=ATOMIC,
    )
    max_error_fraction: Fraction = Field(
        default="0.01",
        description="Largest fraction of failed replies that the candidate may have more than the live revision. "
        "Default: 0.01.",
    )
    min_requests: Annotated[int, Field(ge=1, le=1000000)] = Field(
        default=20,
        description="Requests to the candidate in a step below which the step is inconclusive. Default: 20.",
    )
    rehearsal_rows: Annotated[int, Field(ge=0, le=100000)] = Field(
        default=1000,
        description="Rows that the live revision answered last, which the candidate answers before it gets live "
        "traffic; its failures, latency and the shift of its predictions are judged as at a step. It needs "
        "spec.serving.capture without drop and without hashed features. 0: none. Default: 1000.",
    )
    max_p99_milliseconds: Annotated[int, Field(ge=1, le=600000)] | None = Field(
        default=None,
        description="Longest answer, in milliseconds, that 99 % of the candidate's requests may take. Default: latency "
        "is reported and not judged. Example: 50.",
    )
    max_prediction_shift: Fraction | None = Field(
        default=None,
        description="Largest Kolmogorov-Smirnov distance, 0 to 1, between the candidate's predictions and the live "
        "revision's on the same rows. Default: the shift is reported and not judged. Example: 0.3.",
    )
    on_inconclusive: Literal["Promote", "Rollback"] = Field(
        default="Rollback",
        description="What follows when a step saw traffic, but less than minRequests, for three times its duration. "
        "Without any traffic at all, a candidate that passed its self-test is promoted. Default: Rollback.",
    )
    progress_deadline_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=300,
        description="Seconds in which the candidate's pods must be ready, else it is rolled back. Default: 300.",
    )

"""How a new revision takes over: by which steps, and what is judged at each."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import ATOMIC, Fraction, ItemName, Number, RunName, Schema, keyed


class Step(Schema):
    """One step of a canary."""

    weight_percent: Annotated[int, Field(ge=1, le=99)] = Field(
        description="Share of the traffic for the candidate, in percent. Example: 33."
    )
    duration_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        description="Seconds to watch at this weight. Example: 30."
    )


class Query(Schema):
    """A query to the operator's Prometheus that a revision is judged by."""

    CEL = (
        ("has(self.minimum) || has(self.maximum)", "a query needs minimum, maximum or both, else it judges nothing"),
        (
            "!self.query.replace('{{namespace}}', '').replace('{{model}}', '').replace('{{candidate}}', '')"
            ".replace('{{live}}', '').contains('{{')",
            "a query may name {{namespace}}, {{model}}, {{candidate}} and {{live}}, and nothing else in double braces",
        ),
    )

    name: ItemName = Field(description="Name of the check. Example: refunds.")
    query: Annotated[str, StringConstraints(min_length=1, max_length=1000)] = Field(
        description="PromQL that gives one number. {{namespace}}, {{model}}, {{candidate}} (the Deployment that is "
        "judged) and {{live}} (the one that it would replace, or has replaced) stand for their names. Example: "
        'sum(rate(refunds_total{deployment="{{candidate}}"}[1m])).'
    )
    minimum: Number | None = Field(default=None, description="Smallest good value. Default: none.")
    maximum: Number | None = Field(default=None, description="Largest good value. Default: none. Example: 0.5.")


class Rollout(Schema):
    """How a new revision takes over."""

    CEL = (
        (
            "!has(self.steps) || self.steps.size() < 2 || self.steps.map(s, s.weightPercent).isSorted()",
            "the weights of steps must not fall from step to step; put them in growing order",
        ),
    )

    strategy: Literal["Canary", "BlueGreen", "Shadow"] = Field(
        default="Canary",
        description="Canary: by steps of growing weight. BlueGreen: at once, when the new pods are ready. Shadow: at "
        "once, after the Gateway sent it a copy of the traffic for shadowSeconds, whose answers nobody sees. "
        "Default: Canary.",
    )
    shadow_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=60, description="Seconds for which a Shadow gets a copy of the traffic. Default: 60."
    )
    steps: list[Step] = Field(
        default=[Step(weight_percent=33, duration_seconds=30)],
        max_length=10,
        description="Steps of the canary, weights growing. Default: one step of 33 % for 30 s.",
        json_schema_extra=ATOMIC,
    )
    max_error_fraction: Fraction = Field(
        default="0.01",
        description="Largest fraction of failed replies that the candidate may have more than the live revision, and "
        "after its promotion more than the one before had. Default: 0.01.",
    )
    min_requests: Annotated[int, Field(ge=1, le=1000000)] = Field(
        default=20,
        description="Requests to the candidate in a step below which the step is inconclusive. Default: 20.",
    )
    rehearsal_rows: Annotated[int, Field(ge=0, le=100000)] = Field(
        default=1000,
        description="Rows that the live revision answered last, which the candidate answers before it gets live "
        "traffic; its failures, latency and the shift of its predictions are judged by the same limits. It needs "
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
        "revision's, on captured rows and at each step. Default: the shift is reported and not judged. Example: 0.3.",
    )
    queries: list[Query] = Field(
        default=[],
        max_length=5,
        description="Queries to the Prometheus that the operator is configured with (TRUEKEEP_PROMETHEUS_URL); what "
        "they give must lie within bounds at each step and within the rollback window. No answer is inconclusive. "
        "Default: none.",
        json_schema_extra=keyed("name"),
    )
    on_inconclusive: Literal["Promote", "Rollback"] = Field(
        default="Rollback",
        description="What follows when a step is inconclusive for three times its duration: less than minRequests, "
        "failures that may be chance, no readable metrics, no answer to a query. Where nobody calls the model, a "
        "candidate that passed its self-test is promoted. Default: Rollback.",
    )
    progress_deadline_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=300,
        description="Seconds in which the candidate's pods must be ready, else it is rolled back. Default: 300.",
    )


MOST_CHECKS = 8
Numeral = Annotated[str, StringConstraints(max_length=32)]


class Check(Schema):
    """One thing that was judged in live traffic."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]*$", max_length=63)] = Field(
        description="ErrorRate, P99Latency, PredictionShift, or the name of a query."
    )
    verdict: Literal["Passed", "Failed", "Inconclusive", "NotJudged"] = Field(
        description="Failed: surely beyond the limit. Inconclusive: too little is known, or it may be chance. "
        "NotJudged: reported only, because the spec sets no limit."
    )
    value: Numeral | None = Field(default=None, description="What was seen, as decimal text.")
    threshold: Numeral | None = Field(
        default=None, description="What it may be at most, as decimal text; for a query, its bounds."
    )
    message: Annotated[str, StringConstraints(max_length=512)] = Field(default="", description="The same in words.")


class Reference(Schema):
    """What a revision showed until it was replaced: what its successor is held to within the rollback window."""

    requests: int = Field(ge=0, description="Requests that were counted.")
    errors: int = Field(ge=0, description="Those that failed.")
    p99_milliseconds: Numeral | None = Field(
        default=None, description="Time in which 99 % were answered, in milliseconds, as decimal text."
    )


class LastRollout(Schema):
    """How the rollout of the newest revision that was tried ended."""

    revision: int = Field(ge=1, description="Number of the revision.")
    deployment: RunName = Field(description="The Deployment that serves it.")
    outcome: Literal["Promoted", "RolledBack"] = Field(description="Whether it took over, or was taken back.")
    reason: Annotated[str, StringConstraints(max_length=128)] = Field(default="", description="Why it was taken back.")
    time: datetime = Field(description="When it ended.")
    analysis: list[Check] = Field(
        default=[],
        max_length=MOST_CHECKS,
        description="What was judged last in live traffic; nothing where there was none.",
        json_schema_extra=ATOMIC,
    )
    reference: Reference | None = Field(
        default=None, description="What the revision before showed until the switch, where it was read."
    )
    watch: list[Check] = Field(
        default=[],
        max_length=MOST_CHECKS,
        description="What was judged last since the revision took over, within the rollback window.",
        json_schema_extra=ATOMIC,
    )
    watched_at: datetime | None = Field(default=None, description="When watch was written.")

"""What live traffic says about a revision, beside another one or by limits: rows of verdicts. Nothing is done here.

Failed means surely beyond the limit, whatever chance does; Passed means that what was seen lies within it. What lies
beyond it, but not surely, and what too few requests say, is Inconclusive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from truekeep.api.rollout import Check, Query, Rollout
from truekeep.contract.chance import interval, surely_more
from truekeep.domain import overrides
from truekeep.domain.histogram import distance, distance_noise
from truekeep.domain.observed import Answer, ModelView, Traffic
from truekeep.domain.pods import Trouble

REASONS: Mapping[str, str] = {
    "ErrorRate": "ErrorRate",
    "P99Latency": "TooSlow",
    "PredictionShift": "PredictionShift",
}  # of all others: a query
NOBODY = "nobody calls this model"
LONGEST_SECONDS = 86_400
RECENT_SECONDS = 120
QUERY_GRACE = timedelta(seconds=30)
SLOW = 0.01  # the fraction of requests that may be slower than the limit on the 99th percentile


@dataclass(frozen=True)
class Interest:
    """Whose traffic of the last seconds decides now."""

    deployments: frozenset[str]
    seconds: int


def interest(model: ModelView, now: datetime) -> Interest | None:
    """What to ask the pods for; None where no traffic decides anything.

    At a step: what both counted since it began. Before live traffic, past the last step, and after the promotion: what
    was counted lately; it becomes what the next live revision is held to."""
    status = model.status
    active, candidate = status.active, status.candidate
    if active is None:
        return None
    if candidate is not None and candidate.step >= 0 and candidate.step_since is not None:
        rollout = model.spec.serving.rollout
        past = candidate.step >= (1 if rollout.strategy == "Shadow" else len(rollout.steps))
        seconds = max(_seconds(now - candidate.step_since), RECENT_SECONDS if past else 0)
        return Interest(frozenset({active.deployment, candidate.deployment}), seconds)
    if candidate is None and not watches(model):
        return None
    age = now - active.since if active.since else timedelta(seconds=RECENT_SECONDS)
    return Interest(frozenset({active.deployment}), min(_seconds(age), RECENT_SECONDS))


def questions(model: ModelView) -> dict[str, str]:
    """The queries to ask Prometheus now, by name."""
    status, queries = model.status, model.spec.serving.rollout.queries
    active, candidate = status.active, status.candidate
    if active is None or not queries:
        return {}
    if candidate is not None and candidate.step >= 0:
        judged, beside = candidate.deployment, active.deployment
    elif watches(model) and status.previous is not None:
        judged, beside = active.deployment, status.previous.deployment
    else:
        return {}
    names = {"namespace": model.meta.namespace, "model": model.meta.name, "candidate": judged, "live": beside}
    return {query.name: _filled(query.query, names) for query in queries}


def _filled(text: str, names: Mapping[str, str]) -> str:
    """Names of Kubernetes objects have only letters, digits and dashes, so that nothing can be smuggled in."""
    for placeholder, name in names.items():
        text = text.replace("{{" + placeholder + "}}", name)
    return text


def watches(model: ModelView) -> bool:
    """Whether the live revision is compared with the one before it: while that is warm, and where no person's pin
    decides."""
    status = model.status
    last, active = status.last_rollout, status.active
    return (
        overrides.pin(model) is None
        and model.spec.serving.replicas > 0
        and status.previous is not None
        and active is not None
        and last is not None
        and last.outcome == "Promoted"
        and last.deployment == active.deployment
        and last.reference is not None
    )


def _seconds(age: timedelta) -> int:
    return min(max(math.ceil(age.total_seconds()), 1), LONGEST_SECONDS)


@dataclass(frozen=True)
class Evidence:
    """What was counted over the same seconds. None: the metrics could not be read, which is not the same as none."""

    judged: Traffic | None
    beside: Traffic | None  # of the live revision, or of the one that was live before
    side: str = "the live revision"
    answers: Mapping[str, Answer] = field(default_factory=dict)
    age: timedelta = timedelta(0)  # since the judged one got its traffic
    called: bool = False  # errors are compared only where the other one was called, too
    late: str | None = None  # the other one's p99 in milliseconds, where it is known in no other way


def judge(rollout: Rollout, evidence: Evidence, *, shift: bool = True) -> tuple[Check, ...]:
    """The rows of a look at the traffic; `shift`: whether both answered the same callers, so that predictions can be
    compared."""
    rows = [_errors(rollout, evidence), _latency(rollout, evidence)]
    if shift:
        rows.append(_shift(rollout, evidence))
    rows += [_asked(query, evidence) for query in rollout.queries]
    return tuple(rows)


def failed(rows: Sequence[Check]) -> Trouble | None:
    """Why the revision is taken back, None where nothing speaks against it for sure."""
    row = next((row for row in rows if row.verdict == "Failed"), None)
    return Trouble(REASONS.get(row.name, "QueryFailed"), row.message) if row else None


def doubts(rows: Sequence[Check]) -> str:
    """What is inconclusive, in words; nothing where all is clear."""
    return "; ".join(row.message for row in rows if row.verdict == "Inconclusive")


def same_verdicts(one: Sequence[Check], other: Sequence[Check]) -> bool:
    """Whether they say the same, whatever the numbers are."""
    return [(row.name, row.verdict) for row in one] == [(row.name, row.verdict) for row in other]


def _quiet(rollout: Rollout, evidence: Evidence) -> bool:
    """Whether nobody calls, as far as both can tell: a candidate that gets nothing of a lively model is a riddle."""
    judged, beside = evidence.judged, evidence.beside
    return judged is not None and judged.requests == 0 and beside is not None and beside.requests < rollout.min_requests


def _too_few(rollout: Rollout, evidence: Evidence) -> str | None:
    """Why nothing can be said, None where there is enough to judge."""
    judged = evidence.judged
    if judged is None:
        return "the metrics of its pods could not be read"
    if judged.requests < rollout.min_requests:
        return f"{judged.requests} requests; spec.serving.rollout.minRequests is {rollout.min_requests}"
    return None


def _errors(rollout: Rollout, evidence: Evidence) -> Check:
    name, allowed = "ErrorRate", float(rollout.max_error_fraction)
    if _quiet(rollout, evidence):
        return Check(name=name, verdict="Passed", message=NOBODY)
    problem = _too_few(rollout, evidence)
    seen = evidence.judged
    if seen is None or problem is not None:
        return Check(name=name, verdict="Inconclusive", message=f"errors: {problem}")
    beside = evidence.beside or Traffic()
    if evidence.called and beside.requests == 0:
        words = f"{evidence.side} had no requests to compare with"
        return Check(name=name, verdict="Inconclusive", value=f"{seen.error_fraction:.4f}", message=f"errors: {words}")
    message = (
        f"{seen.errors} of {seen.requests} replies failed ({seen.error_fraction:.2%}), {evidence.side}'s "
        f"{beside.errors} of {beside.requests} ({beside.error_fraction:.2%}); spec.serving.rollout.maxErrorFraction "
        f"allows {rollout.max_error_fraction} more"
    )
    if seen.error_fraction - beside.error_fraction <= allowed:
        verdict = "Passed"
    else:
        # With nothing to compare with, the other one is taken to make no errors.
        ours = (seen.errors, seen.requests)
        more = surely_more(ours, (beside.errors, beside.requests)) if beside.requests else interval(*ours)[0]
        verdict = "Failed" if more > allowed else "Inconclusive"
        message += "" if verdict == "Failed" else "; that may be chance, so more requests are awaited"
    return Check.model_validate(
        {
            "name": name,
            "verdict": verdict,
            "value": f"{seen.error_fraction:.4f}",
            "threshold": f"{beside.error_fraction + allowed:.4f}",
            "message": message,
        }
    )


def _latency(rollout: Rollout, evidence: Evidence) -> Check:
    name, limit = "P99Latency", rollout.max_p99_milliseconds
    seen = evidence.judged
    late = p99_milliseconds(seen)
    other = evidence.late or p99_milliseconds(evidence.beside)
    ours = f"99 % of {seen.seconds.total} replies within {late} ms" if seen and late else "no reply was timed"
    words = f"{ours}, {evidence.side}'s within {other} ms" if other else ours
    row = {"name": name, "value": late, "threshold": str(limit) if limit else None}
    if limit is None:
        return Check.model_validate({**row, "verdict": "NotJudged", "message": words})
    if _quiet(rollout, evidence):
        return Check.model_validate({**row, "verdict": "Passed", "message": NOBODY})
    problem = _too_few(rollout, evidence)
    if seen is None or problem is not None or late is None:
        return Check.model_validate(
            {**row, "verdict": "Inconclusive", "message": f"latency: {problem or 'no reply was timed'}"}
        )
    words += f"; spec.serving.rollout.maxP99Milliseconds is {limit}"
    if float(late) <= limit:
        return Check.model_validate({**row, "verdict": "Passed", "message": words})
    total = seen.seconds.total
    if interval(seen.seconds.above(limit / 1000), total)[0] > SLOW:
        return Check.model_validate({**row, "verdict": "Failed", "message": words})
    words += "; that may be chance, so more requests are awaited"
    return Check.model_validate({**row, "verdict": "Inconclusive", "message": words})


def _asked(query: Query, evidence: Evidence) -> Check:
    """What Prometheus gives to a query. It looks back over some time, so that it counts only when that has passed."""
    answer = evidence.answers.get(query.name, Answer(None, "it was not asked yet"))
    low, high = query.minimum, query.maximum
    bounds = " and ".join([f">= {low}"] * (low is not None) + [f"<= {high}"] * (high is not None))
    row = {"name": query.name, "threshold": bounds[:32]}
    about = f"spec.serving.rollout.queries[{query.name}]"
    if answer.value is None:
        return Check.model_validate({**row, "verdict": "Inconclusive", "message": f"{about}: {answer.problem}"[:512]})
    row |= {"value": f"{answer.value:.6g}", "message": f"{about} gives {answer.value:.6g}; it must be {bounds}"}
    if (low is None or answer.value >= float(low)) and (high is None or answer.value <= float(high)):
        return Check.model_validate({**row, "verdict": "Passed"})
    if evidence.age < QUERY_GRACE:
        row["message"] += f", from {QUERY_GRACE.seconds} s on"
        return Check.model_validate({**row, "verdict": "Inconclusive"})
    return Check.model_validate({**row, "verdict": "Failed"})


def p99_milliseconds(seen: Traffic | None) -> str | None:
    """Time within which 99 % of the replies came, in milliseconds, as text; None where none was timed."""
    late = seen.seconds.quantile(1 - SLOW) if seen else None
    return None if late is None else f"{1000 * late:.1f}"


def _shift(rollout: Rollout, evidence: Evidence) -> Check:
    """The distance of the two revisions' predictions. Rows of one request are alike, so it counts once."""
    name, limit = "PredictionShift", rollout.max_prediction_shift
    seen, beside = evidence.judged, evidence.beside
    moved = distance(seen.predictions, beside.predictions) if seen and beside else None
    row = {"name": name, "value": None if moved is None else f"{moved:.4f}", "threshold": limit}
    sizes = [min(each.requests, each.predictions.total) if each else 0 for each in (seen, beside)]
    words = f"predictions of {sizes[0]} requests are {row['value']} from {evidence.side}'s of {sizes[1]}"
    if limit is None:
        return Check.model_validate({**row, "verdict": "NotJudged", "message": words if moved is not None else ""})
    if _quiet(rollout, evidence):
        return Check.model_validate({**row, "verdict": "Passed", "message": NOBODY})
    problem = _too_few(rollout, evidence)
    if moved is None or problem is not None:
        why = problem or "there are no predictions of both in the same buckets to compare"
        return Check.model_validate({**row, "verdict": "Inconclusive", "message": f"prediction shift: {why}"})
    noise = distance_noise(sizes[0], sizes[1])
    words += f", of which chance may make {min(noise, 1):.2f}; spec.serving.rollout.maxPredictionShift is {limit}"
    if moved <= float(limit):
        return Check.model_validate({**row, "verdict": "Passed", "message": words})
    verdict = "Failed" if moved - noise > float(limit) else "Inconclusive"
    return Check.model_validate({**row, "verdict": verdict, "message": words})

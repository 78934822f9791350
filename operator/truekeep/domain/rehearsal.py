"""How a candidate answered captured requests, before any live traffic. Nothing is done here."""

from __future__ import annotations

from pydantic import ValidationError

from truekeep.api.model import Candidate, ModelSpec, Rehearsal
from truekeep.api.rollout import Rollout
from truekeep.contract.results import RehearseResult
from truekeep.domain.observed import JobView
from truekeep.domain.pods import Trouble, newest, tail


def wants_rehearsal(spec: ModelSpec) -> bool:
    """Whether a candidate is to answer captured requests first. Rows that lack a column, or have
    only its hash, can't be sent again."""
    capture = spec.serving.capture
    return (
        capture is not None
        and not capture.drop
        and set(capture.hash) <= {spec.data.key}
        and spec.serving.rollout.rehearsal_rows > 0
        and capture.fraction_percent > 0
        and spec.serving.replicas > 0
    )


def handed_over(job: JobView, candidate: Candidate) -> RehearseResult | None:
    """What the rehearsal's pod handed over."""
    for pod in sorted(job.pods, key=lambda pod: (pod.created, pod.name), reverse=True):
        if pod.exit_code is None or not pod.exit_message.lstrip().startswith("{"):
            continue
        try:
            result = RehearseResult.model_validate_json(pod.exit_message)
        except ValidationError:
            continue
        if result.candidate == candidate.deployment:
            return result
    return None


def rehearsal_trouble(job: JobView, result: RehearseResult | None) -> Trouble:
    """Why there was no rehearsal, though its pod ended."""
    again = "it is tried again, and the live revision goes on"
    if result is not None:
        return Trouble(result.reason, f"the rehearsal could not take place: {result.rehearsal.message}; {again}")
    pod = newest(job.pods)
    words = tail(pod.exit_message) if pod else job.failed_message
    return Trouble("RehearsalLost", f"the rehearsal's pod left no result: {words}; {again}")


def failed_rehearsal(seen: Rehearsal, rollout: Rollout) -> Trouble | None:
    """Why the candidate failed its rehearsal, None where it did not. Latency and shift count by what they are at least,
    whatever chance does on so few requests: the rest is seen in live traffic."""
    failed = seen.failed / seen.requests if seen.requests else 0.0
    if failed > float(rollout.max_error_fraction):
        message = f"{seen.failed} of {seen.requests} captured requests failed, before any live traffic: {seen.message}"
        return Trouble("RehearsalFailed", message)
    slow = float(seen.p99_at_least_milliseconds or seen.p99_milliseconds)
    if rollout.max_p99_milliseconds is not None and slow > rollout.max_p99_milliseconds:
        limit = f"spec.serving.rollout.maxP99Milliseconds is {rollout.max_p99_milliseconds}"
        return Trouble("TooSlow", f"99 % of {seen.requests} captured requests took {seen.p99_milliseconds} ms; {limit}")
    largest = rollout.max_prediction_shift
    if largest is not None and float(seen.prediction_shift_at_least or seen.prediction_shift) > float(largest):
        limit = f"spec.serving.rollout.maxPredictionShift is {largest}"
        message = f"predictions of {seen.rows} captured rows moved by {seen.prediction_shift}; {limit}"
        return Trouble("PredictionShift", message)
    return None

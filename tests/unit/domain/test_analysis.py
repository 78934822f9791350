"""What live traffic says: passed, failed for sure, or not enough to say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from truekeep.api.rollout import Check, Rollout
from truekeep.domain.analysis import Evidence, doubts, failed, judge
from truekeep.domain.histogram import Histogram
from truekeep.domain.observed import Answer, Traffic
from truekeep.server.metrics import PROBABILITIES, SECONDS, Buckets

RANDOM = np.random.default_rng(11)


def buckets(bounds: tuple[float, ...], values: np.ndarray) -> Histogram:
    found = Buckets("x", "x", bounds)
    found.observe_all(values)
    return Histogram(bounds, tuple(found.counts))


def traffic(requests: int, errors: int = 0, milliseconds: float = 4, centre: float = 0.3) -> Traffic:
    """Requests of one row: their times about so many milliseconds, their predictions about a centre."""
    good = requests - errors
    times = RANDOM.normal(milliseconds, milliseconds / 20, good).clip(0) / 1000
    predictions = RANDOM.normal(centre, 0.05, good).clip(0, 1)
    return Traffic(requests, errors, buckets(SECONDS, times), buckets(PROBABILITIES, predictions))


def rollout(**fields: object) -> Rollout:
    return Rollout.model_validate({"maxP99Milliseconds": 50, "maxPredictionShift": "0.2", **fields})


def rows(judged: Traffic | None, beside: Traffic | None, **fields: object) -> dict[str, Check]:
    return {row.name: row for row in judge(rollout(**fields), Evidence(judged, beside))}


def verdicts(judged: Traffic | None, beside: Traffic | None, **fields: object) -> list[str]:
    return [row.verdict for row in rows(judged, beside, **fields).values()]


def test_a_good_candidate_passes_everything_and_says_by_what() -> None:
    found = rows(traffic(300), traffic(600, errors=1))
    assert [row.verdict for row in found.values()] == ["Passed"] * 3
    assert found["ErrorRate"].value == "0.0000"
    assert found["ErrorRate"].threshold == "0.0117"
    assert float(found["P99Latency"].value or 0) == pytest.approx(5, rel=0.1)
    assert found["P99Latency"].threshold == "50"
    assert float(found["PredictionShift"].value or 1) < 0.1
    assert failed(list(found.values())) is None
    assert doubts(list(found.values())) == ""


@pytest.mark.parametrize(
    ("candidate", "name", "reason"),
    [
        (traffic(300, errors=30), "ErrorRate", "ErrorRate"),
        (traffic(300, milliseconds=80), "P99Latency", "TooSlow"),
        (traffic(2000, centre=0.7), "PredictionShift", "PredictionShift"),
    ],
)
def test_what_surely_fails_says_which_and_how_much(candidate: Traffic, name: str, reason: str) -> None:
    found = rows(candidate, traffic(2000))
    assert [row.name for row in found.values() if row.verdict == "Failed"] == [name]
    trouble = failed(list(found.values()))
    assert trouble is not None
    assert trouble.reason == reason
    assert "spec.serving.rollout.max" in trouble.message


def test_what_may_be_chance_is_inconclusive() -> None:
    found = rows(traffic(20, errors=1), traffic(40))
    assert found["ErrorRate"].verdict == "Inconclusive"
    assert "chance" in found["ErrorRate"].message
    slow_one = replace(traffic(30), seconds=buckets(SECONDS, np.array([0.004] * 29 + [0.2])))
    assert rows(slow_one, traffic(40))["P99Latency"].verdict == "Inconclusive"
    assert rows(traffic(30, centre=0.34), traffic(40))["PredictionShift"].verdict == "Inconclusive"


def test_too_few_requests_are_inconclusive_whatever_they_say() -> None:
    assert verdicts(traffic(19, errors=19), traffic(100)) == ["Inconclusive"] * 3
    assert "minRequests is 20" in doubts(judge(rollout(), Evidence(traffic(19), traffic(100))))


def test_unreadable_metrics_are_not_no_traffic() -> None:
    assert verdicts(None, traffic(100)) == ["Inconclusive"] * 3
    assert verdicts(None, None) == ["Inconclusive"] * 3
    assert verdicts(Traffic(), None) == ["Inconclusive"] * 3


def test_a_model_that_nobody_calls_passes() -> None:
    assert verdicts(Traffic(), Traffic()) == ["Passed"] * 3
    assert verdicts(Traffic(), traffic(10)) == ["Passed"] * 3, "a candidate may well get nothing of ten requests"


def test_a_candidate_that_gets_nothing_of_a_lively_model_is_inconclusive() -> None:
    assert verdicts(Traffic(), traffic(500)) == ["Inconclusive"] * 3


def test_without_limits_latency_and_shift_are_reported() -> None:
    found = rows(
        traffic(300, milliseconds=800, centre=0.9), traffic(300), maxP99Milliseconds=None, maxPredictionShift=None
    )
    assert [row.verdict for row in found.values()] == ["Passed", "NotJudged", "NotJudged"]
    assert float(found["P99Latency"].value or 0) > 500
    assert "the live revision's within" in found["P99Latency"].message
    assert float(found["PredictionShift"].value or 0) > 0.9


def test_what_was_not_measured_is_not_made_up() -> None:
    row = rows(traffic(40, errors=40), Traffic(), maxP99Milliseconds=None)["P99Latency"]
    assert (row.value, row.message) == (None, "no reply was timed")


def test_errors_of_both_are_not_held_against_the_candidate() -> None:
    assert rows(traffic(100, errors=20), traffic(200, errors=40))["ErrorRate"].verdict == "Passed"


def test_rows_of_one_request_count_once() -> None:
    """25 requests of 500 alike rows each say as little as 25 rows."""
    block = Traffic(25, 0, traffic(25).seconds, buckets(PROBABILITIES, np.full(12_500, 0.31)))
    assert rows(block, traffic(2000))["PredictionShift"].verdict == "Inconclusive"
    single = Traffic(12_500, 0, traffic(100).seconds, buckets(PROBABILITIES, np.full(12_500, 0.31)))
    assert rows(single, traffic(2000))["PredictionShift"].verdict == "Failed"


def test_other_buckets_can_not_be_compared() -> None:
    old = replace(traffic(300), predictions=Histogram((0.5,), (100, 200)))
    assert rows(traffic(300), old)["PredictionShift"].verdict == "Inconclusive"
    assert rows(traffic(300), old)["P99Latency"].verdict == "Passed"


def test_messages_stay_within_the_status() -> None:
    for one in (traffic(10**6, errors=10**5), None):
        for row in rows(one, traffic(10**6)).values():
            assert len(row.message) <= 512


QUERIES = {
    "queries": [
        {"name": "refunds", "query": 'sum(refunds{d="{{candidate}}"})', "maximum": "0.5"},
        {"name": "margin", "query": "a{n='{{namespace}}',m='{{model}}',l='{{live}}'}", "minimum": "1", "maximum": "2"},
    ]
}


def asked(refunds: Answer, margin: Answer, seconds: float = 60) -> dict[str, Check]:
    answers = {"refunds": refunds, "margin": margin}
    evidence = Evidence(traffic(300), traffic(300), answers=answers, age=timedelta(seconds=seconds))
    return {row.name: row for row in judge(rollout(**QUERIES), evidence)}


def test_queries_are_judged_by_their_bounds() -> None:
    found = asked(Answer(0.5), Answer(1.25))
    assert (found["refunds"].verdict, found["refunds"].value, found["refunds"].threshold) == ("Passed", "0.5", "<= 0.5")
    assert (found["margin"].verdict, found["margin"].threshold) == ("Passed", ">= 1 and <= 2")
    found = asked(Answer(0.51), Answer(0.99))
    assert [found[name].verdict for name in ("refunds", "margin")] == ["Failed", "Failed"]
    trouble = failed(list(found.values()))
    assert trouble is not None
    assert (trouble.reason, trouble.message) == (
        "QueryFailed",
        "spec.serving.rollout.queries[refunds] gives 0.51; it must be <= 0.5",
    )


def test_no_answer_is_inconclusive_and_says_why() -> None:
    found = asked(Answer(None, "the query gives NaN"), Answer(1.5))
    assert found["refunds"].verdict == "Inconclusive"
    assert "gives NaN" in doubts(list(found.values()))
    nothing = judge(rollout(**QUERIES), Evidence(traffic(300), traffic(300)))
    assert [row.verdict for row in nothing[-2:]] == ["Inconclusive"] * 2


def test_a_query_looks_back_so_it_fails_nobody_at_once() -> None:
    assert asked(Answer(9), Answer(1.5), seconds=29)["refunds"].verdict == "Inconclusive"
    assert asked(Answer(9), Answer(1.5), seconds=30)["refunds"].verdict == "Failed"


def test_a_model_that_nobody_calls_is_still_asked_about() -> None:
    rows = judge(rollout(**QUERIES), Evidence(Traffic(), Traffic()))
    assert [row.verdict for row in rows] == ["Passed"] * 3 + ["Inconclusive"] * 2

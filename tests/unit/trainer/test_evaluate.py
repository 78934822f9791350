"""Holdout, cut-off, gates and slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truekeep.api.evaluation import Costs, Decision, Evaluation, Fairness, Gate, Robustness
from truekeep.contract.artifact import SignatureFeature
from truekeep.scores.metrics import Scored
from truekeep.trainer.faults import DataInvalid, ParametersInvalid
from truekeep.trainer.judging import evaluate
from truekeep.trainer.judging.evaluate import choose_cut_off, judge, split
from truekeep.trainer.judging.missing import Without, without


def mixed(rows: int) -> np.ndarray:
    return np.arange(rows) % 2


@pytest.mark.parametrize(
    ("times", "fraction", "at"),
    [
        (list(range(10)), "0.2", 8),
        (list(range(10)), "0.25", 7),  # never less than asked for
        (list(range(100)), "0.01", 98),
        (list(range(1000)), "0.1", 900),
        ([0, 1, 2, 3, 4, 5, 5, 5, 5, 5], "0.2", 5),  # rows of one moment stay together
    ],
)
def test_the_holdout_is_the_newest(times: list[int], fraction: str, at: int) -> None:
    labels = mixed(len(times))
    if fraction == "0.01":
        times, at = [*times[:-1], times[-2]], 98
    assert split(np.array(times), labels, fraction).at == at


@pytest.mark.parametrize(
    ("times", "labels", "words"),
    [
        ([5] * 10, mixed(10), "no training rows before it"),
        (range(10), [0, 1, 0, 1, 0, 1, 0, 1, 0, 0], "all 2 holdout rows from 1970-01-01T00:00:00.000008Z are 0"),
        (range(10), [1] * 8 + [0, 1], "all 8 training rows before 1970-01-01T00:00:00.000008Z are 1"),
        ([1], [1], "no training rows before it"),
    ],
)
def test_both_sides_need_both_classes(times: Any, labels: Any, words: str) -> None:
    with pytest.raises(DataInvalid, match=words) as caught:
        split(np.array(list(times)), np.array(labels), "0.2")
    assert "widen spec.data.window or change latestFraction" in str(caught.value)


def cut_off(decision: Decision | None, labels: Any, probabilities: Any) -> float:
    return choose_cut_off(Evaluation(decision=decision), labels, probabilities)


def test_a_fixed_cut_off_is_what_it_is() -> None:
    assert cut_off(None, mixed(4), np.zeros(4)) == 0.5
    assert cut_off(Decision(rule="Fixed", value="0.3"), mixed(4), np.zeros(4)) == 0.3


@pytest.mark.parametrize(
    ("negatives", "positives", "rate", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], [0.45, 0.9], "0.2", 0.45),  # one negative of five may be taken
        ([0.1, 0.2, 0.3, 0.4, 0.5], [0.45, 0.9], "0", 0.9),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [0.05, 0.9], "0.4", 0.4),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [0.05], "1", 0.0),
        ([0.5, 0.5, 0.5], [0.4, 0.6], "0.5", 0.6),  # ties: all three or none
        ([0.9, 0.1], [0.2], "0", np.nextafter(0.9, 1)),  # no score lies above
    ],
)
def test_the_lowest_cut_off_at_a_false_positive_rate(
    negatives: list[float], positives: list[float], rate: str, expected: float
) -> None:
    labels = np.array([0] * len(negatives) + [1] * len(positives))
    found = cut_off(Decision(rule="RecallAtFalsePositiveRate", value=rate), labels, np.array(negatives + positives))
    assert found == expected


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=60).filter(
        lambda rows: not all(label for label, _ in rows)
    ),
    st.sampled_from(["0", "0.05", "0.1", "0.25", "0.5", "0.9", "1"]),
)
def test_it_is_the_lowest(rows: list[tuple[bool, int]], rate: str) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score / 20 for _, score in rows])
    found = cut_off(Decision(rule="RecallAtFalsePositiveRate", value=rate), labels, scores)
    negatives = scores[~labels]
    assert (negatives >= found).mean() <= float(rate) + 1e-12
    lower = scores[scores < found]
    if len(lower):
        assert (negatives >= lower.max()).mean() > float(rate)


def example() -> Scored:
    """AUC 0.875 over all; 1 in group a, 0.5 in group b."""
    labels = np.array([0, 1] * 40)
    scores = np.where(np.arange(80) < 40, labels, 0.5).astype(float)
    return Scored(labels, scores, 0.5)


GROUPS = {"group": pa.array(["a"] * 40 + ["b"] * 40), "code": np.array([1.0] * 40 + [np.nan] * 40)}


@pytest.mark.parametrize(
    ("minimum", "result", "text"),
    [
        ("0.875", "Passed", "0.8750"),
        ("0.87499", "Passed", "0.8750"),
        ("0.8750001", "Failed", "0.8750"),
        ("0.9", "Failed", "0.8750"),
        ("0", "Passed", "0.8750"),
    ],
)
def test_a_gate(minimum: str, result: str, text: str) -> None:
    evaluation = Evaluation.model_validate({"gates": [{"name": "auc", "metric": "roc_auc", "minimum": minimum}]})
    [gate] = judge(evaluation, example(), {})
    assert (gate.name, gate.result, gate.value, gate.threshold, gate.rows) == ("auc", result, text, minimum, 80)


def test_a_value_is_told_with_the_digits_that_decide() -> None:
    labels = np.array([0, 1] * 5000)
    scores = labels.astype(float)
    scores[1] = -1.0  # AUC 1 - 1/5000 = 0.9998
    evaluation = Evaluation.model_validate({"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.99981"}]})
    [gate] = judge(evaluation, Scored(labels, scores, 0.5), {})
    assert (gate.result, gate.value) == ("Failed", "0.9998")
    closer = Evaluation.model_validate({"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.99976"}]})
    scores[1] = 0.0
    scores[0] = 0.5
    [gate] = judge(closer, Scored(labels, np.where(labels == 1, 0.9 - (np.arange(10000) == 3), scores), 0.5), {})
    assert (gate.result == "Passed") == (float(gate.value) >= 0.99976)


def test_slices_are_judged_by_group_the_worst_first() -> None:
    evaluation = Evaluation.model_validate(
        {
            "gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.7"}],
            "slices": [
                {"name": "by-group", "column": "group", "metric": "roc_auc", "minimum": "0.6", "minRows": 20},
                {"name": "by-code", "column": "code", "metric": "roc_auc", "minimum": "0.6", "minRows": 41},
            ],
        }
    )
    results = judge(evaluation, example(), GROUPS)
    assert [(one.name, one.result, one.value, one.rows) for one in results] == [
        ("by-group=b", "Failed", "0.5000", 40),
        ("auc", "Passed", "0.8750", 80),
        ("by-group=a", "Passed", "1.0000", 40),
        ("by-code=(null)", "NotJudged", "0.5000", 40),
        ("by-code=1", "NotJudged", "1.0000", 40),
    ]
    assert evaluate.sentence(results[0]) == "gate by-group=b: roc_auc 0.5000 is below 0.6 on 40 rows"
    assert evaluate.failed(results) == results[:1]


def test_a_group_of_one_class_is_not_judged() -> None:
    scored = Scored(np.array([0, 1] * 20 + [0] * 40), np.linspace(0, 1, 80), 0.5)
    evaluation = Evaluation.model_validate(
        {"slices": [{"name": "s", "column": "group", "metric": "roc_auc", "minimum": "0.1", "minRows": 10}]}
    )
    results = {one.name: (one.result, one.value) for one in judge(evaluation, scored, GROUPS)}
    assert results["s=b"] == ("NotJudged", "NaN")
    assert results["s=a"][0] == "Passed"


def test_a_slice_by_a_number_of_many_values_is_refused() -> None:
    evaluation = Evaluation.model_validate(
        {"slices": [{"name": "s", "column": "x", "metric": "roc_auc", "minimum": "0.1"}]}
    )
    scored = Scored(mixed(300), np.linspace(0, 1, 300), 0.5)
    with pytest.raises(DataInvalid, match="slice s: x has 300 distinct values, at most 250 make groups"):
        judge(evaluation, scored, {"x": np.arange(300.0)})


def test_every_metric_is_told() -> None:
    told = {metric.name: metric.value for metric in evaluate.metrics(example())}
    assert len(told) == 9
    assert told["roc_auc"] == "0.8750"
    assert told["accuracy"] == "0.7500"


COSTS = Costs(false_positive="1", false_negative="10")


@pytest.mark.parametrize(
    ("gate", "value", "result", "sentence"),
    [
        (Gate(name="g", metric="roc_auc", maximum="0.875"), "0.8750", "Passed", "meets 0.875"),
        (Gate(name="g", metric="roc_auc", maximum="0.8749999"), "0.8750", "Failed", "is above 0.8749999"),
        (Gate(name="g", metric="expected_cost", maximum="0.25"), "0.2500", "Passed", "meets 0.25"),
        (Gate(name="g", metric="expected_cost", maximum="0.2"), "0.2500", "Failed", "is above 0.2"),
        (Gate(name="g", metric="recall_at_false_positive_rate", at="0", minimum="0.5"), "0.5000", "Passed", "meets"),
        (
            Gate(name="g", metric="recall_at_false_positive_rate", at="0", minimum="0.51"),
            "0.5000",
            "Failed",
            "is below",
        ),
        (Gate(name="g", metric="precision_at_k", k=20, minimum="1"), "1.0000", "Passed", "meets 1"),
        (Gate(name="g", metric="precision_at_k", k=40, minimum="0.8"), "0.7500", "Failed", "is below 0.8"),
        (Gate(name="g", metric="calibration_error", maximum="0.01"), "0.0000", "Passed", "meets 0.01"),
    ],
)
def test_a_gate_of_a_team_that_acts_on_scores(gate: Gate, value: str, result: str, sentence: str) -> None:
    (found,) = judge(Evaluation(gates=[gate], costs=COSTS), example(), {})
    assert (found.value, found.result) == (value, result)
    assert found.bound == ("Maximum" if gate.maximum else "Minimum")
    assert sentence in evaluate.sentence(found)


def test_the_worst_of_upper_and_lower_bounds_is_first() -> None:
    gates = [
        Gate(name="low", metric="roc_auc", minimum="0.9"),
        Gate(name="high", metric="expected_cost", maximum="0.05"),
        Gate(name="fine", metric="roc_auc", maximum="0.99"),
    ]
    found = judge(Evaluation(gates=gates, costs=COSTS), example(), {})
    assert [one.name for one in found] == ["high", "low", "fine"]
    assert [one.name for one in evaluate.failed(found)] == ["high", "low"]


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (Evaluation(gates=[Gate(name="g", metric="roc_auc")]), "gate g has neither minimum nor maximum"),
        (Evaluation(gates=[Gate(name="g", metric="expected_cost", maximum="1")]), "gate g: expected_cost lacks"),
        (Evaluation(gates=[Gate(name="g", metric="precision_at_k", minimum="1")]), "gate g: precision_at_k lacks"),
    ],
)
def test_what_the_api_server_refuses_is_refused_here_too(evaluation: Evaluation, words: str) -> None:
    with pytest.raises(ParametersInvalid, match=words):
        judge(evaluation, example(), {})


def test_a_decision_needs_what_its_rule_goes_by() -> None:
    with pytest.raises(ParametersInvalid, match=r"LeastCost needs evaluation\.costs"):
        cut_off(Decision(rule="LeastCost"), mixed(4), np.zeros(4))
    with pytest.raises(ParametersInvalid, match="Fixed needs a value"):
        cut_off(Decision(rule="Fixed"), mixed(4), np.zeros(4))


def decided(seed: int = 0, rows: int = 4000) -> tuple[Scored, Any]:
    """Three groups: b is taken for positive more often, and wrongly so; c has few rows."""
    random = np.random.default_rng(seed)
    group = random.choice(["a", "b", "c"], rows, p=[0.6, 0.395, 0.005])
    labels = (random.random(rows) < 0.3).astype(np.int8)
    probabilities = np.clip(0.3 * labels + 0.15 * (group == "b") + random.uniform(0, 0.6, rows), 0, 1)
    return Scored(labels, probabilities, 0.5), group


@pytest.mark.parametrize("metric", ["demographic_parity_difference", "equalized_odds_difference"])
def test_a_difference_of_groups_is_fairlearn_s(metric: Any) -> None:
    from fairlearn import metrics

    scored, group = decided()
    kept = group != "c"  # too few of them
    want = getattr(metrics, metric)(
        scored.labels[kept], (scored.probabilities >= 0.5)[kept], sensitive_features=group[kept]
    )
    assert want > 0.1
    for maximum, result in ((f"{want + 1e-6:.9f}", "Passed"), (f"{want - 1e-6:.9f}", "Failed")):
        gate = Fairness(name="by-group", column="group", metric=metric, maximum=maximum)
        (found,) = judge(Evaluation(fairness=[gate]), scored, {"group": pa.array(group.tolist())})
        assert (found.result, found.bound, found.name, found.rows) == (result, "Maximum", "by-group=b/a", kept.sum())
        assert float(found.value) == pytest.approx(want, abs=1e-4)


def test_groups_of_which_too_few_rows_are_known_are_not_judged() -> None:
    scored, group = decided(rows=300)
    gate = Fairness(name="g", column="group", metric="equalized_odds_difference", maximum="0", min_rows=290)
    (found,) = judge(Evaluation(fairness=[gate]), scored, {"group": pa.array(group.tolist())})
    assert (found.result, found.name) == ("NotJudged", "g")
    assert evaluate.failed([found]) == []


FEATURES = [
    SignatureFeature(name="much", type="Number"),
    SignatureFeature(name="little", type="Number"),
    SignatureFeature(name="never", type="Number", nulls="Refuse"),
]


def asked_without(rows: int = 1000) -> tuple[Scored, Without]:
    """A model whose answer hangs on one column."""
    random = np.random.default_rng(1)
    matrix = random.normal(size=(rows, 3))
    labels = (matrix[:, 0] + random.normal(size=rows) / 2 > 0).astype(np.int8)

    def predict(given: Any) -> Any:
        return 1 / (1 + np.exp(-np.nan_to_num(given) @ np.array([3.0, 0.01, 0.0])))

    before = matrix.copy()
    found = without(FEATURES, matrix, predict)
    assert np.array_equal(before, matrix)
    return Scored(labels, predict(matrix), 0.5), found


def test_a_model_that_can_t_do_without_a_column_is_told_which() -> None:
    scored, absent = asked_without()
    gate = Robustness(name="sturdy", metric="roc_auc", max_drop="0.1")
    results = judge(Evaluation(robustness=[gate]), scored, {}, absent)
    assert [(one.name, one.result) for one in results] == [("sturdy=much", "Failed"), ("sturdy=little", "Passed")]
    assert 0.4 < float(results[0].value) < 0.6
    assert float(results[0].threshold) == pytest.approx(float(results[1].value) - 0.1, abs=0.01)
    (only,) = judge(Evaluation(robustness=[gate.model_copy(update={"columns": ["little"]})]), scored, {}, absent)
    assert only.name == "sturdy=little"


def test_a_column_that_may_not_be_null_is_not_tried() -> None:
    scored, absent = asked_without()
    gate = Robustness(name="sturdy", metric="roc_auc", max_drop="0.1", columns=["never"])
    with pytest.raises(ParametersInvalid, match="never is no feature that allows nulls"):
        judge(Evaluation(robustness=[gate]), scored, {}, absent)


def test_of_many_rows_some_are_asked_again() -> None:
    scored, _ = asked_without()
    asked: list[int] = []

    def predict(given: Any) -> Any:
        asked.append(len(given))
        return np.full(len(given), 0.5)

    absent = without(FEATURES, np.zeros((1000, 3)), predict, most=100)
    results = judge(Evaluation(robustness=[Robustness(name="r", metric="accuracy", max_drop="1")]), scored, {}, absent)
    assert asked == [100, 100]
    assert {one.rows for one in results} == {100}

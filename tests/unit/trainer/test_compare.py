"""Champion and challenger on the same rows: the interval, and what the rules make of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from truekeep.api.evaluation import ChampionRule, Costs, Metric
from truekeep.scores.decisions import expected_cost
from truekeep.scores.metrics import Scored, value
from truekeep.trainer.faults import ParametersInvalid
from truekeep.trainer.judging import compare
from truekeep.trainer.judging.compare import Interval, bootstrap, judge


def pair(rows: int, better: float, seed: int = 1) -> tuple[Scored, Scored]:
    """Challenger and champion whose scores share most of their noise; the challenger sees labels better by so much."""
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.3).astype(int)
    shared = random.normal(size=rows)
    champion = labels + shared + 0.3 * random.normal(size=rows)
    challenger = (1 + better) * labels + shared + 0.3 * random.normal(size=rows)
    return tuple(Scored(labels, 1 / (1 + np.exp(-raw)), 0.6) for raw in (challenger, champion))  # type: ignore[return-value]


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "f1", "neg_log_loss"])
def test_the_interval_is_scipys(metric: Metric) -> None:
    """Same method, other random numbers: the ends agree within what 400 resamples can tell."""
    challenger, champion = pair(600, 0.3)

    def difference(rows: np.ndarray) -> float:
        rows = rows.astype(int)
        first, second = (
            Scored(one.labels[rows], one.probabilities[rows], one.cut_off) for one in (challenger, champion)
        )
        return value(metric, first) - value(metric, second)

    theirs = stats.bootstrap(
        (np.arange(600),),
        difference,
        n_resamples=2000,
        vectorized=False,
        method="percentile",
        confidence_level=0.95,
        rng=np.random.default_rng(3),
    )
    ours = bootstrap(metric, challenger, champion, seed=5)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.difference == pytest.approx(value(metric, challenger) - value(metric, champion))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.15 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.15 * width)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """95 of 100 on average; the seeds are fixed, so that this is no matter of luck."""
    first, second = pair(200_000, 0.3, seed=99)
    truth = value("roc_auc", first) - value("roc_auc", second)
    covered = 0
    for seed in range(100):
        found = bootstrap("roc_auc", *pair(400, 0.3, seed=seed), seed=seed)
        covered += found.low <= truth <= found.high
    assert 88 <= covered <= 99


def test_resampling_is_paired() -> None:
    """Of two models that differ by a constant on every row, every resample has the very same difference."""
    challenger, champion = pair(500, 0.0)
    shifted = Scored(champion.labels, np.where(champion.labels == 1, 0.75, 0.25), 0.6)
    worse = Scored(champion.labels, np.where(champion.labels == 1, 0.5, 0.5), 0.6)
    found = bootstrap("neg_brier_score", shifted, worse, seed=1)
    assert found.low == pytest.approx(found.high)
    assert found.difference == pytest.approx(0.25 - 0.0625)
    assert bootstrap("roc_auc", challenger, champion, 1).low < bootstrap("roc_auc", challenger, champion, 1).high


def test_the_same_seed_gives_the_same_interval() -> None:
    models = pair(700, 0.1)
    assert bootstrap("roc_auc", *models, seed=1) == bootstrap("roc_auc", *models, seed=1)
    assert bootstrap("roc_auc", *models, seed=1) != bootstrap("roc_auc", *models, seed=2)


def test_many_rows_take_fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    counts = compare._counts

    def watch(random: np.random.Generator, resamples: int, rows: int) -> np.ndarray:
        drawn.append(resamples)
        return counts(random, resamples, rows)

    monkeypatch.setattr(compare, "_counts", watch)
    bootstrap("roc_auc", *pair(1000, 0.1), seed=1)
    assert sum(drawn) == 400
    drawn.clear()
    bootstrap("accuracy", *pair(120_000, 0.1), seed=1)
    assert sum(drawn) == 200


RULE = ChampionRule(metric="roc_auc")


@pytest.mark.parametrize(
    ("name", "rule", "tolerance", "low", "high", "passes"),
    [
        ("clearly better", "NotWorse", "0.01", 0.02, 0.05, True),
        ("as good", "NotWorse", "0.01", -0.02, 0.02, True),
        ("a little worse, for sure, but within tolerance", "NotWorse", "0.01", -0.009, -0.001, True),
        ("the interval touches the tolerance", "NotWorse", "0.01", -0.05, -0.01, True),
        ("for sure worse than tolerated", "NotWorse", "0.01", -0.05, -0.0101, False),
        ("no tolerance", "NotWorse", "0", -0.05, -0.0001, False),
        ("no tolerance, no evidence", "NotWorse", "0", -0.05, 0.0, True),
        ("for sure better", "Better", "0.01", 0.0001, 0.02, True),
        ("perhaps better", "Better", "0.01", 0.0, 0.02, False),
        ("worse", "Better", "0.01", -0.05, -0.02, False),
    ],
)
def test_the_rules(
    name: str,
    rule: str,
    tolerance: str,
    low: float,
    high: float,
    passes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare, "bootstrap", lambda *_: Interval((low + high) / 2, low, high))
    declared = ChampionRule.model_validate({"metric": "roc_auc", "rule": rule, "tolerance": tolerance})
    result = judge(declared, 4, *pair(300, 0.1), seed=1)
    assert result.result == ("Passed" if passes else "Failed"), name
    assert result.rule.startswith(f"{rule}: the 95 % interval of the difference must")
    assert (result.revision, result.rows, result.metric) == (4, 300, "roc_auc")


def test_a_worse_model_does_not_pass_and_a_better_one_does() -> None:
    challenger, champion = pair(5000, 0.5)
    passed = judge(RULE, 1, challenger, champion, seed=1)
    assert passed.result == "Passed"
    assert float(passed.challenger) > float(passed.champion)
    assert 0 < float(passed.low) < float(passed.high)
    failed = judge(RULE, 1, champion, challenger, seed=1)
    assert failed.result == "Failed"
    assert float(failed.high) < -0.01


@pytest.mark.parametrize(
    ("rows", "labels", "words"),
    [
        (199, None, "199 rows new to both, fewer than 200"),
        (1, None, "1 row new to both, fewer than 200"),
        (300, 0, "all 300 rows are of one class"),
        (300, 1, "all 300 rows are of one class"),
    ],
)
def test_too_little_is_not_judged(rows: int, labels: int | None, words: str) -> None:
    models = pair(rows, 0.1)
    if labels is not None:
        models = tuple(one._replace(labels=np.full(rows, labels)) for one in models)  # type: ignore[assignment]
    result = judge(RULE, 2, *models, seed=1)
    assert (result.result, result.rows, result.low) == ("NotJudged", rows, "NaN")
    assert result.rule == f"NotWorse was not judged, the gates decide alone: {words}"


def test_models_of_other_cut_offs_are_each_judged_by_their_own() -> None:
    challenger, _ = pair(500, 0.1)
    same = judge(ChampionRule(metric="recall"), 1, challenger, challenger._replace(cut_off=1.1), seed=1)
    assert float(same.champion) == 0
    assert float(same.challenger) > 0.3


COSTS = Costs(false_positive="1", false_negative="8")
BY_COST = ChampionRule(metric="neg_expected_cost", rule="Better")


def test_models_are_compared_by_what_their_decisions_cost() -> None:
    """Each at its own cut-off: the same scores, decided on worse, cost more."""
    challenger, champion = pair(4000, 0.0)
    worse = champion._replace(cut_off=0.95)
    result = judge(BY_COST, 3, challenger._replace(cut_off=0.3), worse, seed=1, costs=COSTS)
    assert result.result == "Passed"
    assert float(result.challenger) == pytest.approx(-expected_cost(challenger._replace(cut_off=0.3), COSTS), abs=1e-4)
    assert float(result.champion) == pytest.approx(-expected_cost(worse, COSTS), abs=1e-4)
    assert 0 < float(result.low) < float(result.high)
    other = judge(BY_COST, 3, worse, challenger._replace(cut_off=0.3), seed=1, costs=COSTS)
    assert other.result == "Failed"


def test_the_interval_of_a_cost_is_that_of_a_mean() -> None:
    """Of paired differences: normal theory knows its width."""
    challenger, champion = pair(3000, 0.4)
    found = bootstrap("neg_expected_cost", challenger, champion, 2, COSTS)
    paid = [np.where(one.labels == 1, np.where(one.probabilities >= one.cut_off, 0, 8),
                     np.where(one.probabilities >= one.cut_off, 1, 0)) for one in (challenger, champion)]  # fmt: skip
    gained = paid[1] - paid[0]
    assert found.difference == pytest.approx(gained.mean())
    error = gained.std() / np.sqrt(3000)
    assert found.low == pytest.approx(gained.mean() - 1.96 * error, abs=0.3 * error)
    assert found.high == pytest.approx(gained.mean() + 1.96 * error, abs=0.3 * error)


def test_without_costs_nothing_can_be_compared_by_them() -> None:
    with pytest.raises(ParametersInvalid, match="needs evaluation"):
        judge(BY_COST, 1, *pair(400, 0.1), seed=1)

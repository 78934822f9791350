"""What is tried, on which folds, and which trial is the best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import ParameterGrid, TimeSeriesSplit, cross_val_score

from tests.unit.trainer.lake import START, Lake, data_of, events, parquet, replaced, request_of
from truekeep.api.common import S3Location
from truekeep.api.tuning import Tuning
from truekeep.contract.requests import TrainRequest
from truekeep.contract.tuning import TrialParameter, TrialResult
from truekeep.trainer.data.dataset import Dataset, load
from truekeep.trainer.faults import DataInvalid
from truekeep.trainer.recipe import pipeline
from truekeep.trainer.tuning import search as tuning

STORE = S3Location(uri="s3://lake/")
GRID: dict[str, Any] = {"search": "Grid", "parameters": [{"name": "C", "values": ["0.01", "1"]}]}
DIGEST = f"sha256:{'0' * 64}"


def declared(**changes: Any) -> Tuning:
    return Tuning.model_validate({**GRID, **changes})


def random(trials: int = 5, **ranges: Any) -> Tuning:
    parameters = [{"name": name, "range" if isinstance(one, dict) else "values": one} for name, one in ranges.items()]
    return declared(search="Random", trials=trials, parameters=parameters)


def asked(given: Tuning, **changes: Any) -> TrainRequest:
    request = request_of(STORE, **changes)
    recipe = request.training.recipe
    assert recipe is not None
    training = request.training.model_copy(update={"recipe": recipe.model_copy(update={"tuning": given})})
    return request.model_copy(update={"training": training})


def rows(table: Any = None) -> Dataset:
    lake = Lake({"rows/a.parquet": parquet(events() if table is None else table)})
    now = round(START.timestamp() * 1e6) + 30 * 86400 * 1_000_000
    return load(data_of(), [], lake.open, now, lambda _: None)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return rows()


def values(parameters: tuning.Parameters) -> dict[str, str]:
    return {one.name: one.value for one in parameters}


# What is tried.


def test_a_grid_is_every_combination_once() -> None:
    given = declared(parameters=[{"name": "b", "values": ["x", "y"]}, {"name": "a", "values": ["1", "2", "null"]}])
    found = [values(one) for one in tuning.combinations(given, 7)]
    assert found == list(ParameterGrid({"a": ["1", "2", "null"], "b": ["x", "y"]}))
    assert len(found) == given.count == 6
    assert tuning.combinations(given, 8) == tuning.combinations(given, 7)  # a grid has no chance in it


def test_a_random_search_goes_by_the_seed_alone() -> None:
    given = random(20, C={"low": "0.001", "high": "10", "scale": "Log"}, solver=["lbfgs", "saga"])
    first = tuning.combinations(given, 7)
    assert len(first) == given.count == 20
    assert first == tuning.combinations(given, 7)
    assert first != tuning.combinations(given, 8)
    other = random(20, solver=["lbfgs", "saga"], C={"low": "0.001", "high": "10", "scale": "Log"})
    assert tuning.combinations(other, 7) == first  # the order in the YAML does not count


def test_more_trials_than_combinations_try_each_once() -> None:
    given = random(50, solver=["lbfgs", "saga"], C=["1", "2", "3"])
    found = tuning.combinations(given, 7)
    assert given.count == len(found) == len(set(found)) == 6


def test_values_are_drawn_without_repeating_one() -> None:
    found = tuning.combinations(random(5, C=["1", "2", "3"], solver=["lbfgs", "saga"]), 3)
    assert len(set(found)) == 5


@pytest.mark.parametrize("scale", ["Linear", "Log"])
def test_decimals_lie_in_their_range_as_json(scale: str) -> None:
    given = random(100, C={"low": "0.003", "high": "0.5", "scale": scale})
    drawn = [float(values(one)["C"]) for one in tuning.combinations(given, 7)]
    assert 0.003 <= min(drawn) < max(drawn) <= 0.5
    assert all(float(f"{one:.6g}") == one for one in drawn)
    below = sum(one < 0.05 for one in drawn)
    assert (below > 35) if scale == "Log" else (below < 25)  # 55 and 9 in the mean


@pytest.mark.parametrize("scale", ["Linear", "Log"])
def test_whole_numbers_reach_both_ends(scale: str) -> None:
    given = random(100, depth={"low": "1", "high": "4", "scale": scale, "type": "Integer"})
    drawn = {values(one)["depth"] for one in tuning.combinations(given, 7)}
    assert drawn == {"1", "2", "3", "4"}


def test_a_decimal_stays_one() -> None:
    given = random(100, C={"low": "1", "high": "3"})
    recipe = request_of(STORE).training.recipe
    assert recipe is not None
    for one in tuning.combinations(given, 7):
        assert isinstance(pipeline.parameters(tuning.recipe_with(recipe, one))["C"], float)


def test_a_trial_adds_to_what_the_recipe_sets() -> None:
    recipe = asked(declared(), parameters={"max_iter": "300"}).training.recipe
    assert recipe is not None
    settled = tuning.recipe_with(recipe, tuning.combinations(declared(), 7)[1])
    assert pipeline.parameters(settled) == {"max_iter": 300, "C": 1}
    assert settled.tuning is None


# On which rows.


def test_folds_are_scikit_learns_before_the_holdout(dataset: Dataset) -> None:
    given = declared(folds=4)
    found = tuning.folds(asked(given), given, dataset)
    at = len(dataset) - len(dataset) // 5
    split = TimeSeriesSplit(4).split(np.empty(at))
    assert [(one.begin, one.end) for one in found] == [(test[0], test[-1] + 1) for _, test in split]
    assert found[-1].end == at


def test_rows_of_one_time_are_never_on_both_sides() -> None:
    table = events()
    hours = [one.replace(hour=0, minute=0) for one in table["at"].to_pylist()]
    dataset = rows(replaced(table, "at", hours, table.schema.field("at").type))
    given = declared(folds=3)
    found = tuning.folds(asked(given), given, dataset)
    for one in found:
        assert dataset.times[one.begin - 1] < dataset.times[one.begin]
    assert [one.end for one in found[:-1]] == [one.begin for one in found[1:]]


def test_a_fold_of_one_class_is_told_with_its_time() -> None:
    table = events()
    late = table["late"].to_numpy().copy()
    late[:700] = 0
    given = declared(folds=3)
    with pytest.raises(DataInvalid, match=r"folds 3: the 480 rows before fold 1, which begins at 2024-01-04T08:00:00Z"):
        tuning.folds(asked(given), given, rows(replaced(table, "late", late)))


# How a trial is judged.


def judged(given: Tuning, dataset: Dataset, index: int = 1, until: float = 1e9, **changes: Any) -> TrialResult:
    request = asked(given, **changes)
    ticks = iter(range(1000))
    parameters = tuning.combinations(given, 7)[index]
    parts = tuning.folds(request, given, dataset)
    return tuning.judge(request, index, parameters, dataset, parts, 1, lambda: float(next(ticks)), until)


def test_scores_are_scikit_learns(dataset: Dataset) -> None:
    given = declared(folds=3, metric="neg_log_loss")
    result = judged(given, dataset)
    request = asked(given)
    at = tuning.folds(request, given, dataset)[-1].end
    from truekeep.trainer import fit

    recipe = tuning.recipe_with(request.training.recipe, result.parameters)  # type: ignore[arg-type]
    features, _ = fit.fit_on(request, recipe, dataset, slice(None, at), 1)
    matrix = fit._matrix(dataset, fit.wants_of(request), features, slice(None, at))
    plain = pipeline.build(recipe, features)
    want = cross_val_score(plain, matrix, dataset.labels[:at], cv=TimeSeriesSplit(3), scoring="neg_log_loss")
    assert [float(score) for score in result.scores] == pytest.approx(list(want), abs=1e-9)
    assert float(result.mean or "nan") == pytest.approx(want.mean(), abs=1e-9)
    assert result.status == "Scored"
    assert result.data_digest == dataset.read.digest


def test_the_holdout_changes_nothing(dataset: Dataset) -> None:
    table = events()
    amount = table["amount"].to_numpy().copy()
    amount[-480:] = 0
    other = judged(declared(), rows(replaced(table, "amount", amount)))
    mine = judged(declared(), dataset)
    assert other.scores == mine.scores
    assert other.data_digest != mine.data_digest


def test_parameters_that_the_estimator_refuses_fail_the_trial_alone(dataset: Dataset) -> None:
    given = declared(parameters=[{"name": "C", "values": ["1", "-1"]}])
    result = judged(given, dataset)
    assert (result.status, result.mean, result.scores) == ("Refused", None, ())
    assert "The 'C' parameter of LogisticRegression must be" in result.message


def test_time_that_is_up_ends_a_trial_between_folds(dataset: Dataset) -> None:
    result = judged(declared(folds=3), dataset, until=2.5)
    assert (result.status, result.mean, len(result.scores)) == ("OutOfTime", None, 2)
    assert result.message == "the time was up before fold 3 of 3"


def test_what_scikit_learn_warns_of_is_told(dataset: Dataset) -> None:
    given = declared(parameters=[{"name": "max_iter", "values": ["1", "2"]}])
    result = judged(given, dataset)
    assert result.status == "Scored"
    assert "failed to converge" in result.message


def test_a_metric_of_decisions_goes_by_the_declared_cut_off(dataset: Dataset) -> None:
    rule = {"decision": {"rule": "Fixed", "value": "0.01"}}
    given = declared(metric="recall")
    assert float(judged(given, dataset, evaluation=rule).mean or "nan") > 0.99
    assert float(judged(given, dataset).mean or "nan") < 0.9


# Which is the best.


def trial(index: int, mean: str | None, status: Any = "Scored") -> TrialResult:
    return TrialResult(
        index=index,
        parameters=(TrialParameter(name="C", value="1"),),
        status=status,
        training_fingerprint=DIGEST,
        mean=mean,
    )


def test_the_greatest_mean_wins_and_of_equal_ones_the_first() -> None:
    results = [trial(3, "0.8"), trial(0, "0.7"), trial(2, "0.8"), trial(1, None, "Refused")]
    best = tuning.best(results)
    assert best is not None
    assert best.index == 2
    assert tuning.best([trial(0, "-0.4"), trial(1, "-0.3")]) == trial(1, "-0.3")
    assert tuning.best([trial(1, None, "OutOfTime")]) is None

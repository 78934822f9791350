"""Attributions against their definition, written out by hand, for every estimator; and against the package shap."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tests.unit.trainer.test_onnx_model import MANY, wide
from tests.unit.trainer.test_pipeline import BINNED, BOOSTED, FOREST, LIGHTGBM, LOGISTIC, STOCHASTIC, XGBOOST, recipe
from truekeep.api.estimators import ESTIMATORS, ONNX_ONLY
from truekeep.contract.artifact import Signature
from truekeep.contract.layout import ONNX_FILE
from truekeep.explain import shapley, trees
from truekeep.explain.attribution import Attribution, attribute
from truekeep.explain.shapley import log_odds
from truekeep.features.compiled import load
from truekeep.trainer.onnx.graph import convert
from truekeep.trainer.recipe.pipeline import fit

SIGNATURE = Signature(estimator="x", features=MANY, cut_off=0.5, examples=[])


def by_definition(model: Any, row: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The mean over all orders of the features of what each adds when it comes (Shapley 1953)."""
    features = len(row)
    values = np.zeros(features)
    for order in itertools.permutations(range(features)):
        mixed = background.copy()
        before = model(mixed).mean()
        for feature in order:
            mixed[:, feature] = row[feature]
            after = model(mixed).mean()
            values[feature] += after - before
            before = after
    return values / math.factorial(features)


def fitted(estimator: str, **values: str) -> tuple[Any, dict[str, bytes]]:
    matrix, labels = wide(1500, seed=1)
    pipeline = fit(recipe(estimator, **values), MANY, matrix, labels, threads=1).pipeline
    return pipeline, {ONNX_FILE: convert(pipeline, len(MANY)) if estimator not in ONNX_ONLY else onnx_of(pipeline)}


def onnx_of(pipeline: Any) -> bytes:
    content: bytes = pipeline.content
    return content


def background(rows: int = 9) -> np.ndarray:
    return wide(rows, seed=7, lowest=-1)[0]


ODD = np.array([[5.0, 0.3, 2.0, np.nan, 1.0], [-1.0, -2.0, np.nan, 1.5, 0.0], [np.nan] * 5])


@pytest.mark.parametrize(
    ("estimator", "values"),
    [
        *((name, {}) for name in ESTIMATORS),
        (BINNED, {"max_iter": "20"}),
        (FOREST, {"max_depth": "3"}),
        (BOOSTED, {"init": "zero", "learning_rate": "0.5"}),
    ],
)
def test_the_values_are_those_of_the_definition_and_add_up(estimator: str, values: Any) -> None:
    _, files = fitted(estimator, **values)
    predict, _ = load(files[ONNX_FILE])
    for row in ODD:
        found = attribute(files, SIGNATURE, predict, row, background())
        linear = estimator in (LOGISTIC, STOCHASTIC)
        assert found.method == ("Linear" if linear else "TreeSHAP")
        averages = "Forest" in estimator or "ExtraTrees" in estimator or estimator.endswith("DecisionTreeClassifier")
        assert found.scale == ("probability" if averages else "log-odds")
        model = predict if averages else (lambda rows: log_odds(predict(rows)))
        wanted = by_definition(model, row, background())
        np.testing.assert_allclose(list(found.values.values()), wanted, atol=1e-9)
        answer = model(row[None])[0]
        assert found.answer == pytest.approx(answer, abs=1e-9)
        assert found.base + sum(found.values.values()) == pytest.approx(answer, abs=1e-9)
        assert list(found.values) == [feature.name for feature in MANY]


def test_of_a_linear_model_it_is_the_coefficient_times_the_distance_from_the_mean() -> None:
    random = np.random.default_rng(3)
    weights, rows, row = random.normal(size=4), random.normal(size=(50, 4)), random.normal(size=4)

    def predict(matrix: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(matrix @ weights + 0.3)))

    found = attribute({}, SIGNATURE.model_copy(update={"features": MANY[:4]}), predict, row, rows)
    assert (found.method, found.scale, found.errors) == ("Linear", "log-odds", None)
    np.testing.assert_allclose(list(found.values.values()), weights * (row - rows.mean(axis=0)), atol=1e-9)


def interacting(matrix: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(matrix[:, 0] * matrix[:, 1] + np.abs(matrix[:, 2]) + matrix.sum(axis=1))))


def test_any_other_model_is_asked_for_all_coalitions_or_for_random_orders() -> None:
    random = np.random.default_rng(4)
    rows, row = random.normal(size=(12, 5)), random.normal(size=5)
    whole = attribute({}, SIGNATURE, interacting, row, rows)
    assert (whole.method, whole.scale) == ("Exact", "probability")
    wanted = by_definition(interacting, row, rows)
    np.testing.assert_allclose(list(whole.values.values()), wanted, atol=1e-12)
    some = attribute({}, SIGNATURE, interacting, row, rows, budget=300)
    assert some.method == "Sampled"
    assert some.errors is not None
    assert some.base + sum(some.values.values()) == pytest.approx(some.answer, abs=1e-12)


def test_standard_errors_say_how_far_the_sampled_values_are_off() -> None:
    random = np.random.default_rng(5)
    rows, row = random.normal(size=(6, 5)), random.normal(size=5)
    wanted = by_definition(interacting, row, rows)
    off = []
    for seed in range(60):
        found = shapley.sampled(interacting, row, rows, budget=3000, seed=seed)
        assert found.errors is not None
        off.append(((found.values - wanted) / np.maximum(found.errors, 1e-12))[:3])
    assert np.abs(np.mean(off)) < 0.5
    assert 0.7 < np.std(off) < 1.4


def test_a_column_of_two_features_is_not_walked_but_asked() -> None:
    _, files = fitted(BINNED)
    predict, _ = load(files[ONNX_FILE])
    model = trees.opened(files[ONNX_FILE])

    def mixing(rows: np.ndarray) -> Any:
        inputs, total, margin = model.parts(rows)
        mixed = inputs.copy()
        mixed[:, 1] += rows[:, 3]
        return mixed, total, margin

    with pytest.raises(trees.NotTreesError, match="several features"):
        trees.values(model._replace(parts=mixing), np.zeros(5), background())
    bent = model._replace(parts=lambda rows: (*model.parts(rows)[:2], model.parts(rows)[2] ** 3))
    with pytest.raises(trees.NotTreesError, match="no line"):
        trees.values(bent, ODD[0], background())
    with pytest.raises(ValueError, match="no background"):
        attribute(files, SIGNATURE, predict, ODD[0], np.empty((0, 5)))


def test_the_features_that_mattered_most_come_first() -> None:
    found = Attribution("Linear", "log-odds", 1, 0.0, 0.0, {"a": 0.1, "b": -3.0, "c": 0.1, "d": 0.0})
    assert [name for name, _ in found.ranked()] == ["b", "a", "c", "d"]


@pytest.mark.parametrize("estimator", [LOGISTIC, BINNED, BOOSTED, FOREST, LIGHTGBM, XGBOOST])
def test_the_package_shap_says_the_same(estimator: str) -> None:
    """Its exact explainer, asked of our model: nulls, unknown categories and all."""
    shap = pytest.importorskip("shap")
    _, files = fitted(estimator)
    predict, _ = load(files[ONNX_FILE])
    for row in ODD[:2]:
        found = attribute(files, SIGNATURE, predict, row, background())
        model = predict if found.scale == "probability" else (lambda rows: log_odds(predict(rows)))
        explained = shap.explainers.Exact(model, shap.maskers.Independent(background(), max_samples=100))(row[None])
        np.testing.assert_allclose(list(found.values.values()), explained.values[0], atol=1e-6)
        assert found.base == pytest.approx(float(explained.base_values[0]), abs=1e-6)


@pytest.mark.parametrize("estimator", [BOOSTED, FOREST, XGBOOST])
def test_the_tree_explainer_of_shap_says_the_same(estimator: str) -> None:
    """On the library's own trees, of numbers alone."""
    shap = pytest.importorskip("shap")
    random = np.random.default_rng(8)
    numbers = [feature.model_copy(update={"type": "Number", "categories": None}) for feature in MANY]
    matrix = random.normal(size=(800, 5)).astype(np.float32).astype(np.float64)
    labels = (matrix[:, 0] * matrix[:, 1] + matrix[:, 2] + random.normal(size=800) > 0).astype(int)
    pipeline = fit(recipe(estimator), numbers, matrix, labels, threads=1).pipeline
    content = onnx_of(pipeline) if estimator in ONNX_ONLY else convert(pipeline, 5)
    steps = (pipeline.original if estimator in ONNX_ONLY else pipeline).steps
    rows, row = matrix[:20], matrix[700]
    for _, step in steps[:-1]:
        rows, row = step.transform(rows), step.transform(row[None])[0]
    theirs = shap.TreeExplainer(steps[-1][1], data=rows, feature_perturbation="interventional").shap_values(row[None])
    wanted = np.asarray(theirs)[0]
    wanted = wanted[:, 1] if wanted.ndim == 2 else wanted  # of class 1
    found = attribute(
        {ONNX_FILE: content},
        SIGNATURE.model_copy(update={"features": numbers}),
        load(content)[0],
        matrix[700],
        matrix[:20],
    )
    assert found.method == "TreeSHAP"
    np.testing.assert_allclose(list(found.values.values()), wanted[:5], atol=1e-5)  # shap computes in float32 here

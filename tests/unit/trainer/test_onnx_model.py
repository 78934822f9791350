"""The model as ONNX answers as the pipeline does, bit for bit nearly, or it does not serve."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.unit.trainer.test_pipeline import (
    BINNED,
    BOOSTED,
    FEATURES,
    FOREST,
    LIGHTGBM,
    LOGISTIC,
    STOCHASTIC,
    XGBOOST,
    recipe,
    rows,
)
from truekeep.api.estimators import ESTIMATORS, ONNX_ONLY
from truekeep.contract.artifact import SignatureFeature
from truekeep.features.compiled import load
from truekeep.trainer.onnx import model as onnx_model
from truekeep.trainer.onnx.graph import NotConvertibleError, convert
from truekeep.trainer.recipe.pipeline import fit, probabilities

MANY = [
    SignatureFeature(name="place", type="Category", categories=[str(code) for code in range(120)]),
    *FEATURES,
    SignatureFeature(name="side", type="Category", categories=["l", "r"]),
]


def wide(count: int, seed: int, lowest: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Five columns: many categories, few, numbers, all with nulls; from `lowest` -1 on with unknown categories too."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(count, 5))
    for column, known in ((0, 120), (2, 3), (4, 2)):
        matrix[:, column] = random.integers(lowest, known, count)
    labels = (np.sin(matrix[:, 0]) + matrix[:, 1] + (matrix[:, 2] == 1) + random.normal(size=count) > 0.5).astype(int)
    for column, every in ((0, 11), (2, 7), (3, 5)):
        matrix[::every, column] = np.nan
    return matrix, labels


def odd_rows() -> np.ndarray:
    """Nulls and unknown categories everywhere, and numbers far away."""
    matrix, _ = wide(4000, seed=2, lowest=-1)
    matrix[0] = np.nan
    matrix[1] = -1
    matrix[2, [1, 3]] = 1e30, -1e30
    return matrix


@pytest.mark.parametrize(
    ("estimator", "values"),
    [
        *((name, {}) for name in ESTIMATORS if name not in ONNX_ONLY),
        (STOCHASTIC, {"loss": "modified_huber", "alpha": "0.01"}),
        (STOCHASTIC, {"average": "true", "penalty": "elasticnet"}),
        (LOGISTIC, {"class_weight": '"balanced"', "C": "0.01"}),
        (LOGISTIC, {"solver": "liblinear"}),
        (LOGISTIC, {"fit_intercept": "false"}),
        (FOREST, {"class_weight": '"balanced_subsample"', "max_depth": "3"}),
        (BOOSTED, {"loss": "exponential"}),
        (BOOSTED, {"init": "zero", "learning_rate": "0.5"}),
        (BINNED, {"max_leaf_nodes": "2"}),
        (BINNED, {"early_stopping": "true", "max_iter": "30"}),
        (BINNED, {"min_samples_leaf": "2000"}),
    ],
)
def test_it_answers_as_the_pipeline_for_nulls_and_unknown_categories_too(estimator: str, values: Any) -> None:
    matrix, labels = wide(1500, seed=1)
    model = fit(recipe(estimator, **values), MANY, matrix, labels, threads=1).pipeline
    test = odd_rows()
    content, compiled = onnx_model.compile_model(model, 0.4, test)
    assert (compiled.reason, compiled.rows, compiled.crossed) == ("", len(test), 0)
    predict, width = load(content)
    assert width == len(MANY)
    np.testing.assert_allclose(predict(test), probabilities(model, test), rtol=0, atol=1e-12)
    one_by_one = np.concatenate([predict(test[row : row + 1]) for row in range(50)])
    np.testing.assert_allclose(one_by_one, probabilities(model, test)[:50], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "values", "largest"),
    [
        (LIGHTGBM, {"n_estimators": "60"}, 1e-12),
        (LIGHTGBM, {"n_estimators": "60", "class_weight": '"balanced"', "max_depth": "2"}, 1e-12),
        (LIGHTGBM, {"boosting_type": "dart"}, 1e-12),
        (LIGHTGBM, {"boosting_type": "rf", "subsample": "0.5", "subsample_freq": "1"}, 1e-12),
        (LIGHTGBM, {"n_estimators": "1", "min_child_samples": "1000"}, 1e-12),  # a tree that is a leaf
        (XGBOOST, {"n_estimators": "60"}, 1e-6),
        (XGBOOST, {"n_estimators": "60", "grow_policy": "lossguide", "base_score": "0.2"}, 1e-6),
        (XGBOOST, {"num_parallel_tree": "3", "subsample": "0.5", "scale_pos_weight": "3"}, 1e-6),
        (XGBOOST, {"n_estimators": "1", "min_child_weight": "10000"}, 1e-6),
    ],
)
def test_boosters_answer_as_their_own_libraries_do(estimator: str, values: Any, largest: float) -> None:
    matrix, labels = wide(1500, seed=1)
    translated = fit(recipe(estimator, **values), MANY, matrix, labels, threads=1).pipeline
    test = odd_rows()
    content, compiled = onnx_model.compile_model(translated, 0.4, test)
    assert (compiled.reason, compiled.rows, compiled.crossed) == ("", len(test), 0)
    assert content == translated.content
    predict, _ = load(content)
    np.testing.assert_array_equal(predict(test), probabilities(translated, test))  # what serves is what was judged
    own = translated.original.predict_proba(test)[:, 1]
    np.testing.assert_allclose(predict(test), own, rtol=0, atol=largest)
    assert 0 <= compiled.largest_difference <= largest * 10
    clean = np.nan_to_num(matrix)  # and where training saw no null
    model = fit(recipe(estimator, **values), MANY, clean, labels, threads=1).pipeline
    np.testing.assert_allclose(
        probabilities(model, test), model.original.predict_proba(test)[:, 1], rtol=0, atol=largest
    )


def test_a_booster_that_its_translation_does_not_answer_for_is_not_published() -> None:
    matrix, labels = rows()
    model = fit(recipe(XGBOOST), FEATURES, matrix, labels, threads=1).pipeline
    other = fit(recipe(XGBOOST, max_depth="1"), FEATURES, matrix, labels, threads=1).pipeline
    content, compiled = onnx_model.compile_model(dataclasses.replace(model, content=other.content), 0.5, matrix)
    assert content == b""
    assert compiled.reason == "it does not agree with the pipeline"


@pytest.mark.parametrize("estimator", [LOGISTIC, BINNED])
def test_numbers_alone_and_categories_alone(estimator: str) -> None:
    matrix, labels = rows()
    for columns in ([0], [1], [0, 2]):
        features = [FEATURES[column] for column in columns]
        model = fit(recipe(estimator), features, matrix[:, columns], labels, threads=1).pipeline
        assert onnx_model.compile_model(model, 0.5, matrix[:, columns])[1].reason == ""


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_same_training_gives_the_same_bytes(estimator: str) -> None:
    matrix, labels = rows()
    one, two = (fit(recipe(estimator), FEATURES, matrix, labels, threads=count).pipeline for count in (1, 2))
    if estimator in ONNX_ONLY:
        assert one.content == two.content
    else:
        assert convert(one, 3) == convert(two, 3)


def test_what_differs_does_not_serve() -> None:
    matrix, labels = rows()
    model = fit(recipe(LOGISTIC), FEATURES, matrix, labels, threads=1).pipeline
    other = fit(recipe(LOGISTIC, C="0.5"), FEATURES, matrix, labels, threads=1).pipeline
    foreign = convert(other, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_model, "convert", lambda *_: foreign)
        content, compiled = onnx_model.compile_model(model, 0.5, matrix)
        assert content == b""
        assert compiled.reason == "it does not agree with the pipeline"
        assert 1e-4 < compiled.largest_difference <= 0.1
        assert compiled.crossed > 0
        assert "not as ONNX: on 600 rows a probability differs by at most" in onnx_model.sentence(compiled)
        # Within a wide tolerance it would do, but for the rows that it decides otherwise.
        assert onnx_model.compile_model(model, 0.5, matrix, tolerance=0.5)[0] == b""
        assert onnx_model.compile_model(model, 0.0, matrix, tolerance=0.5)[0] == foreign


def test_what_has_no_translation_says_so() -> None:
    matrix, labels = rows()
    model = fit(recipe(LOGISTIC), FEATURES, matrix, labels, threads=1).pipeline
    encoder = model.steps[0][1].named_transformers_["category"]
    encoder.set_params(drop="first").fit(np.nan_to_num(matrix[:, [1]]))
    with pytest.raises(NotConvertibleError, match="OneHotEncoder"):
        convert(model, 3)
    content, compiled = onnx_model.compile_model(model, 0.5, matrix)
    assert (content, compiled.rows) == (b"", 0)
    assert onnx_model.sentence(compiled) == (
        "served by scikit-learn, not as ONNX: OneHotEncoder drops or gathers categories"
    )

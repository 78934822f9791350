"""The recipe: hyperparameters, categories and nulls for every allow-listed estimator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from truekeep.api.estimators import ESTIMATORS, ONNX_ONLY
from truekeep.api.training import Recipe
from truekeep.contract.artifact import SignatureFeature
from truekeep.features.trust import load_pipeline
from truekeep.trainer import threads
from truekeep.trainer.faults import DataInvalid, ParametersInvalid
from truekeep.trainer.recipe import canonical_skops
from truekeep.trainer.recipe.pipeline import build, fit, parameters

LOGISTIC, BINNED = "sklearn.linear_model.LogisticRegression", "sklearn.ensemble.HistGradientBoostingClassifier"
FOREST, BOOSTED = "sklearn.ensemble.RandomForestClassifier", "sklearn.ensemble.GradientBoostingClassifier"
STOCHASTIC = "sklearn.linear_model.SGDClassifier"
LIGHTGBM, XGBOOST = "lightgbm.LGBMClassifier", "xgboost.XGBClassifier"
FEATURES = [
    SignatureFeature(name="amount", type="Number"),
    SignatureFeature(name="kind", type="Category", categories=["a", "b", "c"]),
    SignatureFeature(name="gap", type="Number"),
]


def recipe(estimator: str, **values: str) -> Recipe:
    linear = estimator in (LOGISTIC, STOCHASTIC)
    small = {"max_iter": "5"} if estimator == BINNED else {} if linear else {"n_estimators": "5"}
    named = [{"name": name, "value": value} for name, value in {**small, **values}.items()]
    return Recipe.model_validate({"estimator": estimator, "parameters": named, "seed": 3})


def rows(count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Encoded as `features.encode` does: codes, NaN for nulls; and labels of what they tell."""
    random = np.random.default_rng(1)
    matrix = random.normal(size=(count, 3))
    matrix[:, 1] = random.integers(0, 3, count)
    labels = (matrix[:, 0] + (matrix[:, 1] == 2) + random.normal(size=count) / 2 > 0.5).astype(int)
    matrix[::7, 2] = np.nan
    matrix[::9, 1] = np.nan
    return matrix, labels


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_learns_and_takes_what_it_has_never_seen(estimator: str) -> None:
    matrix, labels = rows()
    fitted = fit(recipe(estimator), FEATURES, matrix, labels, threads=1)
    scores = fitted.probabilities(matrix)
    assert scores.shape == (600,)
    assert scores.dtype == np.float64
    assert scores[labels == 1].mean() > scores[labels == 0].mean() + 0.1
    assert fitted.seconds > 0
    odd = np.array([[np.nan, np.nan, np.nan], [0.0, -1.0, 0.0], [1e9, 2.0, -1e9]])
    assert np.isfinite(fitted.probabilities(odd)).all()


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name != BINNED])
def test_an_unknown_category_is_none_of_the_known(estimator: str) -> None:
    """Nor is it a large or small number, as it would be to a model that takes codes for numbers."""
    matrix, labels = rows()
    pipeline = fit(recipe(estimator), FEATURES, matrix, labels, threads=1).pipeline
    encoder = (pipeline.original if estimator in ONNX_ONLY else pipeline).steps[0][1]
    odd = np.repeat(matrix[1:2], 3, axis=0)
    odd[:, 1] = [-1.0, 2.0, np.nan]
    encoded = encoder.transform(odd)
    encoded = encoded if isinstance(encoded, np.ndarray) else encoded.toarray()
    assert encoded[:, -4:].tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_an_unknown_category_is_a_missing_one_where_categories_are_native() -> None:
    matrix, labels = rows()
    fitted = fit(recipe(BINNED), FEATURES, matrix, labels, threads=1)
    unknown, missing = (np.where(np.arange(3) == 1, code, matrix) for code in (-1.0, np.nan))
    np.testing.assert_array_equal(fitted.probabilities(unknown), fitted.probabilities(missing))


# Not SGD: an indicator that is 1 in all rows shares the work of its intercept.
@pytest.mark.parametrize("column", [1, 2])
@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name != STOCHASTIC])
def test_a_feature_without_any_value_is_never_looked_at(estimator: str, column: int) -> None:
    matrix, labels = rows()
    full = matrix.copy()
    matrix[:, column] = np.nan
    fitted = fit(recipe(estimator), FEATURES, matrix, labels, threads=1)
    assert np.isnan(matrix[:, column]).all(), "and what was given stays as it is"
    nearly = 2e-3 if estimator == LOGISTIC else 0  # its solver stops a little before the coefficient is zero
    np.testing.assert_allclose(fitted.probabilities(full), fitted.probabilities(matrix), rtol=0, atol=nearly)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_threads_leave_no_trace(estimator: str) -> None:
    matrix, labels = rows()
    one, three = (fit(recipe(estimator), FEATURES, matrix, labels, threads=count) for count in (1, 3))
    if estimator in ONNX_ONLY:
        assert one.pipeline.content == three.pipeline.content
    else:
        assert canonical_skops.dumps(one.pipeline) == canonical_skops.dumps(three.pipeline)
    np.testing.assert_array_equal(one.probabilities(matrix), three.probabilities(matrix))


@pytest.mark.parametrize("estimator", [BINNED, FOREST, BOOSTED, STOCHASTIC, LIGHTGBM, XGBOOST])
def test_the_seed_decides(estimator: str) -> None:
    matrix, labels = rows()
    subsample = {
        BOOSTED: {"subsample": "0.5"}, BINNED: {"max_features": "0.5"}, XGBOOST: {"subsample": "0.5"},
        LIGHTGBM: {"subsample": "0.5", "subsample_freq": "1"},
    }.get(estimator, {})  # fmt: skip
    same = [fit(recipe(estimator, **subsample), FEATURES, matrix, labels, threads=1) for _ in range(2)]
    other = fit(recipe(estimator, **subsample).model_copy(update={"seed": 4}), FEATURES, matrix, labels, threads=1)
    assert np.array_equal(same[0].probabilities(matrix), same[1].probabilities(matrix))
    assert not np.array_equal(same[0].probabilities(matrix), other.probabilities(matrix))


@pytest.mark.parametrize("features", [[FEATURES[0]], [FEATURES[1]], FEATURES[:2]])
@pytest.mark.parametrize("estimator", [LOGISTIC, BINNED])
def test_only_numbers_or_only_categories(estimator: str, features: list[SignatureFeature]) -> None:
    matrix, labels = rows()
    columns = [FEATURES.index(feature) for feature in features]
    fitted = fit(recipe(estimator), features, matrix[:, columns], labels, threads=1)
    assert load_pipeline(canonical_skops.dumps(fitted.pipeline), estimator)


@pytest.mark.parametrize(("estimator", "package"), [(LIGHTGBM, "lightgbm"), (XGBOOST, "xgboost")])
def test_an_image_without_the_package_says_so(estimator: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(
        ParametersInvalid, match=f"needs the package {package}, which this trainer's image does not have"
    ):
        build(recipe(estimator), FEATURES)


def test_values_are_json_or_text() -> None:
    found = parameters(
        recipe(
            BINNED,
            max_iter="120",
            learning_rate="0.05",
            max_depth="null",
            early_stopping="true",
            scoring="roc_auc",
            interaction_cst="[[0, 1], [2]]",
            class_weight='{"0": 1, "1": 5.5}',
        )
    )
    assert found == {
        "max_iter": 120,
        "learning_rate": 0.05,
        "max_depth": None,
        "early_stopping": True,
        "scoring": "roc_auc",
        "interaction_cst": [[0, 1], [2]],
        "class_weight": {0: 1, 1: 5.5},
    }
    assert parameters(recipe(LOGISTIC, C="NaN")) == {"C": "NaN"}


def test_class_weights_weigh() -> None:
    matrix, labels = rows()
    plain, weighted = (
        fit(recipe(LOGISTIC, **values), FEATURES, matrix, labels, threads=1).probabilities(matrix).mean()
        for values in ({}, {"class_weight": '{"0": 1, "1": 20}'})
    )
    assert weighted > plain + 0.2


@pytest.mark.parametrize(
    ("estimator", "values", "words"),
    [
        (
            BINNED,
            {"max_iters": "5"},
            "HistGradientBoostingClassifier has no parameter max_iters; did you mean max_iter? It takes class_weight, ",
        ),
        (LOGISTIC, {"depth": "5"}, "LogisticRegression has no parameter depth; It takes C, "),
        (
            BINNED,
            {"max_iter": "0"},
            "The 'max_iter' parameter of HistGradientBoostingClassifier must be an int in the range [1, inf). Got 0",
        ),
        (BINNED, {"max_iter": "many"}, "Got 'many' instead."),
        (BINNED, {"learning_rate": '"0.1"'}, "The 'learning_rate' parameter"),
        (FOREST, {"criterion": "best"}, "The 'criterion' parameter of RandomForestClassifier must be a str among"),
        (LOGISTIC, {"C": "Infinity"}, "Got 'Infinity' instead."),
        (LOGISTIC, {"class_weight": '{"late": 3}'}, "LogisticRegression refuses its parameters:"),
        (BINNED, {"monotonic_cst": "[1]"}, "HistGradientBoostingClassifier refuses its parameters:"),
        (FOREST, {"n_jobs": "2"}, "parameter n_jobs of RandomForestClassifier can't be set: threads follow"),
        (BINNED, {"random_state": "2"}, "can't be set: set recipe.seed instead; remove it"),
        (BINNED, {"verbose": "2"}, "can't be set: progress is in the pod's log"),
        (BINNED, {"warm_start": "true"}, "can't be set: every run starts afresh"),
        (BINNED, {"categorical_features": "[0]"}, "can't be set: they follow from the features of type Category"),
        ("sklearn.svm.SVC", {}, "estimator 'sklearn.svm.SVC' is not allowed; use one of lightgbm.LGBMClassifier, "),
        (STOCHASTIC, {"loss": "hinge"}, "loss of SGDClassifier is 'hinge', which has no probabilities; use one of log"),
        (LIGHTGBM, {"verbosity": "1"}, "parameter verbosity of LGBMClassifier can't be set: Truekeep sets it"),
        (LIGHTGBM, {"num_leafs": "7"}, "LGBMClassifier has no parameter num_leafs; did you mean num_leaves? It takes "),
        (LIGHTGBM, {"num_leaves": "1"}, "LGBMClassifier refuses its parameters: "),
        (LIGHTGBM, {"device": "gpu"}, "LGBMClassifier has no parameter device"),
        (XGBOOST, {"booster": "gblinear"}, "parameter booster of XGBClassifier can't be set: only trees have"),
        (XGBOOST, {"max_depth": "-3"}, "XGBClassifier refuses its parameters: "),
        ("os.system", {}, "estimator 'os.system' is not allowed"),
    ],
)
def test_bad_parameters_are_named_with_what_is_taken(estimator: str, values: dict[str, str], words: str) -> None:
    matrix, labels = rows()
    small = {"n_estimators": "5"} if estimator == FOREST else {}
    named = [{"name": name, "value": value} for name, value in {**small, **values}.items()]
    asked = Recipe.model_construct(**Recipe.model_validate({"estimator": LOGISTIC, "parameters": named}).__dict__)
    asked = asked.model_copy(update={"estimator": estimator})
    with pytest.raises(ParametersInvalid) as caught:
        fit(asked, FEATURES, matrix, labels, threads=1)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_more_categories_than_the_estimator_takes() -> None:
    many = SignatureFeature(name="kind", type="Category", categories=[f"c{number:03d}" for number in range(256)])
    with pytest.raises(DataInvalid, match="kind: 256 categories, and HistGradientBoostingClassifier takes at most 255"):
        build(recipe(BINNED), [many])
    with pytest.raises(DataInvalid, match=r"takes at most 31 \(max_bins\)"):
        build(recipe(BINNED, max_bins="31"), [many.model_copy(update={"categories": many.categories[:32]})])  # type: ignore[index]
    build(recipe(BINNED), [many.model_copy(update={"categories": many.categories[:255]})])  # type: ignore[index]
    build(recipe(FOREST), [many])


def test_what_scikit_learn_warns_of_is_kept() -> None:
    matrix, labels = rows()
    fitted = fit(recipe(LOGISTIC, max_iter="1"), FEATURES, matrix * 1000, labels, threads=1)
    assert any("failed to converge" in warning for warning in fitted.warnings)
    assert fit(recipe(LOGISTIC), FEATURES, matrix, labels, threads=1).warnings == ()


@pytest.mark.parametrize(
    ("environment", "cpu_max", "most", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, "100000 100000", 99, 3),
        ({"OMP_NUM_THREADS": "0"}, "100000 100000", 99, 1),
        ({}, "200000 100000", 2, 2),
        ({}, "150000 100000", 1, 1),
        ({}, "50000 100000", 1, 1),
        ({}, "max 100000", 99, 0),
        ({}, "nonsense", 99, 0),
        ({}, None, 99, 0),
    ],
)
def test_threads_follow_the_limit(
    environment: dict[str, str],
    cpu_max: str | None,
    most: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    file = tmp_path / "cpu.max"
    if cpu_max is not None:
        file.write_text(cpu_max + "\n")
    assert threads.count(environment, file) == (expected or 8) <= max(most, 8)


def test_linear_algebra_gets_one_thread() -> None:
    environment: dict[str, Any] = {"OMP_NUM_THREADS": "2"}
    assert threads.fix(environment) == 2
    assert environment["OPENBLAS_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "1"


def test_threads_that_wait_do_not_spin_for_long_unless_told_to() -> None:
    environment: dict[str, Any] = {"OMP_NUM_THREADS": "2"}
    threads.fix(environment)
    assert environment["GOMP_SPINCOUNT"] == "1000"
    told: dict[str, Any] = {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "7"}
    threads.fix(told)
    assert told["GOMP_SPINCOUNT"] == "7"

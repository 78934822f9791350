"""Only a skops pipeline of the estimator that was asked for is ever built."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skops import io as skops_io

from tests.unit.features.conftest import SMALL, fitted, rows
from truekeep.api.estimators import ESTIMATORS, ONNX_ONLY
from truekeep.features import trust
from truekeep.features.trust import UntrustedModelError, load_pipeline, trusted_types

LOGISTIC = "sklearn.linear_model.LogisticRegression"
STOCHASTIC = "sklearn.linear_model.SGDClassifier"
FOREST = "sklearn.ensemble.RandomForestClassifier"
BOOSTED = "sklearn.ensemble.GradientBoostingClassifier"
BINNED = "sklearn.ensemble.HistGradientBoostingClassifier"


def edited(content: bytes, change: Callable[[Any], None]) -> bytes:
    """The skops file with its schema changed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name == "schema.json":
                schema = json.loads(data)
                change(schema)
                data = json.dumps(schema).encode()
            copy.writestr(name, data)
    return target.getvalue()


def test_the_list_is_that_of_the_api() -> None:
    assert frozenset(ESTIMATORS) - ONNX_ONLY == trust.ESTIMATORS == frozenset(SMALL)


@pytest.mark.parametrize("estimator", sorted(SMALL))
def test_every_allowed_estimator_survives_the_way_to_the_server(estimator: str) -> None:
    pipeline = fitted(estimator)
    loaded = load_pipeline(skops_io.dumps(pipeline), estimator)
    np.testing.assert_array_equal(loaded.predict_proba(rows()[0]), pipeline.predict_proba(rows()[0]))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (BINNED, {"early_stopping": True}),
        (BINNED, {"categorical_features": None}),
        (BINNED, {"monotonic_cst": [1, 0, 0, 0], "interaction_cst": "pairwise", "max_features": 0.5}),
        (BINNED, {"class_weight": "balanced", "max_leaf_nodes": None}),
        (BOOSTED, {"loss": "exponential"}),
        (BOOSTED, {"init": "zero", "subsample": 0.5, "n_iter_no_change": 2}),
        (FOREST, {"oob_score": True, "n_estimators": 30, "class_weight": "balanced_subsample"}),
        (FOREST, {"criterion": "entropy", "ccp_alpha": 0.01, "max_samples": 0.5}),
        (LOGISTIC, {"class_weight": {0: 1, 1: 2.5}, "solver": "liblinear"}),
        (STOCHASTIC, {"loss": "modified_huber", "average": True}),
        (STOCHASTIC, {"early_stopping": True, "class_weight": "balanced", "penalty": "elasticnet"}),
        (LOGISTIC, {"solver": "saga", "l1_ratio": 0.5, "random_state": 3, "max_iter": 30}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_variants_load(name: str, parameters: dict[str, Any]) -> None:
    load_pipeline(skops_io.dumps(fitted(name, **parameters)), name)


def test_another_estimator_than_asked_for_is_refused() -> None:
    with pytest.raises(
        UntrustedModelError, match=r"holds sklearn\.\S+ .* not allowed in a pipeline of .*LogisticRegression"
    ):
        load_pipeline(skops_io.dumps(fitted(FOREST)), LOGISTIC)


def test_an_estimator_outside_the_list_is_refused() -> None:
    with pytest.raises(
        UntrustedModelError, match=r"'sklearn\.svm\.SVC' is not allowed; use one of sklearn\.ensemble\.Extra"
    ):
        trusted_types("sklearn.svm.SVC")


class Bomb:
    """Would tell on itself if it were ever built."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("content", [pickle.dumps(Bomb()), b"", b"PK", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_skops_file_is_refused(content: bytes) -> None:
    with pytest.raises(UntrustedModelError, match=r"the model file is (no skops file; pickle|damaged)"):
        load_pipeline(content, LOGISTIC)


def test_joblib_is_refused() -> None:
    target = io.BytesIO()
    joblib.dump(fitted(LOGISTIC), target)
    with pytest.raises(UntrustedModelError, match="pickle and joblib files are never loaded"):
        load_pipeline(target.getvalue(), LOGISTIC)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (FunctionTransformer(np.abs), "numpy.absolute"),
        (FunctionTransformer(partial(eval)), "(functools.partial|builtins.eval)"),
        (fitted(LOGISTIC).predict, "MethodNode"),
    ],
)
def test_a_type_that_is_not_on_the_list_is_refused_although_skops_may_trust_it(step: Any, name: str) -> None:
    x, y = rows()
    pipeline = Pipeline([("odd", "passthrough"), ("model", LogisticRegression())]).fit(np.nan_to_num(x), y)
    pipeline.steps[0] = ("odd", step)
    with pytest.raises(UntrustedModelError, match=rf"the model file holds .*{name}"):
        load_pipeline(skops_io.dumps(pipeline), LOGISTIC)


def test_a_forged_loader_is_refused() -> None:
    def forge(schema: Any) -> None:
        schema["content"]["content"]["memory"] = {
            "__loader__": "OperatorFuncNode", "__module__": "builtins", "__class__": "eval", "attrs": {}
        }  # fmt: skip

    with pytest.raises(UntrustedModelError, match=r"holds builtins\.eval \(loaded by OperatorFuncNode\)"):
        load_pipeline(edited(skops_io.dumps(fitted(LOGISTIC)), forge), LOGISTIC)


def test_a_node_hidden_where_skops_does_not_look_is_refused_too() -> None:
    def hide(schema: Any) -> None:
        schema["aside"] = [{"deep": {"__loader__": "FunctionNode", "__module__": "os", "__class__": "system"}}]

    with pytest.raises(UntrustedModelError, match=r"holds os\.system"):
        load_pipeline(edited(skops_io.dumps(fitted(LOGISTIC)), hide), LOGISTIC)


def test_a_bare_estimator_and_another_ending_are_refused() -> None:
    x, y = rows()
    with pytest.raises(UntrustedModelError, match="not a Pipeline"):
        load_pipeline(skops_io.dumps(LogisticRegression().fit(np.nan_to_num(x), y)), LOGISTIC)
    nested = Pipeline([("model", fitted(LOGISTIC))])
    with pytest.raises(UntrustedModelError, match="ends in Pipeline, but the signature says"):
        load_pipeline(skops_io.dumps(nested), LOGISTIC)


def test_other_classes_than_0_and_1_are_refused() -> None:
    pipeline = fitted(LOGISTIC)
    pipeline.steps[-1][1].classes_ = np.array([0, 1, 2])
    with pytest.raises(UntrustedModelError, match=r"knows the classes .* a binary one has \[0, 1\]"):
        load_pipeline(skops_io.dumps(pipeline), LOGISTIC)


def test_a_damaged_file_is_refused() -> None:
    content = skops_io.dumps(fitted(LOGISTIC))
    for cut in (100, len(content) // 2, len(content) - 30):
        with pytest.raises(UntrustedModelError, match="damaged"):
            load_pipeline(content[:cut], LOGISTIC)
    with pytest.raises(UntrustedModelError, match="holds no model"):
        load_pipeline(edited(content, lambda schema: schema.clear()), LOGISTIC)


@pytest.mark.parametrize("field", ["left", "right", "feature_idx"])
def test_a_tree_that_points_outside_of_itself_is_refused(field: str) -> None:
    pipeline = fitted(BINNED)
    pipeline.steps[-1][1]._predictors[1][0].nodes[field][0] = 60000
    with pytest.raises(UntrustedModelError, match="a tree of the model"):
        load_pipeline(skops_io.dumps(pipeline), BINNED)


def test_a_tree_that_walks_in_circles_is_refused() -> None:
    pipeline = fitted(FOREST)
    tree = pipeline.steps[-1][1].estimators_[1].tree_
    state = tree.__getstate__()
    state["nodes"]["right_child"][0] = 0
    tree.__setstate__(state)
    with pytest.raises(UntrustedModelError, match="points outside of itself"):
        load_pipeline(skops_io.dumps(pipeline), FOREST)


def test_what_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "MAX_BYTES", 1000)
    with pytest.raises(UntrustedModelError, match="bytes; at most 100000 and 1000 are loaded"):
        load_pipeline(skops_io.dumps(fitted(LOGISTIC)), LOGISTIC)

"""The door for models from elsewhere: what never gets through it, and how the others are fed."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.svm import SVC

from truekeep.contract.artifact import UNKNOWN_TEXT, Imported, ImportedInput, SignatureFeature
from truekeep.features.imported import Feeder, load_skops
from truekeep.features.trust import UntrustedModelError

ROWS = np.random.default_rng(0).normal(size=(60, 2))
TRUTH = (ROWS[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(FunctionTransformer(os.getcwd), LogisticRegression()),
        make_pipeline(FunctionTransformer(np.save), LogisticRegression()),
        make_pipeline(FunctionTransformer(ROWS.tofile), LogisticRegression()),
        KNeighborsClassifier().fit(ROWS, TRUTH),  # its tree walks memory by indices that nothing checks
        SVC().fit(ROWS, TRUTH),  # likewise
    ],
    ids=["function", "numpy-function", "method", "neighbours", "vectors"],
)
def test_what_does_more_than_compute_is_refused(model: Any) -> None:
    with pytest.raises(UntrustedModelError, match=r"holds types that are not on the list .*export the model to ONNX"):
        load_skops(skops.io.dumps(model))


@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps(DummyClassifier()), b"\x00" * 100])
def test_what_is_no_skops_file_is_refused(content: bytes) -> None:
    with pytest.raises(UntrustedModelError):
        load_skops(content)


def test_an_encoder_that_points_past_its_columns_is_refused() -> None:
    """The matrix that it makes is sparse, and its indices are believed."""
    texts = np.array([["a"], ["b"], ["c"]] * 20, dtype=object)
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(texts, TRUTH)
    assert load_skops(skops.io.dumps(model)).predict_proba(texts).shape == (60, 2)
    model[0]._n_features_outs = [1]
    with pytest.raises(UntrustedModelError, match="points outside of its own columns"):
        load_skops(skops.io.dumps(model))


@pytest.mark.parametrize("classifier", [RandomForestClassifier(2), HistGradientBoostingClassifier(max_iter=2)])
def test_trees_deep_within_a_model_are_looked_at(classifier: Any) -> None:
    from sklearn.ensemble import VotingClassifier

    model = VotingClassifier([("inner", Pipeline([("model", classifier)]))], voting="soft").fit(ROWS, TRUTH)
    assert load_skops(skops.io.dumps(model)).predict_proba(ROWS).shape == (60, 2)
    inner = model.estimators_[0][-1]
    if hasattr(inner, "_predictors"):
        inner._predictors[0][0].nodes["feature_idx"][0] = 77
    else:
        state = inner.estimators_[0].tree_.__getstate__()
        state["nodes"]["left_child"][0] = 10**6
        inner.estimators_[0].tree_.__setstate__(state)
    with pytest.raises(UntrustedModelError, match="a tree of the model"):
        load_skops(skops.io.dumps(model))


FEATURES = [
    SignatureFeature(name="n", type="Number"),
    SignatureFeature(name="k", type="Category", categories=["a", "b"]),
    SignatureFeature(name="c", type="Category", categories=["1", "3"]),
]
MATRIX = np.array([[1.5, 0.0, 1.0], [np.nan, 1.0, 0.0], [2.0, -1.0, np.nan], [3.0, np.nan, 1.0]])


def fed(*inputs: ImportedInput, **more: Any) -> Any:
    imported = Imported(format="skops", source="x", source_sha256="x", inputs=list(inputs), numbers=("c",), **more)
    return Feeder(imported, FEATURES)(MATRIX)


def test_categories_become_what_the_model_was_trained_on() -> None:
    (rows,) = fed(ImportedInput(type="Mixed", features=["k", "", "n", "c"]))
    assert rows.shape == (4, 4)
    assert rows[:, 0].tolist()[:3] == ["a", "b", UNKNOWN_TEXT]
    assert np.isnan(rows[3, 0])
    assert all(np.isnan(value) for value in rows[:, 1])
    assert rows[0, 2:].tolist() == [1.5, 3.0]
    assert np.isnan(rows[2, 3])
    (other,) = fed(ImportedInput(type="Mixed", features=["k"]), missing_text="None")
    assert other[3, 0] is None


def test_arrays_have_the_types_that_a_graph_wants() -> None:
    texts, floats, single = fed(
        ImportedInput(type="Text", features=["k"]),
        ImportedInput(type="Float64", features=["n", "c"]),
        ImportedInput(type="Float32", features=["n"]),
    )
    assert (texts.dtype, floats.dtype, single.dtype) == (np.dtype(object), np.dtype(np.float64), np.dtype(np.float32))
    assert floats[0].tolist() == [1.5, 3.0]


@pytest.mark.parametrize(("kind", "largest"), [("Int64", 9007199254740992), ("Boolean", 1)])
def test_numbers_that_are_not_whole_are_not_cut(kind: Any, largest: int) -> None:
    with pytest.raises(ValueError, match=f"n: the model takes whole numbers of at most {largest}, not 1.5"):
        fed(ImportedInput(type=kind, features=["n"]))


def test_an_input_that_is_no_feature_is_refused() -> None:
    with pytest.raises(UntrustedModelError, match="'nobody', which is none of its features"):
        fed(ImportedInput(type="Mixed", features=["nobody"]))

"""Plain exports of sklearn-onnx: named inputs of several types, ZipMap, one matrix; what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model_from_string
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.unit.trainer.elsewhere import answers, frame
from tests.unit.trainer.test_import import Place, asked, served
from truekeep.features.trust import UntrustedModelError
from truekeep.trainer.faults import ImportInvalid
from truekeep.trainer.imported.features import Wishes
from truekeep.trainer.imported.onnx import read_graph
from truekeep.trainer.imported.package import Options, package

warnings.filterwarnings("ignore", module="sklearn")

NAMED = [
    ("amount", FloatTensorType([None, 1])),
    ("age", FloatTensorType([None, 1])),
    ("kind", StringTensorType([None, 1])),
    ("month", Int64TensorType([None, 1])),
]
GROUPED = [("numbers", FloatTensorType([None, 2])), ("kind", StringTensorType([None, 1]))]


def rows(seed: int = 0) -> Any:
    found = frame(seed).drop(columns="note")
    return found.assign(kind=found["kind"].fillna("mail").astype(object), month=found["month"].astype("int64"))


def pipeline(classifier: Any) -> Pipeline:
    parts = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), ["amount", "age"]),
            ("k", OneHotEncoder(handle_unknown="ignore"), ["kind"]),
            ("m", StandardScaler(), ["month"]),
        ]
    )
    return Pipeline([("pre", parts), ("model", classifier)]).fit(rows().drop(columns="late"), rows()["late"])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path).write(rows())


def export(place: Place, model: Any) -> Path:
    path = place.folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize(
    "classifier",
    [LogisticRegression(), GradientBoostingClassifier(n_estimators=8), GaussianNB()],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_a_plain_export_is_served(classifier: Any, zipmap: bool, place: Place) -> None:
    model = pipeline(classifier)
    file = export(place, convert_sklearn(model, initial_types=NAMED, options={"zipmap": zipmap}))
    options = Options(wishes=Wishes(label="late"), trust_pickle=True, pipeline=place.file(model))
    made = package(file, place.sample, options)
    assert made.agrees, made.report["agreement"]
    assert made.report["agreement"]["rows"] == 400
    assert set(made.files) == {"model.onnx", "signature.json", "profile.json", "performance.json", "import.json"}
    signature, predict, kind = served(made)
    assert kind == "onnx"
    new = rows(seed=4)
    assert np.abs(asked(signature, predict, new) - answers(model, new)).max() < 1e-6
    month = signature.features[3]
    assert (month.type, month.nulls) == ("Number", "Refuse")
    assert "whole numbers" in made.report["refused"]["month"]


def test_a_forest_in_32_bits_falls_on_other_sides_of_its_splits_and_that_is_said(place: Place) -> None:
    model = pipeline(RandomForestClassifier(8, random_state=0))
    file = export(place, convert_sklearn(model, initial_types=NAMED))
    options = {"wishes": Wishes(label="late"), "trust_pickle": True, "pipeline": place.file(model)}
    strict, loose = (
        package(file, place.sample, Options(**options)),
        package(file, place.sample, Options(**options, tolerance=1)),
    )
    found = strict.report["agreement"]
    assert 0 < found["differing"] < 20
    assert f"{found['differing']} rows differ by more than 1e-06, most of all row " in found["reason"]
    assert (strict.agrees, loose.agrees) == (False, True)


def test_inputs_of_several_columns_take_them_in_order(place: Place) -> None:
    parts = ColumnTransformer([("n", SimpleImputer(), [0, 1]), ("k", OneHotEncoder(handle_unknown="ignore"), [2])])
    data = rows()[["amount", "age", "kind"]].to_numpy(dtype=object)
    model = make_pipeline(parts, LogisticRegression()).fit(data, rows()["late"])
    made = place.package(
        export(place, convert_sklearn(model, initial_types=GROUPED)), columns=("amount", "age", "kind")
    )
    signature, predict, _ = served(made)
    assert [one.features for one in signature.imported.inputs] == [["amount", "age"], ["kind"]]  # type: ignore[union-attr]
    assert np.abs(asked(signature, predict, rows()) - answers(model, data)).max() < 1e-6
    assert made.agrees
    assert made.report["agreement"]["with"].startswith("nothing: give the pipeline")


def test_one_matrix_and_the_class_of_interest(place: Place) -> None:
    data = rows()[["amount", "month"]].to_numpy(dtype=np.float32)
    model = RandomForestClassifier(5, random_state=0).fit(data, rows()["late"])
    file = export(place, to_onnx(model, data[:1]))
    with pytest.raises(ImportInvalid, match="the model has no input for kind, month; leave them out"):
        place.package(file)
    options = Options(wishes=Wishes(columns=("amount", "month")), positive="0")
    signature, predict, _ = served(package(file, place.sample, options))
    assert np.abs(asked(signature, predict, rows()) - model.predict_proba(data)[:, 0]).max() < 1e-6


def test_an_export_that_answers_otherwise_than_its_pipeline(place: Place) -> None:
    file = export(place, convert_sklearn(pipeline(LogisticRegression()), initial_types=NAMED))
    other = place.file(pipeline(LogisticRegression(C=0.01)))
    made = package(file, place.sample, Options(wishes=Wishes(label="late"), trust_pickle=True, pipeline=other))
    assert not made.agrees


def graph(nodes: list[Any], kind: int = TensorProto.FLOAT, shape: Any = (None, 2)) -> bytes:
    given = helper.make_tensor_value_info("x", kind, shape)
    made = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])
    model = helper.make_model(helper.make_graph(nodes, "g", [given], [made]))
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no protobuf at all", "is no ONNX file"),
        (graph([helper.make_node("Tile", ["x", "x"], ["probabilities"])]), r"operator '\.Tile', which is not allowed"),
        (graph([helper.make_node("Odd", ["x"], ["probabilities"], domain="mine")]), r"operator 'mine\.Odd'"),
        (graph([helper.make_node("Relu", ["x"], ["probabilities"])], kind=TensorProto.INT8), "element type 3"),
        (graph([helper.make_node("Relu", ["x"], ["probabilities"])], shape=(1, 2)), "any number of rows"),
        (graph([helper.make_node("Relu", ["x"], ["probabilities"])], shape=(None,)), "any number of rows"),
    ],
)
def test_what_is_no_classifier_that_only_computes_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(UntrustedModelError, match=message):
        read_graph(content)


def test_tensors_in_other_files_are_refused(place: Place) -> None:
    model = load_model_from_string(
        convert_sklearn(pipeline(LogisticRegression()), initial_types=NAMED).SerializeToString()
    )
    tensor = model.graph.initializer[0]
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    with pytest.raises(ImportInvalid, match="from another file"):
        place.package(export(place, model))

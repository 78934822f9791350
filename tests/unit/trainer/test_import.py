"""Models from elsewhere: what is packaged answers as the original does, through the code that a server runs."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier

from tests.unit.trainer.elsewhere import answers, fitted, frame
from truekeep.api.data import Feature
from truekeep.contract.artifact import Signature
from truekeep.features import models
from truekeep.features.encode import Encoder, FeatureError
from truekeep.profiling.schema import Profile
from truekeep.trainer.faults import ImportInvalid
from truekeep.trainer.imported.features import Wishes
from truekeep.trainer.imported.package import Options, Package, package

warnings.filterwarnings("ignore", module="sklearn")


class Place:
    """A folder with a sample in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sample = folder / "sample.parquet"
        self.write(frame())

    def write(self, rows: Any) -> Place:
        self.rows = rows
        rows.to_parquet(self.sample)
        return self

    def file(self, model: Any, name: str = "model.joblib") -> Path:
        path = self.folder / name
        skops.io.dump(model, path) if name.endswith(".skops") else joblib.dump(model, path)
        return path

    def package(self, model: Any, label: str | None = "late", trust: bool = True, **wishes: Any) -> Package:
        path = model if isinstance(model, Path) else self.file(model)
        return package(path, self.sample, Options(wishes=Wishes(label=label, **wishes), trust_pickle=trust))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def served(made: Package, without: str = "") -> tuple[Signature, Any, str]:
    """The model as a server loads it, self-test included."""
    files = {name: content for name, content in made.files.items() if name != without}
    signature = models.read_signature(files["signature.json"])
    predict, kind = models.predictor(files, signature)
    models.self_test(signature, Encoder(signature.features), predict)
    return signature, predict, kind


def asked(signature: Signature, predict: Any, rows: Any) -> Any:
    """Every row as a request of its own columns, as JSON would bring them."""
    columns = {}
    for feature in signature.features:
        values = rows[feature.name].tolist()
        columns[feature.name] = [None if value is None or value != value else value for value in values]
    return predict(Encoder(signature.features).encode(columns, len(rows)))


CLASSIFIERS: dict[str, tuple[Any, str]] = {  # and what serves, where that is sure
    "logistic": (LogisticRegression(), "onnx"),
    "sgd": (SGDClassifier(loss="log_loss", random_state=0), ""),
    "forest": (RandomForestClassifier(8, n_jobs=2, random_state=0), "onnx"),
    "extra trees": (ExtraTreesClassifier(8, random_state=0), "onnx"),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=8, random_state=0), "onnx"),
    "binned": (HistGradientBoostingClassifier(max_iter=8, random_state=0), "onnx"),
    "ada boost": (AdaBoostClassifier(n_estimators=4, random_state=0), ""),
    "bagging": (BaggingClassifier(n_estimators=4, random_state=0), ""),
    "calibrated": (CalibratedClassifierCV(LinearDiscriminantAnalysis(), cv=2, method="isotonic"), ""),
    "bayes": (GaussianNB(), ""),
    "network": (MLPClassifier((4,), max_iter=30, random_state=0), ""),
    "voting": (VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"), ""),
    "stacking": (StackingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())], cv=2), ""),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_is_served_answers_as_the_original(name: str, place: Place) -> None:
    """On rows that were in no sample, with nulls and text, by ONNX where there is a translation and by skops."""
    classifier, fast = CLASSIFIERS[name]
    model = fitted(classifier)
    made = place.package(model)
    assert made.agrees
    assert made.report["agreement"]["largestDifference"] <= 1e-9
    new = frame(seed=5)
    for without in ("", "model.onnx"):
        signature, predict, kind = served(made, without)
        assert kind == ("skops" if without else fast or kind)
        got = asked(signature, predict, new)
        assert np.abs(got - answers(model, new)).max() <= 1e-9
    assert [one.name for one in signature.features] == ["amount", "age", "kind", "month"]
    if not fast:
        assert (made.report["onnx"]["reason"] == "") == ("model.onnx" in made.files)


def test_no_pickle_is_in_the_artifact_and_the_same_file_makes_the_same_artifact(place: Place) -> None:
    model = place.file(fitted(RandomForestClassifier(8, n_jobs=2, random_state=0)))
    one, two = (place.package(model) for _ in range(2))
    assert one.digest == two.digest
    assert set(one.files) == {
        "model.skops", "model.onnx", "signature.json", "profile.json", "performance.json", "import.json",
    }  # fmt: skip
    for content in one.files.values():
        with pytest.raises(Exception):  # noqa: B017, PT011  whatever pickle says of what is none
            pickle.loads(content)


def test_skops_needs_no_trust(place: Place) -> None:
    made = place.package(place.file(fitted(), "model.skops"), trust=False)
    assert made.agrees
    assert made.report["source"]["format"] == "skops"


def test_a_pickle_is_not_read_unless_somebody_vouches_for_it(place: Place) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (place.folder / "exploded",)

    for name in ("model.joblib", "model.pkl", "model"):
        path = place.folder / name
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ImportInvalid, match=r"can run any program with your rights.*skops.*--trust-pickle"):
            place.package(path, trust=False)
    assert not (place.folder / "exploded").exists()


def test_columns_by_selectors_and_the_rest_of_them(place: Place) -> None:
    rows = place.rows.drop(columns="late")
    text = (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=["object", "string"]))
    model = make_pipeline(make_column_transformer(text, remainder="passthrough"), SimpleImputer(), LogisticRegression())
    made = place.package(model.fit(rows, place.rows["late"]))
    signature, predict, kind = served(made)
    assert kind == "onnx"
    assert np.abs(asked(signature, predict, frame(seed=6)) - answers(model, frame(seed=6)[rows.columns])).max() < 1e-9


def test_categories_of_a_data_frame_that_the_estimator_takes_itself(place: Place) -> None:
    rows = place.rows.drop(columns="late").astype({"kind": "category"})
    model = HistGradientBoostingClassifier(max_iter=20, categorical_features="from_dtype", random_state=0)
    model.fit(rows, place.rows["late"])
    signature, predict, kind = served(place.package(model))
    assert kind == "onnx"
    new = frame(seed=6)
    want = answers(model, new[rows.columns].astype({"kind": "category"}))
    assert np.abs(asked(signature, predict, new) - want).max() < 1e-9


def test_transformers_that_answer_data_frames(place: Place) -> None:
    model = fitted()
    model[0].set_params(text__onehotencoder__sparse_output=False)
    model.set_output(transform="pandas").fit(place.rows.drop(columns="late"), place.rows["late"])
    signature, predict, _ = served(place.package(model))
    assert np.abs(asked(signature, predict, frame(seed=6)) - answers(model, frame(seed=6))).max() < 1e-9


def test_a_plain_matrix_and_classes_of_other_names(place: Place) -> None:
    truth = np.where(place.rows["late"] == 1, "yes", "no")
    model = GradientBoostingClassifier(n_estimators=5).fit(place.rows[["amount", "month"]].to_numpy(), truth)
    place.write(place.rows.assign(late=truth))
    made = place.package(model, columns=("amount", "month"))
    assert (made.report["positiveClass"], made.report["agreement"]["rows"]) == ("yes", 400)
    assert made.report["metrics"]["roc_auc"] > 0.8
    no = package(
        place.folder / "model.joblib", place.sample,
        Options(wishes=Wishes(columns=("amount", "month")), positive="no", trust_pickle=True),
    )  # fmt: skip
    signature, predict, kind = served(no)
    assert kind == "skops"
    assert np.abs(asked(signature, predict, place.rows) - 1 + served(made)[1](
        Encoder(signature.features).encode({n: place.rows[n].tolist() for n in ("amount", "month")}, 400)
    )).max() < 1e-9  # fmt: skip


@pytest.mark.parametrize("kind", ["bool", "float64", "int8", "str"])
def test_labels_of_any_type_that_means_the_same(kind: str, place: Place) -> None:
    """The model was fitted on 0 and 1."""
    plain = place.package(fitted()).report["metrics"]
    truth = place.rows["late"].astype(kind)
    assert place.write(place.rows.assign(late=truth)).package(fitted()).report["metrics"] == plain


def test_what_the_model_refuses_the_signature_refuses(place: Place) -> None:
    """Found out by asking: nulls that no imputer takes, values that an encoder does not know."""
    strict = ColumnTransformer([("k", OneHotEncoder(), ["kind"]), ("n", StandardScaler(), ["amount"])])
    rows = place.rows.drop(columns="late")
    made = place.package(make_pipeline(strict, LogisticRegression()).fit(rows, place.rows["late"]))
    amount, kind = made.signature.features
    assert (kind.name, kind.nulls, kind.unknown) == ("kind", "Allow", "Refuse")
    assert (amount.name, amount.nulls) == ("amount", "Refuse")
    assert "Found unknown categories" in made.report["refused"]["kind"]
    encoder = Encoder(made.signature.features)
    with pytest.raises(FeatureError, match=r"kind: 'fax' is none of the 3 categories.*phone, shop, web"):
        encoder.encode({"kind": ["fax"], "amount": [1.0]}, 1)
    with pytest.raises(FeatureError, match="amount: row 0: null is refused"):
        encoder.encode({"kind": ["web"], "amount": [None]}, 1)
    assert len(encoder.encode({"kind": ["web", None], "amount": [1.0, 2.0]}, 2)) == 2


def test_categories_that_the_sample_does_not_hold_are_known(place: Place) -> None:
    model = fitted()
    few = place.rows[place.rows["kind"] != "phone"].head(100)
    signature, predict, _ = served(place.write(few).package(model))
    assert signature.features[2].categories == ["phone", "shop", "web"]
    assert np.abs(asked(signature, predict, frame(seed=8)) - answers(model, frame(seed=8))).max() < 1e-9


def test_codes_may_be_declared_categories(place: Place) -> None:
    model = RandomForestClassifier(5).fit(place.rows[["amount", "month"]], place.rows["late"])
    made = place.package(model, categories=("month",))
    signature, predict, _ = served(made)
    assert signature.features[1].categories == ["1", "2", "3", "4"]
    assert signature.features[1].unknown == "Refuse"
    assert np.abs(asked(signature, predict, place.rows) - answers(model, place.rows[["amount", "month"]])).max() < 1e-9


def test_limits_come_from_a_model_s_features(place: Place) -> None:
    features = (Feature(name="amount", type="Number", minimum="-9", maximum="9", nulls="Refuse"),)
    amount = place.package(fitted(), features=features).signature.features[0]
    assert (amount.minimum, amount.maximum, amount.nulls) == (-9, 9, "Refuse")


def test_the_sample_s_profile_and_worth_are_in_the_artifact(place: Place) -> None:
    rows = place.rows.astype({"late": "float64"})
    rows.loc[:9, "late"] = np.nan
    made = place.write(rows.assign(late=rows["late"].astype("Int64"))).package(fitted())
    profile = Profile.model_validate_json(made.files["profile.json"])
    assert [one.name for one in profile.columns] == ["amount", "age", "kind", "month", "(prediction)"]
    assert made.report["unlabelled"] == 10
    assert "performance.json" not in place.package(fitted(), label=None, leave_out=("late",)).files


@pytest.mark.parametrize("name", ["target", "log"])
def test_other_transformers(name: str, place: Place) -> None:
    steps = {
        "target": [ColumnTransformer([("t", TargetEncoder(random_state=0), ["kind"]),
                                      ("o", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1,
                                                           encoded_missing_value=-2), ["kind"])])],
        "log": [ColumnTransformer([("l", FunctionTransformer(np.square), ["amount", "month"])]),
                PolynomialFeatures(), SelectKBest(k=2)],
    }[name]  # fmt: skip
    model = make_pipeline(*steps, LogisticRegression()).fit(place.rows.drop(columns="late"), place.rows["late"])
    signature, predict, _ = served(place.package(model))
    assert np.abs(asked(signature, predict, frame(seed=6)) - answers(model, frame(seed=6))).max() < 1e-9


def test_a_packaged_model_that_answers_otherwise_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from truekeep.features import imported

    right = imported.scikit_learn
    monkeypatch.setattr(imported, "scikit_learn", lambda *given: lambda matrix: right(*given)(matrix) * 0.999)
    made = place.package(fitted())
    assert not made.agrees
    assert "the model itself says" in made.report["agreement"]["reason"]


@pytest.mark.parametrize(("name", "tolerance"), [("lightgbm.LGBMClassifier", 1e-9), ("xgboost.XGBClassifier", 1e-5)])
def test_of_boosters_onnx_alone_is_published(name: str, tolerance: float, place: Place) -> None:
    module, _, kind = name.partition(".")
    classifier = getattr(pytest.importorskip(module), kind)(n_estimators=8)
    model = fitted(classifier)
    made = place.package(model)
    assert made.agrees
    assert made.signature.estimator == name
    assert "model.skops" not in made.files
    signature, predict, form = served(made)
    assert form == "onnx"
    assert models.model_files(signature) == {"model.onnx"}
    assert np.abs(asked(signature, predict, frame(seed=5)) - answers(model, frame(seed=5))).max() <= tolerance
    categories = place.rows[["amount", "kind"]].astype({"kind": "category"})
    if module == "lightgbm":
        with pytest.raises(
            ImportInvalid, match=r"LGBMClassifier takes categories, and .* only ONNX is published; encode"
        ):
            place.package(type(classifier)(n_estimators=3).fit(categories, place.rows["late"]))


def simple(place: Place, columns: list[str], *steps: Any, truth: str = "late") -> Any:
    """These steps, fitted on these columns."""
    return make_pipeline(*steps).fit(place.rows[columns], place.rows[truth])


def test_a_model_without_probabilities_is_refused(place: Place) -> None:
    with pytest.raises(ImportInvalid, match=r"RidgeClassifier, which answers no probabilities.*CalibratedClassifierCV"):
        place.package(RidgeClassifier().fit(place.rows[["amount"]], place.rows["late"]))


def test_types_that_are_not_on_the_list_are_named(place: Place) -> None:
    model = simple(place, ["amount"], FunctionTransformer(np.sin), FunctionTransformer(np.cos), LogisticRegression())
    with pytest.raises(ImportInvalid, match=r"types that are not on the list .*numpy\.cos, numpy\.sin; .*to ONNX"):
        place.package(model)


def test_a_column_that_the_sample_lacks_is_named(place: Place) -> None:
    rows = place.rows
    model = simple(place, ["amount", "month"], LogisticRegression())
    place.write(rows.rename(columns={"month": "months"}))
    with pytest.raises(
        ImportInvalid, match="column 'month' of the model is not in the sample; it has amount, age, kind"
    ):
        place.package(model)


def test_columns_without_names_must_be_named(place: Place) -> None:
    model = LogisticRegression().fit(place.rows[["amount", "month"]].to_numpy(), place.rows["late"])
    with pytest.raises(
        ImportInvalid, match=r"takes 2 columns, and the sample has, besides .* 5: amount, age.*--columns"
    ):
        place.package(model)


def test_several_classes_need_a_choice(place: Place) -> None:
    model = simple(place, ["amount"], LogisticRegression(), truth="month")
    with pytest.raises(ImportInvalid, match=r"knows 4 classes \(1, 2, 3, 4\); choose with --positive"):
        place.package(model)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"categories": ("nobody",)}, "column 'nobody' is none of the model's inputs: amount, age, kind, month"),
        ({"label": "nobody"}, "--label 'nobody': the sample has no such column"),
        ({"label": "note"}, "--label 'note' holds '-0.0"),
        ({"label": "month"}, "--label 'month' is an input of the model, which would know the answer"),
    ],
)
def test_a_wish_that_can_t_be_met_is_refused(wishes: Any, message: str, place: Place) -> None:
    with pytest.raises(ImportInvalid, match=message):
        place.package(fitted(), **wishes)


def test_a_file_that_needs_a_package_that_is_not_here(place: Place) -> None:
    path = place.folder / "model.pkl"
    path.write_bytes(b"ccatboost\nCatBoostClassifier\n.")
    with pytest.raises(ImportInvalid, match=r"needs the package catboost, .* export it to ONNX \(CatBoost.s own"):
        place.package(path)


def test_a_tree_that_points_outside_of_itself_is_refused(place: Place) -> None:
    model = fitted(RandomForestClassifier(2, random_state=0))
    tree = model[-1].estimators_[0].tree_
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    nodes["feature"][0] = 400
    tree.__setstate__({**state, "nodes": nodes})
    with pytest.raises(ImportInvalid, match="a tree of the model reads a feature that does not exist"):
        place.package(place.file(model, "model.skops"))

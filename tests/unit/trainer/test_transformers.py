"""Transformers: what training computes is what a server answers, by ONNX and by skops; nothing leaks; nothing changes
where none is declared."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from truekeep.api.data import Feature
from truekeep.api.estimators import ESTIMATORS, ONNX_ONLY
from truekeep.api.training import Recipe
from truekeep.contract.artifact import Signature, SignatureFeature
from truekeep.contract.canonical import digest_of, sha256
from truekeep.contract.layout import MODEL_FILE, ONNX_FILE, SIGNATURE
from truekeep.features import encode, times
from truekeep.features.plan import Plan
from truekeep.features.plan import plan as planned
from truekeep.features.trust import load_pipeline
from truekeep.server.limits import Limits
from truekeep.server.load import LoadedModel, load
from truekeep.server.protocol import RequestError, parse
from truekeep.server.quick import Reader
from truekeep.trainer.faults import DataInvalid, ParametersInvalid
from truekeep.trainer.recipe import bundle, canonical_skops
from truekeep.trainer.recipe.pipeline import Fitted, build, described, fit, probabilities

LOGISTIC, BINNED = "sklearn.linear_model.LogisticRegression", "sklearn.ensemble.HistGradientBoostingClassifier"
FOREST, LIGHTGBM = "sklearn.ensemble.RandomForestClassifier", "lightgbm.LGBMClassifier"
FEATURES = [
    Feature(name="amount", type="Number"),
    Feature(name="balance", type="Number"),
    Feature(name="size", type="Category"),
    Feature(name="shop", type="Category"),
    Feature(name="at", type="Time"),
]
NAMES = [feature.name for feature in FEATURES]
START = datetime(2024, 3, 1, tzinfo=UTC)
DATES = {"name": "parts", "columns": ["at"], "dateParts": {"parts": ["Hour", "DayOfWeek"]}}
# Every kind, in every way; `parts` makes numbers of the time, without which no model takes it.
STEPS: dict[str, list[dict[str, Any]]] = {
    "impute-median": [{"name": "fill", "columns": ["amount", "balance"], "impute": {"strategy": "Median"}}],
    "impute-mean-flags": [
        {"name": "fill", "columns": ["amount"], "impute": {"strategy": "Mean", "indicator": "Add"}},
    ],
    "impute-category": [{"name": "fill", "columns": ["size"], "impute": {"strategy": "MostFrequent"}}],
    "impute-constant": [
        {"name": "zero", "columns": ["amount"], "impute": {"strategy": "Constant", "value": "-1.5"}},
        {
            "name": "small",
            "columns": ["size"],
            "impute": {"strategy": "Constant", "value": "small", "indicator": "Add"},
        },
    ],
    "scale-standard": [{"name": "same", "columns": ["amount", "balance"], "scale": {"method": "Standard"}}],
    "scale-robust": [{"name": "same", "columns": ["amount", "balance"], "scale": {"method": "Robust"}}],
    "scale-range": [{"name": "same", "columns": ["amount"], "originals": "Keep", "scale": {"method": "MinMax"}}],
    "log": [{"name": "log", "columns": ["amount", "balance"], "log": {"offset": "0.5"}}],
    "clip": [{"name": "cut", "columns": ["amount", "balance"], "clip": {"low": "-1", "highQuantile": "0.9"}}],
    "ratio": [{"name": "share", "ratio": {"numerator": "amount", "denominator": "balance"}}],
    "ratio-drop": [{"name": "share", "originals": "Drop", "ratio": {"numerator": "amount", "denominator": "balance"}}],
    "one-hot": [{"name": "hot", "columns": ["size", "shop"], "oneHot": {}}],
    "one-hot-rare": [{"name": "hot", "columns": ["shop", "size"], "oneHot": {"minFrequency": 60, "maxCategories": 4}}],
    "one-hot-kept": [
        {"name": "hot", "columns": ["size"], "originals": "Keep", "oneHot": {}},
        {"name": "rank", "columns": ["size"], "ordinal": {"order": ["large", "small"]}},
    ],
    "ordinal": [{"name": "rank", "columns": ["size"], "ordinal": {"order": ["small", "middle", "large", "huge"]}}],
    "target": [{"name": "mean", "columns": ["size", "shop"], "targetEncode": {}}],
    "target-smooth": [
        {"name": "mean", "columns": ["shop"], "originals": "Keep", "targetEncode": {"smoothing": "20", "folds": 3}}
    ],
    "dates": [],
    "dates-everything": [
        {
            "name": "more",
            "columns": ["at"],
            "originals": "Keep",
            "dateParts": {
                "parts": ["Year", "Month", "DayOfMonth", "DayOfYear", "DayOfWeek", "Hour", "Minute"],
                "encoding": "Cyclic",
                "timeZone": "Europe/Berlin",
            },
        }
    ],
    "several": [
        {"name": "cut", "columns": ["amount"], "clip": {"low": "0"}},
        {"name": "log", "columns": ["amount"], "originals": "Keep", "log": {}},
        {"name": "share", "ratio": {"numerator": "amount.log", "denominator": "balance"}},
        {"name": "fill", "columns": ["share", "amount.log"], "impute": {"strategy": "Median"}},
        {"name": "same", "columns": ["share"], "scale": {"method": "Standard"}},
        {"name": "mean", "columns": ["shop"], "targetEncode": {}},
        {"name": "wide", "columns": ["shop"], "scale": {"method": "MinMax"}},
    ],
}


def columns_of(rows: int = 900, seed: int = 1) -> tuple[dict[str, Any], np.ndarray]:
    """Columns as `trainer.data.dataset` reads them, with nulls in all; and labels that they tell."""
    random = np.random.default_rng(seed)
    amount = random.lognormal(size=rows) - 0.3
    size = random.choice(["small", "middle", "large"], size=rows, p=[0.5, 0.3, 0.2])
    shop = random.choice([f"s{number}" for number in range(12)], size=rows)
    hours = np.arange(rows) * 7 + random.integers(0, 5, rows)
    at = np.array([(START + timedelta(hours=int(hour), minutes=int(hour) % 60)).timestamp() * 1e6 for hour in hours])
    balance = np.where(random.random(rows) < 0.1, 0.0, random.normal(size=rows))
    late = 1.2 * amount + 1.5 * (size == "large") + (hours % 24 > 12) + random.normal(size=rows) > 2.5
    missing = {name: random.random(rows) < 0.07 for name in NAMES}
    at_times = np.where(missing["at"], times.NO_TIME, at.astype(np.int64))
    return {
        "amount": np.where(missing["amount"], np.nan, amount),
        "balance": np.where(missing["balance"], np.nan, balance),
        "size": pa.array(np.where(missing["size"], None, size).tolist(), pa.string()),
        "shop": pa.array(np.where(missing["shop"], None, shop).tolist(), pa.string()),
        "at": at_times,
    }, late.astype(np.int64)


def recipe_of(estimator: str, steps: Sequence[dict[str, Any]]) -> Recipe:
    linear = "linear_model" in estimator
    small = {"max_iter": "8"} if estimator == BINNED else {} if linear else {"n_estimators": "8"}
    named = [{"name": name, "value": value} for name, value in small.items()]
    return Recipe.model_validate({"estimator": estimator, "parameters": named, "transformers": steps, "seed": 3})


def trained(estimator: str, steps: Sequence[dict[str, Any]]) -> tuple[Fitted, dict[str, bytes]]:
    """The fitted pipeline, and its artifact."""
    columns, labels = columns_of()
    features = bundle.signature_features(FEATURES, columns)
    matrix = encode.matrix(columns, features)
    fitted = fit(recipe_of(estimator, steps), features, matrix, labels, threads=1)
    draft = Signature(estimator=estimator, features=features, cut_off=0.5, examples=[])
    return fitted, bundle.files(fitted.pipeline, draft, columns, fitted.probabilities(matrix), matrix, 1)


# Rows as clients send them: nulls, zeros, extremes, categories that training never saw, times of any year.
ROWS: list[dict[str, Any]] = [
    {"amount": 1.0, "balance": 2.0, "size": "small", "shop": "s1", "at": "2024-07-01T12:34:56Z"},
    {"amount": None, "balance": None, "size": None, "shop": None, "at": None},
    {"amount": 0.0, "balance": 0.0, "size": "gigantic", "shop": "never", "at": "2024-03-31T03:00:00+02:00"},
    {"amount": -7.5, "balance": 1e-300, "size": "large", "shop": "s11", "at": "1899-12-31T23:59:59.999999Z"},
    {"amount": 1e30, "balance": -1e-9, "size": "middle", "shop": "s10", "at": "9999-12-31T00:00:00Z"},
    {"amount": 5e-324, "balance": 1e30, "size": "", "shop": "s0", "at": "2100-12-31T23:59:59.999999Z"},
    {"amount": -0.5, "balance": -0.0, "size": "small", "shop": "s2", "at": 1_717_243_200_000_000},
    {"amount": -0.5000001, "balance": 3, "size": "small", "shop": "s2", "at": "1900-01-01"},
]


def body_of(rows: Sequence[dict[str, Any]], names: Sequence[str] = NAMES) -> bytes:
    tensors = []
    for name in names:
        values = [row[name] for row in rows]
        if name == "at":
            values = [times.to_text(value) if isinstance(value, int) else value for value in values]
        datatype = "FP64" if name in ("amount", "balance") else "BYTES"
        tensors.append({"name": name, "shape": [len(rows)], "datatype": datatype, "data": values})
    return json.dumps({"inputs": tensors}).encode()


def answers(model: LoadedModel, rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """As a server answers a request."""
    reader = Reader(model.signature.features, (), 1000)
    request = parse(body_of(rows), Limits(), NAMES, reader=reader)
    matrix = request.matrix if request.matrix is not None else model.encoder.encode(request.columns, request.rows)
    return model.predict(matrix)


def training_says(fitted: Fitted, features: Sequence[SignatureFeature], rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """What training computes of such rows in its own columns."""
    whole = [times.of_request(row["at"]) for row in rows]
    columns = {
        "amount": np.array([math.nan if row["amount"] is None else row["amount"] for row in rows], dtype=np.float64),
        "balance": np.array([math.nan if row["balance"] is None else row["balance"] for row in rows], dtype=np.float64),
        "size": pa.array([row["size"] for row in rows], pa.string()),
        "shop": pa.array([row["shop"] for row in rows], pa.string()),
        "at": np.array([times.NO_TIME if one is None else int(one) for one in whole], dtype=np.int64),
    }
    return fitted.probabilities(encode.matrix(columns, features))


def check_serving(fitted: Fitted, files: dict[str, bytes]) -> None:
    """Every row, together and alone, by ONNX and by skops, is what training says."""
    assert ONNX_FILE in files, json.loads(files[SIGNATURE])["compiled"]
    models = [load(files)]
    if MODEL_FILE in files:
        models.append(load({name: content for name, content in files.items() if name != ONNX_FILE}))
    for model in models:
        expected = training_says(fitted, model.signature.features, ROWS)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(answers(model, ROWS), expected, rtol=0, atol=1e-9)
        alone = np.concatenate([answers(model, [row]) for row in ROWS])
        np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "estimator"),
    [(name, estimator) for name in STEPS for estimator in (LOGISTIC, BINNED)]
    + [(name, estimator) for name in ("ratio", "one-hot-rare", "dates-everything") for estimator in (FOREST, LIGHTGBM)],
)
def test_a_server_answers_what_training_computes(name: str, estimator: str) -> None:
    check_serving(*trained(estimator, [*STEPS[name], DATES]))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_takes_several_steps(estimator: str) -> None:
    fitted, files = trained(estimator, [*STEPS["several"], *STEPS["one-hot-rare"][:0], DATES])
    expected = training_says(fitted, load(files).signature.features, ROWS)
    np.testing.assert_allclose(answers(load(files), ROWS), expected, rtol=0, atol=1e-9)


def test_a_request_without_a_column_or_with_what_is_no_number_is_refused() -> None:
    model = load(trained(LOGISTIC, [*STEPS["several"], DATES])[1])
    lacking = parse(body_of(ROWS[:1], NAMES[1:]), Limits(), NAMES)
    with pytest.raises(encode.FeatureError, match="amount: the input is missing"):
        model.encoder.encode(lacking.columns, 1)
    with pytest.raises(encode.FeatureError, match="amount: row 0: inf is not finite"):
        model.encoder.encode({name: [math.inf if name == "amount" else None] for name in NAMES}, 1)
    with pytest.raises(RequestError, match="no JSON"):
        parse(body_of([{**ROWS[0], "amount": math.inf}]), Limits(), NAMES)
    for wrong, words in (
        ("noon", "'noon' is no ISO 8601 time"),
        (1.5, "1.5 is no time between the years 1 and 9999"),
        (2**60, "1152921504606846976 is no time between the years"),
        (True, "True is no time"),
    ):
        with pytest.raises(encode.FeatureError, match=f"at: row 0: {words}"):
            model.encoder.encode({**{name: [None] for name in NAMES}, "at": [wrong]}, 1)


def test_data_with_infinities_becomes_null_before_and_after_a_step() -> None:
    """A quotient that is not finite, and a logarithm of what is not above 0, are nulls, not numbers without end."""
    features = [SignatureFeature(name="a", type="Number"), SignatureFeature(name="b", type="Number")]
    steps = [
        {"name": "share", "ratio": {"numerator": "a", "denominator": "b"}, "originals": "Drop"},
        {"name": "log", "columns": ["share"], "originals": "Keep", "log": {"offset": "0"}},
    ]
    pipeline = build(recipe_of(BINNED, steps), features)
    matrix = np.array([[1.0, 0.0], [0.0, 0.0], [4.0, 2.0], [-4.0, 2.0], [1e300, 1e-300], [np.nan, 1.0]])
    made = pipeline[:-1].fit_transform(matrix)
    nan = np.nan
    expected = [[nan, nan], [nan, nan], [np.float64(np.float32(math.log(2))), 2], [nan, -2], [nan, nan], [nan, nan]]
    np.testing.assert_array_equal(made, expected)


# --- what steps learn, against values computed by hand ----------------------------------------------------------------


def after(steps: Sequence[dict[str, Any]], estimator: str = BINNED) -> tuple[Any, np.ndarray, Plan]:
    """What the steps make of the training rows."""
    columns, labels = columns_of()
    features = bundle.signature_features(FEATURES, columns)
    recipe = recipe_of(estimator, [*steps, DATES])
    pipeline = build(recipe, features)
    made = pipeline[:-1].fit_transform(encode.matrix(columns, features), labels)
    return columns, made, planned(features, recipe.transformers)


def test_columns_come_where_the_plan_says() -> None:
    columns, made, found = after(STEPS["impute-mean-flags"])
    place = {column.name: number for number, column in enumerate(found.columns)}
    assert set(place) == {"amount", "amount.null", "balance", "size", "shop", "at.hour", "at.day-of-week"}
    missing = np.isnan(columns["amount"])
    np.testing.assert_array_equal(made[:, place["amount.null"]], missing)
    assert made[missing, place["amount"]] == pytest.approx(np.nanmean(columns["amount"]))
    np.testing.assert_array_equal(made[~missing, place["amount"]], columns["amount"][~missing])
    for name, part in (("at.hour", "hour"), ("at.day-of-week", "weekday")):
        there = columns["at"] != times.NO_TIME
        moments = [datetime.fromtimestamp(one / 1e6, UTC) for one in columns["at"][there]]
        wanted = [one.hour if part == "hour" else one.weekday() for one in moments]
        np.testing.assert_array_equal(made[there, place[name]], wanted)
        assert np.isnan(made[~there, place[name]]).all()


def test_quantiles_and_orders_are_those_of_the_training_rows() -> None:
    columns, made, found = after([*STEPS["clip"], *STEPS["ordinal"]])
    place = {column.name: number for number, column in enumerate(found.columns)}
    known = columns["amount"][~np.isnan(columns["amount"])]
    assert np.nanmax(made[:, place["amount"]]) == pytest.approx(np.quantile(known, 0.9))
    order = {"small": 0.0, "middle": 1.0, "large": 2.0, None: np.nan}
    np.testing.assert_array_equal(made[:, place["size"]], [order[text] for text in columns["size"].to_pylist()])


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
def test_parts_of_times_are_those_of_the_zones_clock(zone: str) -> None:
    from truekeep.features.transform import DateParts

    parts = ["Year", "Month", "DayOfMonth", "DayOfYear", "DayOfWeek", "Hour", "Minute"]
    random = np.random.default_rng(3)
    first, last = datetime(1950, 1, 1, tzinfo=UTC), datetime(2037, 12, 31, tzinfo=UTC)
    seconds = [*random.integers(int(first.timestamp()), int(last.timestamp()), 3000).tolist()]
    # And the seconds around each change of the clock.
    step = DateParts(parts=parts, time_zone=zone).fit(np.zeros((1, 1)))
    around = step.changes_[(step.changes_ > first.timestamp() * 1e6) & (step.changes_ < last.timestamp() * 1e6)]
    seconds += [int(one / 1e6) + near for one in around.tolist() for near in (-1, 0)]
    made = step.transform(np.array(seconds, dtype=np.float64)[:, None] * 1e6)
    for second, row in zip(seconds, made.tolist(), strict=True):
        local = datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone))
        wanted = [local.year, local.month, local.day, local.timetuple().tm_yday, local.weekday(), local.hour]
        assert row == [*wanted, local.minute], (zone, local)
    assert (len(step.changes_) > 0) == (zone != "UTC")


# --- nothing leaks ----------------------------------------------------------------------------------------------------


def test_a_target_encoded_identifier_tells_nothing() -> None:
    """A random column of nearly as many categories as rows: encoded by the labels of its own rows it would tell them
    all in training and nothing afterwards. Cross-fitted it tells nothing at all, and the model learns that."""
    random = np.random.default_rng(5)
    rows, many = 4000, 1500
    labels = random.integers(0, 2, rows)
    features = [SignatureFeature(name="who", type="Category", categories=[f"{number:04d}" for number in range(many)])]
    matrix = random.integers(0, many, (rows, 1)).astype(np.float64)
    steps = [{"name": "mean", "columns": ["who"], "targetEncode": {"smoothing": "0"}}]
    recipe = recipe_of(LOGISTIC, steps)
    fitted = fit(recipe, features, matrix[:3000], labels[:3000], threads=1)

    encoder = fitted.pipeline[:-1]
    naive = encoder.transform(matrix[:3000])[:, 0]  # as serving encodes: by all rows, their own among them
    crossed = build(recipe, features)[:-1].fit_transform(matrix[:3000], labels[:3000])[:, 0]
    assert roc_auc_score(labels[:3000], naive) > 0.75  # what a leak looks like
    assert abs(roc_auc_score(labels[:3000], crossed) - 0.5) < 0.04
    assert abs(roc_auc_score(labels[3000:], fitted.probabilities(matrix[3000:])) - 0.5) < 0.04
    # The model gives the column no weight: what it says of its own training rows is hardly more than chance.
    spread = fitted.probabilities(matrix).std()
    assert spread < 0.03, spread


def test_steps_are_fitted_on_the_rows_that_they_are_given_alone() -> None:
    columns, labels = columns_of()
    features = bundle.signature_features(FEATURES, columns)
    matrix = encode.matrix(columns, features)
    recipe = recipe_of(LOGISTIC, [*STEPS["several"], DATES])
    wild = matrix.copy()
    wild[600:, :2] = 1e6
    one, other = (fit(recipe, features, part[:600], labels[:600], threads=1).pipeline for part in (matrix, wild))
    assert canonical_skops.dumps(one) == canonical_skops.dumps(other)
    assert canonical_skops.dumps(one) != canonical_skops.dumps(fit(recipe, features, wild, labels, 1).pipeline)


# --- the artifact -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name not in ONNX_ONLY])
def test_the_same_rows_and_steps_make_the_same_artifact(estimator: str) -> None:
    steps = [*STEPS["several"], *STEPS["one-hot"][:0], DATES]
    (one, first), (_, second) = trained(estimator, steps), trained(estimator, steps)
    assert {name: sha256(content) for name, content in first.items()} == {
        name: sha256(content) for name, content in second.items()
    }
    loaded = load_pipeline(first[MODEL_FILE], estimator)
    assert canonical_skops.dumps(loaded) == first[MODEL_FILE]
    assert probabilities(loaded, np.zeros((1, 5)))[0] == probabilities(one.pipeline, np.zeros((1, 5)))[0]


def test_the_digest_of_the_pipeline_is_that_of_what_the_artifact_holds() -> None:
    recipe = recipe_of(LOGISTIC, [*STEPS["several"], DATES])
    fitted, files = trained(LOGISTIC, recipe.model_dump(by_alias=True)["transformers"])
    signature = Signature.model_validate_json(files[SIGNATURE])
    found = described(recipe, signature.features, fitted.pipeline)
    loaded = load_pipeline(files[MODEL_FILE], LOGISTIC)
    again = sha256(canonical_skops.dumps(Pipeline(loaded.steps[:-1])))
    assert found["digest"] == digest_of({"features": [one.dump() for one in signature.features], "steps": again})
    assert [step["name"] for step in found["steps"]] == [*(one["name"] for one in STEPS["several"]), "parts"]
    assert found["steps"][2] == {
        "name": "share", "kind": "ratio", "takes": ["amount.log", "balance"], "makes": ["share"]
    }  # fmt: skip
    other, _ = trained(LOGISTIC, [*STEPS["several"][:-1], DATES])
    less = described(recipe_of(LOGISTIC, [*STEPS["several"][:-1], DATES]), signature.features, other.pipeline)
    assert less["digest"] != found["digest"]


def test_without_transformers_all_is_as_it_was() -> None:
    """A recipe without steps builds the very pipeline that it always built."""
    columns, labels = columns_of()
    features = [one for one in bundle.signature_features(FEATURES, columns) if one.type != "Time"]
    matrix = encode.matrix(columns, features)
    for estimator, parts in ((BINNED, ["estimator"]), (LOGISTIC, ["features", "estimator"])):
        pipeline = fit(recipe_of(estimator, []), features, matrix, labels, threads=1).pipeline
        assert [name for name, _ in pipeline.steps] == parts
        schema = canonical_skops.dumps(pipeline)
        assert b"FunctionTransformer" not in schema or estimator == BINNED
        assert b"truekeep.features" not in schema


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "fault", "words"),
    [
        (
            [{"name": "small", "columns": ["size"], "impute": {"strategy": "Constant", "value": "tiny"}}],
            DataInvalid,
            r"\(small\): impute.value 'tiny' is no category that size has .* write one of large, middle, small",
        ),
        (
            [{"name": "rank", "columns": ["size"], "ordinal": {"order": ["S", "M"]}}],
            DataInvalid,
            r"\(rank\): ordinal.order has no category that size has .*: large, middle, small",
        ),
        (
            [{"name": "log", "columns": ["shop"], "log": {}}],
            ParametersInvalid,
            r"transformers\[0\] \(log\): log takes columns of type Number, but shop is of type Category; make it",
        ),
    ],
)
def test_steps_that_do_not_fit_are_refused_in_words(steps: Any, fault: type[Exception], words: str) -> None:
    with pytest.raises(fault, match=words):
        trained(LOGISTIC, [*steps, DATES])


def test_more_native_categories_than_bins_are_refused_unless_a_step_takes_them() -> None:
    features = [SignatureFeature(name="who", type="Category", categories=[f"{number:04d}" for number in range(300)])]
    matrix = np.arange(600, dtype=np.float64)[:, None] % 300
    labels = (matrix[:, 0] > 100).astype(np.int64)
    kept = [{"name": "mean", "columns": ["who"], "originals": "Keep", "targetEncode": {}}]
    with pytest.raises(DataInvalid, match="who: 300 categories"):
        fit(recipe_of(BINNED, kept), features, matrix, labels, 1)
    dropped = [{"name": "mean", "columns": ["who"], "targetEncode": {}}]
    assert fit(recipe_of(BINNED, dropped), features, matrix, labels, 1).probabilities(matrix).shape == (600,)


# --- any steps --------------------------------------------------------------------------------------------------------


@st.composite
def random_steps(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Steps that fit together: each takes columns that are there, of a type that it can take."""
    numbers, categories = ["amount", "balance"], ["size", "shop"]
    steps: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 6))):
        name = f"x{number}"
        kinds = ["impute", "scale", "log", "clip"] + (["ratio"] if len(numbers) > 1 else [])
        kinds += ["fillCategory", "oneHot", "ordinal", "targetEncode"] if categories else []
        kind = draw(st.sampled_from(kinds))
        keeps = draw(st.booleans())
        step: dict[str, Any] = {"name": name, "originals": "Keep" if keeps else "Drop"}
        if kind == "ratio":
            pair = draw(st.lists(st.sampled_from(numbers), min_size=2, max_size=2, unique=True))
            step["ratio"] = {"numerator": pair[0], "denominator": pair[1]}
            step["originals"] = "Keep"
            numbers.append(name)
            steps.append(step)
            continue
        of_numbers = kind in ("impute", "scale", "log", "clip")
        pool = numbers if of_numbers else categories
        taken = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=len(pool), unique=True))
        step["columns"] = taken
        if kind == "impute":
            strategy = draw(st.sampled_from(["Median", "Mean", "MostFrequent", "Constant"]))
            step["impute"] = {"strategy": strategy} | ({"value": "0.25"} if strategy == "Constant" else {})
            if draw(st.booleans()) and not any(f"{one}.null" in numbers for one in taken):
                step["impute"]["indicator"] = "Add"
                numbers += [f"{one}.null" for one in taken]
        elif kind == "scale":
            step["scale"] = {"method": draw(st.sampled_from(["Standard", "Robust", "MinMax"]))}
        elif kind == "log":
            step["log"] = {"offset": draw(st.sampled_from(["0", "1", "0.3"]))}
        elif kind == "clip":
            step["clip"] = draw(st.sampled_from([{"low": "0"}, {"high": "1"}, {"lowQuantile": "0.1", "high": "99"}]))
        elif kind == "fillCategory":
            step["impute"] = {"strategy": "MostFrequent"}
        elif kind == "oneHot":
            step["oneHot"] = draw(st.sampled_from([{}, {"minFrequency": 70}, {"maxCategories": 3}]))
        elif kind == "ordinal":
            step["ordinal"] = {"order": ["s0", "small", "large", "s3", "s5"]}
        else:
            step["targetEncode"] = draw(st.sampled_from([{}, {"smoothing": "5", "folds": 3}]))
        if kind == "oneHot":
            categories = categories if keeps else [one for one in categories if one not in taken]
        elif kind in ("ordinal", "targetEncode"):
            numbers += [f"{one}.{name}" if keeps else one for one in taken]
            categories = categories if keeps else [one for one in categories if one not in taken]
        elif keeps:
            (numbers if of_numbers else categories).extend(f"{one}.{name}" for one in taken)
        steps.append(step)
    return steps


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(random_steps(), st.sampled_from([LOGISTIC, BINNED, FOREST]))
def test_any_steps_serve_as_they_were_trained(steps: list[dict[str, Any]], estimator: str) -> None:
    check_serving(*trained(estimator, [*steps, DATES]))

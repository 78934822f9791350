from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.canonical import canonical_json
from truekeep.profiling.build import CATEGORIES, WindowSketch, profile, window
from truekeep.profiling.schema import PREDICTION, ColumnProfile, Profile
from truekeep.profiling.sketch import NEW_CATEGORIES, ColumnSketch
from truekeep.profiling.values import CATEGORY_LENGTH, WrongTypeError, bounded, categories, numbers

FEATURES = [
    SignatureFeature(name="amount", type="Number", minimum=0.0, maximum=1000.0),
    SignatureFeature(name="hour", type="Number"),
    SignatureFeature(name="kind", type="Category"),
]


def data(seed: int = 0, n: int = 5000) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "amount": pa.array(np.exp(rng.normal(3, 1, n)), mask=rng.random(n) < 0.1),
        "hour": rng.integers(0, 24, n),
        "kind": pa.array(rng.choice(["a", "b", "c", None], n, p=[0.5, 0.3, 0.1, 0.1])),
        PREDICTION: rng.random(n),
    }


def reference(seed: int = 0) -> Profile:
    found = data(seed)
    return Profile.model_validate(profile(found, FEATURES, found[PREDICTION]))


def column(found: Profile, name: str) -> ColumnProfile:
    there = found.column(name)
    assert there is not None
    return there


def test_a_profile_is_the_same_bytes_however_the_data_is_chunked() -> None:
    whole = data()
    amount = whole["amount"]
    chunked = whole | {
        "amount": pa.chunked_array([amount[:17], amount[17:17], amount[17:4000], amount[4000:]]),
        "kind": pa.chunked_array([whole["kind"][:100], whole["kind"][100:]]).dictionary_encode(),
    }
    first = canonical_json(profile(whole, FEATURES, whole[PREDICTION]))
    assert first == canonical_json(profile(chunked, FEATURES, chunked[PREDICTION]))
    assert canonical_json(Profile.model_validate(json.loads(first)).dump()) == first


def test_a_profile_says_what_the_columns_look_like() -> None:
    found = data()
    profiled = reference()
    assert profiled.rows == 5000
    assert [c.name for c in profiled.columns] == ["amount", "hour", "kind", PREDICTION]
    amount, values = column(profiled, "amount"), found["amount"].drop_null().to_numpy()
    assert (amount.rows, amount.nulls) == (5000, found["amount"].null_count)
    assert (amount.numeric.minimum, amount.numeric.maximum) == (values.min(), values.max())
    assert amount.numeric.mean == pytest.approx(values.mean(), rel=1e-11)
    assert amount.numeric.standard_deviation == pytest.approx(values.std(), rel=1e-11)
    assert [q.value for q in amount.numeric.quantiles] == [
        np.quantile(values, q.q, method="inverted_cdf") for q in amount.numeric.quantiles
    ]
    assert (amount.numeric.declared_minimum, amount.numeric.declared_maximum) == (0.0, 1000.0)
    assert amount.numeric.above(1000.0) == (values > 1000).sum()
    kind = column(profiled, "kind")
    assert kind.categorical.values == ("a", "b", "c")
    assert kind.nulls == found["kind"].null_count
    assert kind.values + kind.nulls == 5000


def test_batches_add_up_to_the_whole() -> None:
    there, found = reference(), data(seed=1)
    whole = window(found, there)
    halves = [WindowSketch(there), WindowSketch(there)]
    for start in range(0, 5000, 700):
        batch = {name: values[start : start + 700] for name, values in found.items()}
        halves[start % 1400 // 700].update(batch, len(batch["hour"]))
    halves[0].merge(halves[1])
    merged = halves[0].profile()
    assert merged.rows == whole.rows == 5000
    for mine, theirs in zip(merged.columns, whole.columns, strict=True):
        assert mine.numeric.counts == theirs.numeric.counts
        assert mine.categorical == theirs.categorical
        assert (mine.rows, mine.nulls) == (theirs.rows, theirs.nulls)
        assert mine.numeric.quantiles == theirs.numeric.quantiles
        if mine.numeric.mean is not None:
            assert mine.numeric.mean == pytest.approx(theirs.numeric.mean, rel=1e-11)
            assert mine.numeric.standard_deviation == pytest.approx(theirs.numeric.standard_deviation, rel=1e-11)


def test_stored_profiles_add_up_too() -> None:
    there, found = reference(), data(seed=1)
    parts = [{name: values[a:b] for name, values in found.items()} for a, b in ((0, 1000), (1000, 5000))]
    first, second = (window(part, there) for part in parts)
    for name in ("amount", "kind"):
        sketch = ColumnSketch.of(column(Profile.model_validate(first.dump()), name))
        sketch.merge(ColumnSketch.of(column(second, name)))
        whole = column(window(found, there), name)
        assert sketch.profile().numeric.counts == whole.numeric.counts
        assert sketch.profile().categorical == whole.categorical
        assert sketch.profile().nulls == whole.nulls


def test_profiles_on_other_cells_do_not_add_up() -> None:
    mine, theirs = WindowSketch(reference()), WindowSketch(reference(seed=5))
    with pytest.raises(ValueError, match="different cells"):
        mine.merge(theirs)


def test_nan_infinities_and_nulls_are_told_apart() -> None:
    odd = pa.array([1.0, None, float("nan"), float("inf"), float("-inf"), 2.0])
    amount = column(window({"amount": odd}, reference()), "amount")
    assert (amount.rows, amount.nulls, amount.numeric.nan, amount.numeric.infinite) == (6, 1, 1, 2)
    assert amount.values == 2
    assert column(window({"amount": odd}, reference()), "kind").absent == 6


@pytest.mark.parametrize("values", [[], [None, None], [float("nan")] * 3])
def test_a_column_without_values_has_a_profile(values: list[Any]) -> None:
    empty = {"amount": pa.array(values, pa.float64()), "hour": np.array([]), "kind": pa.array([], pa.string())}
    found = Profile.model_validate(json.loads(canonical_json(profile(empty, FEATURES, np.array([])))))
    assert [c.values for c in found.columns] == [0, 0, 0, 0]
    assert column(window(data(), found), "amount").values > 0


def test_wild_values_make_no_invalid_json() -> None:
    wild = {"amount": np.array([1e308, -1e308, 1e308]), "hour": np.zeros(3), "kind": pa.array(["\x00`<b>", "é", "a"])}
    found = Profile.model_validate(json.loads(canonical_json(profile(wild, FEATURES, np.zeros(3)))))
    assert column(found, "amount").numeric.standard_deviation is None
    assert column(found, "amount").numeric.maximum == 1e308


def test_a_later_version_reads_todays_profile_and_we_read_a_later_ones() -> None:
    stored = reference().dump()
    stored["futureField"] = {"a": 1}
    stored["columns"][0]["number"]["sketchOfTomorrow"] = [1, 2]
    del stored["columns"][0]["number"]["declaredMinimum"]
    assert Profile.model_validate(stored).rows == 5000


def test_importance_is_kept() -> None:
    found = data()
    told = Profile.model_validate(profile(found, FEATURES, found[PREDICTION], importance={"hour": 0.25}))
    assert column(told, "hour").importance == 0.25
    assert column(told, "amount").importance is None


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([1, None, 3], pa.int32()), [1.0, 3.0]),
        (pa.array([True, False]), [1.0, 0.0]),
        (np.array([True, False]), [1.0, 0.0]),
        (pa.array([Decimal(1), Decimal(2)], pa.decimal128(5, 2)), [1.0, 2.0]),
        (pa.array([2.0, 2.0]).dictionary_encode(), [2.0, 2.0]),
        (np.array([1, None, 2.5], dtype=object), [1.0, 2.5]),
        (pa.nulls(2), []),
    ],
)
def test_numbers_of_any_type(array: Any, values: list[float]) -> None:
    found = numbers(array)
    assert found.values.tolist() == values
    assert found.nulls == len(array) - len(values)


@pytest.mark.parametrize(
    ("array", "counts"),
    [
        (pa.array(["a", "b", "a", None]), {"a": 2, "b": 1}),
        (pa.array(["a", "b", "a"]).dictionary_encode(), {"a": 2, "b": 1}),
        (pa.array(["a"], pa.large_string()), {"a": 1}),
        (pa.array([1, 2, 1]), {"1": 2, "2": 1}),
        (pa.array([1.0, 2.0, None]), {"1": 1, "2": 1}),
        (pa.array([True]), {"true": 1}),
        (np.array(["a", None, float("nan")], dtype=object), {"a": 1}),
        (pa.nulls(2), {}),
    ],
)
def test_categories_of_any_type(array: Any, counts: dict[str, int]) -> None:
    found = categories(array)
    assert found.counts == counts
    assert found.nulls == len(array) - sum(counts.values())


def test_wrong_types_are_refused_in_a_reference_and_counted_in_a_window() -> None:
    with pytest.raises(WrongTypeError, match="not a number"):
        numbers(pa.array(["1"]))
    with pytest.raises(WrongTypeError):
        categories(pa.array([[1], [2]]))
    with pytest.raises(WrongTypeError):
        categories(pa.array([1.5]))
    found = window({"amount": pa.array(["x", "y"]), "kind": pa.array([[1], [2]])}, reference())
    assert column(found, "amount").invalid == column(found, "kind").invalid == 2


def test_hostile_categories_are_bounded() -> None:
    there = reference()
    odd = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"\xff\xfe"], pa.binary()).buffers()[1:]])
    assert column(window({"kind": odd}, there), "kind").categorical.new[0].value == "��"
    assert bounded("x" * 1_000_000) != bounded("x" * 1_000_001)
    assert len(bounded("x" * 1_000_000)) < CATEGORY_LENGTH + 20
    flood = pa.array([f"value {i}" for i in range(3 * NEW_CATEGORIES)])
    kind = column(window({"kind": flood}, there), "kind").categorical
    assert len(kind.new) == NEW_CATEGORIES
    assert kind.unseen == 3 * NEW_CATEGORIES


def test_a_reference_pools_categories_beyond_the_most_frequent() -> None:
    many = [f"v{i}" for i in range(CATEGORIES + 50)] + ["v7"] * 10
    found = profile({"kind": np.array(many, dtype=object)}, FEATURES[2:], np.zeros(2))
    kind = column(Profile.model_validate(found), "kind")
    assert kind.categorical.values[0] == "v7"
    assert (len(kind.categorical.values), kind.categorical.other, kind.values) == (CATEGORIES, 50, len(many))
